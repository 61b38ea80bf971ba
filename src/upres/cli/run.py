"""What ``upscale`` and ``batch`` share: the loop that reads, computes and writes them.

Reading the next picture and writing the last one overlap with the network; at most one of each
waits, so memory does not grow with the number of files.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from upres.cli.jobs import Job, ModelOptions, Settings, fingerprint
from upres.cli.output import Output, Progress
from upres.cli.plan import Plan, plan
from upres.cli.reading import check_early, piped, read
from upres.cli.reports import Report, say_done, say_planned
from upres.cli.results import stream, write
from upres.errors import BatchError, ResourceError, UpresError, WeightsError, is_disk_full
from upres.progress import downloading

if TYPE_CHECKING:
    from upres.api import Upscaler
    from upres.imaging.fidelity import Item
    from upres.imaging.isolation import Decoder
    from upres.imaging.picture import Picture


class Watch(Protocol):
    """Told what becomes of each job of a batch."""

    def reads(self, job: Job) -> None:
        """Its picture is about to be read, in a thread of its own."""
        ...

    def planned(self, report: Report) -> None:
        """What a dry run found out about one."""
        ...

    def writes(self, job: Job, part: Path) -> None:
        """Its result is whole, and about to take its place."""
        ...

    def ended(self, job: Job, error: UpresError | None) -> None:
        """Its result is written, or never will be."""
        ...


class _Nobody:
    def reads(self, job: Job) -> None:
        pass

    def planned(self, report: Report) -> None:
        pass

    def writes(self, job: Job, part: Path) -> None:
        pass

    def ended(self, job: Job, error: UpresError | None) -> None:
        pass


def run(
    jobs: Sequence[Job],
    options: ModelOptions,
    settings: Settings,
    output: Output,
    *,
    single: bool = False,
    isolated: bool = False,
    watch: Watch | None = None,
) -> None:
    """Do all jobs; one that fails does not stop the others, unless it is a full disk.

    Args:
        single: there is one job and its error is the command's.
        isolated: files are decoded in a process of their own, and pipes not read.

    Raises:
        UpresError: nothing could begin, the disk is full, or the only job failed.
        BatchError: some of several jobs failed.
    """
    options.check()
    key = fingerprint(options.facts(profile=settings.convert_profile))
    if not isolated:
        # In the main thread, where an interrupt ends it, and once.
        jobs = [replace(job, data=piped(job)) for job in jobs]
    if single:
        try:
            check_early(jobs[0], settings)
        except UpresError as error:
            _report_failure(jobs[0], error, output)
            raise
    watch = watch or _Nobody()
    failed = 0
    with output.progress() as progress, ExitStack() as stack:
        upscaler = options.upscaler(downloading(progress.transfer))
        upscaler.check_device()
        decoder = stack.enter_context(_decoder()) if isolated else None
        outcomes = _Run(upscaler, settings, key, output, progress, watch, decoder).outcomes(jobs)
        # Its threads end before the decoder that they use does.
        progress.pictures(0, len(jobs))
        for i, (job, failure) in enumerate(stack.enter_context(closing(outcomes))):
            progress.pictures(i + 1, len(jobs))
            watch.ended(job, failure)
            if failure is None:
                continue
            failed += 1
            _report_failure(job, failure, output)
            if single:
                raise failure
            output.error(_named(job, failure))
            if is_disk_full(failure.__cause__):  # it would be the same for every picture
                raise ResourceError("the disk is full", "free some space, and repeat the command")
            if settings.fail_fast:
                raise BatchError(f"{job.name} failed", "the rest was not tried")
    if failed:
        raise BatchError(f"{failed} of {len(jobs)} pictures failed", "each is named above")


def _decoder() -> "Decoder":
    from upres.imaging.isolation import Decoder

    return Decoder()


def _named(job: Job, error: UpresError) -> UpresError:
    """The error with the name of the picture, of which there are several."""
    if job.name in error.problem:
        return error
    return type(error)(f"{job.name}: {error.problem}", error.next_step)


def _report_failure(job: Job, error: UpresError, output: Output) -> None:
    output.event(event="failed", input=job.name, error=str(error), exit_code=error.exit_code)


@dataclass(frozen=True)
class _Run:
    """One picture is computed while the next is read and the last one written.

    Attributes:
        key: fingerprint of all that results depend on but the picture.
    """

    upscaler: "Upscaler"
    settings: Settings
    key: str
    output: Output
    progress: Progress
    watch: Watch
    decoder: "Decoder | None"

    def outcomes(self, jobs: Sequence[Job]) -> Generator[tuple[Job, UpresError | None]]:
        """Each job with its error or None, in their order."""
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
                    current = reading or readers.submit(self._read, job)
                    following = jobs[i + 1] if i + 1 < len(jobs) else None
                    try:
                        picture = current.result()
                        if following is not None:
                            reading = readers.submit(self._read, following)
                        label = f"{i + 1}/{len(jobs)} {job.name}" if len(jobs) > 1 else job.name
                        with _memory_errors(job):
                            finish = self._compute(job, picture, label)
                    except WeightsError:  # it would be the same for every picture
                        yield from written()
                        raise
                    except UpresError as error:
                        if following is not None and reading in (None, current):
                            reading = readers.submit(self._read, following)
                        # First what was made before: a failure may end the run.
                        yield from written()
                        yield job, error
                        continue
                    yield from written()
                    writing = (job, writers.submit(_finished, job, finish))
                    # Or they would live through the next picture's computation.
                    del picture, finish
                yield from written()
            except BaseException:
                readers.shutdown(wait=False, cancel_futures=True)
                if self.decoder is not None:
                    # Or leaving the block would wait for a file that hangs.
                    self.decoder.interrupt()
                raise

    def _read(self, job: Job) -> "Picture":
        self.watch.reads(job)
        with _memory_errors(job):
            return read(job, self.settings, self.decoder)

    def _compute(self, job: Job, source: "Picture", label: str) -> Callable[[], None]:
        """Everything up to the pixels; returns what is left to do: encode, write, report."""
        began = time.perf_counter()
        planned, picture, pipeline = plan(job, source, self.upscaler, self.settings)
        report, ready = planned.report, partial(self.watch.writes, job)
        if self.settings.dry_run:
            self.watch.planned(report)
            return partial(say_planned, report, self.output)
        if (report.estimated_seconds or 0) > 60:
            self.output.note(f"{job.name}: about {duration(report.estimated_seconds or 0)}")
        self.progress.start(label, picture.width * picture.height / max(1, pipeline.tiles))

        told: list[str] = []
        if planned.streams:
            # Rows that another device or precision made are not to be gone on with.
            key = f"{self.key} {report.device} {report.precision}"
            make = partial(pipeline.strips, self.progress.update, told.append)
            notes, items = stream(planned, make, self.settings, key, self.output, ready)
            return partial(self._say, planned, [*told, *notes], items, began)
        if picture.frames:
            made = self.upscaler.picture(picture, self.progress.update, told.append)
            told += made.notes  # of all pages; the first one's are planned
        else:
            made = replace(picture, pixels=pipeline.run(self.progress.update, told.append))

        def finish() -> None:
            notes, items = write(planned, made, self.settings, self.output, ready)
            self._say(planned, [*told, *notes], items, began)

        return finish

    def _say(
        self, planned: Plan, notes: "list[str]", items: "list[Item] | None", began: float
    ) -> None:
        report = planned.report
        said = tuple(dict.fromkeys((*report.notes, *notes)))
        done = replace(report, notes=said, fidelity=items)
        say_done(done, self.output, time.perf_counter() - began)


def _finished(job: Job, finish: Callable[[], None]) -> None:
    with _memory_errors(job):
        finish()


@contextmanager
def _memory_errors(job: Job) -> Iterator[None]:
    """What an allocator says, wherever on the way, for people."""
    from upres.inference.engine import memory_errors

    with memory_errors(f"{job.name}: memory is full"):
        yield


def _outcome(future: "Future[None]") -> UpresError | None:
    try:
        future.result()
    except UpresError as error:
        return error
    return None


def duration(seconds: float) -> str:
    """For people: whole minutes, or hours."""
    if seconds < 5400:
        minutes = max(1, math.ceil(seconds / 60))
        return f"{minutes} minute{'s' * (minutes > 1)}"
    return f"{seconds / 3600:.1f} hours"
