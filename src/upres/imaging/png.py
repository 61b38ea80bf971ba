"""PNG files written row by row, in 8 or 16 bits (PNG, third edition, W3C 2025).

Pillow writes no 16-bit colour, and whole pictures only.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from upres.imaging.metadata import EXIF_HEAD, comment_text
from upres.imaging.picture import Picture

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
# Keywords of texts: of the specification, of XMP (part 3, 1.1.5), and of ImageMagick and ExifTool.
COMMENT_KEY, XMP_KEY, IPTC_KEY = "Comment", "XML:com.adobe.xmp", "Raw profile type iptc"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LEVEL = 6
_PIECE = 2**20  # bytes of a chunk of pixels
_SHOWN = 2**16  # bytes of a text


def write_png(
    file: BinaryIO,
    about: Picture,
    width: int,
    height: int,
    strips: Iterable[NDArray[Any]],
    exif: bytes | None,
    xmp: bytes | None,
) -> None:
    """Write a file as its rows arrive.

    Args:
        about: all but the pixels; its profile, texts, IPTC, gamma and resolution are written.
        strips: rows x width x channels, uint8 or uint16, from the top down.
        exif, xmp: as they shall stand in the file.
    """
    file.write(SIGNATURE)
    begun = False
    pressed = zlib_ng.compressobj(_LEVEL)
    held = bytearray()
    above: NDArray[np.uint8] | None = None
    for strip in strips:
        if not begun:
            bits, colour = 8 * strip.dtype.itemsize, _COLOUR_TYPES[strip.shape[2]]
            head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
            file.write(packed(b"IHDR", head))
            file.writelines(packed(*chunk) for chunk in chunks(about, exif, xmp))
            begun = True
        step = strip.shape[2] * strip.dtype.itemsize
        few = max(1, _PIECE // (width * step))  # choosing filters takes a dozen times their bytes
        for part in (strip[top : top + few] for top in range(0, len(strip), few)):
            lines = np.ascontiguousarray(part, ">u2" if part.dtype == np.uint16 else np.uint8)
            rows = lines.view(np.uint8).reshape(len(part), -1)
            held += pressed.compress(_filtered(rows, above, step).tobytes())
            above = rows[-1].copy()
            if len(held) >= _PIECE:
                file.write(packed(b"IDAT", bytes(held)))
                held.clear()
    held += pressed.flush()
    file.write(packed(b"IDAT", bytes(held)))
    file.write(packed(b"IEND", b""))


def with_chunks(data: bytes, about: Picture, exif: bytes | None, xmp: bytes | None) -> bytes:
    """A PNG file that another writer made without metadata, with ours after its header."""
    end_of_header = 8 + 25
    added = b"".join(packed(*chunk) for chunk in chunks(about, exif, xmp))
    return data[:end_of_header] + added + data[end_of_header:]


def chunks(about: Picture, exif: bytes | None, xmp: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    """Types and contents of the chunks that stand between the header and the pixels."""
    if about.cicp:
        yield b"cICP", bytes(about.cicp)
    if about.icc:
        yield b"iCCP", b"icc\0\0" + zlib_ng.compress(about.icc)
    else:
        if about.chromaticities:
            yield b"cHRM", struct.pack(">8I", *(round(x * 100_000) for x in about.chromaticities))
        if about.gamma:
            yield b"gAMA", struct.pack(">I", round(about.gamma * 100_000))
        if about.intent is not None:
            yield b"sRGB", bytes([about.intent])
    if about.dpi:
        x, y = (round(value / 0.0254) for value in about.dpi)
        yield b"pHYs", struct.pack(">IIB", x, y, 1)
    if exif:
        yield b"eXIf", exif.removeprefix(EXIF_HEAD)
    if xmp:
        yield b"iTXt", XMP_KEY.encode() + b"\0\0\0\0\0" + xmp
    if about.iptc:
        # The convention of ImageMagick and ExifTool: there is no chunk for it.
        text = f"\niptc\n{len(about.iptc):8}\n{about.iptc.hex()}\n"
        yield b"zTXt", IPTC_KEY.encode() + b"\0\0" + zlib_ng.compress(text.encode())
    yield from about.texts
    for comment in about.comments:
        text = comment_text(comment)
        try:
            yield b"tEXt", COMMENT_KEY.encode() + b"\0" + text.encode("latin-1")
        except UnicodeEncodeError:
            yield b"iTXt", COMMENT_KEY.encode() + b"\0\0\0\0\0" + text.encode()


def keyword_of(chunk: tuple[bytes, bytes]) -> str:
    """What a chunk of text is about."""
    return chunk[1].partition(b"\0")[0].decode("latin-1")


def text_of(chunk: tuple[bytes, bytes]) -> str:
    """What a chunk of text says (PNG, 11.3.3), at most its first 64 kB; "" if it is damaged."""
    kind, (_, _, body) = chunk[0], chunk[1].partition(b"\0")
    compressed = kind == b"zTXt"
    if compressed:
        body = body[1:]  # behind the method, of which there is one
    elif kind == b"iTXt":
        compressed = body[:1] == b"\1"
        body = body[2:].split(b"\0", 2)[-1]  # behind a language, and the keyword in it
    try:
        text = zlib.decompressobj().decompress(body, _SHOWN) if compressed else body[:_SHOWN]
    except zlib.error:
        return ""
    return text.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")


def packed(kind: bytes, data: bytes) -> bytes:
    """One part of a file: length, type, contents, checksum (PNG, 5.3)."""
    return (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib_ng.crc32(kind + data))
    )


def _filtered(
    rows: NDArray[np.uint8], above: NDArray[np.uint8] | None, step: int
) -> NDArray[np.uint8]:
    """Each row by the filter that leaves the smallest sum, as the standard advises (12.7).

    Args:
        rows: h x bytes.
        above: the row before them, zeros at the top of the picture.
        step: bytes of a pixel.
    """
    up = np.empty_like(rows)
    up[0] = 0 if above is None else above
    up[1:] = rows[:-1]
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, step:], corner[:, step:] = rows[:, :-step], up[:, :-step]
    best = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    least = np.full(len(rows), np.iinfo(np.int64).max)
    for number, guess in ((0, None), (1, left), (2, up), (4, _paeth(left, up, corner))):
        made = rows if guess is None else rows - guess
        sums = np.abs(made.view(np.int8).astype(np.int16)).sum(1, dtype=np.int64)
        better = sums < least
        best[better, 0], best[better, 1:] = number, made[better]
        least[better] = sums[better]
    return best


def _paeth(
    left: NDArray[np.uint8], up: NDArray[np.uint8], corner: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Of the three neighbours the one nearest to left + up - corner."""
    a, b, c = (x.astype(np.int16) for x in (left, up, corner))
    near_a, near_b, near_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    take_a = (near_a <= near_b) & (near_a <= near_c)
    return np.where(take_a, left, np.where(near_b <= near_c, up, corner))
