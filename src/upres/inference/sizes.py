"""How large the result is, and by which steps it is reached. Pure arithmetic: no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import prod, sqrt
from numbers import Integral, Real
from typing import Any

from upres.errors import UsageError

LARGEST = 8.0


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, numpy's included."""
    return isinstance(value, Integral) and not isinstance(value, bool)


@dataclass(frozen=True)
class Goal:
    """What the user asked for; at most one is given, and none means x4.

    Attributes:
        scale: factor for both sides, over 1 and at most 8.
        width, height, long_side: the result's, in pixels.
        megapixels: the result's area in millions of pixels.

    Raises:
        UsageError: what is given is no number.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    long_side: int | None = None
    megapixels: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            whole = name in ("width", "height", "long_side")
            if value is not None and not (is_whole(value) if whole else isinstance(value, Real)):
                kind = "a whole number of pixels" if whole else "a number"
                raise UsageError(f"{name} {value!r}", f"give {kind}")

    @property
    def fixed(self) -> float | None:
        """The factor where it does not depend on the picture, else None."""
        sizes = (self.width, self.height, self.long_side, self.megapixels)
        if any(size is not None for size in sizes):
            return None
        return 4.0 if self.scale is None else self.scale

    def label(self, width: int, height: int) -> str:
        """What names of results end in, if they have this size: "x4", or "1920x1080"."""
        return f"{width}x{height}" if self.fixed is None else f"x{self.fixed:g}"

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the result for a picture of this size.

        Raises:
            UsageError: more than one goal, or a factor that is not over 1 and at most 8.
        """
        given = {k: v for k, v in vars(self).items() if v is not None}
        if len(given) > 1:
            names = " and ".join(f"--{k.replace('_', '-')}" for k in given)
            raise UsageError(f"{names} exclude each other", "give one of them")
        factor = self._factor(width, height)
        if not 1 < factor <= LARGEST:
            name, value = next(iter(given.items()))
            option = f"--{name.replace('_', '-')} {value:g}"
            means = f" is {factor:.3g} times a picture of {width} x {height}, and"
            raise UsageError(
                f"{option}{'' if name == 'scale' else means} is not a factor over 1 and up to "
                f"{LARGEST:g}",
                "choose another size",
            )
        wide, high = max(1, round(width * factor)), max(1, round(height * factor))
        # The side that was asked for is met exactly.
        if self.width or (self.long_side and width >= height):
            wide = self.width or self.long_side or wide
        elif self.height or self.long_side:
            high = self.height or self.long_side or high
        return wide, high

    def sizes(self, pages: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Width and height of the results for all pages or frames.

        Raises:
            UsageError: one of them would not become larger, or too large.
        """
        made: dict[tuple[int, int], tuple[int, int]] = {}
        for i, page in enumerate(pages):
            try:
                made[page] = made.get(page) or self.size(*page)
            except UsageError as error:
                if i == 0:
                    raise
                raise UsageError(f"page {i + 1}: {error.problem}", error.next_step) from error
        return [made[page] for page in pages]

    def _factor(self, width: int, height: int) -> float:
        if self.width is not None:
            return self.width / width
        if self.height is not None:
            return self.height / height
        if self.long_side is not None:
            return self.long_side / max(width, height)
        if self.megapixels is not None:
            return sqrt(max(0.0, self.megapixels) * 1e6 / (width * height))
        return self.fixed or 0.0


def steps_to(factor: float, available: Iterable[int]) -> tuple[int, ...]:
    """The scales to apply one after the other: the smallest product that reaches the factor, in
    the fewest steps, small ones first since later steps cost more. What is over is resized away.

    Raises:
        UsageError: nothing is available.
    """
    scales = sorted(set(available))
    chains = [c for n in (1, 2, 3) for c in combinations_with_replacement(scales, n)]
    reaching = [c for c in chains if prod(c) >= factor - 1e-6]
    if not reaching:
        raise UsageError(f"no model reaches a factor of {factor:g}", "use --model bicubic")
    return min(reaching, key=lambda c: (prod(c), len(c)))
