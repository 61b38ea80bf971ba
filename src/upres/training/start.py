"""What a run begins with: a new network, and the weights that it takes over."""

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from upres.errors import UsageError, WeightsError
from upres.hashing import sha256_of
from upres.model import Model, build, load, load_published
from upres.networks import ARCHITECTURES
from upres.training.order import Order, Plan
from upres.training.run import Taught
from upres.training.warmstart import add_difference, mean_of, warm_start
from upres.version import __version__
from upres.weights.facts import FactsError, ModelFacts
from upres.weights.header import read_facts
from upres.weights.known import known_models
from upres.weights.manifest import WeightsEntry
from upres.weights.store import fetch

UNSTATED = "not stated"  # the licence of weights of which nobody said one


@dataclass(frozen=True)
class Start:
    """What a run begins with.

    Attributes:
        model: to train.
        origin: what it begins with, in words.
        sources: the weights that it begins with: name, sha256, licence and trained_on of each.
    """

    model: Model
    origin: str
    sources: tuple[Mapping[str, Any], ...] = ()


def teacher_of(order: Order, plan: Plan) -> Taught | None:
    """What the recipe learns from besides the truth, downloaded if it is not here.

    Raises:
        UsageError: it does not serve all of the run's scales, or knows other colours.
        WeightsError, ResourceError: it cannot be read; see ``fetch``.
    """
    file = _teacher_file(plan, _facts(order, plan).colour)
    if file is None:
        return None
    model = _load(file)
    return Taught(model, _told_of(file, model.facts))


def teacher_told(order: Order, plan: Plan) -> Mapping[str, Any] | None:
    """What is told of the teacher, if there is one, without downloading anything.

    Raises:
        UsageError, WeightsError: see ``teacher_of``.
    """
    file = _teacher_file(plan, _facts(order, plan).colour)
    return None if file is None else _told_of(file, _facts_in(file))


def _teacher_file(plan: Plan, colour: str) -> Path | WeightsEntry | None:
    """Of a model with a file for each scale, the run's; None if there is no teacher, or nothing
    that it says is learnt."""
    name = plan.recipe.teacher.weights
    if name in ("", "none") or plan.recipe.teacher.share == 0:
        return None
    if name.endswith(".safetensors"):
        file: Path | WeightsEntry = Path(name)
    else:
        files = known_models().family(name)
        serving = [one for one in files if set(plan.scales) <= set(one.facts.scales)]
        file = (serving or files)[0]
    facts = _facts_in(file)
    if missing := sorted(set(plan.scales) - set(facts.scales)):
        if len(plan.scales) > 1:
            every = ", ".join(f"x{scale}" for scale in plan.scales)
            raise UsageError(
                f"no file of the teacher {name} serves all of {every}",
                "give one that does, such as an MDSR: what learns them all has one teacher",
            )
        raise UsageError(f"the teacher {name} serves no x{missing[0]}", "give a model that does")
    if facts.colour != colour:
        raise UsageError(
            f"the teacher {name} knows {facts.colour}, what learns {colour}",
            "give a model that knows the same colours",
        )
    return file


def check_start(order: Order, plan: Plan, *, weights: bool) -> None:
    """See that a run can begin, without downloading anything.

    Args:
        weights: look at all that the order or the recipe names, as far as they are here; runs
            behind the first begin with its result, and what their recipe adds to that.

    Raises:
        UsageError, WeightsError: see ``begin``.
    """
    facts = _facts(order, plan)
    with torch.device("meta"):
        _built(facts, plan)
    sum_ = _wanted(order, plan, None)
    if sum_ is None or (not weights and order.init is not None):
        return
    names = sum_.names if weights else [name for way in sum_.ways for name in way]
    files = [(name, _file(name)) for name in names]
    for name, file in files:
        _check_alike(name, _facts_in(file), facts)
    if weights and all(isinstance(file, Path) or file.hub is None for _, file in files):
        begin(order, plan, None)  # shapes, too


def check_later_start(order: Order, first: Plan, plan: Plan) -> None:
    """See that a run can begin with the result of the first one.

    Raises:
        UsageError, WeightsError: see ``begin``.
    """
    one, other = _facts(order, first), _facts(order, plan)
    _check_alike(f"the network at x{first.scales[0]}", one, other)
    with torch.device("meta"):
        source, network = _built(one, first).network, _built(other, plan).network
        warm_start(network, source.state_dict(), grow=plan.recipe.network.grow)


def files_of(order: Order, plan: Plan) -> list[Path]:
    """The files that a run reads: what it begins with, and its teacher.

    Raises:
        UsageError: see ``begin``.
    """
    sum_ = _wanted(order, plan, None)
    names = (*(sum_.names if sum_ else ()), plan.recipe.teacher.weights)
    return [Path(name) for name in names if name.endswith(".safetensors")]


def begin(order: Order, plan: Plan, first: Path | None) -> Start:
    """Build the network and give it what it begins with.

    Args:
        first: the weights that the order's first run made, which higher scales begin with, and
            with what their recipe adds to such weights; None in the first run, or if the weights
            come from elsewhere.

    Raises:
        UsageError: the recipe describes no network; the weights to begin with are of another
            architecture, compute otherwise, or are several files.
        WeightsError: they do not fit, or cannot be read.
    """
    facts = _facts(order, plan)
    torch.manual_seed(order.seed)
    model = _built(facts, plan)
    sum_ = _wanted(order, plan, first)
    if sum_ is None:
        return Start(model, f"nothing (seed {order.seed})")
    files = {name: _file(name) for name in sum_.names}
    sources = {name: _load(file) for name, file in files.items()}
    for name, source in sources.items():
        _check_alike(name, source.facts, facts)
    state = mean_of([sources[name].network.state_dict() for name in sum_.plain])
    warm = warm_start(model.network, state, grow=plan.recipe.network.grow)
    for plus, minus in sum_.ways:
        # The one before at the scale of the one after, as if it were about to be trained for it.
        there = sources[minus].network.state_dict()
        before = warm_start(build(sources[plus].facts).network, there, grow=False)
        add_difference(warm.state, sources[plus].network.state_dict(), before.state)
    model.network.load_state_dict(warm.state)
    told_of = tuple(_told_of(file, sources[name].facts) for name, file in files.items())
    called = dict(zip(files, (one["name"] for one in told_of), strict=True))
    return Start(model, f"{sum_.called(called)}: {warm}", told_of)


def _facts(order: Order, plan: Plan) -> ModelFacts:
    """Of the network that will be trained."""
    recipe = plan.recipe
    architecture = ARCHITECTURES[recipe.network.architecture]
    if recipe.luma > 0 and architecture.colour == "y":
        raise UsageError(
            f"recipe {recipe.name}: {recipe.network.architecture} knows only luma",
            "leave luma at 0",
        )
    told = {
        "name": order.name or recipe.name,
        "architecture": recipe.network.architecture,
        "numbers": recipe.network.numbers,
        "scales": plan.scales,
        "colour": architecture.colour,
        "licence": order.licence or UNSTATED,
        "trained_by": order.trained_by or f"upres {__version__}",
        "trained_on": "nothing yet",
    }
    try:
        return ModelFacts.from_mapping(told)
    except FactsError as error:
        raise _no_network(plan, str(error)) from error


def _built(facts: ModelFacts, plan: Plan) -> Model:
    try:
        return build(facts)
    except WeightsError as error:
        raise _no_network(plan, error.problem) from error


def _no_network(plan: Plan, why: str) -> UsageError:
    return UsageError(
        f"recipe {plan.recipe.name} describes no network of upres ({why})",
        "look at network.numbers",
    )


def _wanted(order: Order, plan: Plan, first: Path | None) -> "_Sum | None":
    """What a run begins with; None is nothing."""
    if first is not None:
        return _Sum((str(first),), _added(order, plan, first))
    start = order.init if order.init is not None else plan.recipe.network.start
    return None if start in ("", "none") else _Sum.read(start)


def _added(order: Order, plan: Plan, first: Path) -> tuple[tuple[str, str], ...]:
    """What the recipe adds to weights of the first run's scale, unless ``--init`` is given."""
    if order.init is not None or not plan.recipe.network.start:
        return ()
    scales = read_facts(first).scales
    return tuple(
        (plus, minus)
        for plus, minus in _Sum.read(plan.recipe.network.start).ways
        if (_facts_in(_file(plus)).scales, _facts_in(_file(minus)).scales) == (plan.scales, scales)
    )


def _told_of(file: Path | WeightsEntry, facts: ModelFacts) -> Mapping[str, Any]:
    return {
        "name": without_home(file) if isinstance(file, Path) else file.name,
        "sha256": sha256_of(file) if isinstance(file, Path) else file.sha256,
        "licence": facts.licence,
        "trained_on": facts.trained_on,
    }


def without_home(path: Path) -> str:
    """What results, which are for everybody, tell of where a file lies: its folder's name, since
    all runs leave a "model.safetensors"."""
    return "/".join(Path(os.path.realpath(path)).parts[-2:])


def _facts_in(file: Path | WeightsEntry) -> ModelFacts:
    return read_facts(file) if isinstance(file, Path) else file.facts


def _check_alike(name: str, source: ModelFacts, facts: ModelFacts) -> None:
    """Weights mean something else where the network computes something else with them.

    Raises:
        UsageError: see there.
    """
    if source.architecture != facts.architecture:
        raise UsageError(
            f"{name} is {source.architecture}, the recipe trains {facts.architecture}",
            "give --init a file of the same architecture, or --init none",
        )
    ours = _not_in_tensors(facts)
    for key, value in _not_in_tensors(source).items():
        if value != ours[key]:
            shown = list(value) if isinstance(value, tuple) else value
            raise UsageError(
                f"{name} has {key} {shown}, the recipe {ours[key]}",
                f"give --set 'network.numbers.{key}={shown}', or --init none",
            )


def _not_in_tensors(facts: ModelFacts) -> dict[str, Any]:
    """The numbers of a network that its tensors' shapes do not show."""
    given = dict(facts.numbers)
    accepted = inspect.signature(ARCHITECTURES[facts.architecture]).parameters
    return {
        key: given.get(key, accepted[key].default)
        for key in ("mean", "residual_scale")
        if key in accepted
    }


@dataclass(frozen=True)
class _Sum:
    """What ``--init A,B,+C,-D`` means: the mean of A and B, and what led from D to C.

    Attributes:
        plain: A and B.
        ways: pairs of C and D.
    """

    plain: tuple[str, ...]
    ways: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All weights that it names."""
        return (*self.plain, *(name for way in self.ways for name in way))

    @classmethod
    def read(cls, text: str) -> "_Sum":
        """Raises:
        UsageError: there is nothing to add to, or a difference lacks a side.
        """
        names = [name.strip() for name in text.split(",")]
        plain = [name for name in names if not name.startswith(("+", "-"))]
        plus = [name[1:] for name in names if name.startswith("+")]
        minus = [name[1:] for name in names if name.startswith("-")]
        if not plain or len(plus) != len(minus) or "" in names:
            raise UsageError(
                f"{text} is nothing to begin with",
                "give --init A, or A,B for their mean, or A,+B,-C for A and what led from C to B",
            )
        return cls(tuple(plain), tuple(zip(plus, minus, strict=True)))

    def called(self, names: Mapping[str, str]) -> str:
        """In words.

        Args:
            names: what people are told each is called.
        """
        plain = [names[name] for name in self.plain]
        origin = plain[0] if len(plain) == 1 else f"the mean of {' and '.join(plain)}"
        ways = (f" and what led from {names[old]} to {names[new]}" for new, old in self.ways)
        return origin + "".join(ways)


def _load(file: Path | WeightsEntry) -> Model:
    return load(file) if isinstance(file, Path) else load_published(file, fetch(file))


def _file(name: str) -> Path | WeightsEntry:
    if name.endswith(".safetensors"):
        return Path(name)
    entries = known_models().family(name)
    if len(entries) > 1:
        raise UsageError(
            f"{name} has several files", f"name one: {', '.join(e.name for e in entries)}"
        )
    return entries[0]
