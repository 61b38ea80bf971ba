"""EXIF and XMP carried through byte for byte, except what an upscaled picture makes untrue.

Writing EXIF anew moves the maker's notes, whose own offsets then point nowhere. So the few values
that change are overwritten where they stand: the orientation becomes 1, since the pixels are
turned, and the pixel dimensions become the new ones. Layout: TIFF 6.0, Exif 2.32.
"""

import re
import struct
from fractions import Fraction
from typing import NamedTuple

EXIF_HEAD = b"Exif\0\0"  # before the block in a JPEG; other formats go without
XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"  # before the packet in a JPEG
EXIF_IFD, GPS_IFD = 0x8769, 0x8825  # the tags that point to these directories
_ORIENTATION = 0x0112
# In the directory of EXIF, as TIFFs have them, and in the directory of interoperability.
_WIDTHS, _HEIGHTS = (0xA002, 0x0100, 0x1001), (0xA003, 0x0101, 0x1002)
_INTEROPERABILITY = 0xA005
# Parts of the picture in XMP, such as faces.
REGIONS = (b"mwg-rs:", b"MPReg:", b"Iptc4xmpExt:ImageRegion")
_COLOUR_SPACE = 0xA001
_FOCAL_PLANE = (0xA20E, 0xA20F)  # pixels a unit, across and down
_SUBJECT = (0x9214, 0xA214)  # SubjectArea, SubjectLocation
COUNTING_PIXELS = (*_FOCAL_PLANE, *_SUBJECT)
_THUMBNAIL = -1  # no tag: IFD 0's pointer to IFD 1
_SHORT, _LONG, _RATIONAL = 3, 4, 5
_CODES = {_SHORT: "H", _LONG: "I"}
# Of one value of each type (TIFF 6.0).
_BYTES = {
    1: 1,
    2: 1,
    _SHORT: 2,
    _LONG: 4,
    _RATIONAL: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
}
# As an attribute or as an element.
_XMP_SIZE = re.compile(
    rb"""(\b(?:tiff|exif):(ImageWidth|ImageLength|PixelXDimension|PixelYDimension)"""
    rb"""\s*(?:=\s*["']|>\s*))\d+"""
)
# What a panorama's file shows of the sphere, and what grows with it, across and down.
_CROPPED = (b"CroppedAreaImageWidthPixels", b"CroppedAreaImageHeightPixels")
_SPHERE = (
    (
        *(b"FullPanoWidthPixels", b"CroppedAreaLeftPixels"),
        *(b"LargestValidInteriorRectLeft", b"LargestValidInteriorRectWidth"),
    ),
    (
        *(b"FullPanoHeightPixels", b"CroppedAreaTopPixels"),
        *(b"LargestValidInteriorRectTop", b"LargestValidInteriorRectHeight"),
    ),
)
_XMP_SPHERE = re.compile(
    rb"""(\bGPano:((?:FullPano|CroppedArea(?:Image)?)(?:Width|Height|Left|Top)Pixels"""
    rb"""|LargestValidInteriorRect(?:Width|Height|Left|Top))"""
    rb"""\s*(?:=\s*["']|>\s*))(\d{1,9})"""
)
_XMP_REGIONS = re.compile(
    rb"<mwg-rs:AppliedToDimensions\b.{0,1000}?(?:/>|</mwg-rs:AppliedToDimensions)", re.DOTALL
)
_XMP_APPLIED = re.compile(rb"""(\bstDim:([wh])\s*(?:=\s*["']|>\s*))\d+(?:\.\d+)?""")
# The profile's name; what ColorSpace 65535 (none that EXIF knows) and modes of CMYK and Lab become.
_XMP_COLOURS = tuple(
    (re.compile(rb"""(\b%s\s*(?:=\s*["']|>\s*))%s""" % (name, old)), new)
    for name, old, new in (
        (b"photoshop:ICCProfile", rb"""[^"'<]+""", b"sRGB IEC61966-2.1"),
        (b"photoshop:ColorMode", rb"[49]\b", b"3"),
        (b"exif:ColorSpace", rb"\d+", b"1"),
    )
)
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>\s*))([1-8])""")


class _Entry(NamedTuple):
    """One of a directory: where it begins, and where its values do."""

    tag: int
    kind: int
    values: int
    head: int
    place: int


def orientation(exif: bytes | None, xmp: bytes | None = None) -> int:
    """1 to 8 as EXIF numbers them; XMP is asked where EXIF does not say; 1 where nothing does."""
    found = _orientation(_integers(exif or b"", *_parsed(exif or b"")))
    if found is not None:
        return found
    match = _XMP_ORIENTATION.search(xmp or b"")
    return int(match[2]) if match else 1


def updated_exif(exif: bytes | None, width: int, height: int) -> bytes | None:
    """The same bytes with orientation 1 and, where they are stated, the new dimensions, with which
    the sensor's resolution and the place of the subject change."""
    if not exif:
        return exif
    order, entries = _parsed(exif)
    integers = _integers(exif, order, entries)
    turned = _orientation(integers) or 1
    new = {_ORIENTATION: 1, **dict.fromkeys(_WIDTHS, width), **dict.fromkeys(_HEIGHTS, height)}
    if turned != 1:
        new[_THUMBNAIL] = 0  # it is not turned with the picture, so it is no longer pointed to
    result = bytearray(exif)
    for one in entries:
        if one.tag not in new or one.values != 1 or one.kind not in _CODES:
            continue
        code = _CODES[one.kind]
        if new[one.tag] > 0xFFFF and code == "H":  # the field has room for a LONG
            struct.pack_into(order + "H", result, one.head + 2, _LONG)
            code = "I"
        struct.pack_into(order + code, result, one.place, new[one.tag])
    stated = dict(integers)
    old = stated.get(_WIDTHS[0], 0), stated.get(_HEIGHTS[0], 0)
    if all(old):
        _resize_sensor(result, order, entries, old, (width, height), sideways=turned >= 5)
        _move_subject(result, order, entries, old, (width, height), turned)
    return bytes(result)


def _resize_sensor(
    exif: bytearray,
    order: str,
    entries: list[_Entry],
    old: tuple[int, int],
    new: tuple[int, int],
    *,
    sideways: bool,
) -> None:
    """Pixels of the picture a unit of the sensor's, by which programs tell the sensor's size."""
    places = {
        one.tag: one.place for one in entries if one.kind == _RATIONAL and one.tag in _FOCAL_PLANE
    }
    if len(places) != len(_FOCAL_PLANE):
        return
    told = [struct.unpack_from(order + "II", exif, places[tag]) for tag in _FOCAL_PLANE]
    if sideways:
        told, old = told[::-1], old[::-1]
    for tag, (above, below), before, after in zip(_FOCAL_PLANE, told, old, new, strict=True):
        value = Fraction(above * after, (below or 1) * before).limit_denominator(10_000)
        if below and value.numerator < 2**32:
            struct.pack_into(order + "II", exif, places[tag], value.numerator, value.denominator)


def _move_subject(
    exif: bytearray,
    order: str,
    entries: list[_Entry],
    old: tuple[int, int],
    new: tuple[int, int],
    turned: int,
) -> None:
    """Exif 2.32, 4.6.5: a point, and the diameter of a circle or the sides of a rectangle around
    it, in pixels before the orientation."""
    for one in entries:
        if one.tag not in _SUBJECT or one.kind != _SHORT or not 2 <= one.values <= 4:
            continue
        numbers = struct.unpack_from(f"{order}{one.values}H", exif, one.place)
        x, y = _turned(turned, numbers[0] / old[0], numbers[1] / old[1])
        factors = [new[0] / old[0], new[1] / old[1]]
        sides = list(numbers[2:])
        if turned >= 5:
            factors = [new[0] / old[1], new[1] / old[0]]
            sides.reverse()
        moved = [x * new[0], y * new[1], *(s * f for s, f in zip(sides, factors, strict=False))]
        if min(moved) >= 0 and max(moved) <= 0xFFFF:  # else it was none of this picture's
            struct.pack_into(f"{order}{one.values}H", exif, one.place, *map(round, moved))


def _turned(orientation: int, x: float, y: float) -> tuple[float, float]:
    """Where a point of a stored picture, 0..1 across and down, is in the upright one."""
    if orientation in (2, 3, 7, 8):
        x = 1 - x
    if orientation in (3, 4, 6, 7):
        y = 1 - y
    return (y, x) if orientation >= 5 else (x, y)


def exif_of_srgb(exif: bytes | None) -> bytes | None:
    """The same bytes, saying that colours are sRGB, for pixels that were converted to it."""
    if not exif:
        return exif
    result = bytearray(exif)
    order, entries = _parsed(exif)
    for one in entries:
        if one.tag == _COLOUR_SPACE and one.kind == _SHORT and one.values == 1:
            struct.pack_into(order + "H", result, one.place, 1)
    return bytes(result)


def xmp_of_srgb(xmp: bytes | None) -> bytes | None:
    """The same packet with the names that Photoshop and EXIF have for colours in sRGB."""
    if not xmp:
        return xmp
    for pattern, value in _XMP_COLOURS:
        xmp = pattern.sub(rb"\g<1>" + value, xmp)
    return xmp


def comment_text(comment: bytes) -> str:
    """What a JPEG's or GIF's comment says: neither names its alphabet."""
    comment = comment.rstrip(b"\0")  # as C programs end them
    try:
        return comment.decode()
    except UnicodeDecodeError:
        return comment.decode("latin-1")


def updated_xmp(xmp: bytes | None, width: int, height: int, *, turned: int = 1) -> bytes | None:
    """The same packet with tiff:Orientation 1 and, where they are stated, the new dimensions, also
    those of the whole that a panorama is cut from (Photo Sphere XMP), and those that regions such
    as faces apply to (MWG), unless pixels were ``turned``."""
    if not xmp:
        return xmp
    stated = {match[2]: int(match[3]) for match in _XMP_SPHERE.finditer(xmp)}
    factors = {
        name: size / stated[cropped]
        for names, cropped, size in zip(_SPHERE, _CROPPED, (width, height), strict=True)
        if stated.get(cropped)
        for name in (*names, cropped)
    }

    def size(match: re.Match[bytes]) -> bytes:
        across = match[2] in (b"ImageWidth", b"PixelXDimension")
        return match[1] + str(width if across else height).encode()

    def sphere(match: re.Match[bytes]) -> bytes:
        return match[1] + str(round(int(match[3]) * factors.get(match[2], 1))).encode()

    def applied(match: re.Match[bytes]) -> bytes:
        return match[1] + str(width if match[2] == b"w" else height).encode()

    changed = _XMP_SIZE.sub(size, _XMP_ORIENTATION.sub(rb"\g<1>1", xmp))
    if turned == 1:  # else regions, too, are those of the stored pixels
        changed = _XMP_REGIONS.sub(lambda found: _XMP_APPLIED.sub(applied, found[0]), changed)
    return _XMP_SPHERE.sub(sphere, changed)


def _parsed(exif: bytes) -> tuple[str, list[_Entry]]:
    """struct's sign for the order of bytes, and the entries of IFD 0, of the pointer behind it
    (``_THUMBNAIL``), of the Exif IFD, and sizes in that of interoperability. Damaged structures end
    the list; the bytes are carried all the same."""
    start = len(EXIF_HEAD) if exif.startswith(EXIF_HEAD) else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[start : start + 4])
    found: list[_Entry] = []
    if order is None:
        return "<", found
    try:
        offsets = [struct.unpack_from(order + "I", exif, start + 4)[0]]
        # IFD 0, the Exif IFD that it points to, and what that points to.
        for pointer in (EXIF_IFD, _INTEROPERABILITY, None):
            if not offsets:
                break
            ifd = start + offsets.pop()
            (count,) = struct.unpack_from(order + "H", exif, ifd)
            for i in range(count):
                head = ifd + 2 + 12 * i
                tag, kind, values = struct.unpack_from(order + "HHI", exif, head)
                place, length = head + 8, values * _BYTES.get(kind, 0)
                if length > 4:
                    place = start + struct.unpack_from(order + "I", exif, place)[0]
                if not length or place + length > len(exif):
                    continue
                if tag == pointer:
                    offsets += struct.unpack_from(order + "I", exif, place)
                elif pointer or tag in (_WIDTHS[2], _HEIGHTS[2]):
                    found.append(_Entry(tag, kind, values, head, place))
            if pointer == EXIF_IFD:
                end = ifd + 2 + 12 * count
                struct.unpack_from(order + "I", exif, end)
                found.append(_Entry(_THUMBNAIL, _LONG, 1, end - 8, end))
    except struct.error:
        pass
    return order, found


def _orientation(integers: list[tuple[int, int]]) -> int | None:
    return next((v for tag, v in integers if tag == _ORIENTATION and 1 <= v <= 8), None)


def _integers(exif: bytes, order: str, entries: list[_Entry]) -> list[tuple[int, int]]:
    """Tag and value of the single integers among what was ``_parsed``."""
    return [
        (one.tag, struct.unpack_from(order + _CODES[one.kind], exif, one.place)[0])
        for one in entries
        if one.values == 1 and one.kind in _CODES
    ]
