"""Which patches make up the batch of a step: a pure function of the seed and the step.

Nothing is remembered between steps, so a run can be resumed anywhere, and n processes that each
take their share of a batch see what one process with the whole batch sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upres.data.detail import CELL
from upres.data.prepared import Entry, low_starts
from upres.errors import InputError

TURNS = 8  # flips and rotations of a square


@dataclass(frozen=True)
class Batch:
    """Where a step's patches are cut. All arrays are int64 of one length.

    Attributes:
        scale: of this step.
        low_start, low_stride: index of a patch's first pixel in the low-resolution file, and its
            picture's width there.
        high_start, high_stride: the same at high resolution.
        turn: which of the eight flips and rotations, 0..7.
        degraded: whether the low-resolution pixels come from the degraded file; one a patch.
    """

    scale: int
    low_start: NDArray[np.int64]
    low_stride: NDArray[np.int64]
    high_start: NDArray[np.int64]
    high_stride: NDArray[np.int64]
    turn: NDArray[np.int64]
    degraded: NDArray[np.int64]

    def as_array(self) -> NDArray[np.int64]:
        """6 x N, in the order above, as one thing to send to an accelerator."""
        return np.stack(
            [
                self.low_start,
                self.low_stride,
                self.high_start,
                self.high_stride,
                self.turn,
                self.degraded,
            ]
        )


_CANDIDATES = 3  # random places, of which a patch may be the most detailed


class Sampler:
    """Draws patches uniformly over all positions, or more often where there is detail.

    Args:
        entries: prepared pictures.
        detail: their detail maps, one after the other.
        patch: side in low-resolution pixels.
        scales: one is drawn for each step.
        focus: probability that a patch is the most detailed of three random places.
        versions: degraded versions of each picture; 0 for none.
        clean: with versions, the probability of the undegraded one.
        augment: whether patches are flipped and rotated.
        seed: of the random numbers.

    Attributes:
        used: the pictures that are as large as a patch at one of the scales.

    Raises:
        InputError: no picture is as large as a patch.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        detail: NDArray[np.float32],
        *,
        patch: int,
        scales: Sequence[int],
        focus: float = 0.0,
        versions: int = 0,
        clean: float = 1.0,
        augment: bool = True,
        seed: int = 0,
    ) -> None:
        self.detail, self.patch, self.scales = detail, patch, tuple(scales)
        self.focus, self.augment, self.seed = focus, augment, seed
        self.versions, self.clean = versions, clean
        self.tables = {scale: _Table(entries, scale, patch) for scale in self.scales}
        used = {i for table in self.tables.values() for i in table.large}
        self.used = tuple(entry for i, entry in enumerate(entries) if i in used)

    def batch(self, step: int, size: int, share: slice = slice(None)) -> Batch:
        """The patches of a step, or a share of them.

        Args:
            step: from 0.
            size: patches in the whole batch.
            share: which of them.
        """
        random = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        scale = self.scales[int(random.integers(len(self.scales)))]
        table = self.tables[scale]
        several = _CANDIDATES if self.focus > 0 else 1
        picture, top, left = table.places(random, (size, several))
        best = np.zeros(size, np.int64)
        if self.focus > 0:
            score = self.detail[table.cell(picture, top, left, self.patch)]
            best = np.where(random.random(size) < self.focus, score.argmax(1), 0)
        rows = np.arange(size)
        picture, top, left = (values[rows, best] for values in (picture, top, left))
        turn = random.integers(TURNS if self.augment else 1, size=size)
        degraded = np.zeros(size, np.int64)
        version = np.zeros(size, np.int64)
        if self.versions:
            degraded = (random.random(size) >= self.clean).astype(np.int64)
            version = random.integers(self.versions, size=size)
        width, low_start = table.low_width[picture], table.low_start[picture]
        # A picture's versions lie where all versions of those before it end.
        start = np.where(
            degraded == 1,
            self.versions * low_start + version * table.low_height[picture] * width,
            low_start,
        )
        high_width = table.high_width[picture]
        return Batch(
            scale,
            (start + top * width + left)[share],
            width[share],
            (table.high_start[picture] + scale * (top * high_width + left))[share],
            high_width[share],
            turn[share],
            degraded[share],
        )


class _Table:
    """What is needed of each picture that is large enough, as arrays, at one scale."""

    def __init__(self, entries: Sequence[Entry], scale: int, patch: int) -> None:
        self.scale = scale
        low_start, _ = low_starts(entries, scale, 1)
        large = [i for i, e in enumerate(entries) if min(e.low(scale)) >= patch]
        if not large:
            raise InputError(
                f"no picture is as large as a patch: {patch * scale} x {patch * scale} pixels for "
                f"patch {patch} at x{scale}",
                "give larger pictures, or a smaller --patch",
            )
        self.large = large
        kept = [entries[i] for i in large]
        self.low_start = low_start[large]
        self.low_height, self.low_width = np.array([e.low(scale) for e in kept], np.int64).T
        self.high_start = np.array([e.start for e in kept], np.int64)
        self.high_width = np.array([e.width for e in kept], np.int64)
        self.cells_start = np.array([e.detail_start for e in kept], np.int64)
        self.cells_height, self.cells_width = np.array([e.cells for e in kept], np.int64).T
        # How many places there are up to and with each picture.
        self.columns = self.low_width - patch + 1
        self.places_end = np.cumsum((self.low_height - patch + 1) * self.columns)

    def places(
        self, random: np.random.Generator, shape: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Picture, top and left, every place of every picture being as likely."""
        place = random.integers(self.places_end[-1], size=shape)
        picture = np.searchsorted(self.places_end, place, side="right")
        inside = place - np.where(picture > 0, self.places_end[picture - 1], 0)
        return picture, inside // self.columns[picture], inside % self.columns[picture]

    def cell(
        self,
        picture: NDArray[np.int64],
        top: NDArray[np.int64],
        left: NDArray[np.int64],
        patch: int,
    ) -> NDArray[np.int64]:
        """Index of the detail cell at a patch's centre."""
        row = np.minimum((top + patch // 2) * self.scale // CELL, self.cells_height[picture] - 1)
        column = np.minimum((left + patch // 2) * self.scale // CELL, self.cells_width[picture] - 1)
        return np.asarray(self.cells_start[picture] + row * self.cells_width[picture] + column)
