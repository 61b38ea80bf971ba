"""Results to files: whole or row by row, and looked at again."""

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from upres.cli.jobs import Job, Settings
from upres.cli.output import Output
from upres.cli.plan import Plan
from upres.errors import InputError, ResourceError
from upres.hashing import sha256_of

if TYPE_CHECKING:
    from upres.imaging.fidelity import Item
    from upres.imaging.picture import Picture
    from upres.imaging.writer import Ready


def write(
    plan: Plan, made: "Picture", settings: Settings, output: Output, ready: "Ready"
) -> tuple[list[str], "list[Item] | None"]:
    """Write the result.

    Args:
        ready: see ``replacing``.

    Returns:
        Notes, and what became of everything in the file, if that is asked for.
    """
    from upres.imaging.encoder import encode
    from upres.imaging.fidelity import compare
    from upres.imaging.holding import stripped
    from upres.imaging.parameters import Encoding
    from upres.imaging.reader import read_metadata
    from upres.imaging.spool import forget, spool_path
    from upres.imaging.verify import check_written
    from upres.imaging.writer import write_file

    encoding = Encoding(settings.quality, settings.background)
    data, notes = encode(
        stripped(made) if settings.strip_metadata else made, plan.file_format, encoding
    )
    check_written(data, plan.file_format, made.width, made.height)
    if plan.target is None:
        output.raw(data)
    else:
        overwrite = settings.overwrite or plan.job.replaces
        write_file(plan.target, data, overwrite=overwrite, ready=ready)
        # An interrupted run, of a picture that was written row by row, may have left some.
        forget(spool_path(plan.target))
    return notes, compare(plan.source, read_metadata(data)) if settings.report_fidelity else None


def stream(
    plan: Plan,
    make: "Callable[[int], Iterator[Any]]",
    settings: Settings,
    key: str,
    output: Output,
    ready: "Ready",
) -> tuple[list[str], "list[Item] | None"]:
    """Write rows while they are computed; what ``write`` returns.

    Args:
        make: the rows of the result from one on.
        key: fingerprint of all that they depend on but the picture.
        ready: see ``replacing``.
    """
    from upres.imaging.encoder import save_rows
    from upres.imaging.fidelity import compare
    from upres.imaging.holding import stripped
    from upres.imaging.parameters import Encoding
    from upres.imaging.reader import read_metadata
    from upres.imaging.spool import Spool
    from upres.imaging.verify import check_written
    from upres.imaging.writer import replacing

    job, source, target, file_format = plan.job, plan.source, plan.target, plan.file_format
    assert target is not None  # what goes to standard output is made whole
    about = stripped(source) if settings.strip_metadata else source
    encoding = Encoding(settings.quality, settings.background)
    height, width, channels = plan.shape
    overwrite = settings.overwrite or job.replaces
    spool = Spool(
        target,
        f"{key} {_content(job)}",
        width,
        channels,
        source.pixels.dtype,
        resume=settings.resume,
        # A folder's results are brought up to date without being asked for each.
        overwrite=overwrite or bool(job.key),
    )
    if spool.dropped and job.key:
        output.note(
            f"note: {job.name}: begins anew; what an interrupted run had kept was of other settings"
            " or of another picture"
        )
    if spool.rows:
        output.note(f"{job.name}: continues at {100 * spool.rows // height} %")

    def rows() -> "Iterator[Any]":
        yield from spool.kept()
        for strip in make(spool.rows):
            spool.add(strip)
            yield strip

    done, how = False, "" if settings.resume else " with --resume"
    try:
        with replacing(target, overwrite=overwrite, ready=ready) as (file, part):
            notes = save_rows(file, about, file_format, plan.shape, rows(), encoding)
            file.flush()
            check_written(part, file_format, width, height)
        done = True
    except Exception as error:
        if job.key and not isinstance(
            error, ResourceError
        ):  # a folder's failures are not tried again unasked
            how = " with --retry-failed"
        raise
    finally:
        spool.close(done=done or not spool.rows)
        if not done and spool.rows:
            kept = f"{100 * spool.rows // height} % of {target} is kept in {spool.path.name}"
            output.note(f"note: {kept}; to continue, repeat the command{how}")
    return notes, compare(source, read_metadata(target)) if settings.report_fidelity else None


def _content(job: Job) -> str:
    """SHA-256 of the picture's file."""
    contents = job.contents
    if isinstance(contents, bytes):
        return hashlib.sha256(contents).hexdigest()
    try:
        return sha256_of(contents)
    except OSError as error:  # it was there when it was opened
        raise InputError(f"{contents} cannot be read any more ({error.strerror})") from error
