"""What an open file says about itself besides its pixels, as Pillow shows it."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from PIL.ExifTags import Base as Tag

from upres.imaging.boxes import code_points
from upres.imaging.metadata import EXIF_HEAD, XMP_HEAD
from upres.imaging.photoshop import IPTC, iptc_bytes, without_resources
from upres.imaging.png import IPTC_KEY, XMP_KEY
from upres.imaging.png_chunks import EXIF_KEYS

_EXIF_BEGINS = (EXIF_HEAD, b"II*\0", b"MM\0*")
# Of ITU-T H.273: BT.709 or unspecified, which is what files without such words have; the transfer
# functions are those of video, which everything shows as sRGB, and sRGB itself.
_USUAL_PRIMARIES, _USUAL_TRANSFER = (1, 2), (1, 2, 6, 13, 14, 15)


def exif(image: Image.Image) -> bytes | None:
    """The block with the head that JPEG wants."""
    return exif_bytes(image.info.get("exif") or _in_texts(image, _EXIF_BEGINS))


def _in_texts(image: Image.Image, begins: tuple[bytes, ...]) -> bytes | None:
    """A JPEG's segment in a PNG's text; the one that is named after it holds EXIF or XMP."""
    found = (_from_hex(image.info[key]) for key in EXIF_KEYS if key in image.info)
    return next((raw for raw in found if raw and raw.startswith(begins)), None)


def exif_bytes(raw: Any) -> bytes | None:
    """A block with the head that JPEG wants, if it is one."""
    if not isinstance(raw, bytes) or not raw:
        return None
    # WebP's, AVIF's and PNG's come without, and a JPEG's that lacks it is found by no program.
    return EXIF_HEAD + raw.removeprefix(EXIF_HEAD)


def xmp(image: Image.Image) -> bytes | None:
    """The packet, wherever the format keeps it."""
    of_jpeg = _in_texts(image, (XMP_HEAD,))
    raw = image.info.get("xmp") or image.info.get(XMP_KEY)
    raw = raw or (of_jpeg and of_jpeg.removeprefix(XMP_HEAD))
    return raw.encode() if isinstance(raw, str) else raw if isinstance(raw, bytes) else None


def iptc(image: Image.Image) -> bytes | None:
    """IPTC-IIM records: of a JPEG's Photoshop segment, or PNG's text for them."""
    resources = image.info.get("photoshop")
    raw: Any = resources.get(IPTC) if isinstance(resources, dict) else None
    if raw is None and IPTC_KEY in image.info:
        raw = without_resources(_from_hex(image.info[IPTC_KEY]))
    return iptc_bytes(raw)


def _from_hex(text: Any) -> bytes | None:
    """What ImageMagick and ExifTool put into a PNG's text."""
    # A name of several words, the number of bytes, and the bytes as digits, each in its lines.
    count, _, digits = str(text).strip().partition("\n")[2].lstrip().partition("\n")
    try:
        return bytes.fromhex("".join(digits.split()))[: int(count)] if count.isdecimal() else None
    except ValueError:
        return None


def cicp(image: Image.Image, chunks: Sequence[tuple[bytes, bytes]]) -> tuple[int, ...] | None:
    """What the colours mean; see ``Picture.cicp``."""
    if image.format == "PNG":
        found = [data for kind, data in chunks if kind == b"cICP" and len(data) == 4]
        return tuple(found[0]) if found else None
    stated = code_points(image) if image.format == "AVIF" else None
    if stated is None or "icc_profile" in image.info:
        return None
    return unusual_colours(*stated)


def unusual_colours(primaries: int, transfer: int) -> tuple[int, ...] | None:
    """``Picture.cicp`` of what an AVIF or HEIC states, None where everything shows it right."""
    usual = primaries in _USUAL_PRIMARIES and transfer in _USUAL_TRANSFER
    reserved = max(primaries, transfer) > 0xFF  # H.273 has a byte for each, and so has PNG
    return None if usual or reserved else (primaries, transfer, 0, 1)


def oblong(image: Image.Image) -> str | None:
    """A note on pixels whose shape is stated without a size, as anamorphic video's is."""
    across, down = image.info.get("aspect") or (1, 1)  # PNG
    if image.info.get("jfif_unit") == 0:
        across, down = image.info.get("jfif_density", (1, 1))
    if across == down or not (across and down):
        return None
    return f"pixels that are not square ({down}:{across}) are taken for square ones"


def comments(image: Image.Image) -> tuple[bytes, ...]:
    """All of a JPEG. JPEG 2000 has one too, which encoders sign with."""
    if image.format not in ("JPEG", "MPO"):
        return ()
    segments: list[tuple[str, bytes]] = getattr(image, "applist", [])
    return tuple(body for name, body in segments if name == "COM" and body)


def dpi_of(tags: Mapping[int, Any]) -> tuple[Any, Any] | None:
    """Dots an inch across and down, as stated, in a TIFF or in EXIF."""
    unit = tags.get(Tag.ResolutionUnit)
    if Tag.XResolution not in tags or Tag.YResolution not in tags or unit == 1:
        return None
    x, y = tags[Tag.XResolution], tags[Tag.YResolution]
    return (x * 2.54, y * 2.54) if unit == 3 else (x, y)  # 3: a centimetre


def exif_resolution(block: bytes | None, *, turned: bool) -> tuple[float, float] | None:
    """Of formats that state it there alone: WebP, AVIF, HEIC, some JPEGs."""
    tags = Image.Exif()
    try:
        tags.load(block or b"")
        return resolution(dpi_of(tags), turned=turned)
    except Exception:  # noqa: BLE001 - whatever damaged EXIF makes Pillow raise
        return None


def stated_resolution(image: Image.Image, *, turned: bool) -> tuple[float, float] | None:
    """An open file's. Of a JPEG that tells none in its header, Pillow has 72 dpi where EXIF does
    not say the unit, and one number for both where it says two."""
    of_exif = image.format in ("JPEG", "MPO") and image.info.get("jfif_unit") not in (1, 2)
    if of_exif:
        return exif_resolution(exif(image), turned=turned)
    return resolution(image.info.get("dpi"), turned=turned)


def resolution(raw: Any, *, turned: bool) -> tuple[float, float] | None:
    """Dots an inch across and down, if they make sense."""
    try:
        x, y = (float(v) for v in raw)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not (0 < x < 1e6 and 0 < y < 1e6):
        return None
    return (y, x) if turned else (x, y)
