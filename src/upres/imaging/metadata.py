"""EXIF and XMP carried through byte for byte, except what an upscaled picture makes untrue.

Writing EXIF anew moves the maker's notes, whose own offsets then point nowhere. So the few values
that change are overwritten where they stand: the orientation becomes 1, since the pixels are
turned, and the pixel dimensions become the new ones. Layout: TIFF 6.0, Exif 2.32.
"""

import re
import struct

EXIF_HEAD = b"Exif\0\0"  # before the block in a JPEG; other formats go without
XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"  # before the packet in a JPEG
EXIF_IFD, GPS_IFD = 0x8769, 0x8825  # the tags that point to these directories
_ORIENTATION = 0x0112
# In the directory of EXIF, and as TIFFs have them.
_WIDTHS, _HEIGHTS = (0xA002, 0x0100), (0xA003, 0x0101)
_THUMBNAIL = -1  # no tag: IFD 0's pointer to IFD 1
_SHORT, _LONG = 3, 4
# As an attribute or as an element.
_XMP_SIZE = re.compile(
    rb"""(\b(?:tiff|exif):(ImageWidth|ImageLength|PixelXDimension|PixelYDimension)"""
    rb"""\s*(?:=\s*["']|>\s*))\d+"""
)
_CROPPED = (b"CroppedAreaImageWidthPixels", b"CroppedAreaImageHeightPixels")
_XMP_SPHERE = re.compile(
    rb"""(\bGPano:((?:FullPano|CroppedArea(?:Image)?)(?:Width|Height|Left|Top)Pixels)"""
    rb"""\s*(?:=\s*["']|>\s*))(\d{1,9})"""
)
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>\s*))([1-8])""")


def orientation(exif: bytes | None, xmp: bytes | None = None) -> int:
    """1 to 8 as EXIF numbers them; XMP is asked where EXIF does not say; 1 where nothing does."""
    for tag, _, _, value in _entries(exif or b""):
        if tag == _ORIENTATION and 1 <= value <= 8:
            return value
    match = _XMP_ORIENTATION.search(xmp or b"")
    return int(match[2]) if match else 1


def updated_exif(exif: bytes | None, width: int, height: int) -> bytes | None:
    """The same bytes with orientation 1 and, where they are stated, the new dimensions."""
    if not exif:
        return exif
    new = {_ORIENTATION: 1, **dict.fromkeys(_WIDTHS, width), **dict.fromkeys(_HEIGHTS, height)}
    if orientation(exif) != 1:
        new[_THUMBNAIL] = 0  # it is not turned with the picture, so it is no longer pointed to
    result = bytearray(exif)
    for tag, place, code, _ in _entries(exif):
        if tag in new and not (code.endswith("H") and new[tag] > 0xFFFF):
            struct.pack_into(code, result, place, new[tag])
    return bytes(result)


def comment_text(comment: bytes) -> str:
    """What a JPEG's or GIF's comment says: neither names its alphabet."""
    comment = comment.rstrip(b"\0")  # as C programs end them
    try:
        return comment.decode()
    except UnicodeDecodeError:
        return comment.decode("latin-1")


def updated_xmp(xmp: bytes | None, width: int, height: int) -> bytes | None:
    """The same packet with tiff:Orientation 1 and, where they are stated, the new dimensions, also
    those of the whole that a panorama is cut from (Photo Sphere XMP)."""
    if not xmp:
        return xmp
    stated = {match[2]: int(match[3]) for match in _XMP_SPHERE.finditer(xmp)}
    factors = {
        name: size / stated[cropped]
        for names, cropped, size in (
            ((b"FullPanoWidthPixels", b"CroppedAreaLeftPixels"), _CROPPED[0], width),
            ((b"FullPanoHeightPixels", b"CroppedAreaTopPixels"), _CROPPED[1], height),
        )
        if stated.get(cropped)
        for name in (*names, cropped)
    }

    def size(match: re.Match[bytes]) -> bytes:
        across = match[2] in (b"ImageWidth", b"PixelXDimension")
        return match[1] + str(width if across else height).encode()

    def sphere(match: re.Match[bytes]) -> bytes:
        return match[1] + str(round(int(match[3]) * factors.get(match[2], 1))).encode()

    changed = _XMP_SIZE.sub(size, _XMP_ORIENTATION.sub(rb"\g<1>1", xmp))
    return _XMP_SPHERE.sub(sphere, changed)


def _entries(exif: bytes) -> list[tuple[int, int, str, int]]:
    """Tag, place of the value, struct code and value of the single integers in IFD 0 and the Exif
    IFD. Damaged structures end the list; the bytes are carried all the same."""
    start = len(EXIF_HEAD) if exif.startswith(EXIF_HEAD) else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[start : start + 4])
    if order is None:
        return []
    found: list[tuple[int, int, str, int]] = []
    try:
        offsets = [struct.unpack_from(order + "I", exif, start + 4)[0]]
        for index in range(2):  # IFD 0, then the Exif IFD that it points to
            if not offsets:
                break
            ifd = start + offsets.pop()
            (count,) = struct.unpack_from(order + "H", exif, ifd)
            for i in range(count):
                place = ifd + 2 + 12 * i
                tag, kind, values = struct.unpack_from(order + "HHI", exif, place)
                if values != 1 or kind not in (_SHORT, _LONG):
                    continue
                code = order + ("H" if kind == _SHORT else "I")
                (value,) = struct.unpack_from(code, exif, place + 8)
                if tag == EXIF_IFD:
                    offsets.append(value)
                else:
                    found.append((tag, place + 8, code, value))
            if index == 0:
                end = ifd + 2 + 12 * count
                found.append(
                    (_THUMBNAIL, end, order + "I", *struct.unpack_from(order + "I", exif, end))
                )
    except struct.error:
        pass
    return found
