"""What must be known about weights to use, judge and credit them: typed, frozen, checked.

weights.toml and the metadata of every weights file say the same things in the same words; both
are read through ``ModelFacts.from_mapping``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

Number = int | float | tuple["Number", ...]


class FactsError(ValueError):
    """A fact is missing, unknown or impossible; the caller adds where it was read."""


@dataclass(frozen=True)
class Measurement:
    """Quality on a set, by the protocol of docs/models.md (Y channel, scale pixels shaved)."""

    set: str
    scale: int
    psnr: float
    ssim: float


@dataclass(frozen=True)
class ModelFacts:
    """Attributes:
    name: what ``--model`` calls it.
    architecture: a key of ``upres.networks.ARCHITECTURES``.
    numbers: keyword arguments of that class, other than the scales.
    scales: the factors that the file serves.
    colour: "rgb" or "y".
    licence: SPDX identifier, or what the publisher says.
    trained_by, trained_on: provenance, for people.
    measured: empty when nobody of us has measured it.
    """

    name: str
    architecture: str
    numbers: tuple[tuple[str, Number], ...]
    scales: tuple[int, ...]
    colour: Literal["rgb", "y"]
    licence: str
    trained_by: str
    trained_on: str
    measured: tuple[Measurement, ...] = ()

    @property
    def file_name(self) -> str:
        """Of one file of the model, without the suffix: "edsr-light-x4"."""
        return f"{self.name}-x{'-'.join(map(str, self.scales))}"

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> "ModelFacts":
        """Check and freeze.

        Raises:
            FactsError: a key is missing or unknown, or a value is impossible.
        """
        known = set(cls.__dataclass_fields__)
        if unknown := sorted(set(raw) - known):
            raise FactsError(f"unknown key {unknown[0]!r}")
        if missing := sorted(known - {"measured"} - set(raw)):
            raise FactsError(f"missing key {missing[0]!r}")
        for key in ("name", "architecture", "licence", "trained_by", "trained_on"):
            if not isinstance(raw[key], str) or not raw[key].isprintable() or not raw[key]:
                raise FactsError(f"{key} must be a line of text, not {raw[key]!r}")
        if raw["colour"] not in ("rgb", "y"):
            raise FactsError(f"colour must be 'rgb' or 'y', not {raw['colour']!r}")
        scales = raw["scales"]
        if not isinstance(scales, list | tuple) or not scales:
            raise FactsError(f"scales must be a list, not {scales!r}")
        if not all(type(s) is int and 2 <= s <= 8 for s in scales):
            raise FactsError(f"scales must be whole numbers from 2 to 8, not {scales!r}")
        if not isinstance(raw["numbers"], Mapping):
            raise FactsError(f"numbers must be a table, not {raw['numbers']!r}")
        if not isinstance(raw.get("measured", ()), list | tuple):
            raise FactsError(f"measured must be a list, not {raw['measured']!r}")
        return cls(
            name=raw["name"],
            architecture=raw["architecture"],
            numbers=tuple((str(k), _number(k, v)) for k, v in sorted(raw["numbers"].items())),
            scales=tuple(scales),
            colour=cast("Literal['rgb', 'y']", raw["colour"]),
            licence=raw["licence"],
            trained_by=raw["trained_by"],
            trained_on=raw["trained_on"],
            measured=tuple(_measurement(m, scales) for m in raw.get("measured", ())),
        )

    def to_mapping(self) -> dict[str, Any]:
        """The same facts as JSON types; ``from_mapping`` reads them back."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "numbers": dict(self.numbers),
            "scales": list(self.scales),
            "colour": self.colour,
            "licence": self.licence,
            "trained_by": self.trained_by,
            "trained_on": self.trained_on,
            "measured": [vars(m) for m in self.measured],
        }


def _number(key: str, value: Any) -> Number:
    if not str(key).isprintable():
        raise FactsError(f"a number is called {key!r}")
    if isinstance(value, list | tuple) and not any(isinstance(v, list | tuple) for v in value):
        return tuple(_number(key, v) for v in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FactsError(f"numbers.{key} must be a number or a list of numbers, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise FactsError(f"numbers.{key} must be finite, not {value!r}")
    if isinstance(value, int) and not 0 <= value < 2**53:
        raise FactsError(
            f"numbers.{key} must be a count from 0 on, and one that something can have"
        )
    return value


def _measurement(raw: Any, scales: Any) -> Measurement:
    if not isinstance(raw, Mapping) or set(raw) != {"set", "scale", "psnr", "ssim"}:
        raise FactsError(f"a measurement has set, scale, psnr and ssim, not {raw!r}")
    if type(raw["scale"]) is not int or raw["scale"] not in scales:
        raise FactsError(f"a measurement at x{raw['scale']}, which is not among the scales")
    if not all(type(raw[k]) in (int, float) and abs(raw[k]) < 1e6 for k in ("psnr", "ssim")):
        raise FactsError(f"psnr and ssim are numbers, not {raw['psnr']!r} and {raw['ssim']!r}")
    if not str(raw["set"]).isprintable():
        raise FactsError(f"a set is called {raw['set']!r}")
    return Measurement(str(raw["set"]), raw["scale"], float(raw["psnr"]), float(raw["ssim"]))
