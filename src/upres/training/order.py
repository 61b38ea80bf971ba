"""What ``upres train`` was asked for, and the runs that this takes."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from upres.data.folders import PictureFolder
from upres.errors import OutputError, UsageError
from upres.files import remove_parts
from upres.networks import ARCHITECTURES
from upres.training.checkpoint import NAME as CHECKPOINT
from upres.training.recipe import Recipe, load_recipe, scale_tables
from upres.training.record import BOARD, CURVE, METRICS, PICTURES

RESULT = "model.safetensors"
_FILES = (CHECKPOINT, RESULT, METRICS)
_LOCK = ".upres-lock"
# What else a run leaves; only files of these names are ours to delete.
_LEFT = (CURVE, f"{PICTURES}/{'[0-9]' * 7}.png", f"{BOARD}/events.out.tfevents.*")


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
        init: what the first run begins with (the others with its result): a weights file or a
            model's name; "A,B" for the mean of several, "A,+B,-C" for A and the difference of B
            and C; "none" for nothing; None for what the recipe says.
        resume, overwrite: what to do with a folder that holds a run.
        device: where to train.
        threads: for decoding.
        name, licence, trained_by: what the result says about itself.
        validate_minutes: between measurements; a fifth of ``minutes`` if that is less.
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
    validate_minutes: float = 5.0


@dataclass(frozen=True)
class Plan:
    """One run of an order.

    Attributes:
        scales: several for networks that share them.
        recipe: for these scales, with the order's changes.
        folder: for its results.
    """

    scales: tuple[int, ...]
    recipe: Recipe
    folder: Path


def plans(order: Order) -> list[Plan]:
    """The runs that an order takes.

    Raises:
        UsageError: the recipe is wrong, or its architecture unknown.
    """
    first = load_recipe(order.recipe, changes=order.changes)
    scales = order.scales or first.network.scales
    architecture = ARCHITECTURES.get(first.network.architecture)
    if architecture is None:
        raise UsageError(
            f"recipe {first.name}: no architecture is called {first.network.architecture!r}",
            f"known are {', '.join(sorted(ARCHITECTURES))}",
        )
    if architecture.shares_scales:
        if tables := scale_tables(order.recipe):
            raise UsageError(
                f"recipe {first.name}: [{tables[0]}] means nothing where scales share a network",
                "leave it out",
            )
        return [Plan(scales, first, order.folder)]
    several = len(scales) > 1
    return [
        Plan(
            (scale,),
            load_recipe(order.recipe, scale=scale, changes=order.changes),
            order.folder / f"x{scale}" if several else order.folder,
        )
        for scale in scales
    ]


def check_folder(folder: Path, order: Order) -> None:
    """See that a run may write there; nothing is changed yet.

    Raises:
        OutputError: the folder is a file, holds a run that is not to be gone on with, or files that
            a run would overwrite and that are no run's.
    """
    _check_place(folder, "--output")
    if order.resume and (folder / RESULT).exists() and not (folder / CHECKPOINT).exists():
        raise OutputError(
            f"{folder} holds weights but no {CHECKPOINT} to go on from",
            f"begin there with --init {folder / RESULT} and another --output",
        )
    going_on = order.resume and (folder / CHECKPOINT).exists()
    if not (going_on or (folder / METRICS).is_file()):  # a run begins with that
        for pattern in (CHECKPOINT, RESULT, *_LEFT):
            if theirs := next(folder.glob(pattern), None):
                raise OutputError(
                    f"{theirs} is no run's, since there is no {METRICS}, and would be overwritten",
                    "give another --output",
                )
    if order.resume:
        return
    if not order.overwrite and any((folder / name).exists() for name in _FILES):
        raise OutputError(
            f"{folder} already holds a run",
            "go on with --resume, begin anew with --overwrite, or give another --output",
        )


def check_cache(folder: Path) -> None:
    """See that pictures may be kept there; nothing is changed yet.

    Raises:
        OutputError: it is a file, or cannot be written.
    """
    _check_place(folder, "--cache")


def _check_place(folder: Path, option: str) -> None:
    above = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not above.is_dir():
        raise OutputError(f"{above} is a file", f"give a folder with {option}")
    if not os.access(above, os.W_OK):
        raise OutputError(f"{above} cannot be written", f"give another {option}")


def clear(folder: Path, order: Order) -> None:
    """Remove what killed runs left; with ``overwrite`` an old run's files go, too.

    Raises:
        OutputError: they cannot be removed.
    """
    try:
        _clear(folder, order)
    except OSError as error:
        raise _not_ready(folder, error) from error


def _clear(folder: Path, order: Order) -> None:
    remove_parts(folder)
    # By its metrics a folder is known as a run's: they go last.
    for pattern in (CHECKPOINT, RESULT, *_LEFT, METRICS) if order.overwrite else ():
        for path in list(folder.glob(pattern)):
            path.unlink()


@contextmanager
def entered(folder: Path, order: Order) -> Iterator[None]:
    """Make the folder, and keep other runs out of it.

    Raises:
        OutputError: it cannot be made, or another run works there or has meanwhile.
    """
    import filelock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / _LOCK)
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise OutputError(
            f"another run works in {folder}", "wait for it, or give another --output"
        ) from None
    except OSError as error:
        raise _not_ready(folder, error) from error
    try:
        check_folder(folder, order)
        yield
    finally:
        lock.release()


def _not_ready(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"{folder} cannot be made ready ({error.strerror})", "give another --output")
