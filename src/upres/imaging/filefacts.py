"""What an open file says about itself besides its pixels, as Pillow shows it."""

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, TiffImagePlugin
from PIL.ExifTags import Base as Tag

from upres.imaging.georeference import TAGS as GEOTIFF
from upres.imaging.metadata import EXIF_HEAD

# The sum of JPEG's example luminance table (ITU-R T.81, table K.1), which encoders scale by quality
# as the Independent JPEG Group's does.
_QUANTISERS = 3688

# Description, maker, model, orientation, software, date, artist, copyright: what a TIFF says about
# the picture rather than about its own layout.
TIFF_KEPT = {0x010E, 0x010F, 0x0110, 0x0112, 0x0131, 0x0132, 0x013B, 0x8298}

# From here on tags are registered to companies.
_PRIVATE = 32768
_IPTC, _PHOTOSHOP = Tag.IPTCNAA, 34377
# Photoshop's block repeats IPTC, and holds its own view settings; the rest is written anew.
_CARRIED = TIFF_KEPT | {
    Tag.XMLPacket,
    _IPTC,
    _PHOTOSHOP,
    Tag.InterColorProfile,
    0x8769,
    0x8825,
    34852,
    34664,
    37724,
}
_PHOTOSHOP_IPTC = 0x0404
_PNG_IPTC = "Raw profile type iptc"

Tags = TiffImagePlugin.ImageFileDirectory_v2


def reopened(source: Path | bytes | io.BytesIO) -> BinaryIO:
    """The file again, from its beginning."""
    if isinstance(source, Path):
        return source.open("rb")
    return io.BytesIO(source if isinstance(source, bytes) else source.getvalue())


def jpeg_quality(image: Image.Image) -> int | None:
    """About which quality from 1 to 100 a JPEG was saved at, or None for other formats."""
    tables = getattr(image, "quantization", None)
    if not isinstance(tables, dict) or 0 not in tables:
        return None
    percent = 100 * sum(tables[0]) / _QUANTISERS
    quality = 100 - percent / 2 if percent <= 100 else 5000 / percent
    return max(1, min(100, round(quality)))


def exif(image: Image.Image) -> bytes | None:
    """The block with the head that JPEG wants; TIFF keeps its tags in the file's own structure."""
    raw = image.info.get("exif")
    if raw is None and image.format == "TIFF":
        return exif_block(image.getexif())
    if not isinstance(raw, bytes) or not raw:
        return None
    # WebP's, AVIF's and PNG's come without, and a JPEG's that lacks it is found by no program.
    return EXIF_HEAD + raw.removeprefix(EXIF_HEAD)


def exif_block(tags: Image.Exif) -> bytes | None:
    """What a TIFF's tags say about the picture, as the block that other formats carry."""
    kept = {t: v for t, v in tags.items() if t in TIFF_KEPT}
    if not kept and not tags.get_ifd(0x8769) and not tags.get_ifd(0x8825):
        return None
    fresh = Image.Exif()
    for tag, value in kept.items():
        fresh[tag] = value
    for pointer in (0x8769, 0x8825):
        if part := tags.get_ifd(pointer):
            fresh.get_ifd(pointer).update(part)
    return fresh.tobytes()


def xmp(image: Image.Image) -> bytes | None:
    """The packet, wherever the format keeps it."""
    raw = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    return raw.encode() if isinstance(raw, str) else raw if isinstance(raw, bytes) else None


def left_out(tags: Mapping[int, Any], *, georeferenced: bool) -> str | None:
    """Tags of a TIFF that no writer here takes.

    Args:
        georeferenced: those of GeoTIFF are taken.
    """
    carried = _CARRIED | GEOTIFF if georeferenced else _CARRIED
    private = sorted(tag for tag in tags if tag >= _PRIVATE and tag not in carried)
    if not private:
        return None
    import tifffile

    names = tifffile.TIFF.TAGS
    named = [f"{tag} ({names[tag]})" if tag in names else str(tag) for tag in private]
    return f"TIFF tags {', '.join(named)} are not carried over"


def iptc(image: Image.Image) -> bytes | None:
    """IPTC-IIM records: of a TIFF's tag, a JPEG's Photoshop segment, or PNG's text for them."""
    tags = getattr(image, "tag_v2", {})
    raw: Any = tags.get(_IPTC)
    if raw is None and image.format != "TIFF":
        resources = image.info.get("photoshop")
        raw = resources.get(_PHOTOSHOP_IPTC) if isinstance(resources, dict) else None
    if raw is None:
        text = getattr(image, "text", {}).get(_PNG_IPTC, "").split()
        try:
            raw = bytes.fromhex("".join(text[2:]))
        except ValueError:
            return None
    return iptc_bytes(raw)


def iptc_bytes(raw: Any) -> bytes | None:
    """The records as bytes; some programs write the tag as 32-bit numbers."""
    if isinstance(raw, tuple) and raw and isinstance(raw[0], bytes):
        raw = raw[0]
    if isinstance(raw, tuple) and all(isinstance(x, int) and 0 <= x < 2**32 for x in raw):
        raw = struct.pack(f"<{len(raw)}I", *raw).rstrip(b"\0")
    return raw if isinstance(raw, bytes) and raw else None


def texts(image: Image.Image) -> tuple[tuple[str, str], ...]:
    """PNG's keywords and texts, without those that hold other metadata."""
    found = getattr(image, "text", {}) if image.format == "PNG" else {}
    other = {"XML:com.adobe.xmp", "Raw profile type exif", "Raw profile type APP1", _PNG_IPTC}
    return tuple((str(k), str(v)) for k, v in found.items() if k not in other)


def comment(image: Image.Image) -> bytes | None:
    """Of a JPEG or GIF."""
    # An encoder of JPEG 2000 signs with one.
    raw = image.info.get("comment") if image.format in ("JPEG", "MPO", "GIF") else None
    return raw.encode() if isinstance(raw, str) else raw if isinstance(raw, bytes) and raw else None


def tiff_tags(file: BinaryIO) -> Tags:
    """The tags of a TIFF's first page, whatever its pixels are.

    Raises:
        SyntaxError, struct.error, OSError: it is damaged.
    """
    file.seek(0)
    head = file.read(8)
    if head[2:3] == b"\x2b" or head[3:4] == b"\x2b":  # BigTIFF
        head += file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(ifh=head)
    file.seek(tags.next)
    tags.load(file)
    return tags


def resolution(raw: Any, *, turned: bool) -> tuple[float, float] | None:
    """Dots an inch across and down, if they make sense."""
    try:
        x, y = (float(v) for v in raw)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not (0 < x < 1e6 and 0 < y < 1e6):
        return None
    return (y, x) if turned else (x, y)


def bit_depth(image: Image.Image) -> int:
    """Bits a channel in the file, where Pillow might reduce them without a word."""
    if image.format == "PNG":
        # The chunk IHDR comes first; its ninth byte of data is the bit depth.
        header = _peek(image, 26)
        return header[24] if header[12:16] == b"IHDR" else 8
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(Tag.BitsPerSample, (8,))
        return max(bits) if isinstance(bits, tuple) else int(bits)
    if image.format == "JPEG2000":
        # The marker SIZ has the first component's depth, less 1, at byte 40.
        return 1 + (_byte_after(image, b"\xff\x51", 40, 7) & 0x7F)
    if image.format == "AVIF":
        # The box has it after a version, flags and the number of channels.
        return _byte_after(image, b"pixi", 9, 8)
    return 8


def _byte_after(image: Image.Image, mark: bytes, place: int, default: int) -> int:
    head = _peek(image, 4096)
    at = head.find(mark)
    return head[at + place] if 0 <= at < len(head) - place else default


def is_lossless_webp(image: Image.Image) -> bool:
    """Whether a WebP file was compressed without loss."""
    return b"VP8L" in _peek(image, 64)


def _peek(image: Image.Image, count: int) -> bytes:
    file: Any = getattr(image, "fp", None)
    if file is None:
        return b""
    place = file.tell()
    file.seek(0)
    data: bytes = file.read(count)
    file.seek(place)
    return data
