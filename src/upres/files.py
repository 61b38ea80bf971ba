"""Files that appear whole, and places where one process works at a time."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTS = ".upres-*.part"  # what files that are not whole yet are called


def part_in(folder: Path, about: str = "") -> Path:
    """A name for a file that is not whole yet: new, hidden, and one of ``PARTS``."""
    return folder / f".upres-{about}{secrets.token_hex(8)}.part"


def remove_parts(folder: Path) -> None:
    """Remove what whoever was killed could not, where nobody works now.

    Raises:
        OSError: they cannot be removed.
    """
    for part in folder.glob(PARTS):
        part.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A name beside a file to write under, which takes the file's place when the block ends well.

    Until then, and if it does not, there is what there was.

    Raises:
        OSError: the file system refuses.
    """
    with new_part(path.parent) as part:
        yield part
        settle(part, path)


@contextmanager
def new_part(folder: Path) -> Iterator[Path]:
    """``part_in``; what lies there when the block ends is removed."""
    part = part_in(folder)
    try:
        yield part
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def settle(part: Path, path: Path) -> None:
    """Give a whole file its name, when the disk has all of it.

    Raises:
        OSError: the file system refuses.
    """
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)


@contextmanager
def locked(lock: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """No other process is in this block with the same lock meanwhile.

    Args:
        lock: a file for nothing else; its folder is there.
        waiting: called if somebody else is, before waiting for them.

    Raises:
        OSError: the lock cannot be written.
    """
    import filelock

    held = filelock.FileLock(lock)
    try:
        held.acquire(blocking=False)
    except filelock.Timeout:
        waiting()
        held.acquire()
    try:
        yield
    finally:
        held.release()
