"""How sure a difference is: percentile bootstrap over a set's pictures (Efron 1979)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from upres.benchmark.quality import Row

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Gain:
    """PSNR of one model over another on the same pictures.

    Attributes:
        mean: in dB.
        low, high: ends of the 95 % interval of the mean.
        won: on how many pictures it was better.
    """

    model: str
    over: str
    set: str
    scale: int
    mean: float
    low: float
    high: float
    won: int
    pictures: int


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean; the same for the same values."""
    random = np.random.default_rng(0)
    data = np.asarray(values)
    means = data[random.integers(len(data), size=(_RESAMPLES, len(data)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def gain(row: Row, over: Row) -> Gain:
    """Of one row over another: the same set, scale and pictures."""
    differences = [a.psnr - b.psnr for a, b in zip(row.images, over.images, strict=True)]
    low, high = interval(differences)
    won = sum(d > 0 for d in differences)
    mean = float(np.mean(differences))
    return Gain(row.model, over.model, row.set, row.scale, mean, low, high, won, len(differences))


def gains(rows: Sequence[Row]) -> list[Gain]:
    """Every model over bicubic, and where two others were measured, the second over the first."""
    found = []
    for key in dict.fromkeys((row.set, row.scale) for row in rows):
        here = [row for row in rows if (row.set, row.scale) == key]
        base = next((row for row in here if row.model == "bicubic"), None)
        others = [row for row in here if row is not base]
        if base is not None:
            found += [gain(row, base) for row in others]
        if len(others) == 2:
            found.append(gain(others[1], others[0]))
    return found
