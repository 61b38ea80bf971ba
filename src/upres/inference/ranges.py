"""Floats of any range, with holes: elevations, radiances, scientific pictures."""

import numpy as np

from upres.inference.rows import ArrayRows, OpaqueColours, Pixels, Rows

# Geographic programs write the least float32, -3.4e38, where they know nothing.
_ABSURD = np.float32(1e38)


class Ranged:
    """A float picture brought to 0..1 for a network, and its result brought back.

    Values that are not finite, that stand for missing ones, or that are so large that they can only
    do so become holes: they are filled from what surrounds them, and stand in the result where the
    nearest pixel of the source had them. A picture that lies in 0..1 keeps its values as they are;
    any other is mapped so that its least becomes 0 and its largest 1.

    Args:
        pixels: H x W x C, float32, without transparency.
        no_data: the value that stands for missing ones, or None.
    """

    def __init__(self, pixels: Pixels, no_data: float | None = None) -> None:
        self.known = np.isfinite(pixels) & (np.abs(pixels) < _ABSURD)
        if no_data is not None:
            self.known &= pixels != np.float32(no_data)
        self.source = None if self.known.all() else pixels
        self.whole = self.known.all(axis=2, keepdims=True)
        values = pixels[self.known]
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        self.low, self.span = low, (high - low) or 1.0
        least = np.float32(low)
        self.pixels = (np.where(self.known, pixels, least) - least) / np.float32(self.span)

    @property
    def rows(self) -> Rows:
        """What a network can be given."""
        if self.source is None:
            return ArrayRows(self.pixels)
        mask = self.whole.astype(np.float32)
        return OpaqueColours(ArrayRows(np.concatenate([self.pixels, mask], axis=2)))

    def restored(self, strip: Pixels, top: int, height: int, width: int) -> Pixels:
        """Rows of the result in the source's range, with its holes.

        Args:
            strip: float32 in 0..1, beginning at row ``top`` of ``height``, all ``width`` columns.
        """
        values = strip * np.float32(self.span) + np.float32(self.low)
        if self.source is None:
            return values
        y = (np.arange(top, top + len(strip)) * self.source.shape[0]) // height
        x = (np.arange(width) * self.source.shape[1]) // width
        return np.where(self.known[y][:, x], values, self.source[y][:, x])
