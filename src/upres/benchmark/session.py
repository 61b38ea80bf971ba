"""``upres bench`` from its options to a report."""

import itertools
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from upres.api import Upscaler
from upres.benchmark.page import TRUTH, Gallery
from upres.benchmark.quality import Row, Settings, example, measure_set
from upres.benchmark.report import Report
from upres.data.evaluation import EVALUATION_SETS, Truth, find_set
from upres.errors import (
    InputError,
    ResourceError,
    UpresError,
    UsageError,
    VerificationError,
    WeightsError,
)
from upres.inference.device import DeviceName, Precision, choose
from upres.inference.sizes import Goal
from upres.progress import Note, Transfer, downloading
from upres.weights.known import known_models
from upres.weights.manifest import KERNELS, PHOTO_BELOW

# How far a measured figure may be from the one in weights.toml, in dB.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Order:
    """What ``upres bench`` was asked for.

    Attributes:
        sets: names, folders, or HIGH:LOW pairs of folders.
        scales: 2, 3, 4 or several of them.
        models: names or files; bicubic comes first whether it is among them or not.
        data_dir: where copies of sets lie already.
        home: where downloads are kept.
        keep_going: what fails is reported, and the rest measured all the same.
        pictures: whether pieces of the pictures are kept to be looked at.
    """

    sets: tuple[str, ...]
    scales: tuple[int, ...]
    models: tuple[str, ...]
    settings: Settings
    data_dir: Path | None
    home: Path
    ensemble: bool = False
    device: DeviceName = "auto"
    precision: Precision = "auto"
    keep_going: bool = False
    pictures: bool = False


def run_order(
    order: Order,
    *,
    note: Note,
    progress: Transfer,
    counted: Note | None = None,
) -> tuple[Report, Gallery]:
    """Measure everything; a report of what was found, and pictures if they were asked for.

    Args:
        counted: told what is measured next.

    Raises:
        UpresError: something cannot be measured, and ``keep_going`` was not asked for.
    """
    device = machine(order)
    rows: list[Row] = []
    failures: list[str] = []
    jobs: list[tuple[str, int, list[Truth], list[tuple[str, Upscaler]]]] = []
    texts = {name: name for name in EVALUATION_SETS}  # by the label that stands for each set
    models_of: dict[int, list[tuple[str, Upscaler]]] = {}
    for scale in order.scales:
        with _kept_going(order, failures, f"x{scale}"):
            models_of[scale] = models_at(order, scale, note, progress, failures)
    for name in order.sets:
        for scale, models in models_of.items():
            with _kept_going(order, failures, f"{name} x{scale}"):
                label, truths = _set(order, name, scale, note, progress)
                label = unambiguous(label, name, texts)  # two folders may be called HR
                label, truths = _readable(order, label, scale, truths, failures)
                jobs.append((label, scale, truths, models))
    gallery = Gallery(sum(len(truths) * (len(models) + 1) for _, _, truths, models in jobs))
    seen = gallery.seen if order.pictures else None
    for label, scale, truths, models in jobs:
        if counted is not None:
            counted(f"{label} x{scale}: {len(truths)} pictures, {len(models)} models")
        with _kept_going(order, failures, f"{label} x{scale}"):
            where = f"{label} x{scale}"
            rows += measure_set(
                label,
                truths,
                scale,
                models,
                order.settings,
                note=note,
                seen=seen,
                failed=partial(_left_out, failures, where) if order.keep_going else None,
            )
    given = tuple(
        (label, scale, sum(truth.low is not None for truth in truths), len(truths))
        for label, scale, truths, _ in jobs
    )
    return Report(order.settings, tuple(rows), tuple(failures), device, given), gallery


def _left_out(failures: list[str], where: str, model: str, error: UpresError) -> None:
    failures.append(f"{model} on {where}: {error}")


def _set(
    order: Order, name: str, scale: int, note: Note, progress: Transfer
) -> tuple[str, list[Truth]]:
    return find_set(
        name, scale, data_dir=order.data_dir, home=order.home, note=note, progress=progress
    )


@contextmanager
def _kept_going(order: Order, failures: list[str], what: str) -> Iterator[None]:
    try:
        yield
    except UpresError as error:
        if not order.keep_going:
            raise
        failures.append(f"{what}: {error}")


def _readable(
    order: Order, label: str, scale: int, truths: list[Truth], failures: list[str]
) -> tuple[str, list[Truth]]:
    """The pictures that can be measured, and a label that says how many of how many, if what fails
    is to be left out."""
    if not order.keep_going:
        return label, truths
    good = []
    for truth in truths:
        with _kept_going(order, failures, f"{truth.name} of {label} x{scale}"):
            example(truth, scale, order.settings)
            good.append(truth)
    if not good:
        raise InputError(f"none of its {len(truths)} pictures can be measured", "see above")
    return label if len(good) == len(truths) else f"{label} ({len(good)} of {len(truths)})", good


def models_at(
    order: Order, scale: int, note: Note, progress: Transfer, failures: list[str] | None = None
) -> list[tuple[str, Upscaler]]:
    """Bicubic and what was asked for, as far as it serves the scale; by labels that mean the same
    at every scale. "auto" is also what it means for JPEG files of that quality.

    Args:
        failures: why models are left out is added to them, if the order says to keep going.
    """
    found: dict[str, Upscaler] = {}
    labels = labelled(order.models)
    for asked in ("bicubic", *order.models):
        for name in _meant(asked, order.settings.degradation.quality):
            with _kept_going(order, failures if failures is not None else [], f"{name} x{scale}"):
                upscaler = Upscaler(
                    name,
                    Goal(scale=scale),
                    device=order.device,
                    precision=order.precision,
                    ensemble=order.ensemble and name not in KERNELS,
                    on_download=downloading(progress),
                )
                called = upscaler.chosen(scale) if name == "auto" else name
                if not upscaler.serves(scale):
                    note(f"{called} has no weights for x{scale} and is left out there")
                    continue
                if order.keep_going:  # weights that cannot be had are known now
                    upscaler.upscale(np.zeros((16, 16, 3), np.uint8))
                label = labels.get(called, called) + "+" * upscaler.ensemble
                found.setdefault(label, upscaler)
    return list(found.items())


def _meant(model: str, jpeg: int | None) -> tuple[str, ...]:
    """Names of the models that a name stands for where inputs are JPEGs of this quality."""
    if model != "auto" or jpeg is None or jpeg >= PHOTO_BELOW:
        return (model,)
    return (model, *known_models().photo)


def labelled(models: Sequence[str]) -> dict[str, str]:
    """What stands for each of these names and files in tables; no file is called like a model that
    has a name, nor like the truth on pages."""
    known = (*KERNELS, TRUTH, *(entry.facts.name for entry in known_models().entries))
    taken = {name: name for name in (*known, *(m for m in models if model_label(m) == m))}
    return {model: unambiguous(model_label(model), model, taken) for model in models}


def model_label(name: str) -> str:
    """What stands for a model in tables: a file without its folder and suffix, and what training
    leaves, which is always called ``model``, by its folder.
    """
    path = Path(name)
    if path.suffix != ".safetensors":
        return name
    return path.resolve().parent.name if path.stem == "model" else path.stem


def unambiguous(label: str, text: str, taken: dict[str, str]) -> str:
    """The label, or what people wrote where it stands for something else already, or that with a
    number.

    Args:
        taken: what each label stands for; added to.
    """
    candidates = itertools.chain((label, text), (f"{text} ({n})" for n in itertools.count(2)))
    return next(one for one in candidates if taken.setdefault(one, text) == text)


def every_model(note: Note) -> tuple[str, ...]:
    """Names of all models whose weights need no download, and Lanczos.

    Args:
        note: told of added models that cannot be used.
    """
    for _, why in known_models().unusable:
        note(f"note: {why}")
    names = [e.facts.name for e in known_models().entries if e.hub is None]
    return ("lanczos", *dict.fromkeys(names))


def machine(order: Order) -> str:
    """What it runs on, and in which precision, in a line.

    Raises:
        UsageError: the device or the precision is not to be had here.
    """
    if set(order.models) <= set(KERNELS):  # computed by numpy, which is always there
        target = choose("cpu", "fp32", deep=False)
    else:
        target = choose(order.device, order.precision, deep=False)
    threads = f"{torch.get_num_threads()} CPU threads ({platform.machine()})"
    parts = [threads, f"torch {torch.__version__}"]
    if target.device.type == "cuda":
        parts.insert(0, torch.cuda.get_device_name(target.device))
    return ", ".join([*parts, f"{target.device.type} {target.precision}"])


@dataclass(frozen=True)
class Check:
    """A figure in weights.toml, and what was found.

    Attributes:
        measured: in dB, or None if it could not be measured.
        error: why not, where that is not for want of the set.
    """

    model: str
    set: str
    scale: int
    stated: float
    measured: float | None
    error: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether they agree; None where the set is not at hand."""
        if self.measured is None:
            return False if self.error else None
        return abs(self.measured - self.stated) <= TOLERANCE


def verify(order: Order, *, note: Note, progress: Transfer) -> tuple[list[Check], list[str]]:
    """Measure the figures of weights.toml and of added models on some sets.

    Args:
        order: its sets, scales and models are measured; "auto" is all models.

    Returns:
        The checks, and the names of models that were never measured.

    Raises:
        UsageError: a model is none of those that may be measured.
        WeightsError: a model that is named cannot be used.
    """
    known = known_models()
    for name in order.models:
        if name == "auto":
            for _, why in known.unusable:
                note(f"note: {why}")
            continue
        known.refuse_unusable(name)
        if name not in known.names:
            raise UsageError(
                f"no figures of {name} are stated",
                "name one of 'upres models', or leave out --model to verify all",
            )
    stated: dict[tuple[str, int], list[tuple[str, float]]] = {}
    never: list[str] = []
    for entry in known.entries:
        named = "auto" in order.models or entry.facts.name in order.models
        if not named or not set(order.scales) & set(entry.facts.scales):
            continue
        if not entry.facts.measured:
            never.append(entry.name)
        for m in entry.facts.measured:
            if m.scale not in order.scales:
                continue
            stated.setdefault((m.set, m.scale), []).append((entry.facts.name, m.psnr))
    told = {label.partition("-jpeg")[0] for label, _ in stated}
    for name in order.sets:
        if name not in told and name not in EVALUATION_SETS:
            raise UsageError(
                f"no figure is stated on {name}", "'upres models show NAME' says what is stated"
            )
        if name not in told:
            note(f"{name}: no figure is stated of these models at these scales")
    checks: list[Check] = []
    for (label, scale), figures in stated.items():
        dataset, _, jpeg = label.partition("-jpeg")
        # An added model's file may state anything.
        if not re.fullmatch(r"[1-9]\d?|100|", jpeg):
            continue
        if dataset not in order.sets:
            note(f"{label} x{scale}: stated, but not measured here; name the set to verify it")
            continue
        one = replace(
            order,
            sets=(dataset,),
            scales=(scale,),
            settings=order.settings.with_jpeg(int(jpeg)) if jpeg else order.settings,
        )
        try:
            _set(order, dataset, scale, note, progress)
        except UpresError as error:
            note(f"{label} x{scale}: {error}")
            checks += [Check(name, label, scale, psnr, None) for name, psnr in figures]
            continue
        names = tuple(name for name, _ in figures)
        found = _measured(replace(one, models=names), note, progress)
        checks += [Check(name, label, scale, psnr, *found[name]) for name, psnr in figures]
    return checks, never


def _measured(order: Order, note: Note, progress: Transfer) -> dict[str, tuple[float | None, str]]:
    """PSNR of each model on the order's one set at its one scale, or what is wrong with it."""
    try:
        report, _ = run_order(order, note=note, progress=progress)
    except (WeightsError, ResourceError, InputError) as error:
        if len(order.models) == 1:
            if isinstance(error, WeightsError):
                return {order.models[0]: (None, str(error))}
            # A picture, or this machine, says nothing about weights.
            note(f"{order.models[0]}, {order.sets[0]} x{order.scales[0]}: {error}")
            return {order.models[0]: (None, "")}
        # One by one, since one of them may be damaged.
        each = (_measured(replace(order, models=(name,)), note, progress) for name in order.models)
        return {name: result for found in each for name, result in found.items()}
    rows = {name: report.row(name, (order.sets[0], order.scales[0])) for name in order.models}
    return {name: (row.psnr if row else None, "") for name, row in rows.items()}


def demand(checks: Sequence[Check]) -> None:
    """Raise unless all that was measured agrees.

    Raises:
        VerificationError: a figure differs.
        UsageError: nothing is stated, or something could not be measured.
    """
    wrong = [c for c in checks if c.holds is False]
    if wrong:
        first = wrong[0]
        what = first.error
        if first.measured is not None:
            what = f"gives {first.measured:.3f} dB, and {first.stated:.3f} are stated"
        raise VerificationError(
            f"{first.model} x{first.scale} on {first.set}: {what} "
            f"({len(wrong)} of {len(checks)} figures differ)",
            "install upres, or add the model, again; if it stays so, please report it with "
            "'upres doctor'",
        )
    if not checks:
        raise UsageError(
            "no figure is stated of these models at these scales on these sets",
            "'upres models show NAME' says what is stated",
        )
    missing = sum(c.measured is None for c in checks)
    if missing:
        raise UsageError(
            f"{missing} of {len(checks)} figures could not be measured",
            "give --data-dir, allow downloads, or name the sets that are here",
        )
