"""Turning pixels upright."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Steps down and across, after the axes of 5 to 8 were swapped, that undo each orientation.
_FLIPS = {
    1: (1, 1),
    2: (1, -1),
    3: (-1, -1),
    4: (-1, 1),
    5: (1, 1),
    6: (1, -1),
    7: (-1, -1),
    8: (-1, 1),
}


def upright(pixels: NDArray[Any], turned: int) -> NDArray[Any]:
    """What an orientation of 1 to 8 asks for (Exif 2.32, tag 0x0112)."""
    if turned >= 5:
        pixels = pixels.swapaxes(0, 1)
    down, across = _FLIPS[turned]
    return np.ascontiguousarray(pixels[::down, ::across])
