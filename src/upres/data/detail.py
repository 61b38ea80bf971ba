"""Where in a picture there is something to see."""

import numpy as np
from numpy.typing import NDArray

CELL = 16
_BAND = 64 * CELL
_WINDOW = 6  # cells across which detail is averaged: about a patch


def detail_map(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean absolute gradient of the green channel around each cell of 16 x 16 pixels.

    Args:
        pixels: H x W x 3.

    Returns:
        ceil(H / 16) x ceil(W / 16), each the mean over a window of 6 x 6 cells.
    """
    height = pixels.shape[0]
    # Some rows at a time: as floats, a large picture takes many times its memory.
    cells = np.concatenate(
        [
            _cells(pixels[max(0, top - 1) : top + _BAND, :, 1], top > 0)
            for top in range(0, height, _BAND)
        ]
    )
    for axis in (0, 1):
        around = [(0, 0), (0, 0)]
        around[axis] = (_WINDOW // 2, _WINDOW - 1 - _WINDOW // 2)
        wide = np.pad(cells, around, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(wide, _WINDOW, axis)
        cells = windows.mean(-1)
    return np.asarray(cells, np.float32)


def _cells(green: NDArray[np.uint8], begun: bool) -> NDArray[np.float32]:
    """Means of cells. Where others have ``begun``, the first row is their last."""
    values = green.astype(np.float32)
    gradient = np.zeros_like(values)
    gradient[:, 1:] += np.abs(np.diff(values, axis=1))
    gradient[1:] += np.abs(np.diff(values, axis=0))
    gradient = gradient[int(begun) :]
    rows, columns = (-(-side // CELL) for side in gradient.shape)
    fill = ((0, rows * CELL - gradient.shape[0]), (0, columns * CELL - gradient.shape[1]))
    padded = np.pad(gradient, fill, mode="edge")
    return np.asarray(padded.reshape(rows, CELL, columns, CELL).mean((1, 3)), np.float32)
