"""A JPEG's segments, and what its tables say."""

import struct
from pathlib import Path

from PIL import Image

from upres.imaging.metadata import XMP_HEAD
from upres.imaging.photoshop import iptc_resource
from upres.imaging.sources import reopened

# The sum of JPEG's example luminance table (ITU-R T.81, table K.1), which encoders scale by quality
# as the Independent JPEG Group's does.
_QUANTISERS = 3688
_XMP_MORE = b"http://ns.adobe.com/xmp/extension/\0"
# How the segments of a JPEG begin that are read, or that tell of the old pixels only.
_CARRIED = {
    "APP0": (b"JFIF\0", b"JFXX\0"),
    "APP1": (b"Exif\0", XMP_HEAD, _XMP_MORE),
    "APP2": (b"ICC_PROFILE\0", b"MPF\0"),
    "APP12": (b"Ducky",),
    "APP13": (b"Photoshop 3.0\0",),
    "APP14": (b"Adobe",),
}


def bytes_behind(source: Path | bytes) -> int:
    """Bytes that follow the end of a JPEG; 0 too where its segments are not what they should be."""
    return max(0, _behind(source))


def has_end(source: Path | bytes) -> bool:
    """Whether a marker says that its scans are at their end."""
    return _behind(source) >= 0


def _behind(source: Path | bytes) -> int:
    """Bytes behind the marker of the end, which scans cannot hold (ITU-T T.81, B.1.1.2); -1 if
    there is none, 0 where its segments are not what they should be."""
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
    return -1


def quality_of(image: Image.Image) -> int | None:
    """About which quality from 1 to 100 a JPEG was saved at, or None for other formats."""
    tables = getattr(image, "quantization", None)
    if not isinstance(tables, dict) or 0 not in tables:
        return None
    percent = 100 * sum(tables[0]) / _QUANTISERS
    quality = 100 - percent / 2 if percent <= 100 else 5000 / percent
    return max(1, min(100, round(quality)))


def extended_xmp(image: Image.Image) -> tuple[bytes, ...]:
    """A JPEG's segments of XMP beyond the first 64 kB (XMP, part 3, 1.1.3.1)."""
    segments = getattr(image, "applist", [])
    return tuple(data for name, data in segments if name == "APP1" and data.startswith(_XMP_MORE))


def left_out(image: Image.Image) -> str | None:
    """A note on segments of a JPEG that no writer here takes."""
    names = {
        _name(name, data)
        for name, data in getattr(image, "applist", [])
        if name != "COM" and not data.startswith(_CARRIED.get(name, ()))
    }
    return f"JPEG segments {', '.join(sorted(names))} are not carried over" if names else None


def _name(name: str, data: bytes) -> str:
    """The number of a JPEG's segment, and the name that it begins with, if it is one."""
    own = data[:40].partition(b"\0")[0].decode("latin-1")
    return f"{name} ({own})" if len(own) > 2 and own.isascii() and own.isprintable() else name


def photoshop_segment(iptc: bytes) -> bytes:
    """Segment APP13 with these records."""
    return segment(0xED, b"Photoshop 3.0\0" + iptc_resource(iptc))


def segment(marker: int, body: bytes) -> bytes:
    """A segment of any kind (ITU-T T.81, B.1.1.4)."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body
