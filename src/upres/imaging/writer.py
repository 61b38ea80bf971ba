"""Files to where they belong: checked before the work, and never half there."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from upres.errors import OutputError, ResourceError, os_errors
from upres.files import part_in
from upres.hashing import host_id
from upres.imaging.formats import FORMATS


def check_target(
    path: Path, *, overwrite: bool, source: Path | None = None, folder_comes: bool = False
) -> None:
    """Find out before the work what would prevent writing after it.

    Args:
        source: the picture itself, which is never replaced.
        folder_comes: the folder will be made before anything is written.

    Raises:
        OutputError: exists already, no such folder, not writable, or an impossible name.
    """
    if source and _is_same(path, source):
        raise OutputError(f"{path} is the picture itself", "choose another name")
    try:
        os.lstat(path)
        exists = True
    except FileNotFoundError:
        exists = False
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"{path} cannot be written ({reason})", "choose another name") from None
    if exists and os.path.isdir(path):  # noqa: PTH112 - pathlib raises where a link leads nowhere
        raise OutputError(f"{path} is a folder", "name a file in it")
    if exists and not overwrite:
        raise OutputError(f"{path} exists", "choose another name, or overwrite it (--overwrite)")
    if folder_comes and not path.parent.exists():
        return
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} is not a folder", "create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path.parent} is not writable", "write elsewhere")


def _is_same(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except (OSError, ValueError):  # one is not there, or cannot be
        return False


# Told of the whole file beside the place, before it takes the place.
Ready = Callable[[Path], None]


def write_file(path: Path, data: bytes, *, overwrite: bool, ready: Ready | None = None) -> None:
    """Write beside the place and rename: afterwards there is the old file or the new one.

    Raises:
        OutputError: it cannot be written, or exists by now without ``overwrite``.
        ResourceError: the disk is full.
    """
    with replacing(path, overwrite=overwrite, ready=ready) as (file, _):
        file.write(data)


@contextmanager
def replacing(
    path: Path, *, overwrite: bool, ready: Ready | None = None
) -> Iterator[tuple[BinaryIO, Path]]:
    """A file beside the place and its name, which takes the place when the block ends well.

    Raises:
        OutputError: it cannot be written, or exists by now without ``overwrite``.
        ResourceError: the disk is full.
    """
    with _beside(path) as (file, part):
        yield file, part
        file.flush()
        os.fsync(file.fileno())
        file.close()  # Windows renames no open file
        if ready is not None:
            ready(part)
        if overwrite:
            part.replace(path)
            return
        try:
            path.hardlink_to(part)  # unlike a rename, fails if the name was taken meanwhile
        except FileExistsError:
            raise OutputError(f"{path} exists by now", "use --overwrite") from None
        except OSError:  # a file system without hard links
            if os.path.lexists(path):
                raise OutputError(f"{path} exists by now", "use --overwrite") from None
            part.replace(path)


@contextmanager
def _beside(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in the same folder, with the permissions of any new file, removed in the end."""
    # Who finds it later can tell by process and machine whether somebody still needs it.
    part = part_in(path.parent, f"{os.getpid()}-{host_id()}-")
    try:
        with os_errors(path), part.open("x+b") as file:
            yield file, part
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def check_disk(path: Path, file_format: str, nbytes: int, spool: Path | None = None) -> str | None:
    """Whether there is room for a result; a note where it may become too little.

    Args:
        nbytes: of all its pixels.
        spool: where its rows are kept too until it is done; some may be there.

    Raises:
        ResourceError: it cannot fit even if it is compressed as drawings are.
    """
    if nbytes < _LITTLE:
        return None
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        return None  # a folder that is still to come
    if spool is not None:
        nbytes *= 2
        with suppress(OSError):
            free += spool.stat().st_size
    least = nbytes * _SMALLEST[file_format]
    if free < least:
        rows = "" if spool is None else " with the rows that are kept for --resume"
        raise ResourceError(
            f"{path} takes at least {least / 1e9:.1f} GB{rows}, {free / 1e9:.1f} GB are free there",
            "free disk space, or write elsewhere",
        )
    if FORMATS[file_format].lossy or free > nbytes:
        return None
    return f"{path} may take up to {nbytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free there"


_LITTLE = 10**8  # soon written, and soon said if it does not fit
# What is left of pictures' bytes where they compress best: drawings, and pages with a few words.
# Of photographs, 0.2 to 0.6 in PNG.
_SMALLEST = {
    "PNG": 0.01,
    "TIFF": 0.01,
    "BMP": 1.0,
    "GIF": 0.01,
    "JPEG": 0.005,
    "JPEG2000": 0.005,
    "WEBP": 0.002,
    "AVIF": 0.002,
}
