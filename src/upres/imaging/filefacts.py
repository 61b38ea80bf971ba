"""What an open file says about itself besides its pixels, as Pillow shows it."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, TiffTags
from PIL.ExifTags import GPSTAGS, TAGS
from PIL.ExifTags import Base as Tag

from upres.imaging import containers
from upres.imaging.georeference import NO_DATA
from upres.imaging.georeference import TAGS as GEOTIFF
from upres.imaging.metadata import EXIF_HEAD, EXIF_IFD, GPS_IFD
from upres.imaging.picture import Extra

# The sum of JPEG's example luminance table (ITU-R T.81, table K.1), which encoders scale by quality
# as the Independent JPEG Group's does.
_QUANTISERS = 3688

# Names of document and page, description, maker, model, orientation, software, date, artist,
# computer, copyright: what a TIFF says about the picture rather than about its own layout.
TIFF_KEPT = {
    *(0x010D, 0x010E, 0x010F, 0x0110, 0x0112, 0x011D, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298),
}
# Of EXIF in a TIFF's own directory: what its writer states anew, of the pixels that there are.
_STATED_ANEW = {
    *(0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x0115, 0x011A, 0x011B, 0x011C, 0x0128, 0x0213),
    *(EXIF_IFD, GPS_IFD),
}

# From here on tags are registered to companies.
_PRIVATE = 32768
# Tags of TIFF 6.0 that say more than how pixels are stored: XPosition, YPosition, TransferFunction,
# WhitePoint, PrimaryChromaticities, InkNames, TargetPrinter.
_MEANT = {286, 287, 301, 318, 319, 333, 337}
_INTEROP = 0xA005
_IPTC, _PHOTOSHOP = Tag.IPTCNAA, 34377
# Photoshop's block repeats IPTC, and holds its own view settings; the rest is written anew.
_CARRIED = TIFF_KEPT | {
    Tag.XMLPacket,
    _IPTC,
    _PHOTOSHOP,
    Tag.InterColorProfile,
    EXIF_IFD,
    GPS_IFD,
    NO_DATA,
}
_PHOTOSHOP_IPTC = 0x0404
_PNG_IPTC = "Raw profile type iptc"
_PNG_EXIF = ("Raw profile type exif", "Raw profile type APP1")
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_EXIF_BEGINS = (EXIF_HEAD, b"II*\0", b"MM\0*")
# Of a PNG's chunks those that are read; then those that only advise on showing or decoding the old
# pixels (iDOT is in all screenshots of one maker).
_PNG_CARRIED = {
    *_PNG_TEXTS,
    *(b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"pHYs", b"eXIf", b"acTL"),
    *(b"bKGD", b"hIST", b"sBIT", b"sPLT", b"tIME", b"iDOT"),
}
_XMP_MORE = b"http://ns.adobe.com/xmp/extension/\0"
# How the segments of a JPEG begin that are read, or that tell of the old pixels only.
_JPEG_CARRIED = {
    "APP0": (b"JFIF\0", b"JFXX\0"),
    "APP1": (b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0", _XMP_MORE),
    "APP2": (b"ICC_PROFILE\0", b"MPF\0"),
    "APP12": (b"Ducky",),
    "APP13": (b"Photoshop 3.0\0",),
    "APP14": (b"Adobe",),
}
# Of ITU-T H.273: BT.709 or unspecified, which is what files without such words have; the transfer
# functions are those of video, which everything shows as sRGB, and sRGB itself.
_USUAL_PRIMARIES, _USUAL_TRANSFER = (1, 2), (1, 2, 6, 13, 14, 15)


def jpeg_quality(image: Image.Image) -> int | None:
    """About which quality from 1 to 100 a JPEG was saved at, or None for other formats."""
    tables = getattr(image, "quantization", None)
    if not isinstance(tables, dict) or 0 not in tables:
        return None
    percent = 100 * sum(tables[0]) / _QUANTISERS
    quality = 100 - percent / 2 if percent <= 100 else 5000 / percent
    return max(1, min(100, round(quality)))


def exif(image: Image.Image) -> bytes | None:
    """The block with the head that JPEG wants."""
    found = (_from_hex(image.info[key]) for key in _PNG_EXIF if key in image.info)
    # The text that is named after a JPEG's segment may hold XMP as well.
    in_texts = (raw for raw in found if raw and raw.startswith(_EXIF_BEGINS))
    return exif_bytes(image.info.get("exif") or next(in_texts, None))


def exif_bytes(raw: Any) -> bytes | None:
    """A block with the head that JPEG wants, if it is one."""
    if not isinstance(raw, bytes) or not raw:
        return None
    # WebP's, AVIF's and PNG's come without, and a JPEG's that lacks it is found by no program.
    return EXIF_HEAD + raw.removeprefix(EXIF_HEAD)


def exif_block(tags: Image.Exif) -> tuple[bytes | None, list[str]]:
    """What a TIFF's tags say about the picture, as the block that other formats carry; and the
    names of those that no block holds, since they are badly declared."""
    # One by one: to look at the others would read them, and some are badly declared.
    parts = {0: as_written({tag: tags[tag] for tag in sorted(TIFF_KEPT) if tag in tags})}
    parts |= {pointer: as_written(tags.get_ifd(pointer)) for pointer in (EXIF_IFD, GPS_IFD)}
    if not any(parts.values()):
        return None, []
    try:
        return _block(parts), []
    except Exception:  # noqa: BLE001 - Pillow raises whatever it stumbles over
        bad = [(p, tag) for p, part in parts.items() for tag in part if not _fits(p, tag, part)]
    good = {p: {t: v for t, v in part.items() if (p, t) not in bad} for p, part in parts.items()}
    names = [(GPSTAGS if p == GPS_IFD else TAGS).get(tag, str(tag)) for p, tag in bad]
    return _block(good) if any(good.values()) else None, sorted(names)


def _fits(pointer: int, tag: int, part: Mapping[int, Any]) -> bool:
    try:
        _block({pointer: {tag: part[tag]}})
    except Exception:  # noqa: BLE001
        return False
    return True


def _block(parts: Mapping[int, Mapping[int, Any]]) -> bytes:
    """Directories by the tags that point to them; 0 is the first one."""
    block = Image.Exif()
    for pointer, part in parts.items():
        if part:
            (block.get_ifd(pointer) if pointer else block).update(part)
    return block.tobytes()


def not_in_tiff(exif: bytes) -> list[str]:
    """What of an EXIF block a TIFF written here will not have, by its names."""
    tags = Image.Exif()
    tags.load(exif)
    gone = [code for code in tags if code not in TIFF_KEPT | _STATED_ANEW]
    names = [TAGS.get(code, str(code)) for code in sorted(gone)]
    return [*names, "the thumbnail"] if tags.get_ifd(1) else names


class _Text(str):
    """A text of a TIFF or of EXIF, which Pillow reads as Latin-1 whatever it is, but would write as
    ASCII with question marks. This one is written as the bytes that stood in the file."""

    __slots__ = ()

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        del encoding, errors
        return str.encode(self, "latin-1", "replace")


def as_written(tags: Mapping[int, Any]) -> dict[int, Any]:
    """The same tags, with texts that are written as they stood in the file."""
    return {tag: _Text(value) if isinstance(value, str) else value for tag, value in tags.items()}


def writable(part: Mapping[int, Any]) -> dict[int, Any]:
    """A directory of EXIF or GPS for another file, without what points into the old block."""
    return {tag: value for tag, value in as_written(part).items() if tag != _INTEROP}


def xmp(image: Image.Image) -> bytes | None:
    """The packet, wherever the format keeps it."""
    raw = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    return raw.encode() if isinstance(raw, str) else raw if isinstance(raw, bytes) else None


def xmp_tag(tags: Mapping[int, Any]) -> bytes | None:
    """A TIFF's XMP, whatever type it was declared to be."""
    raw = tags.get(Tag.XMLPacket)
    raw = raw[0] if isinstance(raw, tuple) and raw else raw
    raw = raw.encode("latin-1", "replace") if isinstance(raw, str) else raw
    return raw if isinstance(raw, bytes) and raw else None


def left_out(tags: Mapping[int, Any], *, georeferenced: bool) -> str | None:
    """Tags of a TIFF that no writer here takes.

    Args:
        georeferenced: those of GeoTIFF are taken.
    """
    carried = _CARRIED | GEOTIFF if georeferenced else _CARRIED
    lost = sorted(tag for tag in tags if (tag >= _PRIVATE or tag in _MEANT) and tag not in carried)
    if not lost:
        return None
    import tifffile

    names = tifffile.TIFF.TAGS
    named = [f"{tag} ({names[tag]})" if tag in names else str(tag) for tag in lost]
    return f"TIFF tags {', '.join(named)} are not carried over"


EXTRA = "channels that are neither colour nor transparency are left out"
# PhotometricInterpretation: colours that are read as they stand, beside which bands can stand.
_PLAIN = (1, 2)


def beyond_colours(tags: Mapping[int, Any]) -> tuple[Extra, ...]:
    """What a TIFF's channels beyond its colours are, if any of them is a band; see ``Picture``.

    None are named of colours that become others, such as CMYK: their bands are left out.
    """
    found = _beyond(tags)
    plain = int(tags.get(Tag.PhotometricInterpretation, 1)) in _PLAIN
    return found if plain and "band" in found else ()


def is_transparent(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF's pixels have transparency, if their bands are left out."""
    return _beyond(tags)[:1] == ("alpha",)


def left_out_channels(tags: Mapping[int, Any], kept: tuple[Extra, ...]) -> int:
    """How many of a TIFF's last channels are not read, if those beyond colours are to be ``kept``,
    or transparency alone."""
    found = _beyond(tags)
    return 0 if kept else len(found) - is_transparent(tags)


def _beyond(tags: Mapping[int, Any]) -> tuple[Extra, ...]:
    """TIFF 6.0, ExtraSamples: 1 and 2 are alpha, of which there can be one; anything else is not
    said. Where the tag is missing, a single channel is alpha, as old programs have it."""
    colours = {0: 1, 1: 1, 3: 1, 5: 4}.get(int(tags.get(Tag.PhotometricInterpretation, 1)), 3)
    count = max(0, int(tags.get(Tag.SamplesPerPixel, 1)) - colours)
    stated = tuple(tags.get(Tag.ExtraSamples, (2,) if count == 1 else ()))
    alpha = next((i for i, kind in enumerate(stated) if kind in (1, 2)), count)
    return tuple("alpha" if i == alpha else "band" for i in range(count))


def iptc(image: Image.Image) -> bytes | None:
    """IPTC-IIM records: of a JPEG's Photoshop segment, or PNG's text for them."""
    resources = image.info.get("photoshop")
    raw: Any = resources.get(_PHOTOSHOP_IPTC) if isinstance(resources, dict) else None
    if raw is None and _PNG_IPTC in image.info:
        raw = _unwrapped(_from_hex(image.info[_PNG_IPTC]))
    return iptc_bytes(raw)


def _from_hex(text: Any) -> bytes | None:
    """What ImageMagick and ExifTool put into a PNG's text."""
    # A name of several words, the number of bytes, and the bytes as digits, each in its lines.
    count, _, digits = str(text).strip().partition("\n")[2].lstrip().partition("\n")
    try:
        return bytes.fromhex("".join(digits.split()))[: int(count)] if count.isdecimal() else None
    except ValueError:
        return None


def _unwrapped(raw: bytes | None) -> bytes | None:
    """IPTC that stands among Photoshop's resources, as those programs have it in a PNG (Adobe
    Photoshop's file format: a number, a name, a size, all of even length)."""
    if raw is None or not raw.startswith(b"8BIM"):
        return raw
    at = 0
    while raw[at : at + 4] == b"8BIM" and len(raw) >= at + 12:
        number, name = struct.unpack_from(">HB", raw, at + 4)
        at += 6 + (name + 2) // 2 * 2
        size = int.from_bytes(raw[at : at + 4], "big")
        if number == _PHOTOSHOP_IPTC:
            return raw[at + 4 : at + 4 + size]
        at += 4 + size + size % 2
    return None


def iptc_tag(tags: Mapping[int, Any]) -> Any:
    """A TIFF's IPTC. Some programs declare the bytes to be 32-bit numbers, of which Pillow would
    show the first."""
    if _IPTC in tags and getattr(tags, "tagtype", {}).get(_IPTC) == TiffTags.LONG:
        data: bytes = tags._tagdata[_IPTC]  # type: ignore[attr-defined]
        return data[: len(data) - 3] + data[len(data) - 3 :].rstrip(b"\0")
    if _IPTC not in tags and isinstance(resources := tags.get(_PHOTOSHOP), bytes):
        return _unwrapped(resources)
    return tags.get(_IPTC)


def iptc_bytes(raw: Any) -> bytes | None:
    """The records as bytes."""
    if isinstance(raw, tuple) and raw and isinstance(raw[0], bytes):
        raw = raw[0]
    return raw if isinstance(raw, bytes) and raw else None


def texts(chunks: Sequence[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """PNG's chunks of text, without those that hold other metadata."""
    other = {key.encode() for key in ("XML:com.adobe.xmp", *_PNG_EXIF, _PNG_IPTC)}
    return tuple(
        (kind, data)
        for kind, data in chunks
        if kind in _PNG_TEXTS and data.partition(b"\0")[0] not in other
    )


def extended_xmp(image: Image.Image) -> tuple[bytes, ...]:
    """A JPEG's segments of XMP beyond the first 64 kB (XMP, part 3, 1.1.3.1)."""
    segments = getattr(image, "applist", [])
    return tuple(data for name, data in segments if name == "APP1" and data.startswith(_XMP_MORE))


def cicp(image: Image.Image, chunks: Sequence[tuple[bytes, bytes]]) -> tuple[int, ...] | None:
    """What the colours mean; see ``Picture.cicp``."""
    if image.format == "PNG":
        found = [data for kind, data in chunks if kind == b"cICP" and len(data) == 4]
        return tuple(found[0]) if found else None
    stated = containers.code_points(image) if image.format == "AVIF" else None
    if stated is None or "icc_profile" in image.info:
        return None
    return unusual_colours(*stated)


def unusual_colours(primaries: int, transfer: int) -> tuple[int, ...] | None:
    """``Picture.cicp`` of what an AVIF or HEIC states, None where everything shows it right."""
    usual = primaries in _USUAL_PRIMARIES and transfer in _USUAL_TRANSFER
    reserved = max(primaries, transfer) > 0xFF  # H.273 has a byte for each, and so has PNG
    return None if usual or reserved else (primaries, transfer, 0, 1)


def left_out_parts(image: Image.Image, chunks: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Parts of a PNG or JPEG that no writer here takes."""
    kinds = {ascii(kind)[2:-1] for kind, _ in chunks if kind not in _PNG_CARRIED}
    segments = {
        _segment(name, data)
        for name, data in getattr(image, "applist", [])
        if name != "COM" and not data.startswith(_JPEG_CARRIED.get(name, ()))
    }
    if not kinds and not segments:
        return None
    parts, named = ("PNG chunks", kinds) if kinds else ("JPEG segments", segments)
    return f"{parts} {', '.join(sorted(named))} are not carried over"


def _segment(name: str, data: bytes) -> str:
    """The number of a JPEG's segment, and the name that it begins with, if it is one."""
    own = data[:40].partition(b"\0")[0].decode("latin-1")
    return f"{name} ({own})" if len(own) > 2 and own.isascii() and own.isprintable() else name


def states_resolution(image: Image.Image) -> bool:
    """Whether a JPEG does: Pillow has 72 dpi for those with EXIF that do not."""
    if image.info.get("jfif_unit") in (1, 2):
        return True
    try:
        return Tag.XResolution in image.getexif()
    except Exception:  # noqa: BLE001 - whatever damaged EXIF makes Pillow raise
        return False


def oblong(image: Image.Image) -> str | None:
    """A note on pixels whose shape is stated without a size, as anamorphic video's is."""
    across, down = image.info.get("aspect") or (1, 1)  # PNG
    if image.info.get("jfif_unit") == 0:
        across, down = image.info.get("jfif_density", (1, 1))
    if across == down or not (across and down):
        return None
    return f"pixels that are not square ({down}:{across}) are taken for square ones"


def comments(image: Image.Image) -> tuple[bytes, ...]:
    """All of a JPEG, or that of a GIF. JPEG 2000 has one too, which encoders sign with."""
    if image.format in ("JPEG", "MPO"):
        segments: list[tuple[str, bytes]] = getattr(image, "applist", [])
        return tuple(body for name, body in segments if name == "COM" and body)
    raw = image.info.get("comment") if image.format == "GIF" else None
    return (raw,) if isinstance(raw, bytes) and raw else ()


def resolution(raw: Any, *, turned: bool) -> tuple[float, float] | None:
    """Dots an inch across and down, if they make sense."""
    try:
        x, y = (float(v) for v in raw)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not (0 < x < 1e6 and 0 < y < 1e6):
        return None
    return (y, x) if turned else (x, y)
