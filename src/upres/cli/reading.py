"""From a job to its picture: what can be said early, pipes, large files, the decoder."""

import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from upres.cli.jobs import Job, Settings
from upres.memory import PROCESS, free_main_memory

if TYPE_CHECKING:
    from upres.imaging.isolation import Decoder
    from upres.imaging.picture import Picture


def piped(job: Job) -> bytes | None:
    """The bytes of what can be read only once, standard input or a named pipe, else None."""
    if job.source is None:
        return sys.stdin.buffer.read()
    try:
        # A named pipe, as `upres <(command)` makes one.
        is_pipe = stat.S_ISFIFO(job.source.stat().st_mode)
        return job.source.read_bytes() if is_pipe else None
    except (OSError, ValueError):
        return None  # the reader says what is wrong


def check_early(job: Job, settings: Settings) -> None:
    """What can be known before torch is imported, which takes a second.

    Raises:
        InputError, OutputError: the picture cannot be read, or its result not written.
    """
    from upres.imaging.reader import read_size

    if not job.named_by_size:
        check_target_of(job, job.target, settings)
    read_size(job.contents, max_pixels=settings.max_pixels)


def check_target_of(job: Job, target: Path | None, settings: Settings) -> None:
    """See ``check_target``; standard output takes everything."""
    from upres.imaging.writer import check_target

    if target is not None:
        check_target(
            target,
            overwrite=settings.overwrite or job.replaces,
            source=job.source,
            folder_comes=settings.folders_come,
        )


def read(job: Job, settings: Settings, decoder: "Decoder | None") -> "Picture":
    """The picture, or one whose rows are read while they are needed.

    Args:
        decoder: a process of its own that decodes, or None for this one.

    Raises:
        InputError, OutputError, ResourceError: see ``read_picture``, ``open_streamed`` and
            ``check_target``.
    """
    from upres.imaging.holding import holds_frames
    from upres.imaging.profiles import to_srgb
    from upres.imaging.reader import read_picture

    if not job.named_by_size:
        check_target_of(job, job.target, settings)
    least = settings.reads_rows_from(isolated=decoder is not None)
    if (large := _streamed(job, settings, least)) is not None:
        return large
    frames = job.file_format is None or holds_frames(job.file_format)
    most = {"max_pixels": settings.max_pixels, "max_memory": settings.max_memory}
    if decoder is not None and isinstance(job.contents, Path):
        picture = decoder.read(job.contents, **most, frames=frames)
    else:
        picture = read_picture(job.contents, **most, frames=frames)
    return to_srgb(picture) if settings.convert_profile == "srgb" else picture


def _streamed(job: Job, settings: Settings, least: int) -> "Picture | None":
    """A picture that is read row by row, if it has so many bytes and that is possible."""
    path = job.contents
    if not isinstance(path, Path) or settings.convert_profile is not None or settings.wrap:
        return None
    try:
        # Nothing but flat colour compresses a thousandfold.
        if not path.is_file() or path.stat().st_size < least / 1000:
            return None
    except (OSError, ValueError):
        return None  # the reader says what is wrong
    from upres.imaging.streaming import open_streamed

    most = settings.max_memory and min(settings.max_memory - PROCESS, free_main_memory())
    return open_streamed(path, at_least=least, most=most, max_pixels=settings.max_pixels)
