"""How sure a difference is: Student's interval of the mean over a set's pictures, which holds for
few of them as well."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from upres.benchmark.quality import Row


@dataclass(frozen=True)
class Gain:
    """PSNR of one model over another on the same pictures.

    Attributes:
        mean: in dB.
        low, high: ends of the 95 % interval of the mean; NaN for one picture, which says nothing
            about others.
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
    """The 95 % interval of the mean; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan, math.nan
    data = np.asarray(values)
    margin = t_quantile(len(data) - 1) * float(data.std(ddof=1)) / math.sqrt(len(data))
    return float(data.mean()) - margin, float(data.mean()) + margin


def t_quantile(freedom: int) -> float:
    """Student's t for 95 %, two-sided.

    Args:
        freedom: degrees of it, at least 1.
    """
    low, high = 0.0, math.pi / 2
    while high - low > 1e-12:
        angle = (low + high) / 2
        low, high = (angle, high) if _inside(angle, freedom) < 0.95 else (low, angle)
    return math.tan(low) * math.sqrt(freedom)


def _inside(angle: float, freedom: int) -> float:
    """P(|T| < tan(angle) * sqrt(freedom)): Abramowitz and Stegun 1964, 26.7.3 and 26.7.4."""
    odd, cosine = freedom % 2, math.cos(angle)
    total, term = 0.0, cosine if odd else 1.0
    for k in range(1, freedom // 2 + 1):
        total += term
        term *= cosine**2 * (2 * k if odd else 2 * k - 1) / (2 * k + 1 if odd else 2 * k)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


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
