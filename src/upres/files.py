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
    part = part_in(path.parent)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


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
