"""Numbers of any range, with holes: elevations, radiances, satellite pictures."""

import math
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upres.inference.rows import Channels, OpaqueColours, Pixels, Rows, Stage, Together

# Geographic programs write the least float32, -3.4e38, where they know nothing.
_ABSURD = 1e38
# So many times beyond the middle of all sizes, a number means that nothing is known, as 1e20 does
# in climate models and 9.97e36 in netCDF: float32 could not hold the others beside it.
_BEYOND = 1e12
_HUGE = 1e15  # and is large itself: of a soft mask most values are next to nothing
_SAMPLE = 10**6
# A network is off by a thousandth or two of its range, whatever the numbers in it are. Of a picture
# that takes less than this part of its type's range, it is given the picture's own.
_LITTLE = 0.25
# Rows of a result that are brought back at once: several copies of them are made.
_ROWS = 128


@dataclass(frozen=True)
class Range:
    """Which numbers of a picture are values, and what of them becomes 0 and 1 for a network.

    Attributes:
        dtype: of the picture.
        no_data: the value that stands for missing ones, or None; also None where it is none of the
            picture's numbers.
        mapped: whether values become others for a network: ``low`` 0, and what lies ``span`` above
            it 1. A span of 0 is a picture of one value.
        absurd: floats as large as this stand for missing ones.
    """

    dtype: np.dtype[Any]
    no_data: float | None = None
    mapped: bool = False
    low: float = 0.0
    span: float = 1.0
    absurd: float = _ABSURD

    @classmethod
    def stated(cls, dtype: np.dtype[Any], no_data: float | None) -> "Range":
        """Of a picture whose values a network can be given as they are."""
        if no_data is not None and np.issubdtype(dtype, np.integer):
            most = np.iinfo(dtype).max
            no_data = no_data if no_data % 1 == 0 and 0 <= no_data <= most else None
        return cls(dtype, no_data)

    def of(self, blocks: Iterable[tuple[Pixels, Pixels | None]]) -> "Range":
        """The same, mapped where the picture's values are not such as networks were trained on:
        those that do not lie in 0..1 or 0..65535, and those that take only a little part of that.

        Args:
            blocks: colours, H x W x C, and alpha, H x W x 1, or None; of floats in one block.
        """
        bounds, low, high = self, math.inf, -math.inf
        for colours, alpha in blocks:
            if self.floats:
                bounds = replace(self, absurd=self._beyond(colours))
            least, largest = bounds.ends(colours, alpha)
            low, high = min(low, least), max(high, largest)
        return bounds.between(low, high)

    def ends(self, colours: Pixels, alpha: Pixels | None) -> tuple[float, float]:
        """The least and the largest of the values that are known and seen; infinity and minus
        infinity, or the type's largest and least number, where none is."""
        known = self.known(colours)
        if alpha is not None:
            known = known & (alpha > 0)
        least = colours.min(where=known, initial=_most(self.dtype))
        return float(least), float(colours.max(where=known, initial=_least(self.dtype)))

    def between(self, low: float, high: float) -> "Range":
        """The same, mapped where values between these are not such as networks were trained on."""
        if low > high:  # nothing is known, or nothing is seen
            return self
        top = 1.0 if self.floats else float(np.iinfo(self.dtype).max)
        if low >= 0 and high <= top and high - low >= _LITTLE * top:
            return self
        return replace(self, mapped=True, low=low, span=high - low)

    def _beyond(self, colours: Pixels) -> float:
        """What ``absurd`` is of a picture; the usual where it has nothing so large."""
        sizes = np.abs(colours[self.known(colours)])
        some = sizes[:: max(1, sizes.size // _SAMPLE)]
        middle = float(np.median(some[some > 0])) if some.any() else math.inf
        absurd = max(_BEYOND * middle, _HUGE)
        return absurd if float(sizes.max(initial=0)) >= absurd else _ABSURD

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
            known = np.isfinite(pixels) & (np.abs(pixels) < np.float32(self.absurd))
            return known if self.no_data is None else known & (pixels != np.float32(self.no_data))
        if self.no_data is None:
            return np.ones(pixels.shape, np.bool_)
        return np.broadcast_to((pixels != self.no_data).any(axis=2, keepdims=True), pixels.shape)

    def inward(self, pixels: Pixels, known: NDArray[np.bool_]) -> Pixels:
        """What a network can be given: floats in 0..1, or whole numbers as they are; 0 where
        nothing is known."""
        if not self.mapped:
            return np.where(known, pixels, np.float32(0)) if self.floats else pixels
        low = np.float32(self.low)
        return (np.where(known, pixels, low) - low) / np.float32(self.span or 1.0)

    def outward(self, pixels: Pixels) -> Pixels:
        """A network's result in the range of the picture, where nothing is missing."""
        if self.mapped:
            pixels = pixels * np.float32(self.span) + np.float32(self.low)
        if self.mapped and not self.floats:
            pixels = np.rint(pixels).clip(0, np.iinfo(self.dtype).max).astype(self.dtype)
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


class Part(NamedTuple):
    """Channels from ``first`` to ``end``: of pixels that are known, and where the channel ``alpha``
    is not 0; or of all, ``raw``."""

    first: int
    end: int
    alpha: int | None = None
    raw: bool = False


def ends_of(
    blocks: Iterable[Pixels], parts: Set[Part], stated: Range
) -> dict[Part, tuple[float, float]]:
    """The least and the largest of the values of each part, in one pass over whole numbers."""
    found = dict.fromkeys(parts, (math.inf, -math.inf))
    for block in blocks:
        for part, (low, high) in found.items():
            bounds = Range(stated.dtype) if part.raw else stated
            hides = None if part.alpha is None else block[..., part.alpha : part.alpha + 1]
            least, largest = bounds.ends(block[..., part.first : part.end], hides)
            found[part] = min(low, least), max(high, largest)
    return found


def _most(dtype: np.dtype[Any]) -> Any:
    return np.inf if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max


def _least(dtype: np.dtype[Any]) -> Any:
    return -np.inf if np.issubdtype(dtype, np.floating) else 0


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
        first = self.stage.start_of(row)
        return first + (row - first) // _ROWS * _ROWS

    def strips(self, start: int = 0) -> Iterator[Pixels]:
        """See ``Stage``."""
        top, first = self.stage.start_of(start), self.start_of(start)
        for strip in self.stage.strips(start):
            for begin in range(max(0, first - top), len(strip), _ROWS):
                yield self._restored(strip[begin : begin + _ROWS], top + begin)
            top += len(strip)

    def _restored(self, strip: Pixels, top: int) -> Pixels:
        y = _nearest(np.arange(top, top + len(strip)), self.source.height, self.height)
        rows = self.source.read(int(y[0]), int(y[-1]) + 1)
        known, strip = self.bounds.known(rows), self.bounds.outward(strip)
        if known.all():
            return strip
        near = np.ix_(y - y[0], _nearest(np.arange(self.width), self.source.width, self.width))
        return np.where(known[near], strip, rows[near])


def _nearest(numbers: NDArray[Any], old: int, new: int) -> NDArray[Any]:
    """The pixels of ``old`` in a row that the centres of these of ``new`` lie in."""
    return ((2 * numbers + 1) * old) // (2 * new)


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
