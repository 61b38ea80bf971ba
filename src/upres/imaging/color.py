"""BT.601 luma and YCbCr, as MATLAB's rgb2ycbcr and as JPEG define them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# MATLAB rgb2ycbcr, ITU-R BT.601 studio range: Y 16..235, Cb and Cr 16..240, for inputs in 0..1.
STUDIO_Y = np.array([65.481, 128.553, 24.966])

# ITU-R BT.601 full-range luma; the weights sum to 1, so a gray pixel is its own luma.
LUMA = (0.299, 0.587, 0.114)


def rgb_to_y(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """Luma as super-resolution papers measure it (MATLAB ``rgb2ycbcr``, not rounded).

    Args:
        rgb: H x W x 3, values in 0..255, any numeric dtype.

    Returns:
        H x W float64 in 16..235.
    """
    return np.asarray(16.0 + (rgb.astype(np.float64) @ STUDIO_Y) / 255.0, np.float64)


def luma(rgb: NDArray[Any]) -> NDArray[np.float32]:
    """Full-range BT.601 luma, in the value range of the input.

    Args:
        rgb: ... x 3, any numeric dtype and range.

    Returns:
        ... x 1 float32.
    """
    values = rgb.astype(np.float32, copy=False) @ np.array(LUMA, np.float32)
    return np.asarray(values[..., np.newaxis], np.float32)
