"""Where tiles lie. Pure geometry: no torch, no pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Cut:
    """Rows and columns of halo on each side of a padded tile; 0 where the picture itself ends."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0


@dataclass(frozen=True)
class Tile:
    """A core, in input pixels, and the halo around it that lies inside the picture."""

    top: int
    left: int
    bottom: int
    right: int
    cut: Cut

    @property
    def padded(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right of the core with its halo."""
        return (
            self.top - self.cut.top,
            self.left - self.cut.left,
            self.bottom + self.cut.bottom,
            self.right + self.cut.right,
        )


@dataclass(frozen=True)
class Grid:
    """A picture cut into tiles: every pixel is in exactly one core.

    Attributes:
        height, width: of the picture, at least 1.
        core: largest side of a core; 0 makes one tile of everything.
        halo: pixels that a core needs around it, as far as the picture goes.
        low: largest height of a core, where that is less; 0 for no other limit.
    """

    height: int
    width: int
    core: int
    halo: int
    low: int = 0

    @property
    def rows(self) -> list[tuple[int, int]]:
        """Bands of rows from the top down."""
        return _spans(self.height, self.low or self.core)

    @property
    def columns(self) -> list[tuple[int, int]]:
        """Spans of columns from the left."""
        return _spans(self.width, self.core)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def band(self, top: int, bottom: int) -> Iterator[Tile]:
        """The tiles of one band, from the left."""
        for left, right in self.columns:
            cut = Cut(
                min(self.halo, top),
                min(self.halo, left),
                min(self.halo, self.height - bottom),
                min(self.halo, self.width - right),
            )
            yield Tile(top, left, bottom, right, cut)

    @property
    def overhead(self) -> float:
        """Pixels computed for each pixel of the picture: 1 without tiles."""
        computed = self._padded(self.height, self.rows) * self._padded(self.width, self.columns)
        return computed / (self.height * self.width)

    def _padded(self, length: int, spans: list[tuple[int, int]]) -> int:
        return sum(min(length, b + self.halo) - max(0, a - self.halo) for a, b in spans)


def _spans(length: int, core: int) -> list[tuple[int, int]]:
    """As few as possible, and equal, so that they can be batched; the last may be shorter."""
    count = -(-length // core) if core else 1
    side = -(-length // count)
    return list(pairwise([*range(0, length, side), length]))
