"""EXIF as a TIFF has it, in its own directory, and as the block that other formats carry."""

from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.ExifTags import GPSTAGS, TAGS
from PIL.ExifTags import Base as Tag

from upres.imaging.metadata import EXIF_IFD, GPS_IFD

# What a TIFF says about the picture rather than about its own layout.
KEPT = {
    *(Tag.DocumentName, Tag.ImageDescription, Tag.Make, Tag.Model, Tag.Orientation, Tag.PageName),
    *(Tag.Software, Tag.DateTime, Tag.Artist, Tag.HostComputer, Tag.Copyright),
}
# Of EXIF in a TIFF's own directory: what its writer states anew, of the pixels that there are.
_STATED_ANEW = {
    *(Tag.ImageWidth, Tag.ImageLength, Tag.BitsPerSample, Tag.Compression),
    *(Tag.PhotometricInterpretation, Tag.SamplesPerPixel, Tag.XResolution, Tag.YResolution),
    *(Tag.PlanarConfiguration, Tag.ResolutionUnit, Tag.YCbCrPositioning, EXIF_IFD, GPS_IFD),
}


def exif_block(tags: Image.Exif) -> tuple[bytes | None, list[str]]:
    """What a TIFF's tags say about the picture, as the block that other formats carry; and the
    names of those that no block holds, since they are badly declared."""
    # One by one: to look at the others would read them, and some are badly declared.
    parts = {0: as_written({tag: tags[tag] for tag in sorted(KEPT) if tag in tags})}
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
    gone = [code for code in tags if code not in KEPT | _STATED_ANEW]
    names = [TAGS.get(code, str(code)) for code in sorted(gone)]
    return [*names, "the thumbnail"] if tags.get_ifd(1) else names


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


def writable(part: Mapping[int, Any]) -> dict[int, Any]:
    """A directory of EXIF or GPS for another file, without what points into the old block."""
    old = Tag.ExifInteroperabilityOffset
    return {tag: value for tag, value in as_written(part).items() if tag != old}
