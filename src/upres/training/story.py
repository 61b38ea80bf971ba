"""What a result tells of its making."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from upres.data.catalog import training_set
from upres.data.prepared import Entry, Prepared
from upres.model import Model, load
from upres.training.order import RESULT, Order, Plan
from upres.training.recipe import Recipe
from upres.training.run import Position, Run, Taught
from upres.training.shared import Shared
from upres.training.start import UNSTATED, without_home
from upres.training.validation import Quality
from upres.version import __version__
from upres.weights.header import read_facts, read_training


def story_of(
    shared: Shared, plan: Plan, prepared: Prepared, entries: Sequence[Entry]
) -> dict[str, Any]:
    """What the result will tell of its making, as far as it is known before.

    Args:
        entries: that patches are cut from.
    """
    order = shared.order
    largest: dict[str, int] = {}
    for entry in entries:
        largest[entry.sha256] = max(entry.pixels, largest.get(entry.sha256, 0))
    low = {f"x{scale}": prepared.given(scale) for scale in plan.scales if prepared.given(scale)}
    return {
        "version": __version__,
        "recipe": _told_of(plan.recipe),
        "minutes": order.minutes,
        "seed": order.seed,
        "data": {
            "names": sorted({name for name, _ in order.data}),
            "pictures": len(largest),
            "megapixels": round(sum(largest.values()) / 1e6, 1),
            "sha256": shared.pictures.fingerprint,
            **({"low": low} if low else {}),
        },
        "processes": shared.processes.count,
    }


def write_result(
    run: Run,
    kept: Model,
    position: Position,
    quality: Sequence[Quality],
    *,
    story: Mapping[str, Any],
    licence: str,
) -> None:
    """Write the weights with all that can be told of them.

    Args:
        kept: the weights that count, of which ``Run.write`` tells.
        story: see ``story_of``.
        licence: of the weights, or "" where nobody stated one.

    Raises:
        ResourceError, OutputError: they cannot be written; what was there stays.
    """
    told = {
        **story,
        "data": dict(run.data),
        "start": run.origin,
        "steps": position.step,
        "hours": round(position.seconds / 3600, 3),
        "device": device_name(run.device),
        "validation": [asdict(one) for one in quality],
    }
    if run.progress_at(position) < 1:
        told["finished"] = False
    if run.data_before:
        told["data_before"] = [dict(one) for one in run.data_before]
    if run.sources:
        told["sources"] = [dict(one) for one in run.sources]
    # Of a sum or a mean that nothing was learnt beyond, no picture of this run is part.
    learnt = (run.data,) if position.step or not run.sources else ()
    data = (*learnt, *run.data_before[::-1])
    seen = [*map(_pictures, data), *(_together(one["trained_on"]) for one in run.sources)]
    trained_on = ", before that ".join(dict.fromkeys(seen))
    if run.teacher and position.step:
        told["teacher"] = dict(run.teacher.told)
        trained_on += f"; its teacher on {_together(run.teacher.told['trained_on'])}"
    terms = licence or _terms(data, run.sources, run.teacher if position.step else None)
    facts = replace(kept.facts, trained_on=trained_on, licence=terms)
    Model(kept.network, facts).save(run.folder / RESULT, training=told)


def rename_result(path: Path, order: Order) -> None:
    """Have a result say of itself what is asked for now, if anything is.

    Raises:
        ResourceError, OutputError: it cannot be written; it stays as it was.
    """
    told = read_facts(path)
    named = replace(
        told,
        name=order.name or told.name,
        licence=order.licence or told.licence,
        trained_by=order.trained_by or told.trained_by,
    )
    if named != told:
        Model(load(path).network, named).save(path, training=read_training(path))


def _told_of(recipe: Recipe) -> dict[str, Any]:
    """Its fields, with what everybody may know of where files lie."""
    told = recipe.to_mapping()
    for table, key in (("network", "start"), ("teacher", "weights")):
        told[table][key] = ",".join(_public(name.strip()) for name in told[table][key].split(","))
    return told


def _public(name: str) -> str:
    sign = name[: len(name) - len(name.lstrip("+-"))]
    path = Path(name.removeprefix(sign))
    return f"{sign}{without_home(path)}" if path.suffix == ".safetensors" else name


def _together(pictures: str) -> str:
    """In brackets where they have a teacher, which is theirs alone."""
    return f"({pictures})" if "; " in pictures else pictures


def _pictures(data: Mapping[str, Any]) -> str:
    if "names" not in data:
        return "others"
    return f"{data['pictures']} pictures ({', '.join(data['names'])})"


def _terms(
    data: Sequence[Mapping[str, Any]],
    sources: Sequence[Mapping[str, Any]],
    teacher: Taught | None,
) -> str:
    """What is known of a licence that nobody stated."""
    names = [name for one in data for name in one.get("names", ())]
    known = [f"{found.name} is {found.licence}" for n in names if (found := training_set(n))]
    for source in sources:
        first, *more = source["licence"].split("; ")
        more = [one.replace("its teacher", "their teacher", 1) for one in more]
        known += more if first == UNSTATED else [f"it began with weights under {first}", *more]
    if teacher:
        first, *more = teacher.told["licence"].split("; ")
        more = [f"of its teacher: {one}" for one in more]
        known += more if first == UNSTATED else [f"its teacher is under {first}", *more]
    return "; ".join([UNSTATED, *dict.fromkeys(known)])


def device_name(device: torch.device) -> str:
    """What computes, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"
