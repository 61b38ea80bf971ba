"""What BT.601 makes of red, green and blue, in MATLAB's studio range and in JPEG's full range."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# MATLAB rgb2ycbcr, ITU-R BT.601 studio range: Y 16..235, Cb and Cr 16..240, for inputs in 0..1.
STUDIO_RGB_TO_YCBCR = np.array(
    [
        [65.481, 128.553, 24.966],
        [-37.797, -74.203, 112.0],
        [112.0, -93.786, -18.214],
    ]
)
STUDIO_OFFSET = (16.0, 128.0, 128.0)

# Its Y where both sides are in 0..1: weights, and what is added.
STUDIO_LUMA: tuple[float, ...] = tuple((STUDIO_RGB_TO_YCBCR[0] / 255).tolist())
STUDIO_LUMA_OFFSET = STUDIO_OFFSET[0] / 255

# Full-range luma; the weights sum to 1, so a gray pixel is its own luma.
FULL_RANGE_LUMA = (0.299, 0.587, 0.114)


def rgb_to_y(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """Luma as super-resolution papers measure it (MATLAB ``rgb2ycbcr``, not rounded).

    Args:
        rgb: H x W x 3, values in 0..255, any numeric dtype.

    Returns:
        H x W float64 in 16..235.
    """
    weighted = rgb.astype(np.float64) @ STUDIO_RGB_TO_YCBCR[0]
    return np.asarray(STUDIO_OFFSET[0] + weighted / 255.0, np.float64)
