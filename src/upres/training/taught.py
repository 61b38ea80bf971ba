"""What a teacher makes of whole pictures: computed once, kept beside them."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from upres.data.prepare import room_for
from upres.data.prepared import Prepared, low_starts
from upres.errors import os_errors
from upres.files import locked, settle
from upres.inference.device import Target
from upres.inference.engine import ModelStage, executor_for
from upres.inference.rows import ArrayRows
from upres.progress import Note, Progress
from upres.training.run import Taught

FORMAT = 1
_ELSEWHERE = "give --cache on another disk, or --set teacher.sees=patches"


def taught_pictures(
    teacher: Taught,
    prepared: Prepared,
    scale: int,
    target: Target,
    *,
    progress: Progress,
    note: Note,
) -> NDArray[np.uint8]:
    """What a teacher makes of the clean low-resolution pictures, P x 3, placed as in
    ``Prepared.high`` and mapped. What is not in the cache is made; if that is interrupted, it goes
    on from there the next time.

    Raises:
        OutputError, ResourceError: the cache cannot be written; the disk is full.
    """
    by = f"{FORMAT} {teacher.told['sha256']} {target.device.type} {target.precision}"
    path = prepared.taught(scale, by)
    size = 3 * max(entry.start + entry.pixels for entry in prepared.entries)
    if not _is_whole(path, size):
        waiting = partial(note, "waiting for another run that makes its teacher's pictures")
        # One that shares its prepared pictures with others may not wait for them.
        lock = path.with_name(f".{path.name}.lock")
        with os_errors(path, _ELSEWHERE), locked(lock, waiting):
            if not _is_whole(path, size):
                _make(path, size, teacher, prepared, scale, target, progress)
    return np.memmap(path, np.uint8, "c").reshape(-1, 3)


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _make(
    path: Path,
    size: int,
    teacher: Taught,
    prepared: Prepared,
    scale: int,
    target: Target,
    progress: Progress,
) -> None:
    """Write the pictures one after the other, so that the file's length says which are there."""
    growing = path.with_name(f"{path.name}.growing")
    growing.touch()
    there = growing.stat().st_size
    room_for(path.parent, size - there)
    high, low = prepared.high(), prepared.low(scale)
    starts, _ = low_starts(prepared.entries, scale, 1)
    network = teacher.model.as_rgb()
    executor = executor_for(network, scale, target)
    with growing.open("r+b") as file:
        for i, entry in enumerate(prepared.entries):
            if 3 * (entry.start + entry.pixels) > there:
                # Rows and columns beyond a multiple of the scale have no low-resolution partner.
                whole = high[entry.start : entry.start + entry.pixels].copy()
                whole = whole.reshape(entry.height, entry.width, 3)
                h, w = entry.low(scale)
                if min(h, w) > 0:
                    pixels = low[starts[i] : starts[i] + h * w].reshape(h, w, 3)
                    stage = ModelStage(
                        ArrayRows(pixels), network, scale, target, levels=255, executor=executor
                    )
                    whole[: h * scale, : w * scale] = np.concatenate(list(stage.strips()))
                file.seek(3 * entry.start)
                file.write(whole.data)
                file.flush()
                progress(f"x{scale} by {teacher.told['name']}", i + 1, len(prepared.entries))
    settle(growing, path)
