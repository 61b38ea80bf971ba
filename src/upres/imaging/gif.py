"""What GIFs carry in application extensions, of which Pillow shows none: a profile and XMP."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from upres.imaging.sources import reopened

PROFILE, XMP = b"ICCRGBG1012", b"XMP DataXMP"
_EXTENSION, _IMAGE, _APPLICATION, _TRAILER = b"!", b",", b"\xff", b";"
# Behind a packet, which is not cut into blocks: wherever a reader of blocks comes upon these, it
# is led to the last one, the end of all blocks (XMP Specification, part 3, 1.1.2).
_MAGIC = bytes((1, *range(255, -1, -1), 0))


def extensions(source: Path | bytes) -> dict[bytes, bytes]:
    """A file's profile and XMP, by the names of their extensions; what is damaged is left out."""
    with reopened(source) as file:
        return {name: found for name, found in _applications(file) if found}


def add_xmp(file: BinaryIO, xmp: bytes) -> None:
    """Put a packet before the end of a whole GIF, which is writable and seekable."""
    file.seek(0)
    file.write(b"GIF89a")  # the older version has no extensions
    file.seek(-1, 2)
    file.write(_EXTENSION + _APPLICATION + bytes((len(XMP),)) + XMP + xmp + _MAGIC + _TRAILER)


def _applications(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Extensions that are known (GIF89a, 17 to 26)."""
    file.seek(10)
    flags = file.read(3)[:1]
    _skip_table(file, flags)
    while (kind := file.read(1)) in (_EXTENSION, _IMAGE):
        if kind == _IMAGE:
            _skip_table(file, file.read(9)[8:])
            file.seek(1, 1)  # bits of a code
            _blocks(file)
            continue
        label = file.read(1)
        name = file.read(ord(file.read(1) or b"\0")) if label == _APPLICATION else b""
        start = file.tell()
        joined = _blocks(file)
        if name == PROFILE:
            yield name, joined
        elif name == XMP:
            size = file.tell() - start
            file.seek(start)
            raw = file.read(size)
            # Some programs cut it into blocks after all.
            yield name, raw.removesuffix(_MAGIC) if raw.endswith(_MAGIC) else joined


def _skip_table(file: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        file.seek(3 << (flags[0] & 7) + 1, 1)


def _blocks(file: BinaryIO) -> bytes:
    """The contents of blocks up to an empty one, behind which the file stands then."""
    found = []
    while size := ord(file.read(1) or b"\0"):
        found.append(file.read(size))
    return b"".join(found)
