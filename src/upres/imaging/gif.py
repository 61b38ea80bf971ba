"""What GIFs carry in extensions: a profile and XMP, of which Pillow shows none, and comments, of
which it shows the last frame's."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from upres.imaging.sources import reopened

_PROFILE, _XMP = b"ICCRGBG1012", b"XMP DataXMP"
_EXTENSION, _IMAGE, _APPLICATION, _COMMENT, _TRAILER = b"!", b",", b"\xff", b"\xfe", b";"
_UNDERSTOOD = (b"NETSCAPE2.0", b"ANIMEXTS1.0")  # which are about playing it
_MOST_NAMES = 20  # that anybody reads
# Behind a packet, which is not cut into blocks: wherever a reader of blocks comes upon these, it
# is led to the last one, the end of all blocks (XMP Specification, part 3, 1.1.2).
_MAGIC = bytes((1, *range(255, -1, -1), 0))


@dataclass(frozen=True)
class Extensions:
    """What a file has; None and nothing for what is damaged.

    Attributes:
        profile, xmp: the colour profile and the packet.
        comments: all of them; equal ones, as some programs write with each frame, once.
        others: names of those that are neither, nor about playing it.
    """

    profile: bytes | None
    xmp: bytes | None
    comments: tuple[bytes, ...]
    others: tuple[str, ...]


def extensions(source: Path | bytes) -> Extensions:
    """Read all of a file's."""
    named: dict[bytes, bytes] = {}
    comments: dict[bytes, None] = {}  # in order
    others: set[str] = set()
    with reopened(source) as file:
        for name, data in _all(file):
            if name in (_PROFILE, _XMP, _COMMENT) and not data:
                continue
            if name == _COMMENT:
                comments[data] = None
            elif name in (_PROFILE, _XMP):
                named[name] = data
            elif name not in _UNDERSTOOD and len(others) < _MOST_NAMES:
                others.add(name.decode("latin-1"))
    shown = sorted(name for name in others if name.isascii() and name.isprintable())
    return Extensions(named.get(_PROFILE), named.get(_XMP), tuple(comments), tuple(shown))


def left_out(found: Extensions) -> str | None:
    """A note on extensions that no writer here takes."""
    names = ", ".join(found.others)
    return f"GIF extensions {names} are not carried over" if names else None


def add_xmp(file: BinaryIO, xmp: bytes) -> None:
    """Put a packet before the end of a whole GIF, which is writable and seekable."""
    file.seek(0)
    file.write(b"GIF89a")  # the older version has no extensions
    file.seek(-1, 2)
    file.write(_EXTENSION + _APPLICATION + bytes((len(_XMP),)) + _XMP + xmp + _MAGIC + _TRAILER)


def _all(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of comments and of programs' own extensions (GIF89a, 17 to 26)."""
    file.seek(10)
    flags = file.read(3)[:1]
    _skip_table(file, flags)
    while (kind := file.read(1)) not in (b"", _TRAILER):
        if kind not in (_EXTENSION, _IMAGE):
            continue  # between blocks some files have bytes that every reader skips
        if kind == _IMAGE:
            _skip_table(file, file.read(9)[8:])
            file.seek(1, 1)  # bits of a code
            _blocks(file)
            continue
        label = file.read(1)
        name = file.read(ord(file.read(1) or b"\0")) if label == _APPLICATION else b""
        start = file.tell()
        joined = _blocks(file)
        if label == _COMMENT:
            yield label, joined
        elif name and name != _XMP:
            yield name, joined
        elif name:
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
