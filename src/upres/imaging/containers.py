"""How files are put together: what stands where, as far as Pillow does not tell."""

import io
import struct
import warnings
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, TiffImagePlugin
from PIL.ExifTags import Base as Tag

from upres.imaging.png import SIGNATURE, packed

_LARGEST_TEXT = 2**26  # bytes of a chunk; Pillow's own limit on texts is the same
_PIXELS = (b"IHDR", b"IDAT", b"IEND", b"fcTL", b"fdAT")

BIG_TIFF = 43  # in the header, where others have 42
Tags = TiffImagePlugin.ImageFileDirectory_v2
_SUB_DIRECTORIES = 330
_MOST_DIRECTORIES = 2**18  # of pages; a hostile file could name one at every 30 of its bytes
_MOST_BELOW = 100  # pyramids have a dozen; a hostile file could name one at each of its bytes
_KIND_AND_SIZE = (
    Tag.NewSubfileType,
    Tag.ImageWidth,
    Tag.ImageLength,
    Tag.PhotometricInterpretation,
)
# Types of fields: SHORT, LONG, IFD, and BigTIFF's LONG8 and IFD8.
_WHOLE = {3: "H", 4: "L", 13: "L", 16: "Q", 18: "Q"}


def reopened(source: Path | bytes | io.BytesIO) -> BinaryIO:
    """The file again, from its beginning."""
    if isinstance(source, Path):
        return source.open("rb")
    return io.BytesIO(source if isinstance(source, bytes) else source.getvalue())


def png_chunks(source: Path | bytes) -> list[tuple[bytes, bytes]]:
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


def png_without_pixels(chunks: list[tuple[bytes, bytes]]) -> Image.Image:
    """A PNG of one pixel that says in words what these chunks say.

    Of the file itself Pillow would decode all pixels to see what stands behind them.
    """
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    words = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")
    parts = [SIGNATURE, packed(b"IHDR", header)]
    parts += [packed(*chunk) for chunk in chunks if chunk[0] in words]
    parts += [packed(b"IDAT", zlib.compress(b"\0\0")), packed(b"IEND", b"")]
    return Image.open(io.BytesIO(b"".join(parts)), formats=["PNG"])


def tiff_directories(file: BinaryIO) -> Iterator[tuple[int, Tags]]:
    """Places and tags of a TIFF's directories, one after the other, whatever their pixels are.

    Some programs leave a pointer to nothing behind the last: a list ends where no picture follows.

    Raises:
        SyntaxError, struct.error, OSError: the first is damaged, or there are too many.
    """
    head = _tiff_head(file)
    offset, seen = Tags(ifh=head).next, {0}
    left = file.seek(0, 2)  # bytes that all directories together may name
    while offset not in seen:
        if len(seen) > _MOST_DIRECTORIES:
            raise SyntaxError(f"it names more than {_MOST_DIRECTORIES:,} pages")
        try:
            with warnings.catch_warnings():
                if len(seen) > 1:
                    warnings.simplefilter("ignore")
                tags, size = _directory(file, head, offset, left)
            left -= size
            sized = Tag.ImageWidth in tags and Tag.ImageLength in tags
        except (SyntaxError, struct.error, OSError, ValueError):
            if len(seen) == 1:
                raise
            return
        if not sized and len(seen) > 1:
            return
        seen.add(offset)
        yield offset, tags
        offset = tags.next


def directories_below(file: BinaryIO, offset: int) -> list[dict[int, int]]:
    """What the directories below another one say about their kind and size (Adobe PageMaker 6.0
    TIFF Technical Notes, SubIFDs): smaller copies of a page, or what a camera's file is for.

    Nothing else of them is read: a file made for it could name as many as it has bytes, of any
    length. Those that state no size are none; where the file ends, they end.

    Args:
        offset: of the other one.
    """
    head = _tiff_head(file)
    order, big = "<" if head[:2] == b"II" else ">", head[2] == BIG_TIFF
    found: list[dict[int, int]] = []
    try:
        below = _fields(file, offset, order, big=big, wanted=(_SUB_DIRECTORIES,))
        for place in dict.fromkeys(below.get(_SUB_DIRECTORIES, ())):
            fields = _fields(file, place, order, big=big, wanted=_KIND_AND_SIZE)
            first = {tag: values[0] for tag, values in fields.items() if values}
            if Tag.ImageWidth in first and Tag.ImageLength in first:
                found.append(first)
    except (struct.error, OSError, ValueError, OverflowError):
        pass
    return found


def _fields(
    file: BinaryIO, offset: int, order: str, *, big: bool, wanted: Collection[int]
) -> dict[int, tuple[int, ...]]:
    """Some fields of a directory, if they are whole numbers (TIFF 6.0, section 2; BigTIFF)."""
    count_form, entry_form = ("Q", "HHQ8s") if big else ("H", "HHL4s")
    count_form, entry_form = order + count_form, order + entry_form
    file.seek(offset)
    (count,) = struct.unpack(count_form, file.read(struct.calcsize(count_form)))
    each = struct.calcsize(entry_form)
    data = file.read(min(count, 0xFFFF) * each)
    found = {}
    for entry in struct.iter_unpack(entry_form, data[: len(data) // each * each]):
        tag, kind, number, inside = entry
        if tag not in wanted or kind not in _WHOLE:
            continue
        form = f"{order}{min(number, _MOST_BELOW)}{_WHOLE[kind]}"
        size = struct.calcsize(form)
        if number * struct.calcsize(order + _WHOLE[kind]) > len(inside):
            (place,) = struct.unpack(order + ("Q" if big else "L"), inside)
            file.seek(place)
            inside = file.read(size)
        found[tag] = struct.unpack(form, inside[:size])
    return found


def _tiff_head(file: BinaryIO) -> bytes:
    file.seek(0)
    head = file.read(8)
    return head + file.read(8) if head[2] == BIG_TIFF else head


def _directory(file: BinaryIO, head: bytes, offset: int, most: int) -> tuple[Tags, int]:
    """A directory, and how many bytes its tags name. Those that would be more than ``most`` are
    left out: else a small file whose directories all name the same bytes would fill memory."""
    tags = Tags(ifh=head)
    # Pillow's own guard, where its version has one; it sets the limit for files that it opens.
    vars(tags)["_tag_data_limit"] = most
    file.seek(offset)
    tags.load(file)
    return tags, vars(tags).get("_tag_data_size", 0)


def tiff_bits(tags: Mapping[int, Any]) -> int:
    """Bits a channel (TIFF 6.0, BitsPerSample), of which some files give each its own number."""
    bits = tags.get(Tag.BitsPerSample, (1,))
    return max(bits) if isinstance(bits, tuple) else int(bits)


def is_page(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF's directory is neither a smaller copy nor a mask of a page."""
    # Bit 0 is a reduced picture, bit 2 a mask (TIFF 6.0, NewSubfileType).
    return not int(tags.get(Tag.NewSubfileType, 0)) & 0b101


def is_signed(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF's numbers may be below zero (TIFF 6.0, SampleFormat)."""
    formats = tags.get(Tag.SampleFormat, (1,))
    return bool(formats) and formats[0] == 2


def is_planar(tags: Mapping[int, Any]) -> bool:
    """Whether each channel of a TIFF lies by itself (TIFF 6.0, PlanarConfiguration)."""
    return int(tags.get(Tag.PlanarConfiguration, 1)) == 2 and tags.get(Tag.SamplesPerPixel, 1) > 1


def is_multiplied(tags: Mapping[int, Any]) -> bool:
    """Whether the colours of a TIFF are multiplied by its alpha (TIFF 6.0, ExtraSamples)."""
    kinds = (kind for kind in tags.get(Tag.ExtraSamples, ()) if kind in (1, 2))
    return next(kinds, None) == 1


def bit_depth(image: Image.Image) -> int:
    """Bits a channel in the file, where Pillow might reduce them without a word."""
    if image.format == "PNG":
        # The chunk IHDR comes first; its ninth byte of data is the bit depth.
        header = _peek(image, 26)
        return header[24] if header[12:16] == b"IHDR" else 8
    if image.format == "JPEG2000":
        # SIZ follows the codestream's first marker; it has the first component's depth, less 1.
        codestream = _box(image, b"jp2c") if _peek(image, 12)[4:8] == b"jP  " else (0, 0)
        siz = _peek(image, 43, codestream[0]) if codestream else b""
        return 1 + (siz[42] & 0x7F) if siz[2:4] == b"\xff\x51" and len(siz) == 43 else 8
    if image.format == "AVIF":
        # After a version and flags: how many channels, then each one's depth.
        if found := _box(image, b"meta", b"iprp", b"ipco", b"pixi"):
            return _peek(image, 6, found[0])[5]
        # Else the decoder's settings: the third byte tells 10 and 12 bits (AV1 in ISOBMFF, 2.3.3).
        found = _box(image, b"meta", b"iprp", b"ipco", b"av1C")
        flags = _peek(image, 3, found[0])[2] if found else 0
        return 12 if flags & 0x20 else 10 if flags & 0x40 else 8
    return 8


def jp2_profile(image: Image.Image) -> bytes | None:
    """The ICC profile of a JPEG 2000 file (ISO/IEC 15444-1, I.5.3.3, methods 2 and 3)."""
    found = _box(image, b"jp2h", b"colr") if _peek(image, 12)[4:8] == b"jP  " else None
    body = _peek(image, found[1] - found[0], found[0]) if found else b""
    return body[3:] if body[:1] in (b"\2", b"\3") and len(body) > 131 else None


def jpeg_rest(source: Path | bytes) -> int:
    """Bytes that follow the end of a JPEG, which scans cannot hold (ITU-T T.81, B.1.1.2); 0 too
    where its segments are not what they should be."""
    with reopened(source) as file:
        file.seek(2)
        while (head := file.read(4))[:1] == b"\xff" and len(head) == 4 and head[1] != 0xDA:
            file.seek(int.from_bytes(head[2:], "big") - 2, 1)
        if head[:2] != b"\xff\xda":
            return 0
        start, carried = file.tell(), b""
        while block := file.read(2**20):
            at = (carried + block).find(b"\xff\xd9")
            if at >= 0:
                return file.seek(0, 2) - (start - len(carried) + at + 2)
            start, carried = start + len(block), block[-1:]
    return 0


def code_points(image: Image.Image) -> tuple[int, int] | None:
    """Colour primaries and transfer function that an AVIF states (ISO/IEC 14496-12, 12.1.5)."""
    found = _box(image, b"meta", b"iprp", b"ipco", b"colr")
    body = _peek(image, 8, found[0]) if found else b""
    return struct.unpack(">HH", body[4:]) if body[:4] == b"nclx" and len(body) == 8 else None


def _box(image: Image.Image, *path: bytes) -> tuple[int, int] | None:
    """Where the body of a box within boxes begins and ends (ISO/IEC 14496-12, 4.2)."""
    start, end = 0, _size(image)
    for kind in path:
        while start + 8 <= end:
            head = _peek(image, 16, start)
            size, body = int.from_bytes(head[:4], "big"), start + 8
            if size == 1:
                size, body = int.from_bytes(head[8:16], "big"), start + 16
            last = end if size == 0 else start + size
            if last <= start:
                return None
            if head[4:8] == kind:
                # This one begins with a version and flags.
                start, end = body + (4 if kind == b"meta" else 0), min(end, last)
                break
            start = last
        else:
            return None
    return start, end


def is_lossless_webp(image: Image.Image) -> bool:
    """Whether a WebP file's first picture was compressed without loss."""
    at, end = 12, _size(image)
    while at + 8 <= end:
        head = _peek(image, 8, at)
        if head[:4] in (b"VP8 ", b"VP8L"):
            return head[:4] == b"VP8L"
        # A frame has its place and time before its own parts; other parts have an even length.
        size = int.from_bytes(head[4:], "little")
        at += 24 if head[:4] == b"ANMF" else 8 + size + size % 2
    return False


def _size(image: Image.Image) -> int:
    file: Any = getattr(image, "fp", None)
    if file is None:
        return 0
    place = file.tell()
    size: int = file.seek(0, 2)
    file.seek(place)
    return size


def _peek(image: Image.Image, count: int, start: int = 0) -> bytes:
    file: Any = getattr(image, "fp", None)
    if file is None:
        return b""
    place = file.tell()
    file.seek(start)
    data: bytes = file.read(count)
    file.seek(place)
    return data
