"""How pixels are stored in a file, as far as Pillow does not tell."""

from collections.abc import Iterator
from itertools import islice

from PIL import Image

from upres.imaging.boxes import box
from upres.imaging.sources import length, peek


def bit_depth(image: Image.Image) -> int:
    """Bits a channel in the file, where Pillow might reduce them without a word."""
    if image.format == "PNG":
        # The chunk IHDR comes first; its ninth byte of data is the bit depth.
        header = peek(image, 26)
        return header[24] if header[12:16] == b"IHDR" else 8
    if image.format == "JPEG2000":
        # SIZ follows the codestream's first marker; it has the first component's depth, less 1.
        codestream = box(image, b"jp2c") if peek(image, 12)[4:8] == b"jP  " else (0, 0)
        siz = peek(image, 43, codestream[0]) if codestream else b""
        return 1 + (siz[42] & 0x7F) if siz[2:4] == b"\xff\x51" and len(siz) == 43 else 8
    if image.format == "AVIF":
        # After a version and flags: how many channels, then each one's depth.
        if found := box(image, b"meta", b"iprp", b"ipco", b"pixi"):
            return peek(image, 6, found[0])[5]
        # Else the decoder's settings: the third byte tells 10 and 12 bits (AV1 in ISOBMFF, 2.3.3).
        found = box(image, b"meta", b"iprp", b"ipco", b"av1C")
        flags = peek(image, 3, found[0])[2] if found else 0
        return 12 if flags & 0x20 else 10 if flags & 0x40 else 8
    return 8


# Parts of a WebP that are read (WebP Container Specification).
_WEBP = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP ")

_MOST_CHUNKS = 100_000  # that are looked at: a long animation has three for each frame


def is_lossless_webp(image: Image.Image) -> bool:
    """Whether a WebP file's first picture was compressed without loss."""
    coded = (kind for kind in _webp_chunks(image) if kind in (b"VP8 ", b"VP8L"))
    return next(coded, b"") == b"VP8L"


def webp_left_out(image: Image.Image) -> str | None:
    """A note on chunks of a WebP that no writer here takes."""
    chunks = islice(_webp_chunks(image), _MOST_CHUNKS)
    kinds = {kind.decode("latin-1").strip() for kind in chunks if kind not in _WEBP}
    names = ", ".join(sorted(kind for kind in kinds if kind.isalnum() and kind.isascii()))
    return f"WebP chunks {names} are not carried over" if names else None


def _webp_chunks(image: Image.Image) -> Iterator[bytes]:
    """Their names, those inside of frames among them."""
    # What follows the container is none of its chunks.
    at, end = 12, min(length(image), 8 + int.from_bytes(peek(image, 4, 4), "little"))
    while at + 8 <= end:
        head = peek(image, 8, at)
        yield head[:4]
        # A frame has its place and time before its own parts; other parts have an even length.
        size = int.from_bytes(head[4:], "little")
        at += 24 if head[:4] == b"ANMF" else 8 + size + size % 2
