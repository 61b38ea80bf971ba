"""Checkpoints of a run: saved, and gone on from as it was begun."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from upres.errors import OutputError, ResourceError, UpresError, UsageError, WeightsError
from upres.inference.engine import is_out_of_memory
from upres.model import Model
from upres.training.checkpoint import load_checkpoint, save_checkpoint
from upres.training.learner import Learner
from upres.training.order import RESULT
from upres.training.recipe import Recipe, build_recipe
from upres.training.run import Position, Run
from upres.training.validation import Quality
from upres.weights.header import read_training

# What a resumed run may be asked for anew: how long it is, how much memory it takes, and words.
# Where the teacher's file lies may change, its contents may not.
_MAY_CHANGE = {
    "steps",
    "data.accumulate",
    "name",
    "description",
    "network.start",
    "teacher.weights",
}


def try_to_save(run: Run, position: Position, state: Mapping[str, Any]) -> UpresError | None:
    """Save; why it could not be done, if it could not. It is done again before long."""
    try:
        save(run, position, state)
    except (ResourceError, OutputError) as error:
        run.watch.event("unsaved", {"step": position.step, "why": error.problem})
        return error
    return None


def try_to_write(run: Run, kept: Model, position: Position, quality: Sequence[Quality]) -> None:
    """Write the weights as they are, for whoever cannot wait; and so that a run that is killed
    leaves some. Those of a run that came to its end, and goes on, stay until it ends again."""
    if finished_story(run):
        return
    try:
        run.write(run, kept, position, quality)
    except (ResourceError, OutputError) as error:
        run.watch.event("unsaved", {"step": position.step, "why": error.problem})


def finished_story(run: Run) -> Mapping[str, Any] | None:
    """What the folder's result tells of its making, if it is one that had come to its end."""
    path = run.folder / RESULT
    try:
        story = read_training(path) if path.is_file() else None
    except UpresError:
        return None
    return story if story and story.get("finished", True) else None


def save(run: Run, position: Position, state: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        state: the learner's.

    Raises:
        ResourceError, OutputError: it cannot be written; the one before is still there.
    """
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


def check_same(folder: Path, recipe: Recipe, begun: Mapping[str, Any]) -> None:
    """A run goes on as it began, or its result would tell a wrong story.

    Args:
        begun: see ``begun_with``.

    Raises:
        WeightsError: the checkpoint is missing, damaged, or of a run with other settings.
    """
    with _explained(folder):
        _check_same(folder, recipe, begun, load_checkpoint(folder))


def _check_same(
    folder: Path, recipe: Recipe, asked_with: Mapping[str, Any], state: Mapping[str, Any]
) -> None:
    # What recipes of an older upres did not say had the value that is the default now.
    begun = _flat(build_recipe(state["recipe"]).to_mapping()) | dict(state["begun"])
    asked = _flat(recipe.to_mapping()) | dict(asked_with)
    for key in asked:
        if key not in _MAY_CHANGE and begun.get(key) != asked[key]:
            raise WeightsError(
                f"the run in {folder} does not fit this recipe: it was begun with {key} "
                f"{begun.get(key)}, not {asked[key]}",
                "resume with the recipe and options that it was begun with, or begin another run, "
                f"which --init {folder / RESULT} may begin with",
            )


def begun_with(
    scales: Sequence[int], seed: int, minutes: float | None, processes: int, *, teacher: str | None
) -> dict[str, Any]:
    """What decides a run besides its recipe.

    Args:
        teacher: its file's SHA-256.
    """
    return {
        "--scale": ",".join(map(str, scales)),
        "--seed": seed,
        "--minutes instead of --steps": minutes is not None,
        "--nproc-per-node": processes,
        "a teacher of sha256": teacher,
    }


def _begun(run: Run) -> dict[str, Any]:
    return begun_with(
        run.model.facts.scales,
        run.sampler.seed,
        run.minutes,
        run.processes.count,
        teacher=run.teacher.told["sha256"] if run.teacher else None,
    )


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Whatever a checkpoint of something else makes go wrong, for people."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, UsageError) as error:
        if is_out_of_memory(error):
            raise
        first = str(error).partition("\n")[0]
        raise WeightsError(
            f"the checkpoint in {folder} does not fit this recipe ({first})",
            "resume with the recipe and options that it was begun with",
        ) from error


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping) and key != "numbers":
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def resumed(run: Run, learner: Learner) -> tuple[Run, Position]:
    """The run as it was begun, and how far it is; ``learner`` gets its state.

    Raises:
        WeightsError: the checkpoint is missing, damaged, or of a run with other settings.
    """
    state = load_checkpoint(run.folder)
    with _explained(run.folder):
        _check_same(run.folder, run.recipe, _begun(run), state)
        learner.load_state(state)
        torch.set_rng_state(state["random"])
        position = Position(**state["position"])
        known = list(state["data"])
        before = _identity(known[-1])
    if run.progress_at(position) >= 1:  # it has seen no others
        run = replace(run, data=known[-1])
    others = tuple(one for one in known if _identity(one) != _identity(run.data))
    if not position.step:  # nothing was learnt from them
        others = ()
    if before != _identity(run.data):
        run.watch.event("other_pictures", {"step": position.step})
    sources = tuple(state["sources"])
    run = replace(run, origin=state["origin"], sources=sources, data_before=others)
    if run.processes.first:
        run.watch.event("resume", {"step": position.step, "start": run.origin})
    return run, position


def _identity(data: Mapping[str, Any]) -> tuple[Any, ...]:
    """Of the pictures, of those among them that could be read, and of low-resolution files that
    came with them."""
    return data["sha256"], data.get("pictures"), data.get("megapixels"), data.get("low") or None
