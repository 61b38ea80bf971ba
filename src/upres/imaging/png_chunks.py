"""A PNG's chunks: those that stand around its pixels, and what texts among them hold."""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from upres.imaging.png import IPTC_KEY, SIGNATURE, XMP_KEY, packed
from upres.imaging.sources import reopened

_LARGEST_TEXT = 2**26  # bytes of a chunk; Pillow's own limit on texts is the same
_PIXELS = (b"IHDR", b"IDAT", b"IEND", b"fcTL", b"fdAT")
EXIF_KEYS = ("Raw profile type exif", "Raw profile type APP1")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# Of a PNG's chunks those that are read; then those that only advise on showing or decoding the old
# pixels (iDOT is in all screenshots of one maker).
_CARRIED = {
    *_TEXTS,
    *(b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"pHYs", b"eXIf", b"acTL"),
    *(b"bKGD", b"hIST", b"sBIT", b"sPLT", b"tIME", b"iDOT"),
}


def read_chunks(source: Path | bytes) -> list[tuple[bytes, bytes]]:
    """Types and contents of a PNG's chunks before and behind its pixels."""
    found = []
    with reopened(source) as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            size, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind == b"IEND":  # what stands behind it is no part of the picture
                break
            if kind in _PIXELS or size > _LARGEST_TEXT:
                file.seek(size, 1)
            else:
                found.append((kind, file.read(size)))
            file.seek(4, 1)  # its checksum
    return found


def has_end(source: Path | bytes) -> bool:
    """Whether the chunk that ends a PNG is there."""
    with reopened(source) as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == b"IEND":
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def without_pixels(chunks: list[tuple[bytes, bytes]]) -> Image.Image:
    """A PNG of one pixel that says in words what these chunks say.

    Of the file itself Pillow would decode all pixels to see what stands behind them.
    """
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    words = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")
    parts = [SIGNATURE, packed(b"IHDR", header)]
    parts += [packed(*chunk) for chunk in chunks if chunk[0] in words]
    parts += [packed(b"IDAT", zlib.compress(b"\0\0")), packed(b"IEND", b"")]
    return Image.open(io.BytesIO(b"".join(parts)), formats=["PNG"])


def texts(chunks: Sequence[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """PNG's chunks of text, without those that hold other metadata."""
    other = {key.encode() for key in (XMP_KEY, *EXIF_KEYS, IPTC_KEY)}
    return tuple(
        (kind, data)
        for kind, data in chunks
        if kind in _TEXTS and data.partition(b"\0")[0] not in other
    )


def left_out(chunks: Sequence[tuple[bytes, bytes]]) -> str | None:
    """A note on chunks that no writer here takes."""
    kinds = {ascii(kind)[2:-1] for kind, _ in chunks if kind not in _CARRIED}
    return f"PNG chunks {', '.join(sorted(kinds))} are not carried over" if kinds else None
