"""Recipes: TOML files that say how a model is trained, read into frozen, checked values."""

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from upres.errors import UsageError


@dataclass(frozen=True)
class NetworkRecipe:
    """Attributes:
    architecture: a key of ``upres.networks.ARCHITECTURES``.
    numbers: keyword arguments of that class, other than its scales.
    scales: what the recipe is for when ``--scale`` does not say; an architecture that serves
        several scales with one set of weights learns them together, any other one by one.
    start: weights to begin from when ``--init`` does not say, by their names in weights.toml and
        in the same way.
    grow: whether narrower weights are embedded in this network so that it begins by giving the
        same pictures.
    """

    architecture: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    scales: tuple[int, ...] = (2,)
    start: str = ""
    grow: bool = False


@dataclass(frozen=True)
class DataRecipe:
    """Attributes:
    patch: side in low-resolution pixels.
    batch: patches in a step of one process.
    accumulate: a batch is computed in this many parts, to save memory.
    sizes: at which sizes pictures are used; smaller is sharper and cleaner.
    focus: how often the most detailed of three random places is taken instead of any.
    degradation: "bicubic" is MATLAB's imresize; "photo" adds blur, noise, JPEG.
    versions: with "photo", differently degraded versions of each picture.
    clean: with "photo", how often the undegraded one is taken all the same.
    augment: flips and rotations.
    held_out: pictures for validation, where the data does not bring its own.
    """

    patch: int = 48
    batch: int = 16
    accumulate: int = 1
    sizes: tuple[float, ...] = (1.0,)
    focus: float = 0.0
    degradation: Literal["bicubic", "photo"] = "bicubic"
    versions: int = 4
    clean: float = 0.4
    augment: bool = True
    held_out: int = 12


@dataclass(frozen=True)
class OptimiserRecipe:
    """Attributes:
    kind: "adam", "adamw", or "muon" (for convolutions between hidden layers, Adam for the rest).
    rate: learning rate at its highest.
    betas, weight_decay: as torch names them.
    momentum: Muon's.
    clip: largest norm of all gradients together; 0 is no limit.
    ema: decay of the exponential moving average of the weights, which is what is saved; 0 for
        none.
    ema_span: how much of the run so far that average spans at most: at 0.1 the latest tenth or
        so, at 0.5 all of it with weights that rise evenly, at 1 all of it alike, what it began
        with too.
    """

    kind: Literal["adam", "adamw", "muon"] = "adam"
    rate: float = 1e-4
    betas: tuple[float, ...] = (0.9, 0.999)
    momentum: float = 0.95
    weight_decay: float = 0.0
    clip: float = 0.0
    ema: float = 0.0
    ema_span: float = 0.1


@dataclass(frozen=True)
class ScheduleRecipe:
    """Attributes:
    kind: "constant", "multistep" or "cosine" (to zero).
    warmup: steps over which the rate rises from zero.
    milestones: for "multistep", fractions of the run after which the rate is multiplied.
    factor: by which.
    """

    kind: Literal["constant", "multistep", "cosine"] = "constant"
    warmup: int = 0
    milestones: tuple[float, ...] = ()
    factor: float = 0.5


@dataclass(frozen=True)
class TeacherRecipe:
    """Attributes:
    weights: of a network whose pictures are a part of what is learnt (knowledge distillation), by
        name or file; "" or "none" for none.
    share: that part; the rest is the truth.
    sees: "patches", in each step and each time turned another way; or whole "pictures", once,
        before the first step, and what it makes of them is kept in the cache.
    """

    weights: str = ""
    share: float = 0.7
    sees: Literal["patches", "pictures"] = "patches"


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        name, description: for people.
        network, data, optimiser, schedule, teacher: see there.
        loss: "l1", "l2", "charbonnier" (sqrt(d^2 + 1e-6)), or "psnr" (each patch's, below zero).
        luma: share of the loss that is of Y alone; the rest is of all colours.
        steps: how many, when neither ``--steps`` nor ``--minutes`` says.
        precision: of the network's arithmetic; "auto" is bf16 where the device multiplies it
            natively, else fp32.
    """

    name: str
    description: str
    network: NetworkRecipe
    data: DataRecipe = field(default_factory=DataRecipe)
    optimiser: OptimiserRecipe = field(default_factory=OptimiserRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    teacher: TeacherRecipe = field(default_factory=TeacherRecipe)
    loss: Literal["l1", "l2", "charbonnier", "psnr"] = "l1"
    luma: float = 0.0
    steps: int = 300_000
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def to_mapping(self) -> dict[str, Any]:
        """JSON types; ``build_recipe`` of the same version reads them back."""
        mapping: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return mapping


def shipped() -> tuple[str, ...]:
    """Names of the recipes that come with upres."""
    folder = files("upres.training") / "recipes"
    return tuple(sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".toml")))


def load_recipe(
    name: str, *, scale: int | None = None, changes: Mapping[str, Any] | None = None
) -> Recipe:
    """A shipped recipe by name, or a file's.

    Args:
        name: "edsr-baseline", or a path that ends in .toml.
        scale: which of the recipe's tables [x2], [x3], [x4] is laid over the rest, if it is there.
        changes: dotted keys and values that override it, as ``--set`` gives them.

    Raises:
        UsageError: there is no such recipe, or it holds something unknown or impossible.
    """
    raw, special = _read(name)
    for key, value in special.items():  # whether it is its turn or not
        build_recipe(_laid_over(raw, value), f"recipe {name}, [{key}]")
    if scale is not None:
        raw = _laid_over(raw, special[f"x{scale}"])
    for key, value in (changes or {}).items():
        *above, last = key.split(".")
        table: dict[str, Any] = {last: value}
        for part in reversed(above):
            table = {part: table}
        raw = _laid_over(raw, table)
    return build_recipe(raw, f"recipe {name}")


def scale_tables(name: str) -> tuple[str, ...]:
    """Which of [x2], [x3], [x4] a recipe has.

    Raises:
        UsageError: as ``load_recipe``.
    """
    return tuple(key for key, table in _read(name)[1].items() if table)


def _read(name: str) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
    """A recipe's tables, and those of its scales."""
    if name.endswith(".toml"):
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"recipe {name} cannot be read ({error})", "check the path") from error
    elif name in shipped():
        text = (files("upres.training") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise UsageError(
            f"no recipe is called {name!r}",
            f"there are {', '.join(shipped())}, or give a .toml file",
        )
    try:
        raw = tomllib.loads(text)
    except ValueError as error:
        raise UsageError(f"recipe {name} is not TOML ({error})", "mend the file") from error
    special = {f"x{s}": raw.pop(f"x{s}", {}) for s in (2, 3, 4)}
    for key, value in special.items():
        if not isinstance(value, Mapping):
            raise UsageError(f"recipe {name}: {key} must be a table, not {value!r}")
    raw.setdefault("name", Path(name).stem)
    return raw, special


def build_recipe(raw: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Check and freeze.

    Raises:
        UsageError: an unknown or missing key, a value of the wrong kind or out of range.
    """
    recipe: Recipe = _build(Recipe, raw, where, "")
    _check(recipe, where)
    return recipe


def parse_change(text: str) -> tuple[str, Any]:
    """ "optimiser.rate=2e-4" to its key and TOML value; a bare word is a text.

    Raises:
        UsageError: there is no "=".
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise UsageError(f"--set takes KEY=VALUE, not {text!r}", "for example data.patch=32")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            value = _laid_over(old, value)
        result[key] = value
    return result


def _build(cls: Any, raw: Any, where: str, prefix: str) -> Any:
    if not isinstance(raw, Mapping):
        raise UsageError(f"{where}: {prefix[:-1] or 'it'} must be a table, not {raw!r}")
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    if unknown := sorted(set(raw) - set(known)):
        raise UsageError(
            f"{where}: unknown key {prefix}{unknown[0]}", f"known are {', '.join(known)}"
        )
    values = {}
    for name, value in raw.items():
        hint = hints[name]
        key = f"{prefix}{name}"
        if is_dataclass(hint):
            values[name] = _build(hint, value, where, f"{key}.")
        else:
            values[name] = _value(hint, value, where, key)
    for name, one in known.items():
        if name not in values and one.default is MISSING and one.default_factory is MISSING:
            raise UsageError(f"{where}: {prefix}{name} is missing", "add it")
    return cls(**values)


def _value(hint: Any, value: Any, where: str, key: str) -> Any:
    origin = get_origin(hint)
    if origin is Literal:
        if value not in get_args(hint):
            choices = ", ".join(map(str, get_args(hint)))
            raise UsageError(f"{where}: {key} must be one of {choices}, not {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UsageError(f"{where}: {key} must be a list, not {value!r}")
        return tuple(_value(get_args(hint)[0], item, where, key) for item in value)
    if origin is not None:  # a mapping of numbers, checked by the network itself
        if not isinstance(value, Mapping):
            raise UsageError(f"{where}: {key} must be a table, not {value!r}")
        return dict(value)
    fits = isinstance(value, hint) or (hint is float and isinstance(value, int))
    if not fits or (isinstance(value, bool) and hint is not bool):
        kinds = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
        raise UsageError(f"{where}: {key} must be {kinds[hint]}, not {value!r}")
    return float(value) if hint is float else value


def _check(recipe: Recipe, where: str) -> None:
    data, optimiser, schedule = recipe.data, recipe.optimiser, recipe.schedule
    scales, numbers = recipe.network.scales, recipe.network.numbers
    rules = (
        (
            "network.scales",
            scales,
            bool(scales) and len({*scales} & {2, 3, 4}) == len(scales),
            "2, 3, 4, each once at most",
        ),
        (
            "network.numbers",
            dict(numbers),
            _positive(v for k, v in numbers.items() if k != "mean"),
            "over 0",
        ),
        (
            "network.numbers.mean",
            numbers.get("mean"),
            _is_colour(numbers.get("mean", (0, 0, 0))),
            "three numbers from 0 to 1",
        ),
        ("data.patch", data.patch, 8 <= data.patch <= 512, "8 to 512"),
        ("data.batch", data.batch, 1 <= data.batch <= 4096, "1 to 4096"),
        (
            "data.accumulate",
            data.accumulate,
            data.accumulate >= 1 and data.batch % data.accumulate == 0,
            "a divisor of data.batch",
        ),
        ("data.sizes", data.sizes, _unit(data.sizes, low=0.1), "numbers from 0.1 to 1"),
        ("data.focus", data.focus, 0 <= data.focus <= 1, "0 to 1"),
        ("data.versions", data.versions, 1 <= data.versions <= 64, "1 to 64"),
        ("data.clean", data.clean, 0 <= data.clean <= 1, "0 to 1"),
        ("data.held_out", data.held_out, 0 <= data.held_out <= 1000, "0 to 1000"),
        ("optimiser.rate", optimiser.rate, 0 < optimiser.rate <= 1, "over 0 and up to 1"),
        (
            "optimiser.betas",
            optimiser.betas,
            len(optimiser.betas) == 2 and all(0 <= b < 1 for b in optimiser.betas),
            "two numbers from 0 to below 1",
        ),
        ("optimiser.momentum", optimiser.momentum, 0 <= optimiser.momentum < 1, "0 to below 1"),
        (
            "optimiser.weight_decay",
            optimiser.weight_decay,
            0 <= optimiser.weight_decay <= 1,
            "0 to 1",
        ),
        ("optimiser.clip", optimiser.clip, optimiser.clip >= 0, "0 or more"),
        ("optimiser.ema", optimiser.ema, 0 <= optimiser.ema < 1, "0 to below 1"),
        (
            "optimiser.ema_span",
            optimiser.ema_span,
            0 < optimiser.ema_span <= 1,
            "over 0 and up to 1",
        ),
        ("schedule.warmup", schedule.warmup, schedule.warmup >= 0, "0 or more"),
        (
            "schedule.milestones",
            schedule.milestones,
            all(0 < m < 1 for m in schedule.milestones),
            "fractions of the run, between 0 and 1",
        ),
        ("schedule.factor", schedule.factor, 0 < schedule.factor <= 1, "over 0 and up to 1"),
        (
            "teacher.sees",
            recipe.teacher.sees,
            recipe.teacher.sees == "patches" or data.degradation == "bicubic",
            '"patches" where pictures are degraded',
        ),
        ("teacher.share", recipe.teacher.share, 0 <= recipe.teacher.share <= 1, "0 to 1"),
        ("luma", recipe.luma, 0 <= recipe.luma < 1, "0 to below 1"),
        ("steps", recipe.steps, recipe.steps >= 0, "0 or more"),
    )
    for key, value, holds, rule in rules:
        if not holds:
            raise UsageError(f"{where}: {key} must be {rule}, not {value!r}")


def _positive(values: Iterable[Any]) -> bool:
    return all(
        _positive(v) if isinstance(v, list | tuple) else isinstance(v, int | float) and v > 0
        for v in values
    )


def _is_colour(value: Any) -> bool:
    numeric = isinstance(value, list | tuple) and all(type(v) in (int, float) for v in value)
    return numeric and len(value) == 3 and all(0 <= v <= 1 for v in value)


def _unit(values: tuple[float, ...], low: float) -> bool:
    return bool(values) and len(set(values)) == len(values) and all(low <= v <= 1 for v in values)
