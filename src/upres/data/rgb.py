"""Pictures as training and measuring want them: 8 bits, three colours."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upres.errors import InputError
from upres.imaging.picture import Picture, in_8_bits
from upres.imaging.reader import read_picture


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """A picture as ``as_rgb`` has it.

    Raises:
        InputError: it cannot be read, or holds floats.
    """
    return _as_rgb(read_picture(path, frames=False).without_bands(), path)


def _as_rgb(picture: Picture, path: Path) -> NDArray[np.uint8]:
    try:
        return as_rgb(picture.pixels)
    except TypeError as error:
        raise InputError(f"{path}: {error}", "convert it to 8 or 16 bits") from error


def read_full_range(path: Path) -> NDArray[np.uint8]:
    """The same, of a picture that takes its range.

    Raises:
        InputError: as ``read_rgb``, or what it shows lies in less than a quarter of 16 bits, as
            that of many 12-bit cameras does, and would be black.
    """
    picture = read_picture(path, frames=False).without_bands()
    check_full_range(picture, path)
    return _as_rgb(picture, path)


def check_full_range(picture: Picture, path: Path) -> None:
    """See that a picture would not be black in 8 bits.

    Raises:
        InputError: it takes less than a quarter of 16 bits.
    """
    colours = picture.pixels[..., : 1 if picture.pixels.shape[2] <= 2 else 3]
    if colours.dtype == np.uint16 and colours.max() < 2**14:
        most = int(colours.max())
        raise InputError(f"{path} goes up to {most} of 65535 only", "stretch it to 16 bits, or 8")


def check_low(
    low: NDArray[np.uint8], path: Path, high: str, shape: tuple[int, ...], scale: int
) -> None:
    """See that a low-resolution picture belongs to one of height and width ``shape``.

    Args:
        high: the other's name.

    Raises:
        InputError: it has another size.
    """
    h, w = shape[0] // scale, shape[1] // scale
    if low.shape[:2] != (h, w):
        raise InputError(
            f"{path} has {low.shape[1]} x {low.shape[0]} pixels, and {high} of "
            f"{shape[1]} x {shape[0]} needs {w} x {h} at x{scale}",
            "check the scale; without a folder of low-resolution pictures they are made",
        )


def as_rgb(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """H x W x 3 uint8 from H x W x 1..4 uint8 or uint16: gray repeated, alpha dropped.

    Raises:
        TypeError: other numbers, of which nobody knows what black and white are.
    """
    if pixels.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"{pixels.dtype} pixels have no 8-bit values")
    if pixels.dtype == np.uint16:
        pixels = in_8_bits(pixels)
    if pixels.shape[2] <= 2:
        return np.repeat(pixels[..., :1], 3, axis=2)
    return np.asarray(pixels[..., :3], np.uint8)
