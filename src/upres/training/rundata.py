"""A run's pictures: prepared, sampled, and those that it is measured on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from upres.data.patches import Sampler
from upres.data.prepare import prepare
from upres.data.prepared import Entry, Prepared
from upres.inference.device import Target
from upres.training.learner import training_dtype
from upres.training.order import Plan
from upres.training.patches import PatchStore
from upres.training.run import Taught
from upres.training.shared import Shared
from upres.training.taught import taught_pictures
from upres.training.validation import Pair, make_pairs


@dataclass(frozen=True)
class RunData:
    """A run's pictures.

    Attributes:
        versions: degraded ones of each; 0 trains on clean ones.
        sampler: says where patches are cut from them.
    """

    versions: int
    prepared: Prepared
    sampler: Sampler


def data_of(shared: Shared, plan: Plan) -> RunData:
    """Decode, shrink and degrade what the run learns from, unless that is in the cache; people are
    told what is left out.

    Raises:
        InputError: nothing can be read, or is as large as a patch.
        ResourceError, OutputError: the cache cannot be written.
    """
    data = plan.recipe.data
    versions = data.versions if data.degradation == "photo" else 0
    prepared = _prepared(shared, plan, versions)
    sampler = Sampler(
        prepared.entries,
        prepared.detail(),
        patch=data.patch,
        scales=plan.scales,
        focus=data.focus,
        versions=versions,
        clean=data.clean,
        augment=data.augment,
        seed=shared.order.seed,
    )
    if (small := len(_contents(prepared.entries) - _contents(sampler.used))) > 0:
        shared.view.note(
            f"{small} pictures are left out: they are smaller than a patch of "
            f"{data.patch * min(plan.scales)} pixels"
        )
    return RunData(versions, prepared, sampler)


def taught_of(
    shared: Shared, plan: Plan, data: RunData, teacher: Taught | None
) -> Mapping[int, NDArray[np.uint8]]:
    """What a teacher that sees whole pictures made of them, at each scale. The first process has
    it make them; the others find everything there.

    Raises:
        ResourceError, OutputError: the cache cannot be written.
    """
    recipe = plan.recipe
    learns = recipe.teacher.share > 0 and (recipe.steps > 0 or shared.order.minutes is not None)
    if teacher is None or recipe.teacher.sees != "pictures" or not learns:
        return {}
    processes, view = shared.processes, shared.view
    if not processes.first:
        processes.wait()
    dtype = training_dtype(plan.recipe.precision, shared.device)
    target = Target(shared.device, dtype, "as the run")
    made = {
        scale: taught_pictures(
            teacher, data.prepared, scale, target, progress=view.preparing, note=view.note
        )
        for scale in plan.scales
    }
    if processes.first:
        processes.wait()
    return made


def store_of(
    shared: Shared,
    plan: Plan,
    data: RunData,
    colour: Literal["rgb", "y"],
    taught: Mapping[int, NDArray[np.uint8]],
) -> PatchStore:
    """Where patches are cut, on the accelerator if its memory holds the pictures.

    Args:
        taught: see ``taught_of``.
    """
    store = PatchStore(
        data.prepared,
        scales=plan.scales,
        versions=data.versions,
        patch=plan.recipe.data.patch,
        colour=colour,
        device=shared.device,
        taught=taught,
        share=plan.recipe.teacher.share,
    )
    if shared.device.type == "cuda" and not store.resident:
        shared.view.note("the pictures do not fit into the accelerator's memory: cut on the CPU")
    return store


def pairs_of(shared: Shared, plan: Plan, *, degraded: bool) -> Sequence[Pair]:
    """What the quality is measured on."""
    view = shared.view
    pairs = make_pairs(shared.pictures.validation, plan.scales, degraded=degraded, note=view.note)
    if not pairs and plan.recipe.data.held_out:
        view.note(
            "nothing is measured: no picture that was held out can be read and has "
            f"{16 * max(plan.scales)} pixels or more on each side"
        )
    return pairs


def _prepared(shared: Shared, plan: Plan, versions: int) -> Prepared:
    """The pictures, decoded by the first process; the others find everything there."""
    first = shared.processes.first
    if not first:
        shared.processes.wait()
    prepared = prepare(
        shared.pictures,
        shared.order.cache,
        sizes=plan.recipe.data.sizes,
        scales=plan.scales,
        versions=versions,
        progress=shared.view.preparing,
        note=shared.view.note,
        threads=shared.order.threads,
        retry=first and plan is shared.first_plan,
    )
    if first:
        shared.processes.wait()
    low = any(prepared.given(scale) for scale in plan.scales)
    if low and (smaller := [size for size in plan.recipe.data.sizes if size != 1]):
        shared.view.note(
            "low-resolution files that came with the pictures are used at full size; at "
            f"{' and '.join(map(str, smaller))} of it they are made (--set 'data.sizes=[1]': none)"
        )
    for why in prepared.skipped:
        shared.view.note(f"skipped {why}")
    if len(prepared.skipped) > 1:
        shared.view.note(f"{len(prepared.skipped)} pictures were skipped")
    return prepared


def _contents(entries: Sequence[Entry]) -> set[str]:
    """Their pictures, by hash: one may be there at several sizes."""
    return {entry.sha256 for entry in entries}
