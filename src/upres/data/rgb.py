"""Pictures as training and measuring want them: 8 bits, three colours."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upres.imaging.reader import read_picture


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """A picture as ``as_rgb`` has it.

    Raises:
        InputError: it cannot be read.
    """
    return as_rgb(read_picture(path).pixels)


def as_rgb(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """H x W x 3 uint8 from H x W x 1..4 uint8 or uint16: gray repeated, alpha dropped."""
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.shape[2] <= 2:
        return np.repeat(pixels[..., :1], 3, axis=2)
    return np.asarray(pixels[..., :3], np.uint8)
