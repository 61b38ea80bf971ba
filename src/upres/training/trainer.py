"""The training loop, on one page."""

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from upres.data.patches import Sampler
from upres.errors import OutputError, ResourceError, UpresError, UsageError, WeightsError
from upres.model import Model
from upres.training.checkpoint import load_checkpoint, save_checkpoint
from upres.training.clock import Clock, ticking
from upres.training.distributed import Processes
from upres.training.learner import Learner
from upres.training.patches import PatchStore
from upres.training.recipe import Recipe, build_recipe
from upres.training.schedule import rate_factor
from upres.training.steps import steps_for

# So many are tried, each with a lower rate; the next loss that is not finite ends the run.
ROLLBACKS = 3
_SLOWER = 0.5
# Training lasts at least so many times as long as the measurement before it.
_VALIDATION_SHARE = 9
# What a resumed run may be asked for anew: how long it is, and words.
_MAY_CHANGE = {"steps", "name", "description", "network.start"}


class Watch(Protocol):
    """Who looks on. Only the first process calls it."""

    def steps(self, facts: Mapping[str, Any]) -> None:
        """Some steps were made: step, loss, rate, progress, speed."""
        ...

    def event(self, name: str, facts: Mapping[str, Any]) -> None:
        """Something else happened: a checkpoint, a rollback, a pause."""
        ...

    def validate(self, step: int, model: Model, dtype: torch.dtype) -> None:
        """Time to measure the weights as they would be kept now."""
        ...


@dataclass
class Run:
    """What is trained, on what, for how long.

    Attributes:
        recipe: how.
        model: untrained or warm; its network is trained in place.
        sampler, store: where patches come from.
        folder: where last.pt goes.
        origin: what the weights begin with, in words.
        sources: and each of those weights: its name, sha256, licence and trained_on.
        data: the pictures: what the result tells of them, with their fingerprint as "sha256".
        data_before: the same of those that it was trained on before it was resumed with others.
        minutes: how long, or None to make ``recipe.steps`` steps.
        resume: go on from the folder's checkpoint.
        stop: asked before every step; a true answer saves and ends.
        report_every, report_seconds: steps or seconds between reports, whichever comes first.
        validate_every, save_every: seconds between measurements (which take a tenth of the time at
            most) and between checkpoints.
    """

    recipe: Recipe
    model: Model
    sampler: Sampler
    store: PatchStore
    folder: Path
    device: torch.device
    processes: Processes
    watch: Watch
    origin: str = ""
    sources: tuple[Mapping[str, Any], ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    data_before: tuple[Mapping[str, Any], ...] = ()
    minutes: float | None = None
    resume: bool = False
    stop: Callable[[], bool] = lambda: False
    report_every: int = 50
    report_seconds: float = 20.0
    validate_every: float = 300.0
    save_every: float = 120.0


@dataclass(frozen=True)
class Position:
    """How far a run is. Patches depend on nothing else, so it is their position as well.

    Attributes:
        step: steps made.
        seconds: time spent on them, measurements included, pauses not.
        slowed: what rollbacks multiplied the rate with.
        rollbacks: how many there were since the last good report.
    """

    step: int = 0
    seconds: float = 0.0
    slowed: float = 1.0
    rollbacks: int = 0


@dataclass(frozen=True)
class Outcome:
    """Attributes:
    kept: the network with the weights that count.
    origin: what the weights began with, in words, however often the run was resumed.
    sources, data_before: see ``Run``.
    position: where the run ended.
    finished: whether that was the end, or ``stop``.
    dtype: of the network's arithmetic in training.
    unsaved: why the last state could not be saved, if it could not.
    """

    kept: Model
    origin: str
    sources: tuple[Mapping[str, Any], ...]
    data_before: tuple[Mapping[str, Any], ...]
    position: Position
    finished: bool
    dtype: torch.dtype
    unsaved: UpresError | None = None


def train(run: Run) -> Outcome:
    """Train to the end, or until ``stop``; the folder then holds the last state.

    Raises:
        ResourceError: the loss was not finite too often.
        WeightsError: the checkpoint to resume is missing, damaged, or of another recipe.
    """
    with ticking() as clock:
        return _train(run, clock)


def _train(run: Run, clock: Clock) -> Outcome:
    recipe, processes = run.recipe, run.processes
    learner = Learner(run.model.network, recipe, run.device)
    kept = replace(run.model, network=learner.kept)
    position = Position()
    if run.resume:
        run, position = _resumed(run, learner)
    learner.forward = processes.wrap(learner.network, run.device)
    steps = steps_for(learner, run.store, alone=processes.count == 1)
    global_batch = recipe.data.batch * processes.count
    share = slice(recipe.data.batch * processes.rank, recipe.data.batch * (processes.rank + 1))
    good = (position, deepcopy(learner.state()))
    started = clock.now() - position.seconds
    validated = saved = clock.now()
    wait, rate = run.validate_every, 0.0
    meter = _Meter(run.device, clock)

    while True:
        now = clock.now()
        if (pause := clock.pause()) > 0 and processes.first:
            run.watch.event("pause", {"step": position.step, "seconds": round(pause, 1)})
        position = replace(position, seconds=now - started)
        late = now - meter.begun > run.report_seconds or now - validated > wait
        progress, stopped, due = processes.as_first((_progress(run, position), run.stop(), late))
        ends = progress >= 1.0 or stopped
        if meter.count > 0 and (due or ends or position.step % run.report_every == 0):
            loss = processes.mean(float(meter.loss) / meter.count)
            if not (math.isfinite(loss) and learner.finite()):
                position = _roll_back(run, learner, good, position)
                steps.forget()
                started = clock.now() - position.seconds
                meter = _Meter(run.device, clock)
                continue
            position = replace(position, rollbacks=0)
            good = (position, deepcopy(learner.state()))
            if processes.first:
                run.watch.steps(_report(run, position, meter, loss, rate))
            meter = _Meter(run.device, clock)
        if ends:
            break
        validates = processes.first and clock.now() - validated > wait
        # It may last, and a signal waits for its end.
        if validates or (processes.first and clock.now() - saved > run.save_every):
            _try_to_save(run, *good)
            saved = clock.now()
        if validates:
            begun = clock.now()
            run.watch.validate(position.step, kept, learner.dtype)
            validated = clock.now()
            wait = max(run.validate_every, _VALIDATION_SHARE * (validated - begun))
            meter = _Meter(run.device, clock)

        begun, data_before = clock.now(), steps.seconds_in_data
        batch = run.sampler.batch(position.step, global_batch, share)
        places = run.store.places(batch)
        meter.seconds_in_data += clock.now() - begun
        rate = recipe.optimiser.rate * position.slowed
        rate *= rate_factor(recipe.schedule, progress, position.step)
        learner.prepare(rate, position.step)
        meter.loss += steps.make(places, batch.scale)
        meter.seconds_in_data += steps.seconds_in_data - data_before
        position = replace(position, step=position.step + 1)
        meter.count += 1

    unsaved = _try_to_save(run, position, learner.state()) if processes.first else None
    processes.wait()
    finished = bool(progress >= 1.0)
    return Outcome(
        kept=kept,
        origin=run.origin,
        sources=run.sources,
        data_before=run.data_before,
        position=position,
        finished=finished,
        dtype=learner.dtype,
        unsaved=unsaved,
    )


class _Meter:
    """Loss and speed since it was made."""

    def __init__(self, device: torch.device, clock: Clock) -> None:
        self.loss = torch.zeros((), device=device)
        self.count, self.seconds_in_data = 0, 0.0
        self.clock, self.begun = clock, clock.now()

    @property
    def seconds(self) -> float:
        return self.clock.now() - self.begun

    def speed(self, patches: int) -> dict[str, float]:
        seconds = self.seconds
        return {
            "steps_per_second": self.count / seconds,
            "patches_per_second": self.count * patches / seconds,
            # A pause within the cutting of patches is in one of both.
            "data_share": min(1.0, self.seconds_in_data / seconds),
        }


def _progress(run: Run, position: Position) -> float:
    if run.minutes is not None:
        return position.seconds / (60 * run.minutes)
    return position.step / run.recipe.steps


def _report(
    run: Run, position: Position, meter: "_Meter", loss: float, rate: float
) -> dict[str, Any]:
    return {
        "step": position.step,
        "loss": loss,
        "rate": rate,
        "progress": _progress(run, position),
        "seconds": position.seconds,
        **meter.speed(run.recipe.data.batch * run.processes.count),
        "seconds_left": _left(run, position, meter),
    }


def _left(run: Run, position: Position, meter: "_Meter") -> float:
    """Seconds to the end, at the present speed."""
    if run.minutes is not None:
        return 60 * run.minutes - position.seconds
    return (run.recipe.steps - position.step) * meter.seconds / meter.count


def _roll_back(
    run: Run, learner: Learner, good: tuple[Position, dict[str, Any]], now: Position
) -> Position:
    """Return to the last good state with a lower rate, or give up."""
    then, state = good
    learner.load_state(state)
    position = replace(
        then, slowed=then.slowed * _SLOWER ** (now.rollbacks + 1), rollbacks=now.rollbacks + 1
    )
    if position.rollbacks > ROLLBACKS:
        if run.processes.first:
            _save(run, replace(then, slowed=position.slowed), state)
        raise ResourceError(
            f"the loss was not finite {ROLLBACKS + 1} times in a row around step {now.step}, with "
            f"ever lower rates; the state of step {then.step} is saved",
            f"--resume goes on from there with {position.slowed:.2g} of the rate; or begin again "
            "with a lower --rate, --set optimiser.clip=0.5 or --set precision=fp32",
        )
    if run.processes.first:
        run.watch.event(
            "rollback",
            {"step": now.step, "back_to": then.step, "rate_factor": position.slowed},
        )
    return position


def _try_to_save(run: Run, position: Position, state: Mapping[str, Any]) -> UpresError | None:
    """Save; why it could not be done, if it could not. It is done again before long."""
    try:
        _save(run, position, state)
    except (ResourceError, OutputError) as error:
        run.watch.event("unsaved", {"step": position.step, "why": error.problem})
        return error
    return None


def _save(run: Run, position: Position, state: Mapping[str, Any]) -> None:
    save_checkpoint(
        run.folder,
        {
            "recipe": run.recipe.to_mapping(),
            "begun": _begun(run),
            "origin": run.origin,
            "sources": [dict(one) for one in run.sources],
            "position": asdict(position),
            "data": [dict(one) for one in (*run.data_before, run.data)],
            "random": torch.get_rng_state(),
            **state,
        },
    )
    run.watch.event("checkpoint", {"step": position.step})


def _check_same(run: Run, state: Mapping[str, Any]) -> None:
    """A run goes on as it began, or its result would tell a wrong story."""
    # What recipes of an older upres did not say had the value that is the default now.
    begun = _flat(build_recipe(state["recipe"]).to_mapping()) | state["begun"]
    asked = _flat(run.recipe.to_mapping()) | _begun(run)
    for key in asked:
        if key not in _MAY_CHANGE and begun.get(key) != asked[key]:
            raise WeightsError(
                f"the run in {run.folder} does not fit this recipe: it was begun with {key} "
                f"{begun.get(key)}, not {asked[key]}",
                "resume with the recipe and options that it was begun with",
            )


def _begun(run: Run) -> dict[str, Any]:
    """What decides a run besides its recipe."""
    return {
        "--scale": ",".join(map(str, run.model.facts.scales)),
        "--seed": run.sampler.seed,
        "--minutes instead of --steps": run.minutes is not None,
        "--nproc-per-node": run.processes.count,
    }


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping) and key != "numbers":
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _resumed(run: Run, learner: Learner) -> tuple[Run, Position]:
    """The run as it was begun, and how far it is."""
    state = load_checkpoint(run.folder)
    try:
        _check_same(run, state)
        learner.load_state(state)
        torch.set_rng_state(state["random"])
        position = Position(**state["position"])
        known = list(state["data"])
        before = _identity(known[-1])
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, UsageError) as error:
        first = str(error).partition("\n")[0]
        raise WeightsError(
            f"the checkpoint in {run.folder} does not fit this recipe ({first})",
            "resume with the recipe and options that it was begun with",
        ) from error
    others = tuple(one for one in known if _identity(one) != _identity(run.data))
    if before != _identity(run.data):
        run.watch.event("other_pictures", {"step": position.step})
    sources = tuple(state["sources"])
    run = replace(run, origin=state["origin"], sources=sources, data_before=others)
    if run.processes.first:
        run.watch.event("resume", {"step": position.step, "start": run.origin})
    return run, position


def _identity(data: Mapping[str, Any]) -> tuple[Any, Any]:
    """Of the pictures, and of low-resolution files that came with them."""
    return data["sha256"], data.get("low") or None
