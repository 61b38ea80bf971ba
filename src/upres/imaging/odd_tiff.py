"""TIFF files whose kind of pixels Pillow does not know."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base as Tag

from upres.imaging import filefacts
from upres.imaging.containers import BIG_TIFF, Tags, is_signed, reopened
from upres.imaging.deep import CONVERTED, read_deep
from upres.imaging.georeference import read_georeference
from upres.imaging.metadata import orientation
from upres.imaging.picture import Kind, Picture
from upres.imaging.profiles import srgb_profile
from upres.imaging.turning import upright


def decode_odd_tiff(
    source: Path | bytes, name: str, tags: Tags, pages: int, *, pixels: bool = True
) -> Picture:
    """A TIFF whose kind of pixels Pillow does not know: floats in colour, 16 bits with alpha.

    Args:
        tags: of its first page, the only one that is read.
        pages: how many there are.
        name, source, pixels: see ``decode``.

    Raises:
        InputError: it is damaged.
    """
    bits = tags.get(Tag.BitsPerSample, (8,))[0]
    extra = filefacts.beyond_colours(tags)
    left_out = filefacts.left_out_channels(tags, extra)
    channels = tags.get(Tag.SamplesPerPixel, 1) - left_out
    xmp, exif = tags.get(Tag.XMLPacket), _exif_of(source)
    turned, place = orientation(exif, xmp), None
    if turned == 1:
        place = read_georeference(tags, tags[Tag.ImageWidth], tags[Tag.ImageLength])
    note = filefacts.left_out(tags, georeferenced=place is not None)
    notes = [note] if note else []
    if left_out:
        notes.append(filefacts.EXTRA)
    if pages > 1:
        notes.append(f"only the first of {pages} pages is read")
    floats = bits >= 32 or is_signed(tags)
    plain = np.uint8 if bits <= 8 else np.uint16
    made: NDArray[Any] = np.empty((0, 0, channels), np.float32 if floats else plain)
    kind: Kind = "gray" if channels - len(extra) <= 2 else "RGB"
    icc = tags.get(Tag.InterColorProfile)
    if pixels:
        made, kind, note = read_deep(source, name, page=0, tags=tags, extra=extra)
        if note:
            notes.append(note)
        if kind in CONVERTED:
            icc = srgb_profile()
    dpi, unit = None, tags.get(Tag.ResolutionUnit)
    if Tag.XResolution in tags and Tag.YResolution in tags and unit != 1:
        dpi = (tags[Tag.XResolution], tags[Tag.YResolution])
    if dpi and unit == 3:  # a centimetre
        dpi = (dpi[0] * 2.54, dpi[1] * 2.54)
    return Picture(
        pixels=upright(made, turned),
        format="TIFF",
        kind=kind,
        extra=extra,
        bits=bits,
        turned=turned,
        icc=icc,
        exif=exif,
        xmp=xmp,
        iptc=filefacts.iptc_bytes(filefacts.iptc_tag(tags)),
        dpi=filefacts.resolution(dpi, turned=turned >= 5),
        place=place,
        notes=tuple(notes),
    ).with_own_numbers()


def _exif_of(source: Path | bytes) -> bytes | None:
    """EXIF as a block from a TIFF that Pillow does not open."""
    with reopened(source) as file:
        head, tags = file.read(16), Image.Exif()
        if head[2] == BIG_TIFF:
            # Pillow would look for a small one's first directory.
            tags.bigtiff, tags.endian = True, "<"
            tags.load_from_fp(file, int.from_bytes(head[8:], "little"))
        else:
            file.seek(0)
            tags.load_from_fp(file)
        return filefacts.exif_block(tags)
