"""What can be known of an order before any picture is downloaded or decoded."""

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

import torch

from upres.errors import OutputError, UsageError
from upres.training.checkpoint import NAME as CHECKPOINT
from upres.training.distributed import process_count
from upres.training.learner import training_dtype
from upres.training.order import RESULT, Order, Plan, check_cache, check_folder, plans
from upres.training.resume import begun_with, check_same
from upres.training.start import check_later_start, check_start, files_of, teacher_told


def check_order(order: Order) -> list[Plan]:
    """The runs that an order takes, when all has been looked at that needs no pictures.

    Raises:
        UsageError: the recipe is wrong, or there is no such device.
        UsageError, WeightsError: see ``begin``, ``teacher_of`` and ``resumed``.
        OutputError: see ``check_folder``; what is begun with or learnt from would be overwritten.
    """
    device = torch.device(device_kind(order))
    wanted = plans(order)
    for plan in wanted:
        check_folder(plan.folder, order)
        training_dtype(plan.recipe.precision, device)
        _check_needed(order, plan)
    check_cache(order.cache)
    for i, plan in enumerate(wanted):
        teacher = teacher_told(order, plan)
        if resumes(order, plan):
            sha256 = teacher["sha256"] if teacher else None
            begun = begun_with(
                plan.scales, order.seed, order.minutes, process_count(), teacher=sha256
            )
            check_same(plan.folder, plan.recipe, begun)
        else:
            check_start(order, plan, weights=i == 0)
            if i > 0:
                check_later_start(order, wanted[0], plan)
    if order.overwrite:
        _check_spared(order, wanted)
    if len({plan.recipe.data.held_out for plan in wanted}) > 1:
        raise UsageError(
            f"recipe {wanted[0].recipe.name}: data.held_out differs between scales",
            "give one, outside of [x2], [x3] and [x4]",
        )
    return wanted


def check_apart(order: Order, wanted: Sequence[Plan]) -> None:
    """No picture lies in a run's folder, where the next run would not look for any.

    Raises:
        OutputError: one does.
    """
    folders = {Path(os.path.realpath(plan.folder)): plan.folder for plan in wanted}
    files = (file for _, found in order.data for file in (*found.train, *found.validation))
    for path in chain.from_iterable((f.path, *(low for _, low in f.low)) for f in files):
        real = Path(os.path.realpath(path))
        for place, folder in folders.items():
            if real.is_relative_to(place):
                raise OutputError(
                    f"{folder} holds pictures of --data, such as {path}",
                    "give another --output: a run's folder is not looked into for pictures",
                )


def resumes(order: Order, plan: Plan) -> bool:
    """Whether there is something to go on from, and that was asked for."""
    return order.resume and (plan.folder / CHECKPOINT).is_file()


def device_kind(order: Order) -> Literal["cpu", "cuda"]:
    """What the order trains on.

    Raises:
        UsageError: it is not to be had here.
    """
    if order.device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if order.device == "cuda":
        raise UsageError("device cuda is not available here", "'upres doctor' says what is")
    return "cpu"


def _check_needed(order: Order, plan: Plan) -> None:
    """Raises:
    UsageError: what a teacher does was said, and there is none.
    """
    if plan.recipe.teacher.weights in ("", "none"):
        for key in order.changes:
            if key.startswith("teacher.") and key != "teacher.weights":
                raise UsageError(f"{key} means nothing without a teacher", "give --teacher, too")


def _check_spared(order: Order, wanted: Sequence[Plan]) -> None:
    """Raises:
    OutputError: old results that are to be overwritten are needed.
    """
    old = {os.path.realpath(plan.folder / RESULT) for plan in wanted}
    for plan in wanted:
        for path in files_of(order, plan):
            if os.path.realpath(path) in old:
                raise OutputError(
                    f"--overwrite would delete {path}, which the run needs", "give another --output"
                )
