"""What ``upscale`` and ``batch`` share: the loop that reads, computes and writes them.

Reading the next picture and writing the last one overlap with the network; at most one of each
waits, so memory does not grow with the number of files.
"""

import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upres.cli.jobs import STREAM, Job, ModelOptions, Settings
from upres.cli.output import Output, Progress
from upres.errors import BatchError, ResourceError, UpresError, WeightsError

if TYPE_CHECKING:
    from upres.api import Upscaler
    from upres.imaging.picture import Picture


def run(
    jobs: Sequence[Job], options: ModelOptions, settings: Settings, output: Output, *, alone: bool
) -> None:
    """Do all jobs; one that fails does not stop the others.

    Args:
        alone: there is one job and its error is the command's.

    Raises:
        UpresError: nothing could begin, or the only job failed.
        BatchError: some of several jobs failed.
    """
    options.check()
    if alone:
        try:
            # Pipes are read here, in the main thread, where an interrupt ends it.
            jobs = [replace(jobs[0], data=_piped(jobs[0]))]
            _check_early(jobs[0], settings)
        except UpresError as error:
            _report_failure(jobs[0], error, output)
            raise
    failed = 0
    with output.progress() as progress:
        upscaler = options.upscaler(progress.transfer)
        upscaler.check_device()
        for job, failure in _outcomes(jobs, upscaler, settings, output, progress):
            if failure is None:
                continue
            failed += 1
            _report_failure(job, failure, output)
            if alone:
                raise failure
            output.error(failure)
    if failed:
        raise BatchError(f"{failed} of {len(jobs)} pictures failed", "each is named above")


def _report_failure(job: Job, error: UpresError, output: Output) -> None:
    output.event(event="failed", input=job.name, error=str(error), exit_code=error.exit_code)


def _outcomes(
    jobs: Sequence[Job],
    upscaler: "Upscaler",
    settings: Settings,
    output: Output,
    progress: Progress,
) -> Iterator[tuple[Job, UpresError | None]]:
    with ThreadPoolExecutor(1) as readers, ThreadPoolExecutor(1) as writers:
        reading: Future[Picture] | None = None
        writing: tuple[Job, Future[None]] | None = None
        try:
            for i, job in enumerate(jobs):
                current = reading or readers.submit(_read, job, settings)
                following = jobs[i + 1] if i + 1 < len(jobs) else None
                try:
                    picture = current.result()
                    if following is not None:
                        reading = readers.submit(_read, following, settings)
                    label = f"{i + 1}/{len(jobs)} {job.name}" if len(jobs) > 1 else job.name
                    started = partial(progress.start, label)
                    encode = _compute(
                        job, picture, upscaler, settings, output, started, progress.update
                    )
                except WeightsError:
                    raise  # it would be the same for every picture
                except UpresError as error:
                    if following is not None and reading in (None, current):
                        reading = readers.submit(_read, following, settings)
                    yield job, error
                    continue
                if writing is not None:
                    yield writing[0], _outcome(writing[1])
                writing = (job, writers.submit(encode))
                del picture, encode  # or they would live through the next picture's computation
            if writing is not None:
                yield writing[0], _outcome(writing[1])
        except BaseException:
            readers.shutdown(wait=False, cancel_futures=True)
            raise


def _outcome(future: "Future[None]") -> UpresError | None:
    try:
        future.result()
    except UpresError as error:
        return error
    return None


def _check_early(job: Job, settings: Settings) -> None:
    """What can be known before torch is imported, which takes a second."""
    from upres.imaging.reader import read_size

    if not job.named_by_size:
        _check_target(job, job.target, settings)
    read_size(job.contents, max_pixels=settings.max_pixels)


def _check_target(job: Job, target: Path | None, settings: Settings) -> None:
    from upres.imaging.writer import check_target

    if target is not None:
        check_target(
            target,
            overwrite=settings.overwrite,
            source=job.source,
            folder_comes=settings.folders_come,
        )


def _read(job: Job, settings: Settings) -> "Picture":
    from upres.imaging.reader import read_picture

    if not job.named_by_size:
        _check_target(job, job.target, settings)
    return read_picture(job.contents, max_pixels=settings.max_pixels)


def _piped(job: Job) -> bytes | None:
    if job.source is None:
        return sys.stdin.buffer.read()
    try:
        # A named pipe, as `upres <(command)` makes one.
        piped = stat.S_ISFIFO(job.source.stat().st_mode)
        return job.source.read_bytes() if piped else None
    except (OSError, ValueError):
        return None  # the reader says what is wrong


def _compute(
    job: Job,
    picture: "Picture",
    upscaler: "Upscaler",
    settings: Settings,
    output: Output,
    started: Callable[[float], None],
    advanced: Callable[[float, int], None],
) -> Callable[[], None]:
    """Everything up to the pixels; returns what is left to do: encode, write, report."""
    from upres.imaging.writer import check_size, encode, write_file

    began = time.perf_counter()
    wide, high = upscaler.goal.size(picture.width, picture.height)
    kind = job.kind or picture.format
    check_size(kind, wide, high)
    target = job.target
    if target is not None and job.named_by_size:
        target = target.with_stem(f"{target.stem}-{wide}x{high}")
        _check_target(job, target, settings)
    pipeline = upscaler.pipeline(picture.pixels, jpeg_quality=picture.jpeg_quality)
    facts = {
        "input": job.name,
        "output": STREAM if target is None else str(target),
        "input_size": [picture.width, picture.height],
        "output_size": [wide, high],
        "model": pipeline.steps.name,
        "scales": [scale for _, scale in pipeline.steps.networks],
        "device": pipeline.steps.target.device.type,
        "precision": pipeline.steps.target.precision,
        "tiles": pipeline.tiles,
        "tile_memory_bytes": pipeline.memory,
        "notes": [*picture.notes, *pipeline.notes],
    }
    _check_memory(job, picture, pipeline, wide * high)
    if settings.dry_run:
        return lambda: _say(facts, output, time.perf_counter() - began, dry=True)
    started(picture.width * picture.height / max(1, pipeline.tiles))
    try:
        pixels = pipeline.run(advanced, lambda note: output.note(f"note: {job.name}: {note}"))
    except MemoryError as error:
        raise ResourceError(f"{job.name}: memory is full", "use smaller tiles") from error

    def finish() -> None:
        data, notes = encode(replace(picture, pixels=pixels), kind, settings.quality)
        facts["notes"] = [*picture.notes, *pipeline.notes, *notes]
        if target is None:
            output.raw(data)
        else:
            write_file(target, data, overwrite=settings.overwrite)
        _say(facts, output, time.perf_counter() - began, dry=False)

    return finish


def _check_memory(job: Job, picture: "Picture", pipeline: Any, result_pixels: int) -> None:
    """Linux hands out memory that it does not have and then kills; so count first."""
    import torch

    from upres.inference.device import free_memory

    on_cpu = pipeline.steps.target.device.type == "cpu"
    result = result_pixels * picture.channels * picture.pixels.dtype.itemsize
    # The result, Pillow's copy of it (four bytes a pixel), and the file.
    needed = int(result * 3.5) + (pipeline.memory if on_cpu else 0)
    free = free_memory(torch.device("cpu"))
    if needed > free:
        raise ResourceError(
            f"{job.name}: the result needs {needed / 2**30:.1f} GiB of memory, "
            f"{free / 2**30:.1f} GiB are free",
            "choose a smaller result",
        )


def _say(facts: dict[str, Any], output: Output, seconds: float, *, dry: bool) -> None:
    for note in facts["notes"]:
        output.note(f"note: {facts['input']}: {note}")
    a, b = (f"{w} x {h}" for w, h in (facts["input_size"], facts["output_size"]))
    scales = " then ".join(f"x{s}" for s in facts["scales"])
    how = f"{facts['model']} {scales}".strip() + f", {facts['device']} {facts['precision']}"
    if dry:
        how += f", {facts['tiles']} tiles, {facts['tile_memory_bytes'] / 2**20:.0f} MiB for them"
        output.note(f"{facts['input']} {a} -> {facts['output']} {b}, {how} (dry run)")
        output.event(event="planned", **facts)
        return
    output.note(f"{facts['input']} {a} -> {facts['output']} {b}, {how}, {seconds:.1f} s")
    if facts["output"] != STREAM:
        output.value(facts["output"], event="done", seconds=round(seconds, 3), **facts)
