"""``upres train`` from its options to its results: data, models, one run for each scale."""

import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from upres.data.folders import PictureFolder
from upres.data.patches import Sampler
from upres.data.prepare import Pictures, gather, prepare
from upres.errors import OutputError, UsageError
from upres.model import Model, build, load, load_published
from upres.networks import ARCHITECTURES
from upres.training.checkpoint import NAME as CHECKPOINT
from upres.training.distributed import Processes, join
from upres.training.patches import PatchStore
from upres.training.recipe import Recipe, load_recipe
from upres.training.record import Record, View
from upres.training.trainer import Outcome, Run, train
from upres.training.validation import Quality, make_pairs
from upres.training.warmstart import warm_start
from upres.version import __version__
from upres.weights.facts import ModelFacts
from upres.weights.known import known_models
from upres.weights.store import fetch

RESULT = "model.safetensors"


class TrainingView(View, Protocol):
    """What people see, from the first picture read to the last weights written."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Pictures are being decoded, shrunk, degraded."""
        ...

    def begins(self, title: str, recipe: Recipe, minutes: float | None) -> None:
        """A run begins; ``steps`` and ``validated`` belong to it from now on."""
        ...


@dataclass(frozen=True)
class Order:
    """What ``upres train`` was asked for.

    Attributes:
        data: names that people know them by, and the pictures.
        recipe: a shipped recipe's name, or a path.
        changes: dotted keys and values that override the recipe.
        scales: which to train, or () for the recipe's own.
        folder: for the results; several single-scale runs get x2, x3, x4 inside.
        cache: for prepared pictures.
        minutes: how long each run is, or None to make the recipe's steps.
        seed: of patches and new weights.
        init: a weights file or a model's name; "none" for nothing; None for what the recipe says.
        resume, overwrite: what to do with a folder that holds a run.
        device: where to train.
        threads: for decoding.
        name, licence, trained_by: what the result says about itself.
        look_minutes: between measurements; a fifth of ``minutes`` if that is less.
    """

    data: tuple[tuple[str, PictureFolder], ...]
    recipe: str
    folder: Path
    cache: Path
    changes: Mapping[str, Any]
    scales: tuple[int, ...] = ()
    minutes: float | None = None
    seed: int = 0
    init: str | None = None
    resume: bool = False
    overwrite: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 2
    name: str = ""
    licence: str = ""
    trained_by: str = ""
    look_minutes: float = 5.0


@dataclass(frozen=True)
class Result:
    """A run that came to its end, or was stopped.

    Attributes:
        path: the weights.
        quality: on the validation pictures, in float32.
        finished: whether it came to its end.
    """

    path: Path
    quality: tuple[Quality, ...]
    finished: bool


class Stop:
    """Turns Ctrl-C and SIGTERM into a request to save and end; a second one ends at once.

    Attributes:
        signal: which one came, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within the block signals wait for the step that is being made."""
        before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

        def asked(number: int, frame: Any) -> None:
            del frame
            self.signal = number
            signal.signal(number, before[signal.Signals(number)])

        for number in before:
            signal.signal(number, asked)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_order(order: Order, view: TrainingView, stop: Callable[[], bool]) -> list[Result]:
    """Prepare, train every scale, write the results.

    Returns:
        One result for each run; the last is unfinished if ``stop`` ended it. Of several processes
        only the first returns any.

    Raises:
        UpresError: see the modules that do the work.
    """
    kind = order.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda is not available here", "'upres doctor' says what is")
    processes = join(kind)
    try:
        device = torch.device(kind, processes.local_rank) if kind == "cuda" else torch.device(kind)
        results = _runs(order, view, stop, processes, device)
        return results if processes.first else []
    finally:
        processes.close()


def _runs(
    order: Order,
    view: TrainingView,
    stop: Callable[[], bool],
    processes: Processes,
    device: torch.device,
) -> list[Result]:
    plans = _plans(order)
    recipe = plans[0][1]
    for _, _, folder in plans:
        _check_folder(folder, order)
    pictures = gather([folder for _, folder in order.data], recipe.data.held_out)
    results: list[Result] = []
    for scales, recipe, folder in plans:
        if processes.first:
            folder.mkdir(parents=True, exist_ok=True)
        start = order.init if order.init is not None else recipe.network.start
        if results and order.init is None:
            start = str(results[0].path)  # higher scales from the first one trained here
        model, origin = _model(order, recipe, scales, start)
        view.note(f"x{','.join(map(str, scales))} starts from {origin}")
        result = _one(
            order, recipe, scales, folder, model, origin, pictures, view, stop, processes, device
        )
        results.append(result)
        if not result.finished:
            break
    return results


def _plans(order: Order) -> list[tuple[tuple[int, ...], Recipe, Path]]:
    """Scales, recipe and folder of each run."""
    first = load_recipe(order.recipe, changes=order.changes)
    scales = order.scales or first.network.scales
    architecture = ARCHITECTURES.get(first.network.architecture)
    if architecture is None:
        raise UsageError(
            f"recipe {first.name}: no architecture is called {first.network.architecture!r}",
            f"known are {', '.join(sorted(ARCHITECTURES))}",
        )
    if architecture.shares_scales:
        return [(scales, first, order.folder)]
    plans: list[tuple[tuple[int, ...], Recipe, Path]] = []
    for scale in scales:
        recipe = load_recipe(order.recipe, scale=scale, changes=order.changes)
        plans.append(
            ((scale,), recipe, order.folder / f"x{scale}" if len(scales) > 1 else order.folder)
        )
    return plans


def _check_folder(folder: Path, order: Order) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file", "give a folder with --output")
    if order.resume or not folder.is_dir():
        return
    old = [name for name in (CHECKPOINT, RESULT, "metrics.jsonl") if (folder / name).exists()]
    if old and not order.overwrite:
        raise OutputError(
            f"{folder} already holds a run",
            "go on with --resume, begin anew with --overwrite, or give another --output",
        )
    for name in old:
        (folder / name).unlink()


def _model(order: Order, recipe: Recipe, scales: tuple[int, ...], start: str) -> tuple[Model, str]:
    """A model to train, and what it begins with, in words."""
    architecture = ARCHITECTURES[recipe.network.architecture]
    facts = ModelFacts.from_mapping(
        {
            "name": order.name or recipe.name,
            "architecture": recipe.network.architecture,
            "numbers": recipe.network.numbers,
            "scales": scales,
            "colour": architecture.colour,
            "licence": order.licence or "not stated",
            "trained_by": order.trained_by or f"upres {__version__}",
            "trained_on": "nothing yet",
        }
    )
    torch.manual_seed(order.seed)
    model = build(facts)
    if start in ("", "none"):
        return model, f"nothing (seed {order.seed})"
    source = _weights(start)
    if source.facts.architecture != facts.architecture:
        raise UsageError(
            f"{start} is {source.facts.architecture}, the recipe trains {facts.architecture}",
            "give --init a file of the same architecture, or --init none",
        )
    warm = warm_start(model.network, source.network.state_dict(), grow=recipe.network.grow)
    model.network.load_state_dict(warm.state)
    return model, f"{start}: {warm}"


def _weights(name: str) -> Model:
    if name.endswith(".safetensors"):
        return load(Path(name))
    entries = known_models().family(name)
    if len(entries) > 1:
        raise UsageError(
            f"{name} has several files", f"name one: {', '.join(e.name for e in entries)}"
        )
    return load_published(entries[0], fetch(entries[0]))


def _one(
    order: Order,
    recipe: Recipe,
    scales: tuple[int, ...],
    folder: Path,
    model: Model,
    origin: str,
    pictures: Pictures,
    view: TrainingView,
    stop: Callable[[], bool],
    processes: Processes,
    device: torch.device,
) -> Result:
    data = recipe.data
    versions = data.versions if data.degradation == "photo" else 0
    # The first process decodes; the others find everything there.
    for turn in (True, False):
        if processes.first == turn:
            prepared = prepare(
                pictures,
                order.cache,
                sizes=data.sizes,
                scales=scales,
                versions=versions,
                progress=view.preparing,
                threads=order.threads,
            )
        processes.wait()
    for why in prepared.skipped:
        view.note(f"skipped {why}")
    sampler = Sampler(
        prepared.entries,
        prepared.detail(),
        patch=data.patch,
        scales=scales,
        focus=data.focus,
        versions=versions,
        clean=data.clean,
        turned=data.turned,
        seed=order.seed,
    )
    store = PatchStore(
        prepared,
        scales=scales,
        versions=versions,
        patch=data.patch,
        colour=model.network.colour,
        device=device,
    )
    pairs = (
        make_pairs(pictures.validation, scales, degraded=versions > 0) if processes.first else ()
    )
    view.begins(f"{model.facts.name} x{','.join(map(str, scales))}", recipe, order.minutes)
    record = Record(folder, pairs, view) if processes.first else None
    used = {entry.sha256 for entry in prepared.entries}
    story = {
        "version": __version__,
        "recipe": recipe.to_mapping(),
        "minutes": order.minutes,
        "seed": order.seed,
        "start": origin,
        "data": {
            "names": sorted({name for name, _ in order.data}),
            "pictures": len(used),
            "megapixels": round(sum(e.pixels for e in prepared.entries if e.size == 1) / 1e6, 1),
            "sha256": pictures.fingerprint,
        },
        "processes": processes.count,
    }
    run = Run(
        recipe=recipe,
        model=model,
        sampler=sampler,
        store=store,
        folder=folder,
        device=device,
        processes=processes,
        watch=record or _Nobody(),
        minutes=order.minutes,
        resume=order.resume and (folder / CHECKPOINT).is_file(),
        stop=stop,
        # A report copies the state, which would cost a fast device a tenth of its time.
        report_every=50 if device.type == "cpu" else 500,
        look_every=60 * min(order.look_minutes, (order.minutes or math.inf) / 5),
    )
    if record is not None:
        record.event("start", {**story, "scales": scales, "resumed": run.resume})
    try:
        outcome = train(run)
        quality = _finish(outcome, record, story, folder) if record is not None else ()
    finally:
        if record is not None:
            record.close()
    return Result(folder / RESULT, quality, outcome.finished)


def _finish(
    outcome: Outcome, record: Record, story: dict[str, Any], folder: Path
) -> tuple[Quality, ...]:
    """Measure in float32, write the result."""
    quality = record.measure(outcome.position.step, outcome.kept, torch.float32)
    told = {
        **story,
        "steps": outcome.position.step,
        "hours": round(outcome.position.seconds / 3600, 3),
        "device": _device_name(outcome),
        "validation": [asdict(one) for one in quality],
    }
    data = story["data"]
    facts = replace(
        outcome.kept.facts,
        trained_on=f"{data['pictures']} pictures ({', '.join(data['names'])})",
    )
    Model(outcome.kept.network, facts).save(folder / RESULT, training=told)
    record.event("end", {"step": outcome.position.step, "finished": outcome.finished})
    return quality


def _device_name(outcome: Outcome) -> str:
    device = next(outcome.kept.network.parameters()).device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"


class _Nobody:
    """Watches for the processes that only compute."""

    def steps(self, facts: Mapping[str, Any]) -> None:
        pass

    def event(self, name: str, facts: Mapping[str, Any]) -> None:
        pass

    def look(self, step: int, model: Model, dtype: torch.dtype) -> None:
        pass
