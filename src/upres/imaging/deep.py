"""Pixels of more than 8 bits, by libvips: Pillow reduces 16-bit colour to 8 bits, and opens float
TIFF files of one channel only."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upres.errors import InputError
from upres.imaging.picture import Kind, to_16_bits
from upres.imaging.vips import reason, vips

_OTHER: dict[str, Kind] = {"cmyk": "CMYK", "lab": "Lab", "labs": "Lab", "labq": "Lab"}


def read_deep(
    source: Path | bytes, name: str, *, page: int | None = None, extra: int = 0
) -> tuple[NDArray[Any], Kind, str | None]:
    """Decode a picture as it lies in the file; libvips divides colours that were multiplied by
    alpha.

    Args:
        page: of a TIFF file.
        extra: how many of its last channels are left out.

    Returns:
        H x W x C, uint8, uint16 or float32, how the file stores them, and a note if they were
        converted.

    Raises:
        InputError: pixels of another kind, or damaged.
    """
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
        if image.format not in ("uchar", "ushort", "float", "double") or image.bands > 4:
            raise InputError(
                f"{name} has {image.bands} channels of the type {image.format}, which are not read",
                "convert it to 8 or 16 bits or floats, gray or RGB",
            )
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
    if pixels.dtype == np.float64:
        pixels = pixels.astype(np.float32)
    return pixels, kind or ("gray" if pixels.shape[2] <= 2 else "RGB"), note
