"""Where in a picture there is something to see."""

import numpy as np
from numpy.typing import NDArray

CELL = 16
_WINDOW = 6  # cells across which detail is averaged: about a patch


def detail_map(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean absolute gradient of the green channel around each cell of 16 x 16 pixels.

    Args:
        pixels: H x W x 3.

    Returns:
        ceil(H / 16) x ceil(W / 16), each the mean over a window of 6 x 6 cells.
    """
    green = pixels[..., 1].astype(np.float32)
    gradient = np.zeros_like(green)
    gradient[:, 1:] += np.abs(np.diff(green, axis=1))
    gradient[1:] += np.abs(np.diff(green, axis=0))
    rows, columns = (-(-side // CELL) for side in green.shape)
    fill = ((0, rows * CELL - green.shape[0]), (0, columns * CELL - green.shape[1]))
    padded = np.pad(gradient, fill, mode="edge")
    cells = padded.reshape(rows, CELL, columns, CELL).mean((1, 3))
    for axis in (0, 1):
        around = [(0, 0), (0, 0)]
        around[axis] = (_WINDOW // 2, _WINDOW - 1 - _WINDOW // 2)
        wide = np.pad(cells, around, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(wide, _WINDOW, axis)
        cells = windows.mean(-1)
    return np.asarray(cells, np.float32)
