"""Results to files: whole or row by row, looked at again, and what is said about them."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upres.cli.jobs import STREAM, Job, Settings
from upres.cli.output import Output
from upres.hashing import sha256_of

if TYPE_CHECKING:
    from upres.imaging.fidelity import Item
    from upres.imaging.picture import Picture
    from upres.imaging.writer import Ready


def write(
    job: Job,
    source: "Picture",
    made: "Picture",
    file_format: str,
    target: Path | None,
    settings: Settings,
    output: Output,
    ready: "Ready | None" = None,
) -> tuple[list[str], "list[Item] | None"]:
    """Write the result; notes, and what became of everything in the file, if that is asked for.

    Args:
        ready: see ``replacing``.
    """
    from upres.imaging.encoder import Encoding, encode
    from upres.imaging.fidelity import compare
    from upres.imaging.reader import read_facts
    from upres.imaging.verify import check_written
    from upres.imaging.writer import write_file

    encoding = Encoding(settings.quality, settings.background)
    data, notes = encode(
        made.stripped() if settings.strip_metadata else made, file_format, encoding
    )
    check_written(data, file_format, made.width, made.height)
    if target is None:
        output.raw(data)
    else:
        write_file(target, data, overwrite=settings.overwrite or job.replaces, ready=ready)
    return notes, compare(source, read_facts(data)) if settings.report_fidelity else None


def stream(
    job: Job,
    source: "Picture",
    make: "Callable[[int], Iterator[Any]]",
    shape: tuple[int, int, int],
    file_format: str,
    target: Path,
    settings: Settings,
    output: Output,
    ready: "Ready | None" = None,
) -> tuple[list[str], "list[Item] | None"]:
    """Write rows while they are computed; what ``write`` returns.

    Args:
        source: as it was read.
        make: the rows of the result from one on.
        shape: H x W x C of the result.
        ready: see ``replacing``.
    """
    from upres.imaging.encoder import Encoding, save_rows
    from upres.imaging.fidelity import compare
    from upres.imaging.reader import read_facts
    from upres.imaging.spool import Spool
    from upres.imaging.verify import check_written
    from upres.imaging.writer import replacing

    about = source.stripped() if settings.strip_metadata else source
    encoding = Encoding(settings.quality, settings.background)
    key = f"{settings.key} {_content(job)}"
    height, width, channels = shape
    spool = Spool(target, key, width, channels, source.pixels.dtype, resume=settings.resume)
    if spool.rows:
        output.note(f"{job.name}: goes on at {100 * spool.rows // height} %")

    def rows() -> "Iterator[Any]":
        yield from spool.kept()
        for strip in make(spool.rows):
            spool.add(strip)
            yield strip

    done, how = False, "the same command" if settings.resume else "--resume"
    overwrite = settings.overwrite or job.replaces
    try:
        with replacing(target, overwrite=overwrite, ready=ready) as (file, part):
            notes = save_rows(file, about, file_format, shape, rows(), encoding)
            file.flush()
            check_written(part, file_format, width, height)
        done = True
    except Exception:
        if job.key:  # a folder's failures are not tried again unasked
            how += " with --retry-failed"
        raise
    finally:
        spool.close(done=done)
        if not done:
            kept = f"{100 * spool.rows // height} % of {target} is kept in {spool.path.name}"
            output.note(f"note: {kept}; {how} goes on")
    return notes, compare(source, read_facts(target)) if settings.report_fidelity else None


def _content(job: Job) -> str:
    """SHA-256 of the picture's file."""
    contents = job.contents
    if isinstance(contents, bytes):
        return hashlib.sha256(contents).hexdigest()
    return sha256_of(contents)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is said of one picture: a line, or the JSON object that docs/scripts.md explains.

    Attributes:
        frames: 1 for a picture that is not animated and has one page.
        scales: of the networks, in order.
        tile_memory_bytes: what tiles take at once.
        estimated_seconds: only where it was asked for, or is long.
        fidelity: what became of everything in the file, if that was asked for.
    """

    input: str
    output: str
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    frames: int
    model: str
    scales: tuple[int, ...]
    device: str
    precision: str
    tiles: int
    tile_memory_bytes: int
    notes: tuple[str, ...]
    estimated_seconds: float | None = None
    fidelity: "list[Item] | None" = None

    def facts(self) -> dict[str, Any]:
        """Without what was not asked for."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def line(self, more: str) -> str:
        """For people; ``more`` comes last."""
        a, b = (f"{wide} x {high}" for wide, high in (self.input_size, self.output_size))
        scales = " then ".join(f"x{scale}" for scale in self.scales)
        frames = f"{self.frames} frames, " if self.frames > 1 else ""
        how = f"{frames}{f'{self.model} {scales}'.strip()}, {self.device} {self.precision}"
        return f"{self.input} {a} -> {self.output} {b}, {how}, {more}"


def say_planned(report: Report, output: Output) -> None:
    """What a dry run says."""
    _say_notes(report, output)
    memory = f"{report.tile_memory_bytes / 2**20:.0f} MiB for them"
    long = f"about {report.estimated_seconds:.1f} s"
    output.note(report.line(f"{report.tiles} tiles, {memory}, {long} (dry run)"))
    output.event(event="planned", **report.facts())


def say_done(report: Report, output: Output, seconds: float) -> None:
    """What is said when the result is written."""
    _say_notes(report, output)
    output.note(report.line(f"{seconds:.1f} s"))
    if report.fidelity:
        rows = [list(vars(item).values()) for item in report.fidelity]
        output.note_table(list(vars(report.fidelity[0])), rows)
    if report.output != STREAM:
        output.made(report.output, event="done", seconds=round(seconds, 3), **report.facts())


def _say_notes(report: Report, output: Output) -> None:
    for note in report.notes:
        output.note(f"note: {report.input}: {note}")
