"""Results to files: whole or row by row, looked at again, and what is said about them."""

import hashlib
from collections.abc import Callable, Iterator
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
    kind: str,
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
    data, notes = encode(made.stripped() if settings.strip_metadata else made, kind, encoding)
    check_written(data, kind, made.width, made.height)
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
    kind: str,
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
            notes = save_rows(file, about, kind, shape, rows(), encoding)
            file.flush()
            check_written(part, kind, width, height)
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


def say(facts: dict[str, Any], output: Output, seconds: float, *, dry: bool) -> None:
    for note in facts["notes"]:
        output.note(f"note: {facts['input']}: {note}")
    a, b = (f"{w} x {h}" for w, h in (facts["input_size"], facts["output_size"]))
    scales = " then ".join(f"x{s}" for s in facts["scales"])
    how = f"{facts['model']} {scales}".strip() + f", {facts['device']} {facts['precision']}"
    if dry:
        how += f", {facts['tiles']} tiles, {facts['tile_memory_bytes'] / 2**20:.0f} MiB for them"
        how += f", about {facts['estimated_seconds']:.1f} s"
        output.note(f"{facts['input']} {a} -> {facts['output']} {b}, {how} (dry run)")
        output.event(event="planned", **facts)
        return
    if facts["frames"] > 1:
        how = f"{facts['frames']} frames, {how}"
    output.note(f"{facts['input']} {a} -> {facts['output']} {b}, {how}, {seconds:.1f} s")
    if items := facts.get("fidelity"):
        output.note_table(list(items[0]), [list(item.values()) for item in items])
    if facts["output"] != STREAM:
        output.made(facts["output"], event="done", seconds=round(seconds, 3), **facts)
