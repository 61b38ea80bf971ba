"""Boxes of the ISO base media file format (ISO/IEC 14496-12): AVIF and JPEG 2000 are made of
them."""

import struct

from PIL import Image

from upres.imaging.sources import length, peek


def jp2_profile(image: Image.Image) -> bytes | None:
    """The ICC profile of a JPEG 2000 file (ISO/IEC 15444-1, I.5.3.3, methods 2 and 3)."""
    found = box(image, b"jp2h", b"colr") if peek(image, 12)[4:8] == b"jP  " else None
    body = peek(image, found[1] - found[0], found[0]) if found else b""
    return body[3:] if body[:1] in (b"\2", b"\3") and len(body) > 131 else None


def jp2_xmp(image: Image.Image) -> bytes | None:
    """The XMP of a JPEG 2000 file (XMP, part 3, 1.1.7)."""
    for kind, start, end in _outermost(image):
        if kind == b"uuid" and peek(image, 16, start) == _XMP:
            return peek(image, end - start - 16, start + 16)
    return None


def code_points(image: Image.Image) -> tuple[int, int] | None:
    """Colour primaries and transfer function that an AVIF states (ISO/IEC 14496-12, 12.1.5)."""
    found = box(image, b"meta", b"iprp", b"ipco", b"colr")
    body = peek(image, 8, found[0]) if found else b""
    return struct.unpack(">HH", body[4:]) if body[:4] == b"nclx" and len(body) == 8 else None


_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
# Of a JPEG 2000 file: those that are read, or that say how it is stored.
_CARRIED = {b"jP  ", b"ftyp", b"jp2h", b"jp2c", b"rreq", b"free"}


def left_out(image: Image.Image) -> str | None:
    """A note on what of a JPEG 2000 or AVIF no writer here takes."""
    if image.format == "JPEG2000":
        kinds = {
            kind
            for kind, start, _ in _outermost(image)
            if kind not in _CARRIED and (kind != b"uuid" or peek(image, 16, start) != _XMP)
        }
        named = sorted(ascii(kind)[2:-1].strip() for kind in kinds)
        return f"JPEG 2000 boxes {', '.join(named)} are not carried over" if named else None
    parts = []
    if image.format == "AVIF":
        if b"tmap" in peek(image, 256).partition(b"meta")[0]:
            parts.append("a gain map")
        light = (b"clli", b"mdcv")
        if any(box(image, b"meta", b"iprp", b"ipco", kind) for kind in light):
            parts.append("how bright it is meant to be shown")
    return f"{' and '.join(parts)} is left out" if parts else None


def _outermost(image: Image.Image) -> list[tuple[bytes, int, int]]:
    """The boxes of a JPEG 2000 file, if it has some: type, begin and end of what is in them."""
    found: list[tuple[bytes, int, int]] = []
    start, end = 0, length(image)
    if peek(image, 12)[4:8] != b"jP  ":
        return found
    while start + 8 <= end and len(found) < 1000:
        head = peek(image, 16, start)
        size, body = int.from_bytes(head[:4], "big"), start + 8
        if size == 1:
            size, body = int.from_bytes(head[8:16], "big"), start + 16
        size = size or end - start
        if size < body - start:
            break
        found.append((head[4:8], body, min(end, start + size)))
        start += size
    return found


def box(image: Image.Image, *path: bytes) -> tuple[int, int] | None:
    """Where the body of a box within boxes begins and ends (ISO/IEC 14496-12, 4.2)."""
    start, end = 0, length(image)
    for kind in path:
        while start + 8 <= end:
            head = peek(image, 16, start)
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
