"""What a TIFF's tags mean: of its pixels, of channels beyond colours, and which are not kept."""

from collections.abc import Mapping, Set
from typing import Any

from PIL import TiffTags
from PIL.ExifTags import Base as Tag

from upres.imaging.georeference import NO_DATA
from upres.imaging.georeference import TAGS as GEOTIFF
from upres.imaging.metadata import EXIF_IFD, GPS_IFD
from upres.imaging.photoshop import iptc_bytes, without_resources
from upres.imaging.picture import Extra
from upres.imaging.tiff_exif import KEPT

# From here on tags are registered to companies.
_PRIVATE = 32768
# Tags of TIFF 6.0 that say more than how pixels are stored: XPosition and YPosition first.
_MEANT = {
    *(286, 287, Tag.PageNumber, Tag.TransferFunction, Tag.WhitePoint, Tag.PrimaryChromaticities),
    *(Tag.InkNames, Tag.TargetPrinter, Tag.Rating, Tag.RatingPercent),
}
# Photoshop's block repeats IPTC, and holds its own view settings; the rest is written anew.
_CARRIED = KEPT | {
    Tag.XMLPacket,
    Tag.IPTCNAA,
    Tag.ImageResources,
    Tag.InterColorProfile,
    EXIF_IFD,
    GPS_IFD,
    NO_DATA,
}
BANDS_LEFT_OUT = "channels that are neither colour nor transparency are left out"
# PhotometricInterpretation (TIFF 6.0).
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, SEPARATED = 0, 1, 2, 3, 5
GRAYS = (WHITE_IS_ZERO, BLACK_IS_ZERO)


def bits_of(tags: Mapping[int, Any]) -> int:
    """Bits a channel (TIFF 6.0, BitsPerSample), of which some files give each its own number."""
    bits = tags.get(Tag.BitsPerSample, (1,))
    return max(bits) if isinstance(bits, tuple) else int(bits)


def is_page(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF's directory is neither a smaller copy nor a mask of a page."""
    # Bit 0 is a reduced picture, bit 2 a mask (TIFF 6.0, NewSubfileType).
    return not int(tags.get(Tag.NewSubfileType, 0)) & 0b101


def is_signed(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF's numbers may be below zero (TIFF 6.0, SampleFormat)."""
    formats = tags.get(Tag.SampleFormat, (1,))
    return bool(formats) and formats[0] == 2


def is_planar(tags: Mapping[int, Any]) -> bool:
    """Whether each channel of a TIFF lies by itself (TIFF 6.0, PlanarConfiguration)."""
    return int(tags.get(Tag.PlanarConfiguration, 1)) == 2 and tags.get(Tag.SamplesPerPixel, 1) > 1


def is_sparse(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF has tiles or strips that are not stored, all their pixels being "no data" or 0
    (GDAL, SPARSE_OK): they have no place."""
    return 0 in (tags.get(Tag.TileOffsets) or tags.get(Tag.StripOffsets) or ())


def is_multiplied(tags: Mapping[int, Any]) -> bool:
    """Whether the colours of a TIFF are multiplied by its alpha (TIFF 6.0, ExtraSamples)."""
    kinds = (kind for kind in tags.get(Tag.ExtraSamples, ()) if kind in (1, 2))
    return next(kinds, None) == 1


def xmp_of(tags: Mapping[int, Any]) -> bytes | None:
    """A TIFF's XMP, whatever type it was declared to be."""
    raw = tags.get(Tag.XMLPacket)
    raw = raw[0] if isinstance(raw, tuple) and raw else raw
    raw = raw.encode("latin-1", "replace") if isinstance(raw, str) else raw
    return raw if isinstance(raw, bytes) and raw else None


def iptc_of(tags: Mapping[int, Any]) -> Any:
    """A TIFF's IPTC. Some programs declare the bytes to be 32-bit numbers, of which Pillow would
    show the first."""
    if Tag.IPTCNAA in tags and getattr(tags, "tagtype", {}).get(Tag.IPTCNAA) == TiffTags.LONG:
        data: bytes = tags._tagdata[Tag.IPTCNAA]  # type: ignore[attr-defined]
        return data[: len(data) - 3] + data[len(data) - 3 :].rstrip(b"\0")
    if Tag.IPTCNAA not in tags and (resources := iptc_bytes(tags.get(Tag.ImageResources))):
        return without_resources(resources)
    return tags.get(Tag.IPTCNAA)


def left_out(tags: Set[int], *, georeferenced: bool) -> str | None:
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


def words_of(tags: Mapping[int, Any]) -> dict[int, Any]:
    """What a page says about its picture in its own tags; of EXIF, that there is some."""
    names = (KEPT - {Tag.Orientation}) | {Tag.XMLPacket}
    words = {tag: tags[tag] for tag in names if tag in tags}
    return words | {pointer: True for pointer in (EXIF_IFD, GPS_IFD) if pointer in tags}


def beyond_colours(tags: Mapping[int, Any]) -> tuple[Extra, ...]:
    """What a TIFF's channels beyond its colours are, if any of them is a band; see ``Picture``.

    None are named of colours that become others, such as CMYK: their bands are left out.
    """
    found = _beyond(tags)
    # Colours that are read as they stand.
    plain = int(tags.get(Tag.PhotometricInterpretation, 1)) in (BLACK_IS_ZERO, RGB)
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
    means = int(tags.get(Tag.PhotometricInterpretation, 1))
    colours = 1 if means in (*GRAYS, PALETTE) else 4 if means == SEPARATED else 3
    count = max(0, int(tags.get(Tag.SamplesPerPixel, 1)) - colours)
    stated = tuple(tags.get(Tag.ExtraSamples, (2,) if count == 1 else ()))
    alpha = next((i for i, kind in enumerate(stated) if kind in (1, 2)), count)
    return tuple("alpha" if i == alpha else "band" for i in range(count))
