"""``upres train`` from its options to its results: data, models, one run for each scale."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from upres.data.gather import gather
from upres.errors import ResourceError, UpresError, UsageError
from upres.inference.device import why_unusable
from upres.inference.engine import is_out_of_memory
from upres.training.check import check_apart, check_order, device_kind, resumes
from upres.training.distributed import Processes, join
from upres.training.learner import training_dtype
from upres.training.order import RESULT, Order, Plan, clear, entered
from upres.training.patches import PatchStore
from upres.training.record import Record, View
from upres.training.resume import finished_story
from upres.training.run import Outcome, Run, Taught
from upres.training.rundata import RunData, data_of, pairs_of, store_of, taught_of
from upres.training.shared import Nobody, Shared, TrainingView
from upres.training.start import Start, begin, teacher_of
from upres.training.stop import Stopping
from upres.training.story import device_name, rename_result, story_of, write_result
from upres.training.trainer import train
from upres.training.validation import Pair, Quality


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


def run_order(order: Order, view: TrainingView, stop: Stopping) -> list[Result]:
    """Prepare, train every scale, write the results.

    Args:
        stop: asked before every step; it listens while there is something to save.

    Returns:
        One result for each run; the last is unfinished if ``stop`` ended it. Of several processes
        only the first returns any.

    Raises:
        UpresError: see the modules that do the work.
    """
    kind = device_kind(order)
    processes = join(kind)
    if not processes.first:
        view = Nobody()
    try:
        # Only now is each process at its own GPU, and not all at the first one.
        if kind == "cuda" and (why := why_unusable(kind)):
            raise UsageError(f"device cuda does not work here ({why})", "give --device cpu")
        device = torch.device(kind, processes.local_rank) if kind == "cuda" else torch.device(kind)
        results = _runs(order, view, stop, processes, device)
        return results if processes.first else []
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            talking = any(word in str(error) for word in ("gloo", "NCCL", "onnection"))
            if processes.count == 1 or not talking:
                raise
            why = str(error).partition("\n")[0]
            who, what = "the first process is", "see what it said"
            if processes.first:
                who, what = "another process is", "--resume goes on from the last checkpoint"
            raise ResourceError(f"{who} gone ({why})", what) from error
        where = "the GPU" if kind == "cuda" else "this machine"
        raise ResourceError(
            f"training takes more memory than {where} has",
            "compute batches in parts (--set data.accumulate=2, with --resume too), or begin with "
            "a smaller --batch",
        ) from error
    finally:
        processes.close()


def _runs(
    order: Order,
    view: TrainingView,
    stop: Stopping,
    processes: Processes,
    device: torch.device,
) -> list[Result]:
    wanted = check_order(order)
    check_apart(order, wanted)
    # What may have to be downloaded, and whether it fits, before pictures are decoded.
    teachers = [teacher_of(order, plan) for plan in wanted]
    start = _start(order, wanted[0], None)
    folders = [folder for _, folder in order.data]
    pictures = gather(folders, wanted[0].recipe.data.held_out, view.preparing)
    if pictures.unmeasured:
        view.note(
            f"{len(pictures.validation)} validation pictures are measured, "
            f"{pictures.unmeasured} are left out"
        )
    shared = Shared(order, wanted[0], pictures, view, stop, processes, device)
    # Whatever a later scale lacks is found before the first one is trained.
    data = [data_of(shared, plan) for plan in wanted]
    taught = [
        taught_of(shared, plan, its_data, teacher)
        for plan, its_data, teacher in zip(wanted, data, teachers, strict=True)
    ]
    results: list[Result] = []
    for plan, its_data, teacher, made in zip(wanted, data, teachers, taught, strict=True):
        if results and processes.any(stop()):  # while the last one was measured
            break
        if results:
            start = _start(order, plan, results[0].path)
        if resumes(order, plan) and order.init is not None and processes.first:
            view.note(f"{plan.folder} goes on as it began: --init is not looked at")
        store = store_of(shared, plan, its_data, start.model.network.colour, made)
        result = _one(shared, plan, its_data, store, start, teacher, others=wanted[1:])
        processes.wait()  # the first one has written what the next run may begin with
        results.append(result)
        if not result.finished:
            break
        # The first one has cleared all their folders; what is there now is somebody else's.
        shared = replace(shared, order=replace(order, overwrite=False))
    return results


def _start(order: Order, plan: Plan, first: Path | None) -> Start:
    """See ``begin``."""
    # What a run that goes on began with may be gone by now, and is in its checkpoint.
    if resumes(order, plan):
        return begin(replace(order, init="none"), plan, None)
    return begin(order, plan, first)


def _one(
    shared: Shared,
    plan: Plan,
    data: RunData,
    store: PatchStore,
    start: Start,
    teacher: Taught | None,
    *,
    others: Sequence[Plan],
) -> Result:
    """One run.

    Args:
        others: whose old runs, if they are to be overwritten, go when this one's does; one that was
            left would be resumed as if it belonged to the new ones.
    """
    order, first = shared.order, shared.processes.first
    resume = resumes(order, plan)
    pairs = pairs_of(shared, plan, degraded=data.versions > 0) if first else ()
    scales = f"x{','.join(map(str, plan.scales))}"
    if order.resume and not resume:
        shared.view.note(f"{plan.folder} holds no run to resume: a new one begins")
    if not resume:
        shared.view.note(f"{scales} starts from {start.origin}")
    if teacher:
        share = f"{100 * plan.recipe.teacher.share:.0f} %"
        shared.view.note(f"{share} of what {scales} learns is from {teacher.told['name']}")
    dtype = str(training_dtype(plan.recipe.precision, shared.device)).removeprefix("torch.")
    shared.view.note(f"on {device_name(shared.device)}, in {dtype}")
    shared.view.begins(f"{start.model.facts.name} {scales}", plan.recipe, order.minutes)
    story = story_of(shared, plan, data.prepared, data.sampler.used)
    run = Run(
        recipe=plan.recipe,
        model=start.model,
        sampler=data.sampler,
        store=store,
        folder=plan.folder,
        device=shared.device,
        processes=shared.processes,
        watch=Nobody(),
        minutes=order.minutes,
        resume=resume,
        origin=start.origin,
        sources=start.sources,
        teacher=teacher,
        data=story["data"],
        stop=shared.stop,
        write=partial(write_result, story=story, licence=order.licence),
        # A report copies the state, which would cost a fast device a tenth of its time.
        report_every=50 if shared.device.type == "cpu" else 500,
        validate_every=60 * min(order.validate_minutes, (order.minutes or math.inf) / 5),
    )
    if not first:
        return Result(plan.folder / RESULT, (), _train(shared, run, None)[1])
    # From here on nothing is asked for any more: old runs may go.
    with _ours(order, plan, others), _recorded(plan.folder, pairs, shared.view) as record:
        if order.resume and not resume:  # it was killed before it saved anything
            record.forget_after(-1)
        begins = {} if resume else {"start": start.origin}
        record.event("start", {**story, **begins, "scales": plan.scales, "resumed": resume})
        quality, finished = _train(shared, replace(run, watch=record), record)
    return Result(plan.folder / RESULT, quality, finished)


@contextmanager
def _ours(order: Order, plan: Plan, others: Sequence[Plan]) -> Iterator[None]:
    """The run's folder, which nobody else works in; what is to be overwritten is gone.

    Raises:
        OutputError: see ``entered`` and ``clear``; nothing is gone if another run works in any.
    """
    old = [other.folder for other in others if order.overwrite]
    with entered(plan.folder, order):
        with ExitStack() as held:
            for folder in old:
                held.enter_context(entered(folder, order))
            for folder in (*old, plan.folder):
                clear(folder, order)
        yield


@contextmanager
def _recorded(folder: Path, pairs: Sequence[Pair], view: View) -> Iterator[Record]:
    record = Record(folder, pairs, view)
    try:
        yield record
    finally:
        record.close()


def _train(shared: Shared, run: Run, record: Record | None) -> tuple[tuple[Quality, ...], bool]:
    """Train, measure and write.

    Args:
        record: the first process's.

    Returns:
        The quality, and whether the run came to its end.
    """
    quality: tuple[Quality, ...] = ()
    with shared.stop.listening():
        outcome = train(run)
        if record:
            with nullcontext() if outcome.unsaved is None else suppress(UpresError):
                quality = _finish(outcome, record, shared.view, shared.order)
        if outcome.unsaved is not None:
            raise outcome.unsaved
    return quality, outcome.finished


def _finish(
    outcome: Outcome, record: Record, view: TrainingView, order: Order
) -> tuple[Quality, ...]:
    """Write the result, measure it in float32, and write it with that."""
    run, kept, position = outcome.run, outcome.kept, outcome.position
    result, before = run.folder / RESULT, finished_story(run)
    quality: tuple[Quality, ...] = ()
    if before and not outcome.finished:
        view.note(f"{result} stays as it was before this run was lengthened")
    # Nothing was left to do, but for measuring, if the run was killed at that.
    elif before and before["steps"] == position.step and (before["validation"] or not record.pairs):
        quality = tuple(Quality(**one) for one in before["validation"])
        rename_result(result, order)
    else:
        if not outcome.finished:
            view.note("stopping: measuring what there is")
        # Measuring may last, and whoever stops several processes kills them soon.
        run.write(run, kept, position, ())
        quality = record.validate(position.step, kept, torch.float32)
        run.write(run, kept, position, quality)
        if outcome.unsaved is not None:
            view.note(f"the weights are in {result}")
    record.event("end", {"step": position.step, "finished": outcome.finished})
    return quality
