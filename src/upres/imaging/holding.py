"""What of a picture a file format cannot hold: metadata, channels, frames."""

from dataclasses import replace

import numpy as np
from PIL import Image

from upres.errors import OutputError
from upres.imaging.filefacts import exif_resolution
from upres.imaging.formats import FORMATS, TIMED, check_size
from upres.imaging.metadata import EXIF_IFD, GPS_IFD, REGIONS
from upres.imaging.picture import Picture
from upres.imaging.profiles import fits
from upres.imaging.tiff_exif import HEAD, directory_at, has_maker_note, not_in_tiff
from upres.imaging.tiff_tags import BANDS_LEFT_OUT

# Formats that hold what `has` names.
_HELD = {
    "the colour profile": {"JPEG", "PNG", "WEBP", "TIFF", "AVIF"},
    "EXIF": {"JPEG", "PNG", "WEBP", "TIFF", "AVIF"},
    "XMP": {"JPEG", "PNG", "WEBP", "TIFF", "AVIF", "GIF"},
    "extended XMP": {"JPEG"},
    "IPTC": {"JPEG", "PNG", "TIFF"},
    "the resolution": {"JPEG", "PNG", "TIFF", "BMP"},
    "gamma": {"PNG"},
    "what the colours mean (cICP)": {"PNG", "AVIF"},
    "texts": {"PNG"},
    "the comment": {"JPEG", "PNG", "GIF"},
    "the size of a pixel": {"TIFF"},
    "the place (GeoTIFF)": {"TIFF"},
    "the no-data value": {"TIFF"},
}

_SEGMENT = 65_000  # what a JPEG's segments hold, less their headers, and libexif


def lost(
    about: Picture,
    file_format: str,
    quality: int | None,
    *,
    gray_as_colour: bool,
) -> list[str]:
    """What the picture has, or the user asked for, and the file will not hold."""
    gone = [
        name for name, there in has(about).items() if there and not holds(about, file_format, name)
    ]
    notes = [f"{' and '.join(gone)} cannot be kept in this {file_format}"] if gone else []
    if (
        file_format == "TIFF"
        and (exif := held_exif(about, file_format))
        and (rest := not_in_tiff(exif))
    ):
        notes.append(f"of EXIF {', '.join(rest)} cannot be kept in this TIFF")
    anew = held_exif(about, file_format) if "TIFF" in (about.format, file_format) else None
    if anew and has_maker_note(anew):
        notes.append("EXIF is written anew: places that the maker's notes name may be wrong")
    if about.turned > 1 and any(name in (about.xmp or b"") for name in REGIONS):
        notes.append("regions in XMP, such as faces, are not turned with the picture")
    if quality is not None and not FORMATS[file_format].lossy:
        notes.append(f"{file_format} is lossless: the quality of {quality} means nothing")
    if about.kind == "bilevel":
        notes.append("1 bit becomes 8-bit gray, which enlarged edges need")
    if about.kind == "palette" and file_format != "GIF":
        notes.append("the palette becomes full colour, which enlarged edges need")
    if gray_as_colour:
        notes.append(f"{file_format} stores gray as colour")
    if about.frames and about.format == "TIFF" and file_format in TIMED:
        pages = len(about.frames)
        notes.append(f"the {pages} pages become frames of an animation; .tif keeps them as pages")
    if about.frames and not holds_frames(file_format):
        notes.append(f"only the first of {len(about.frames)} frames is kept in {file_format}")
    return notes


def stripped(picture: Picture) -> Picture:
    """See ``Picture.stripped``; the resolution stays, even if it stands in EXIF alone."""
    dpi = picture.dpi
    if dpi is None and picture.calibration is None:
        dpi = exif_resolution(picture.exif, turned=picture.turned >= 5)
    return replace(picture.stripped(), dpi=dpi)


def held_channels(picture: Picture, file_format: str) -> Picture:
    """The picture with the channels that a file of this format holds; a note says what is gone."""
    if FORMATS[file_format].bands or not picture.bands:
        return picture
    return replace(picture.without_bands(), notes=(*picture.notes, BANDS_LEFT_OUT))


def prepared_for(file_format: str, picture: Picture, width: int, height: int) -> Picture:
    """The picture with what a file of this format holds, before any work.

    Args:
        width, height: the result's.

    Raises:
        OutputError: it is too large for the format, or its frames are of several sizes.
    """
    held = held_channels(picture, file_format)
    check_size(file_format, width, height, held.pixels.shape[2])
    check_frames(held, file_format)
    return held


def has(picture: Picture) -> dict[str, bool]:
    """What a file may carry beside its pixels, by names for people, and whether this one does."""
    return {
        "the colour profile": picture.icc is not None,
        "EXIF": picture.exif is not None,
        "XMP": picture.xmp is not None,
        "extended XMP": bool(picture.xmp_more),
        "IPTC": picture.iptc is not None,
        "the resolution": picture.dpi is not None,
        "gamma": picture.icc is None
        and any(x is not None for x in (picture.gamma, picture.intent, picture.chromaticities)),
        "what the colours mean (cICP)": picture.cicp is not None,
        "texts": bool(picture.texts),
        "the comment": bool(picture.comments),
        "the size of a pixel": picture.calibration is not None,
        "the place (GeoTIFF)": picture.place is not None and picture.place.is_somewhere,
        "the no-data value": picture.no_data is not None,
    }


def holds(about: Picture, file_format: str, name: str) -> bool:
    """Whether a file of this format takes what ``has`` names, as the picture has it."""
    if file_format not in _HELD[name]:
        return False
    if file_format in ("TIFF", "AVIF") and name == "EXIF" and not _is_whole(about.exif or b""):
        return False  # one takes it apart, of the other libavif reads no file then
    if file_format == "JPEG" and name == "the resolution":
        return max(about.dpi or (0, 0)) <= 0xFFFF
    if file_format == "AVIF" and name == "what the colours mean (cICP)":
        # libvips writes the others, and no such words. Nor is there a word for a narrow range.
        return bool(about.pixels.dtype == np.uint8) and (about.cicp or ())[-1:] != (0,)
    if file_format == "JPEG" or (
        file_format == "AVIF" and name == "EXIF" and about.pixels.dtype != np.uint8
    ):
        blocks = {
            "EXIF": about.exif,
            "XMP": about.xmp,
            "IPTC": about.iptc,
            "the comment": max(about.comments, key=len, default=None),
        }
        return len(blocks.get(name) or b"") < _SEGMENT
    if name == "the colour profile" and file_format in ("WEBP", "AVIF") and about.channels <= 2:
        # They store gray as colour, where a profile for gray would be wrong.
        return about.icc is not None and fits(about.icc, 3)
    return True


def held_exif(about: Picture, file_format: str) -> bytes | None:
    """The picture's EXIF, if a file of this format takes it."""
    return about.exif if about.exif and holds(about, file_format, "EXIF") else None


def _is_whole(exif: bytes) -> bool:
    """Whether it can be taken apart and put together."""
    tags = Image.Exif()
    try:
        tags.load(exif)
        dict(tags.items())  # some damage is found only now
        for pointer in (EXIF_IFD, GPS_IFD):
            # A tag may be readable and still be declared so badly that nobody can write it.
            directory_at(0, HEAD, tags, pointer)
    except Exception:  # noqa: BLE001 - Pillow raises whatever it stumbles over
        return False
    return True


def holds_frames(file_format: str) -> bool:
    """Whether the format holds more than one picture."""
    return file_format in (*TIMED, "TIFF")


def check_frames(picture: Picture, file_format: str) -> None:
    """Before the work: whether the format holds frames of these sizes.

    Raises:
        OutputError: an animation's frames are of one size, a TIFF's pages need not be.
    """
    sizes = {frame.pixels.shape[:2] for frame in picture.frames}
    if len(sizes) > 1 and file_format in TIMED:
        raise OutputError(f"{file_format} cannot hold pages of different sizes", "write .tif")
