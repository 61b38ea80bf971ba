"""EXIF as a TIFF has it, in its own directory, and as the block that other formats carry."""

import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image, TiffTags
from PIL.ExifTags import GPS, GPSTAGS, IFD, TAGS
from PIL.ExifTags import Base as Tag
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from upres.imaging.metadata import EXIF_HEAD, EXIF_IFD, GPS_IFD
from upres.imaging.tiff_directories import BIG_TIFF

# What a TIFF says about the picture rather than about its own layout; the last are of Windows and
# of photo managers.
KEPT = {
    *(Tag.DocumentName, Tag.ImageDescription, Tag.Make, Tag.Model, Tag.Orientation, Tag.PageName),
    *(Tag.Software, Tag.DateTime, Tag.Artist, Tag.HostComputer, Tag.Copyright),
    *(Tag.Rating, Tag.RatingPercent),
    *(Tag.XPTitle, Tag.XPComment, Tag.XPAuthor, Tag.XPKeywords, Tag.XPSubject),
}
# Of EXIF in a TIFF's own directory: what its writer states anew, of the pixels that there are.
_STATED_ANEW = {
    *(Tag.ImageWidth, Tag.ImageLength, Tag.BitsPerSample, Tag.Compression),
    *(Tag.PhotometricInterpretation, Tag.SamplesPerPixel, Tag.XResolution, Tag.YResolution),
    *(Tag.PlanarConfiguration, Tag.ResolutionUnit, Tag.YCbCrPositioning, EXIF_IFD, GPS_IFD),
}
_EXPOSURES = 0xA462  # SourceExposureTimesOfCompositeImage
# Bytes that are no numbers (Exif 2.32, tables 4 to 15), which Pillow would call numbers.
_UNDEFINED: dict[int, set[int]] = {
    EXIF_IFD: {
        *(Tag.OECF, Tag.ComponentsConfiguration, Tag.MakerNote, Tag.UserComment, _EXPOSURES),
        *(Tag.SpatialFrequencyResponse, Tag.FileSource, Tag.SceneType),
        Tag.DeviceSettingDescription,
    },
    GPS_IFD: {GPS.GPSProcessingMethod, GPS.GPSAreaInformation},
}

HEAD = b"II*\0\x08\0\0\0"  # of a block whose first directory follows at once
_RULES = (0x0001, 0x0002, 0x1000)  # index, version, format of a related picture


def exif_block(tags: Image.Exif) -> tuple[bytes | None, list[str]]:
    """What a TIFF's tags say about the picture, as the block that other formats carry; and the
    names of those that no block holds, since they are badly declared."""
    # One by one: to look at the others would read them, and some are badly declared.
    parts = {0: as_written({tag: tags[tag] for tag in sorted(KEPT) if tag in tags})}
    parts |= {pointer: _writable(tags, pointer) for pointer in (EXIF_IFD, GPS_IFD)}
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
    first = ImageFileDirectory_v2(HEAD)
    first.update(parts.get(0, {}))
    others = {p: _directory(HEAD, p, part) for p, part in parts.items() if p and part}
    first.update(dict.fromkeys(others, 0))
    end, behind = len(HEAD) + len(first.tobytes(len(HEAD))), b""
    for pointer, directory in others.items():
        first[pointer] = end + len(behind)
        behind += directory.tobytes(first[pointer])
    return EXIF_HEAD + HEAD + first.tobytes(len(HEAD)) + behind


def not_in_tiff(exif: bytes) -> list[str]:
    """What of an EXIF block a TIFF written here will not have, by its names."""
    tags = Image.Exif()
    tags.load(exif)
    gone = [
        code
        for code, value in tags.items()
        if code not in _STATED_ANEW and (code not in KEPT or kept_as(value) is None)
    ]
    names = [TAGS.get(code, str(code)) for code in sorted(gone)]
    return [*names, "the thumbnail"] if tags.get_ifd(1) else names


def kept_as(value: Any) -> tuple[int, int, Any] | None:
    """How a TIFF's writer is given what an entry of ``KEPT`` says: its type, count and value; None
    if it is none of the kinds that such entries are."""
    if isinstance(value, str):
        return TiffTags.ASCII, 0, value.encode("latin-1", "replace")
    if isinstance(value, bytes):
        return TiffTags.BYTE, len(value), value
    return (TiffTags.SHORT, 1, value) if isinstance(value, int) and 0 <= value < 2**16 else None


def has_maker_note(exif: bytes) -> bool:
    """Whether the camera's maker wrote something, in a way that only the maker knows."""
    tags = Image.Exif()
    tags.load(exif)
    return Tag.MakerNote in tags.get_ifd(EXIF_IFD)


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


def directory_at(offset: int, head: bytes, tags: Image.Exif, pointer: int) -> bytes:
    """The directory of EXIF or GPS for a TIFF, little-endian.

    Args:
        offset: where it will stand.
        head: of the TIFF, which tells how its directories are laid out.
        tags: of the block that holds it.
    """
    made = _directory(head, pointer, _writable(tags, pointer)).tobytes(offset)
    if pointer != EXIF_IFD or head[2] != BIG_TIFF:
        return made
    # Pillow writes a pointer of 64 bits, and says that it has 32.
    says, is_so = (
        struct.pack("<HHQ", Tag.ExifInteroperabilityOffset, kind, 1)
        for kind in (TiffTags.LONG, TiffTags.LONG8)
    )
    return made.replace(says, is_so, 1)


def _directory(head: bytes, pointer: int, part: Mapping[int, Any]) -> ImageFileDirectory_v2:
    directory = ImageFileDirectory_v2(head, group=pointer)
    for tag, value in part.items():
        if tag in _UNDEFINED[pointer] and isinstance(value, bytes):
            directory.tagtype[tag] = TiffTags.UNDEFINED
        directory[tag] = value
    return directory


def _writable(tags: Image.Exif, pointer: int) -> dict[int, Any]:
    """A directory of EXIF or GPS for another file: it holds what it would point to in this one."""
    part = as_written(tags.get_ifd(pointer))
    if part.pop(Tag.ExifInteroperabilityOffset, None) and (rules := interoperability(tags)):
        part[Tag.ExifInteroperabilityOffset] = as_written(rules)
    return part


def interoperability(tags: Image.Exif) -> dict[int, Any]:
    """The directory that EXIF points to by whose rules the file is made (Exif 2.32, 4.6.9), such as
    that colours are Adobe RGB; empty if there is none, or if the pointer leads elsewhere."""
    try:
        rules = tags.get_ifd(IFD.Interop)
    except Exception:  # noqa: BLE001 - whatever damaged EXIF makes Pillow raise
        return {}
    return {tag: v for tag, v in rules.items() if tag in _RULES and isinstance(v, str | bytes)}
