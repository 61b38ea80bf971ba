"""What an open file says about itself besides its pixels, as Pillow shows it."""

from typing import Any

from PIL import Image

# The sum of JPEG's example luminance table (ITU-R T.81, table K.1), which encoders scale by quality
# as the Independent JPEG Group's does.
_QUANTISERS = 3688

# Description, maker, model, orientation, software, date, artist, copyright: what a TIFF says about
# the picture rather than about its own layout.
_TIFF_KEPT = {0x010E, 0x010F, 0x0110, 0x0112, 0x0131, 0x0132, 0x013B, 0x8298}


def jpeg_quality(image: Image.Image) -> int | None:
    """About which quality from 1 to 100 a JPEG was saved at, or None for other formats."""
    tables = getattr(image, "quantization", None)
    if not isinstance(tables, dict) or 0 not in tables:
        return None
    percent = 100 * sum(tables[0]) / _QUANTISERS
    quality = 100 - percent / 2 if percent <= 100 else 5000 / percent
    return max(1, min(100, round(quality)))


def exif(image: Image.Image) -> bytes | None:
    """The block as it stands in the file; TIFF keeps its tags in the file's own structure."""
    raw = image.info.get("exif")
    if raw is None and image.format == "TIFF":
        tags = image.getexif()
        kept = {t: v for t, v in tags.items() if t in _TIFF_KEPT}
        if not kept and not tags.get_ifd(0x8769) and not tags.get_ifd(0x8825):
            return None
        fresh = Image.Exif()
        for tag, value in kept.items():
            fresh[tag] = value
        for pointer in (0x8769, 0x8825):
            if part := tags.get_ifd(pointer):
                fresh.get_ifd(pointer).update(part)
        return fresh.tobytes()
    return raw if isinstance(raw, bytes) and raw else None


def xmp(image: Image.Image) -> bytes | None:
    """The packet, wherever the format keeps it."""
    raw = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    return raw.encode() if isinstance(raw, str) else raw if isinstance(raw, bytes) else None


def left_out(image: Image.Image) -> list[str]:
    """Metadata that is in the file and that no writer here takes."""
    texts = set(getattr(image, "text", ())) - {"XML:com.adobe.xmp", "Raw profile type exif"}
    tags = getattr(image, "tag_v2", {})
    found = {
        "IPTC": (image.format != "TIFF" and "photoshop" in image.info) or 33723 in tags,
        "a comment": bool(image.info.get("comment")),
        "text chunks": bool(texts),
        "gamma": "gamma" in image.info and "icc_profile" not in image.info,
    }
    return [name for name, there in found.items() if there]


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
        bits = getattr(image, "tag_v2", {}).get(258, (8,))
        return max(bits) if isinstance(bits, tuple) else int(bits)
    if image.format in ("JPEG2000", "AVIF"):
        # The marker SIZ of JPEG 2000 has the first component's depth, less 1, at byte 40; the box
        # "pixi" of AVIF has it after a version, flags and the number of channels.
        head = _peek(image, 4096)
        for mark, place, mask, less in ((b"\xff\x51", 40, 0x7F, 1), (b"pixi", 9, 0xFF, 0)):
            at = head.find(mark)
            if 0 <= at < len(head) - place:
                return (head[at + place] & mask) + less
    return 8


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
