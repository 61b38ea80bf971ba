"""TIFF files that neither Pillow nor libvips reads right, by tifffile: 64 bits, odd depths,
channels that lie apart, rarer compressions."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.ExifTags import Base as Tag

from upres.errors import InputError
from upres.imaging.picture import divided, stretched
from upres.imaging.sources import reopened
from upres.imaging.tiff_tags import (
    GRAYS,
    RGB,
    WHITE_IS_ZERO,
    beyond_colours,
    bits_of,
    is_multiplied,
    is_planar,
    is_sparse,
)

_UNSIGNED, _FLOAT = 1, 3  # SampleFormat
# None, LZW, JPEG, deflate (twice), PackBits.
_COMPRESSIONS = (1, 5, 7, 8, 32946, 32773)


def libvips_reads(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF is of those that libvips reads, and reads right.

    It refuses other depths and tiles of channels that lie apart, mixes up rows of channels that
    lie apart and are no colours, makes black tiles of compressions that it does not know, takes
    tiles that are not stored for damage, and divides by alpha what it was multiplied with only in
    plain colours of usual types.
    """
    bits = bits_of(tags)
    gray = tags.get(Tag.PhotometricInterpretation) in GRAYS
    apart = is_planar(tags) and (gray or Tag.TileWidth in tags)
    form = tags.get(Tag.SampleFormat, (_UNSIGNED,))[0]
    known = form == _UNSIGNED if bits < 32 else form == _FLOAT and not gray
    faint = is_multiplied(tags) and (not known or bool(beyond_colours(tags)))
    usual = tags.get(Tag.Compression, 1) in _COMPRESSIONS and bits in (8, 16, 32)
    return usual and not apart and not faint and not is_sparse(tags)


def _stack(tiff: Any, page: Any, count: int) -> NDArray[Any]:
    """Images that lie one behind the other where one directory is, one below the other."""
    shape = (count * page.imagelength, page.imagewidth, page.samplesperpixel)
    stored = np.dtype(page.dtype).newbyteorder(tiff.byteorder)
    tiff.filehandle.seek(page.dataoffsets[0])
    data = tiff.filehandle.read(math.prod(shape) * stored.itemsize)
    return np.frombuffer(data, stored).reshape(shape).astype(page.dtype)


def read_rare(
    source: Path | bytes, name: str, page: int, left_out: int, *, stacked: int = 0
) -> NDArray[Any]:
    """Decode a page; colours that were multiplied by alpha are divided by it.

    Args:
        left_out: how many of its last channels are not wanted.
        stacked: how many images share the page's directory, if several do; they come one below the
            other.

    Returns:
        H x W x C, in the type of the file, over all its range if the file has fewer bits.

    Raises:
        InputError: it is not gray or RGB, or compressed in a way that needs another package.
    """
    import tifffile

    with reopened(source) as file, tifffile.TiffFile(file) as tiff:
        found: Any = tiff.pages[page]
        photometric, bits = int(found.photometric), int(found.bitspersample)
        if photometric not in (*GRAYS, RGB):
            raise InputError(
                f"{name} has {bits} bits, compressed or laid out in a rare way, and colours that "
                "are not read so",
                "convert it to gray or RGB, compressed with deflate",
            )
        try:
            pixels: NDArray[Any] = _stack(tiff, found, stacked) if stacked else found.asarray()
        except (ValueError, ImportError) as error:
            if isinstance(error, ValueError) and "imagecodecs" not in str(error):
                raise
            raise InputError(
                f"{name} is compressed in a way that tifffile alone does not read",
                "install imagecodecs in upres's environment, or compress it with deflate",
            ) from error
    if not stacked and found.axes[0] == "S":  # each channel by itself
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    pixels = np.ascontiguousarray(pixels[..., : pixels.shape[2] - left_out])
    # In pixels of several channels tifffile mixes up the order of bits: these stay refused.
    if pixels.dtype == np.bool and pixels.shape[2] == 1:
        pixels = pixels.astype(np.uint8)
    if pixels.dtype in (np.uint8, np.uint16) and bits < 8 * pixels.itemsize:
        pixels = stretched(pixels, bits, pixels.dtype)
    kinds = tuple(found.extrasamples)
    if is_multiplied({Tag.ExtraSamples: kinds}):
        colours = 1 if photometric in GRAYS else 3
        pixels = divided(pixels, colours, colours + kinds.index(tifffile.EXTRASAMPLE.ASSOCALPHA))
    if photometric == WHITE_IS_ZERO and pixels.dtype.kind == "u":
        pixels[..., 0] = np.iinfo(pixels.dtype).max - pixels[..., 0]
    return pixels
