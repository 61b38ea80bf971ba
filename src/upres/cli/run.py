"""What ``upscale`` and ``batch`` share: the loop that reads, computes and writes them.

Reading the next picture and writing the last one overlap with the network; at most one of each
waits, so memory does not grow with the number of files.
"""

import math
import stat
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from upres.cli.jobs import STREAM, Job, ModelOptions, Settings
from upres.cli.output import Output, Progress
from upres.cli.results import Report, say_done, say_planned, stream, write
from upres.errors import BatchError, OutputError, ResourceError, UpresError, WeightsError

if TYPE_CHECKING:
    from upres.api import Upscaler
    from upres.imaging.fidelity import Item
    from upres.imaging.isolation import Decoder
    from upres.imaging.picture import Picture
    from upres.imaging.writer import Ready
    from upres.inference.pipeline import Pipeline

# Bytes of a result that takes so long that people want to know how long.
_SLOW = 10**8


class Watch(Protocol):
    """Told what becomes of each job of a batch."""

    def reads(self, job: Job) -> None:
        """Its picture is about to be read, in a thread of its own."""
        ...

    def writes(self, job: Job, part: Path) -> None:
        """Its result is whole, and about to take its place."""
        ...

    def ended(self, job: Job, error: UpresError | None) -> None:
        """Its result is written, or never will be."""
        ...


def run(
    jobs: Sequence[Job],
    options: ModelOptions,
    settings: Settings,
    output: Output,
    *,
    alone: bool,
    watch: Watch | None = None,
) -> None:
    """Do all jobs; one that fails does not stop the others.

    Args:
        alone: there is one job and its error is the command's.
        watch: of a batch, whose files are decoded in a process of their own.

    Raises:
        UpresError: nothing could begin, or the only job failed.
        BatchError: some of several jobs failed.
    """
    options.check()
    settings = replace(settings, key=options.fingerprint(profile=settings.convert_profile))
    # Pipes are read here, in the main thread, where an interrupt ends it, and once.
    if watch is None:
        jobs = [replace(job, data=_piped(job)) for job in jobs]
    if alone:
        try:
            _check_early(jobs[0], settings)
        except UpresError as error:
            _report_failure(jobs[0], error, output)
            raise
    failed = 0
    with output.progress() as progress, ExitStack() as stack:
        upscaler = options.upscaler(progress.transfer)
        upscaler.check_device()
        decoder = _decoder(stack, watch)

        def reading(job: Job) -> "Picture":
            if watch is not None:
                watch.reads(job)
            with _memory_errors(job):
                return _read(job, settings, decoder)

        outcomes = _outcomes(
            jobs,
            upscaler,
            settings,
            output,
            progress,
            reading,
            watch,
            give_up=lambda: None if decoder is None else decoder.interrupt(),
        )
        # Its threads end before the decoder that they use does.
        for job, failure in stack.enter_context(closing(outcomes)):
            if watch is not None:
                watch.ended(job, failure)
            if failure is None:
                continue
            failed += 1
            _report_failure(job, failure, output)
            if alone:
                raise failure
            output.error(_named(job, failure))
            if settings.fail_fast:
                raise BatchError(f"{job.name} failed", "the rest was not tried")
    if failed:
        raise BatchError(f"{failed} of {len(jobs)} pictures failed", "each is named above")


def _named(job: Job, error: UpresError) -> UpresError:
    """The error with the name of the picture, of which there are several."""
    if job.name in error.problem:
        return error
    return type(error)(f"{job.name}: {error.problem}", error.next_step)


def _decoder(stack: ExitStack, watch: Watch | None) -> "Decoder | None":
    if watch is None:
        return None
    from upres.imaging.isolation import Decoder

    return stack.enter_context(Decoder())


def _report_failure(job: Job, error: UpresError, output: Output) -> None:
    output.event(event="failed", input=job.name, error=str(error), exit_code=error.exit_code)


def _outcomes(
    jobs: Sequence[Job],
    upscaler: "Upscaler",
    settings: Settings,
    output: Output,
    progress: Progress,
    read: "Callable[[Job], Picture]",
    watch: Watch | None,
    *,
    give_up: Callable[[], None],
) -> Generator[tuple[Job, UpresError | None]]:
    with ThreadPoolExecutor(1) as readers, ThreadPoolExecutor(1) as writers:
        reading: Future[Picture] | None = None
        writing: tuple[Job, Future[None]] | None = None

        def written() -> Iterator[tuple[Job, UpresError | None]]:
            nonlocal writing
            if writing is not None:
                (done, future), writing = writing, None
                yield done, _outcome(future)

        try:
            for i, job in enumerate(jobs):
                current = reading or readers.submit(read, job)
                following = jobs[i + 1] if i + 1 < len(jobs) else None
                try:
                    picture = current.result()
                    if following is not None:
                        reading = readers.submit(read, following)
                    label = f"{i + 1}/{len(jobs)} {job.name}" if len(jobs) > 1 else job.name
                    started = partial(progress.start, label)
                    ready = None if watch is None else partial(watch.writes, job)
                    with _memory_errors(job):
                        encode = _compute(
                            job,
                            picture,
                            upscaler,
                            settings,
                            output,
                            started,
                            progress.update,
                            ready,
                        )
                except WeightsError:  # it would be the same for every picture
                    yield from written()
                    raise
                except UpresError as error:
                    if following is not None and reading in (None, current):
                        reading = readers.submit(read, following)
                    # First what was made before: a failure may end the run.
                    yield from written()
                    yield job, error
                    continue
                yield from written()
                writing = (job, writers.submit(_written, job, encode))
                del picture, encode  # or they would live through the next picture's computation
            yield from written()
        except BaseException:
            readers.shutdown(wait=False, cancel_futures=True)
            give_up()  # or leaving the block would wait for a file that hangs
            raise


def _written(job: Job, encode: Callable[[], None]) -> None:
    with _memory_errors(job):
        encode()


@contextmanager
def _memory_errors(job: Job) -> Iterator[None]:
    """What an allocator says, wherever on the way, for people."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        from upres.inference.engine import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        raise ResourceError(
            f"{job.name}: memory is full", "use smaller tiles, or --device cpu"
        ) from error


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
            overwrite=settings.overwrite or job.replaces,
            source=job.source,
            folder_comes=settings.folders_come,
        )


def _read(job: Job, settings: Settings, decoder: "Decoder | None") -> "Picture":
    from upres.imaging.holding import holds_frames
    from upres.imaging.profiles import to_srgb
    from upres.imaging.reader import read_picture

    if not job.named_by_size:
        _check_target(job, job.target, settings)
    frames = job.file_format is None or holds_frames(job.file_format)
    if (large := _large(job, settings)) is not None:
        return large
    if decoder is not None and isinstance(job.contents, Path):
        picture = decoder.read(job.contents, max_pixels=settings.max_pixels, frames=frames)
    else:
        picture = read_picture(job.contents, max_pixels=settings.max_pixels, frames=frames)
    return to_srgb(picture) if settings.convert_profile == "srgb" else picture


def _large(job: Job, settings: Settings) -> "Picture | None":
    """A picture that is read row by row, if it is so large and that is possible."""
    path = job.contents
    if not isinstance(path, Path) or settings.convert_profile is not None:
        return None
    try:
        # Nothing compresses a hundredfold that people would want to enlarge.
        if not path.is_file() or path.stat().st_size < settings.streams_from / 100:
            return None
    except (OSError, ValueError):
        return None  # the reader says what is wrong
    from upres.imaging.reader import read_size
    from upres.imaging.streaming import open_streamed

    read_size(path, max_pixels=settings.max_pixels)
    return open_streamed(path, at_least=settings.streams_from)


def _named_otherwise(target: Path, file_format: str) -> bool:
    """Whether its suffix is another format's; one that is none says nothing."""
    from upres.imaging.formats import format_of

    try:
        return format_of(target) != file_format
    except OutputError:
        return False


def _piped(job: Job) -> bytes | None:
    if job.source is None:
        return sys.stdin.buffer.read()
    try:
        # A named pipe, as `upres <(command)` makes one.
        piped = stat.S_ISFIFO(job.source.stat().st_mode)
        return job.source.read_bytes() if piped else None
    except (OSError, ValueError):
        return None  # the reader says what is wrong


@dataclass(frozen=True)
class _Plan:
    """One picture on its way, when all that can be known before computing is known.

    Attributes:
        source: as it was read.
        picture: the same with the channels that the result's format holds.
        target: None is standard output.
        shape: H x W x C of the result.
        streams: whether it is written row by row.
        report: what is said when it is done.
    """

    source: "Picture"
    picture: "Picture"
    file_format: str
    target: Path | None
    shape: tuple[int, int, int]
    streams: bool
    pipeline: "Pipeline"
    report: Report


def _planned(job: Job, source: "Picture", upscaler: "Upscaler", settings: Settings) -> _Plan:
    """Look at everything that could go wrong, before anything is computed."""
    from upres.imaging.formats import check_size, written_as
    from upres.imaging.holding import check_frames, held_channels
    from upres.imaging.spool import spool_path
    from upres.imaging.writer import check_disk

    wide, high = upscaler.goal.size(source.width, source.height)
    file_format = job.file_format or written_as(source.format, job.source, job.target)
    picture = held_channels(source, file_format)
    check_size(file_format, wide, high, picture.pixels.shape[2])
    check_frames(picture, file_format)
    target = job.target
    if target is not None and job.named_by_size:
        target = target.with_stem(f"{target.stem}-{wide}x{high}")
        _check_target(job, target, settings)
    pipeline = upscaler.pipeline_of(picture)
    frames = len(picture.frames)
    shape = (high, wide, picture.pixels.shape[2])
    out_bytes = math.prod(shape) * picture.pixels.dtype.itemsize * max(1, frames)
    by_rows = file_format in ("PNG", "TIFF") and not frames and target is not None
    streams = by_rows and out_bytes >= settings.streams_from
    notes = [*picture.notes, *pipeline.notes]
    if job.file_format is None and target is not None and _named_otherwise(target, file_format):
        notes.append(f"by its name the result is not {file_format}, as the input is inside")
    if target is not None:
        room = check_disk(target, file_format, out_bytes, spool_path(target) if streams else None)
        notes += [room] if room else []
    _check_memory(job, pipeline, 0 if streams else out_bytes, by_rows=by_rows)
    estimated = None
    if settings.dry_run or out_bytes >= _SLOW:
        estimated = round(max(1, frames) * pipeline.estimate(), 1)
    report = Report(
        input=job.name,
        output=STREAM if target is None else str(target),
        input_size=(picture.width, picture.height),
        output_size=(wide, high),
        frames=frames or 1,
        model=pipeline.steps.name,
        scales=tuple(scale for _, scale in pipeline.steps.networks),
        device=pipeline.steps.target.device.type,
        precision=pipeline.steps.target.precision,
        tiles=pipeline.tiles,
        tile_memory_bytes=pipeline.memory,
        notes=tuple(notes),
        estimated_seconds=estimated,
    )
    return _Plan(source, picture, file_format, target, shape, streams, pipeline, report)


def _compute(
    job: Job,
    source: "Picture",
    upscaler: "Upscaler",
    settings: Settings,
    output: Output,
    started: Callable[[float], None],
    advanced: Callable[[float, int], None],
    ready: "Ready | None",
) -> Callable[[], None]:
    """Everything up to the pixels; returns what is left to do: encode, write, report."""
    began = time.perf_counter()
    plan = _planned(job, source, upscaler, settings)
    report, pipeline, picture = plan.report, plan.pipeline, plan.picture
    if settings.dry_run:
        return lambda: say_planned(report, output)
    if (report.estimated_seconds or 0) > 60:
        output.note(f"{job.name}: about {_minutes(report.estimated_seconds or 0)}")
    started(picture.width * picture.height / max(1, pipeline.tiles))

    def told(note: str) -> None:
        output.note(f"note: {job.name}: {note}")

    def finish(notes: "list[str]", items: "list[Item] | None") -> None:
        done = replace(report, notes=(*report.notes, *notes), fidelity=items)
        say_done(done, output, time.perf_counter() - began)

    if plan.streams and plan.target is not None:
        make = partial(pipeline.strips, advanced, told)
        # Rows that another device or precision made are not to be gone on with.
        settings = replace(settings, key=f"{settings.key} {report.device} {report.precision}")
        written = stream(
            job,
            source,
            make,
            plan.shape,
            plan.file_format,
            plan.target,
            settings,
            output,
            ready,
        )
        return lambda: finish(*written)
    if picture.frames:
        made = upscaler.picture(picture, advanced, told)
    else:
        made = replace(picture, pixels=pipeline.run(advanced, told))
    # Not the plan, whose pipeline would live through the next picture's computation.
    file_format, target = plan.file_format, plan.target
    return lambda: finish(*write(job, source, made, file_format, target, settings, output, ready))


def _minutes(seconds: float) -> str:
    if seconds < 5400:
        return f"{math.ceil(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"


def _check_memory(job: Job, pipeline: "Pipeline", result: int, *, by_rows: bool) -> None:
    """Linux hands out memory that it does not have and then kills; so count first.

    Args:
        result: bytes of the result that are in memory at once.
        by_rows: it could be written row by row instead.
    """
    import torch

    from upres.inference.device import free_memory

    on_cpu = pipeline.steps.target.device.type == "cpu"
    # The result, Pillow's copy of it (four bytes a pixel), and the file.
    made, tiles = int(result * 3.5), pipeline.memory if on_cpu else 0
    needed, free = made + tiles, free_memory(torch.device("cpu"))
    if needed > free and tiles > made:
        raise ResourceError(
            f"{job.name}: a tile needs {tiles / 2**30:.1f} GiB of memory, "
            f"{free / 2**30:.1f} GiB are free",
            "leave --tile away, or give a smaller one",
        )
    if needed > free:
        raise ResourceError(
            f"{job.name}: the result needs {needed / 2**30:.1f} GiB of memory, "
            f"{free / 2**30:.1f} GiB are free",
            "give --max-memory 1G, so that it is written row by row"
            if by_rows and result
            else "write .tif or .png, which need not be in memory, or choose a smaller result",
        )
