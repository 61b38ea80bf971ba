"""Pictures as a run of rows: from memory, from an earlier stage, through a filter or a resampler.

Every stage reads the rows it needs, halo included, and yields rows from the top down. So stages
can follow one another, and none of them holds the whole picture.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from upres.imaging.resize import Kernel, Resampler

Pixels = NDArray[Any]


class Rows(Protocol):
    """A picture that is read in bands.

    Attributes:
        height, width, channels: of the picture.
    """

    height: int
    width: int
    channels: int

    def read(self, top: int, bottom: int) -> Pixels:
        """Rows ``top``..``bottom``, rows x width x channels; ``top`` never decreases."""
        ...


class Stage(Protocol):
    """Something that makes rows.

    Attributes:
        height, width, channels: of what it makes.
    """

    height: int
    width: int
    channels: int

    def start_of(self, row: int) -> int:
        """The first row of the block that ``row`` is in."""
        ...

    def strips(self, start: int = 0) -> Iterator[Pixels]:
        """Blocks of rows, rows x width x channels, from the top down.

        Args:
            start: any row of the block that comes first.
        """
        ...


class ArrayRows:
    """An array, H x W x C."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.height, self.width, self.channels = pixels.shape

    def read(self, top: int, bottom: int) -> Pixels:
        """See ``Rows``."""
        return self.pixels[top:bottom]


class StageRows:
    """What an earlier stage makes, of which only the rows still needed are kept."""

    def __init__(self, stage: Stage) -> None:
        self.height, self.width, self.channels = stage.height, stage.width, stage.channels
        self._stage = stage
        self._strips: Iterator[Pixels] | None = None
        self._held: list[Pixels] = []
        self._top = self._bottom = 0

    def read(self, top: int, bottom: int) -> Pixels:
        """See ``Rows``."""
        if self._strips is None:
            self._top = self._bottom = self._stage.start_of(top)
            self._strips = self._stage.strips(top)
        while self._bottom < bottom:
            strip = next(self._strips)
            self._held.append(strip)
            self._bottom += len(strip)
        while self._held and self._top + len(self._held[0]) <= top:
            self._top += len(self._held.pop(0))
        if len(self._held) > 1:
            # Only the rows that are still needed are put together; the rest is let go.
            self._held[0] = self._held[0][top - self._top :]
            self._top = top
            self._held = [np.concatenate(self._held)]
        return self._held[0][top - self._top : bottom - self._top]


class Widened(ArrayRows):
    """A picture with more on all sides, read at once.

    Args:
        by: pixels on each side.
        mode: "edge" repeats its border, for pictures of a few pixels: networks pad with zeros, and
            where everything is border that would change the colours. "wrap" repeats the picture.
    """

    def __init__(self, source: Rows, by: int, mode: Literal["edge", "wrap"] = "edge") -> None:
        pixels = source.read(0, source.height)
        super().__init__(np.pad(pixels, ((by, by), (by, by), (0, 0)), mode=mode))


class NarrowedStage:
    """What another stage makes, without ``by`` pixels on all sides."""

    def __init__(self, stage: Stage, by: int) -> None:
        self.stage, self.by = stage, by
        self.height, self.width = stage.height - 2 * by, stage.width - 2 * by
        self.channels = stage.channels

    def start_of(self, row: int) -> int:
        """See ``Stage``."""
        return max(0, self.stage.start_of(row + self.by) - self.by)

    def strips(self, start: int = 0) -> Iterator[Pixels]:
        """See ``Stage``."""
        top = self.stage.start_of(start + self.by)
        for strip in self.stage.strips(start + self.by):
            first, end = max(0, self.by - top), min(len(strip), self.by + self.height - top)
            top += len(strip)
            if first < end:
                yield strip[first:end, self.by : self.by + self.width]


class ResizeStage:
    """Antialiased resize to an exact size (imaging.resize), in float32.

    Args:
        source: integers are read as fractions of their range, floats as they are.
        levels: 255 or 65535 to round to integers of that range; None keeps float32.
    """

    # Output rows at a time: few enough to stay in the caches, and of wide pictures fewer.
    _ROWS, _BYTES = 128, 2**25

    def __init__(
        self, source: Rows, height: int, width: int, kernel: Kernel, levels: int | None
    ) -> None:
        self.source, self.height, self.width = source, height, width
        self.channels, self.levels = source.channels, levels
        row = max(source.width, width) * self.channels * 4
        self._block = max(8, min(self._ROWS, self._BYTES // row))
        self.vertical = Resampler(source.height, height, kernel)
        self.horizontal = Resampler(source.width, width, kernel)

    def estimate(self) -> float:
        """Seconds that it will take, from a few rows in the middle."""
        top = self.height // 2
        bottom = min(self.height, top + 8)
        first, end = self.vertical.needs(top, bottom)
        rows = np.zeros((end - first, self.source.width, self.channels), np.float32)
        begun = time.perf_counter()
        self._made(rows, first, top, bottom)
        return (time.perf_counter() - begun) * self.height / (bottom - top)

    def start_of(self, row: int) -> int:
        """See ``Stage``."""
        return row - row % self._block

    def strips(self, start: int = 0) -> Iterator[Pixels]:
        """See ``Stage``."""
        for top in range(self.start_of(start), self.height, self._block):
            bottom = min(self.height, top + self._block)
            first, end = self.vertical.needs(top, bottom)
            yield self._made(to_float(self.source.read(first, end)), first, top, bottom)

    def _made(self, rows: NDArray[np.float32], first: int, top: int, bottom: int) -> Pixels:
        tall = self.vertical.apply(rows, 0, top, bottom, offset=first)
        return quantise(self.horizontal.apply(tall, 1), self.levels)


class OpaqueColours:
    """The colours of a picture with alpha, where what is fully transparent takes the colour of
    what can be seen nearby.

    Editors leave any colour, often black, under transparent pixels; a network or a resampler would
    draw it into the edge. Five passes spread visible colours by 1, 2, 4, 8 and 16 pixels; what is
    farther away becomes mid-gray.
    """

    _RADII = (1, 2, 4, 8, 16)
    REACH = sum(_RADII)
    _COLUMNS = 1024

    def __init__(self, source: Rows) -> None:
        self.source = source
        self.height, self.width, self.channels = source.height, source.width, source.channels - 1

    def read(self, top: int, bottom: int) -> Pixels:
        """See ``Rows``."""
        halo = self.REACH
        start, stop = max(0, top - halo), min(self.height, bottom + halo)
        rows = self.source.read(start, stop)
        inner = slice(top - start, bottom - start)
        result, alpha = rows[inner, :, :-1], rows[inner, :, -1]
        if alpha.all():
            return result
        result = result.copy()
        # In blocks of columns, so that memory does not grow with the width, and only where any
        # is hidden.
        for left in range(0, self.width, self._COLUMNS):
            right = min(self.width, left + self._COLUMNS)
            if not alpha[:, left:right].all():
                first = max(0, left - halo)
                made = self._filled(rows[:, first : right + halo])
                result[:, left:right] = made[inner, left - first : right - first]
        return result

    def _filled(self, rows: Pixels) -> Pixels:
        colours, alpha = rows[..., :-1], rows[..., -1:]
        known = (alpha > 0).astype(np.float32)
        filled = colours.astype(np.float32) * known
        for radius in self._RADII:
            weight = _box(known, radius)
            spread = _box(filled, radius) / np.maximum(weight, 1e-6)
            new = (known == 0) & (weight > 1e-6)
            filled = np.where(new, spread, filled)
            known = np.where(new, np.float32(1), known)
        if np.issubdtype(colours.dtype, np.floating):
            return np.where(known > 0, filled, np.float32(0.5))
        middle = (np.iinfo(colours.dtype).max + 1) / 2
        return np.rint(np.where(known > 0, filled, middle)).astype(colours.dtype)


class Channels:
    """Some channels of a picture.

    Args:
        first, end: which; ``end`` is the first that is not wanted any more.
    """

    def __init__(self, source: Rows, first: int, end: int) -> None:
        self.source, self.first, self.end = source, first, end
        self.height, self.width, self.channels = source.height, source.width, end - first

    def read(self, top: int, bottom: int) -> Pixels:
        """See ``Rows``."""
        return self.source.read(top, bottom)[..., self.first : self.end]


class Together:
    """Pictures of one size as the channels of one."""

    def __init__(self, parts: Iterable[Rows]) -> None:
        self.parts = list(parts)
        self.height, self.width = self.parts[0].height, self.parts[0].width
        self.channels = sum(part.channels for part in self.parts)

    def read(self, top: int, bottom: int) -> Pixels:
        """See ``Rows``."""
        return np.concatenate([part.read(top, bottom) for part in self.parts], axis=2)


def _box(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Mean over a square; pixels outside the picture count as zero."""
    for axis in (0, 1):
        pad = [(0, 0)] * values.ndim
        pad[axis] = (radius + 1, radius)
        sums = np.cumsum(np.pad(values, pad), axis=axis, dtype=np.float64)
        side = 2 * radius + 1
        upper = sums[side:] if axis == 0 else sums[:, side:]
        lower = sums[:-side] if axis == 0 else sums[:, :-side]
        values = ((upper - lower) / side).astype(np.float32)
    return values


def to_float(pixels: Pixels) -> NDArray[np.float32]:
    """uint8 and uint16 to 0..1; floats stay as they are."""
    if np.issubdtype(pixels.dtype, np.floating):
        return pixels.astype(np.float32, copy=False)
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def quantise(values: NDArray[Any], levels: int | None) -> Pixels:
    """Clamped to 0..1; then integers of 0..levels, rounded half to even, or None for floats."""
    values = np.clip(values, 0, 1)
    if levels is None:
        return values
    scaled = np.rint(values * np.float32(levels))
    rounded: Pixels = scaled.astype(np.uint8 if levels == 255 else np.uint16)
    return rounded
