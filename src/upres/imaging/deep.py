"""Pixels that Pillow reduces to 8 bits or does not know, by libvips; what neither reads right, 64
bits, channels that lie apart and rarer compressions of TIFF, by tifffile."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.ExifTags import Base as Tag

from upres.errors import InputError
from upres.imaging.containers import is_planar, reopened
from upres.imaging.picture import Kind, to_16_bits
from upres.imaging.vips import reason, vips

# Of TIFF 6.0, PhotometricInterpretation, and ExtraSamples for colours multiplied by alpha.
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _MULTIPLIED = 0, 1, 2, 1
# None, LZW, JPEG, deflate (two numbers), PackBits.
_COMPRESSIONS = (1, 5, 7, 8, 32946, 32773)
_GRAYS = (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
# What libvips calls the types of numbers that are computed in floats.
_TO_FLOATS = ("char", "short", "int", "uint", "float", "double")
_OTHER: dict[str, Kind] = {"cmyk": "CMYK", "lab": "Lab", "labs": "Lab", "labq": "Lab"}


def read_deep(
    source: Path | bytes,
    name: str,
    *,
    page: int | None = None,
    tags: Mapping[int, Any] | None = None,
    extra: int = 0,
) -> tuple[NDArray[Any], Kind, str | None]:
    """Decode a picture as it lies in the file; libvips divides colours that were multiplied by
    alpha.

    Args:
        page, tags: of a TIFF file.
        extra: how many of its last channels are left out.

    Returns:
        H x W x C, uint8, uint16 or float32, how the file stores them, and a note if they were
        converted.

    Raises:
        InputError: pixels of another kind, or damaged.
    """
    if tags is not None and not libvips_reads(tags):
        return _by_tifffile(source, name, page or 0, extra)
    pyvips = vips()

    options: dict[str, Any] = {"access": "sequential", "fail_on": "error"}
    if page is not None:
        options["page"] = page
    try:
        if isinstance(source, bytes):
            image = pyvips.Image.new_from_buffer(source, "", **options)
        else:
            image = pyvips.Image.new_from_file(str(source), **options)
        if 0 < extra < image.bands:
            image = image.extract_band(0, n=image.bands - extra)
        kind = _OTHER.get(image.interpretation)
        note = None
        if kind is not None:
            note = f"{kind} becomes RGB in the sRGB profile"
            if kind == "CMYK" and image.get_typeof("icc-profile-data"):
                image = image.icc_transform("srgb", depth=16)
            else:
                image = image.colourspace("rgb16")
        if image.format not in ("uchar", "ushort", *_TO_FLOATS) or image.bands > 4:
            raise _unread(name, image.bands, image.format)
        pixels = image.numpy()
        if image.get("vips-loader").startswith("heif"):
            # libvips puts 10 or 12 bits into the upper ones of 16.
            bits = image.get("bits-per-sample")
            pixels = to_16_bits(pixels >> (16 - bits), bits)
    except pyvips.Error as error:
        raise InputError(
            f"{name} is damaged and cannot be decoded ({reason(error)})",
            "get it again from its source",
        ) from error
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if image.format in _TO_FLOATS and pixels.dtype != np.float32:
        note, pixels = _floats(pixels)
    return pixels, kind or _kind(pixels), note


def libvips_reads(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF is of those that libvips reads, and reads right.

    It refuses other depths and tiles of channels that lie apart, mixes up rows of channels that
    lie apart and are no colours, and makes black tiles of compressions that it does not know.
    """
    apart = is_planar(tags) and (
        tags.get(Tag.PhotometricInterpretation) in _GRAYS or Tag.TileWidth in tags
    )
    usual = tags.get(Tag.Compression, 1) in _COMPRESSIONS
    return usual and not apart and max(tags.get(Tag.BitsPerSample, (8,))) in (8, 16, 32)


def _by_tifffile(
    source: Path | bytes, name: str, page: int, extra: int
) -> tuple[NDArray[Any], Kind, str | None]:
    import tifffile

    with reopened(source) as file, tifffile.TiffFile(file) as tiff:
        found: Any = tiff.pages[page]
        photometric, bits = int(found.photometric), found.bitspersample
        if photometric not in (*_GRAYS, _RGB) or found.extrasamples[:1] == (_MULTIPLIED,):
            raise InputError(
                f"{name} has {bits} bits, compressed or laid out in a rare way, and colours that "
                "are not read so",
                "convert it to gray or RGB, compressed with deflate",
            )
        try:
            pixels = found.asarray()
        except (ValueError, ImportError) as error:
            if isinstance(error, ValueError) and "imagecodecs" not in str(error):
                raise
            raise InputError(
                f"{name} is compressed in a way that tifffile alone does not read",
                "pip install 'upres[codecs]', or compress it with deflate",
            ) from error
    if found.axes[0] == "S":  # each channel by itself
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    pixels = np.ascontiguousarray(pixels[..., : pixels.shape[2] - extra])
    if pixels.dtype.kind not in "iuf" or pixels.shape[2] > 4:
        raise _unread(name, pixels.shape[2], str(pixels.dtype))
    note = None
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        note, pixels = _floats(pixels)
    if pixels.dtype == np.uint16 and bits < 16:
        pixels = to_16_bits(pixels, bits)
    if pixels.dtype == np.uint8 and bits < 8:
        top = 2**bits - 1
        pixels = ((pixels.astype(np.uint16) * 255 + top // 2) // top).astype(np.uint8)
    if photometric == _WHITE_IS_ZERO and pixels.dtype.kind == "u":
        pixels = np.iinfo(pixels.dtype).max - pixels
    return pixels, _kind(pixels), note


def _floats(pixels: NDArray[Any]) -> tuple[str, NDArray[np.float32]]:
    """Numbers that no network is for, with a note on them."""
    note = f"pixels of the type {pixels.dtype.name} become {np.dtype(np.float32).name}"
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and stays where it was
        return note, pixels.astype(np.float32)


def _kind(pixels: NDArray[Any]) -> Kind:
    return "gray" if pixels.shape[2] <= 2 else "RGB"


def _unread(name: str, channels: int, kind: str) -> InputError:
    return InputError(
        f"{name} has {channels} channels of the type {kind}, which are not read",
        "convert it to whole numbers or floats, gray or RGB",
    )
