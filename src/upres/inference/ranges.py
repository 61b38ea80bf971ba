"""Numbers of any range, with holes: elevations, radiances, satellite pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upres.inference.rows import Channels, OpaqueColours, Pixels, Rows, Stage, Together

# Geographic programs write the least float32, -3.4e38, where they know nothing.
_ABSURD = np.float32(1e38)


@dataclass(frozen=True)
class Range:
    """Which numbers of a picture are values, and what of them becomes 0 and 1 for a network.

    Attributes:
        dtype: of the picture.
        no_data: the value that stands for missing ones, or None; also None where it is none of the
            picture's numbers.
        low, span: of floats, the value that becomes 0 and how far above it lies what becomes 1.
    """

    dtype: np.dtype[Any]
    no_data: float | None = None
    low: float = 0.0
    span: float = 1.0

    @classmethod
    def stated(cls, dtype: np.dtype[Any], no_data: float | None) -> "Range":
        """Of a picture whose values a network can be given as they are."""
        if no_data is not None and np.issubdtype(dtype, np.integer):
            most = np.iinfo(dtype).max
            no_data = no_data if no_data % 1 == 0 and 0 <= no_data <= most else None
        return cls(dtype, no_data)

    @classmethod
    def of(cls, pixels: Pixels, no_data: float | None) -> "Range":
        """Of a float picture, H x W x C. One that lies in 0..1 keeps its values as they are; any
        other is mapped so that its least becomes 0 and its largest 1."""
        plain = cls.stated(pixels.dtype, no_data)
        values = pixels[plain.known(pixels)]
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        if low >= 0 and high <= 1:
            return plain
        return cls(pixels.dtype, no_data, low, (high - low) or 1.0)

    @property
    def floats(self) -> bool:
        """Whether the numbers are floats."""
        return bool(np.issubdtype(self.dtype, np.floating))

    def known(self, pixels: Pixels) -> NDArray[np.bool_]:
        """Where H x W x C pixels are values: not those that stand for missing ones, and of floats
        none that are not finite, or so large that they can only be meant so.

        Of whole numbers a pixel is missing where all its colours are: 0 or 255 in one of them is
        common.
        """
        if self.floats:
            known = np.isfinite(pixels) & (np.abs(pixels) < _ABSURD)
            return known if self.no_data is None else known & (pixels != np.float32(self.no_data))
        if self.no_data is None:
            return np.ones(pixels.shape, np.bool_)
        return np.broadcast_to((pixels != self.no_data).any(axis=2, keepdims=True), pixels.shape)

    def inward(self, pixels: Pixels, known: NDArray[np.bool_]) -> Pixels:
        """What a network can be given: floats in 0..1, 0 where nothing is known."""
        if not self.floats:
            return pixels
        low = np.float32(self.low)
        return (np.where(known, pixels, low) - low) / np.float32(self.span)

    def outward(self, pixels: Pixels) -> Pixels:
        """A network's result in the range of the picture, where nothing is missing."""
        if self.floats:
            pixels = pixels * np.float32(self.span) + np.float32(self.low)
        if self.no_data is None:
            return pixels
        wrong = pixels == pixels.dtype.type(self.no_data)
        if not self.floats:
            wrong = wrong.all(axis=2, keepdims=True)
        return np.where(wrong, self._beside(), pixels) if wrong.any() else pixels

    def _beside(self) -> Pixels:
        """The number next to the one that stands for missing ones."""
        assert self.no_data is not None
        if self.floats:
            away = np.float32(-np.inf if self.no_data > 0 else np.inf)
            return np.asarray(np.nextafter(np.float32(self.no_data), away))
        step = 1 if self.no_data < np.iinfo(self.dtype).max else -1
        return np.asarray(self.no_data + step, self.dtype)


class Seen:
    """A picture's colours as a network can be given them, with one more channel that is 0 where
    they are unknown or transparent.

    Args:
        colours: without transparency.
        alpha: one channel, or None.
    """

    def __init__(self, colours: Rows, alpha: Rows | None, bounds: Range) -> None:
        self.height, self.width, self.channels = colours.height, colours.width, colours.channels + 1
        self.colours, self.alpha, self.bounds = colours, alpha, bounds

    def read(self, top: int, bottom: int) -> Pixels:
        """See ``Rows``."""
        colours = self.colours.read(top, bottom)
        known = self.bounds.known(colours)
        seen = known.all(axis=2, keepdims=True).astype(colours.dtype)
        if self.alpha is not None:
            seen *= self.alpha.read(top, bottom)
        return np.concatenate([self.bounds.inward(colours, known), seen], axis=2)


class RestoredStage:
    """What a stage makes of a picture, in the picture's range and with its holes: they stand where
    the nearest pixel of the source had them.

    Args:
        stage: of the picture's colours, from ``filled``.
        source: the picture's colours.
    """

    def __init__(self, stage: Stage, source: Rows, bounds: Range) -> None:
        self.height, self.width, self.channels = stage.height, stage.width, stage.channels
        self.stage, self.source, self.bounds = stage, source, bounds

    def start_of(self, row: int) -> int:
        """See ``Stage``."""
        return self.stage.start_of(row)

    def strips(self, start: int = 0) -> Iterator[Pixels]:
        """See ``Stage``."""
        top = self.stage.start_of(start)
        x = (np.arange(self.width) * self.source.width) // self.width
        for strip in self.stage.strips(start):
            y = (np.arange(top, top + len(strip)) * self.source.height) // self.height
            rows = self.source.read(int(y[0]), int(y[-1]) + 1)
            known, strip = self.bounds.known(rows), self.bounds.outward(strip)
            if not known.all():
                near = np.ix_(y - y[0], x)
                strip = np.where(known[near], strip, rows[near])
            yield strip
            top += len(strip)


def filled(colours: Rows, alpha: Rows | None, bounds: Range) -> Rows:
    """A picture's colours as a network can be given them, in its range and with no holes: they
    are filled from what surrounds them, and so is what nobody sees."""
    if not bounds.floats:
        return OpaqueColours(Seen(colours, alpha, bounds))
    # Each colour by itself, since any of them may be missing alone.
    return Together(
        OpaqueColours(Seen(Channels(colours, i, i + 1), alpha, bounds))
        for i in range(colours.channels)
    )
