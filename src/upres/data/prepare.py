"""Pictures decoded once into flat files that are mapped into memory, and their low-resolution
partners beside them. ``upres.data.prepared`` tells how such a folder is laid out.

Its name is a hash of the pictures' contents, so a changed picture makes another folder. Files
appear under their names only when they are whole.
"""

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from upres.data.detail import detail_map
from upres.data.folders import PictureFile
from upres.data.gather import Pictures, nothing_readable
from upres.data.prepared import Entry, Prepared, degraded_name, low_starts
from upres.data.rgb import check_low, read_full_range, read_rgb
from upres.errors import InputError, ResourceError, UpresError, os_errors
from upres.files import atomic_write, locked, remove_parts
from upres.hashing import seed_of, sha256_of
from upres.imaging import heic
from upres.imaging.degrade import light_photo
from upres.imaging.formats import is_heic
from upres.imaging.reader import read_size
from upres.imaging.resize import imresize
from upres.memory import free_main_memory
from upres.progress import Note, Progress

FORMAT = 2
_BYTES = 80  # of memory for a pixel while a picture is shrunk, or decoded
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def prepare(
    pictures: Pictures,
    cache: Path,
    *,
    sizes: Sequence[float],
    scales: Sequence[int],
    versions: int,
    progress: Progress,
    note: Note,
    threads: int,
    retry: bool = False,
) -> Prepared:
    """Decode what is not decoded yet, and make the low-resolution partners that are missing.

    Args:
        cache: the folder for prepared folders; it may be removed at any time between runs.
        sizes: at which sizes the pictures are used, 1 and below.
        scales: for which partners are needed.
        versions: 0 for MATLAB's bicubic alone; else how many degraded versions there are as well.
        retry: decode anew if the disk failed to read a picture the last time.

    Raises:
        InputError: pictures cannot be read, or low-resolution files do not fit them.
        OutputError, ResourceError: the cache cannot be written; the disk is full.
    """
    content = f"{FORMAT} {pictures.fingerprint} {sorted(sizes)}"
    if not heic.available() and any(is_heic(p.path) for p in pictures.train.values()):
        content += " without HEIC"  # another folder, once it can be read
    key = hashlib.sha256(content.encode()).hexdigest()
    folder = cache / key[:16]
    with os_errors(folder, "give --cache on another disk"), _ours(folder, note):
        index = folder / "index.json"
        prepared = _found(folder, pictures, retry=retry)
        if prepared is None:
            for rest in (index, *folder.glob("low-*.u8"), *folder.glob("taught-*.u8")):
                rest.unlink(missing_ok=True)
            prepared, passing = _decode(
                pictures,
                folder,
                sorted(sizes, reverse=True),
                dict.fromkeys(scales, 1 + versions),
                progress,
                threads,
            )
            text = json.dumps(
                {
                    "entries": [asdict(entry) for entry in prepared.entries],
                    "skipped": prepared.skipped,
                    "passing": passing,
                }
            )
            with atomic_write(index) as part:
                part.write_text(text, encoding="utf-8")
        partners = {}
        skipped = list(prepared.skipped)
        for scale in scales:
            name, unread = _shrink(prepared, pictures.train, scale, progress, threads)
            partners[scale] = name
            skipped += unread
            if versions:
                _degrade(prepared, scale, versions, progress, threads)
    return replace(prepared, partners=partners, skipped=tuple(skipped))


def _found(folder: Path, pictures: Pictures, *, retry: bool) -> Prepared | None:
    """What was decoded before, if all of it is there; not if ``retry`` may find more."""
    try:
        raw = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        entries = tuple(Entry(**entry) for entry in raw["entries"])
        skipped = tuple(dict.fromkeys([*pictures.skipped, *raw["skipped"]]))
        last = entries[-1]
        sizes = {
            "high.u8": 3 * max(e.start + e.pixels for e in entries),
            "detail.f32": 4 * (last.detail_start + last.cells[0] * last.cells[1]),
        }
        passing = raw.get("passing", []) if retry else []
        # An older upres says whether there are any, not which.
        if passing is True or any(_can_be_read(pictures.train.get(one)) for one in passing or ()):
            return None
        if all((folder / name).stat().st_size >= size for name, size in sizes.items()):
            return Prepared(folder, entries, skipped)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        pass
    return None


def _can_be_read(file: PictureFile | None) -> bool:
    try:
        return file is not None and read_full_range(file.path).size > 0
    except (InputError, ResourceError):
        return False


def _decode(
    pictures: Pictures,
    folder: Path,
    sizes: Sequence[float],
    low_of: Mapping[int, int],
    progress: Progress,
    threads: int,
) -> tuple[Prepared, list[str]]:
    """Write high.u8 and detail.f32; and which of the skipped pictures, by their hashes, may be
    readable another time.

    Args:
        low_of: scales of which low-resolution partners will be made, and how many.
    """
    skipped = list(pictures.skipped)
    passing: list[str] = []
    plan: list[tuple[PictureFile, list[Entry]]] = []
    start = detail_start = 0
    for digest, file in pictures.train.items():
        try:
            width, height = read_size(file.path)
        except InputError as error:
            skipped.append(f"{file.name} ({error.problem})")
            passing += [digest] if _may_pass(error) else []
            continue
        entries = []
        for size in sizes:
            h, w = (side if size == 1 else max(1, round(side * size)) for side in (height, width))
            entry = Entry(digest, size, h, w, start, detail_start)
            start += entry.pixels
            detail_start += entry.cells[0] * entry.cells[1]
            entries.append(entry)
        plan.append((file, entries))
    if not plan:
        raise nothing_readable(skipped)
    room_for(folder, 3 * start + 4 * detail_start + _low_bytes(plan, low_of))
    with atomic_write(folder / "high.u8") as high, atomic_write(folder / "detail.f32") as maps:
        pixels = _mapped(high, np.uint8, (start, 3))
        detail = _mapped(maps, np.float32, (detail_start,))

        def job(planned: tuple[PictureFile, list[Entry]]) -> UpresError | None:
            file, entries = planned
            try:
                picture = read_full_range(file.path)
                if picture.shape[:2] != (entries[0].height, entries[0].width) and sizes[0] == 1:
                    raise InputError("it has another size than its header says")
                for entry in entries:
                    sized = _resized(picture, entry.height, entry.width)
                    pixels[entry.start : entry.start + entry.pixels] = sized.reshape(-1, 3)
                    rows, columns = entry.cells
                    end = entry.detail_start + rows * columns
                    detail[entry.detail_start : end] = detail_map(sized).ravel()
            except (InputError, ResourceError) as error:  # damaged, or larger than memory
                return error
            return None

        every = [entry for _, entries in plan for entry in entries]
        workers = _workers(every, threads)
        failed = list(_in_parallel(job, plan, "decoding", progress, workers))
        pixels.flush()
        detail.flush()
    good: list[Entry] = []
    for (file, entries), why in zip(plan, failed, strict=True):
        if why is None:
            good += entries
        else:
            skipped.append(f"{file.name} ({why.problem})")
            passing += [entries[0].sha256] if _may_pass(why) else []
    if not good:
        raise nothing_readable(skipped)
    return Prepared(folder, tuple(good), tuple(skipped)), passing


def _low_bytes(
    plan: Sequence[tuple[PictureFile, Sequence[Entry]]], low_of: Mapping[int, int]
) -> int:
    """Of the low-resolution partners."""
    return sum(
        3 * count * math.prod(entry.low(scale))
        for _, entries in plan
        for entry in entries
        for scale, count in low_of.items()
    )


_PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.EAGAIN)


def _may_pass(error: UpresError) -> bool:
    """Whether the system failed, rather than what it read: another time it may not."""
    return isinstance(error, ResourceError) or getattr(error.__cause__, "errno", None) in _PASSING


def _shrink(
    prepared: Prepared,
    files: Mapping[str, PictureFile],
    scale: int,
    progress: Progress,
    threads: int,
) -> tuple[str, list[str]]:
    """The file with the given low-resolution pixels where there are any, else MATLAB's imresize;
    and which were given, cannot be read, and were made all the same."""
    hashes, unread = _given(prepared, files, scale)
    name = f"low-x{scale}-{hashes or 'bicubic'}.u8"

    def make(entry: Entry, pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        file = files[entry.sha256]
        given = file.low_at(scale) if entry.size == 1 else None
        low = None
        if given is not None and given not in unread:
            try:
                low = read_rgb(given)
            except InputError as error:
                if _may_pass(error):  # what stands in for it would stay
                    raise
                unread[given] = error.problem
        if given is None or low is None:
            yield imresize(pixels, 1 / scale)
        else:
            check_low(low, given, file.name, (entry.height, entry.width), scale)
            yield low

    _write_low(prepared, scale, name, 1, make, f"shrinking to 1/{scale}", progress, threads)
    return name, [f"{path.name} ({why}), made from its picture" for path, why in unread.items()]


def _given(
    prepared: Prepared, files: Mapping[str, PictureFile], scale: int
) -> tuple[str, dict[Path, str]]:
    """A hash of the low-resolution files that came with the pictures, "" if none did; and those
    that may not be read, with the reason."""
    given, unread = {}, {}
    for digest in {entry.sha256 for entry in prepared.entries}:
        path = files[digest].low_at(scale)
        if path is not None:
            try:
                given[digest] = sha256_of(path)
            except OSError as error:
                unread[path] = error.strerror or "no reason"
    told = hashlib.sha256(repr(sorted(given.items())).encode()).hexdigest()[:16]
    return told if given else "", unread


def _degrade(
    prepared: Prepared, scale: int, versions: int, progress: Progress, threads: int
) -> None:
    """Write each picture's versions, one after the other."""

    def make(entry: Entry, pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        del entry
        pixels = np.ascontiguousarray(pixels)
        # The pixels, not the order of the files, decide what happens to a picture.
        random = np.random.default_rng(seed_of(pixels.tobytes()))
        for _ in range(versions):
            yield light_photo(random).apply(pixels, scale, random)

    what = f"degrading at 1/{scale}"
    name = degraded_name(scale, versions)
    _write_low(prepared, scale, name, versions, make, what, progress, threads)


def _write_low(
    prepared: Prepared,
    scale: int,
    name: str,
    versions: int,
    make: Callable[[Entry, NDArray[np.uint8]], Iterator[NDArray[np.uint8]]],
    what: str,
    progress: Progress,
    threads: int,
) -> None:
    """Write a file of low-resolution pixels, unless it is there.

    Args:
        name: of the file.
        make: a picture's ``versions`` low-resolution partners, from its high-resolution pixels cut
            to a multiple of the scale.
    """
    target = prepared.folder / name
    starts, total = low_starts(prepared.entries, scale, versions)
    if target.is_file() and target.stat().st_size == 3 * max(total, 1):
        return
    room_for(prepared.folder, 3 * total)
    high = prepared.high()
    with atomic_write(target) as part:
        pixels = _mapped(part, np.uint8, (max(total, 1), 3))

        def job(numbered: tuple[int, Entry]) -> None:
            index, entry = numbered
            h, w = entry.low(scale)
            start = starts[index]
            for low in make(entry, _view(high, entry)[: h * scale, : w * scale]):
                pixels[start : start + h * w] = low.reshape(-1, 3)
                start += h * w

        numbered = [
            (i, entry) for i, entry in enumerate(prepared.entries) if min(entry.low(scale)) > 0
        ]
        workers = _workers([entry for _, entry in numbered], threads)
        list(_in_parallel(job, numbered, what, progress, workers))
        pixels.flush()


def _view(high: NDArray[np.uint8], entry: Entry) -> NDArray[np.uint8]:
    flat = high[entry.start : entry.start + entry.pixels]
    return flat.reshape(entry.height, entry.width, 3)


def _resized(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if pixels.shape[:2] == (height, width):
        return pixels
    from PIL import Image

    # Only the truth is made this way; its low-resolution partner comes from imresize.
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def _workers(entries: Sequence[Entry], threads: int) -> int:
    """How many pictures fit into half of the memory at once, up to one for each thread."""
    largest = _BYTES * max((entry.pixels for entry in entries), default=1)
    return max(1, min(threads, free_main_memory() // 2 // largest))


def _in_parallel(
    job: Callable[[_Item], _Made],
    items: Sequence[_Item],
    what: str,
    progress: Progress,
    threads: int,
) -> Iterator[_Made]:
    """Results in order. Decoders and numpy let go of Python's lock, so threads do."""
    with ThreadPoolExecutor(threads) as pool:
        try:
            for done, made in enumerate(pool.map(job, items), 1):
                progress(what, done, len(items))
                yield made
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def room_for(folder: Path, size: int) -> None:
    """See that a folder's disk has room for so many bytes.

    Raises:
        ResourceError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if size + 2**26 > free:
        raise ResourceError(
            f"preparing the pictures takes {size / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} free",
            "free disk space, or give --cache on another disk",
        )


def _mapped(
    path: Path, kind: type[np.generic], shape: tuple[int, ...]
) -> "np.memmap[Any, np.dtype[Any]]":
    """A new file to write through memory, all of its room taken now.

    A disk that fills while a mapped file grows ends the process, without an error to catch.
    """
    with path.open("wb") as file:
        size = math.prod(shape) * np.dtype(kind).itemsize
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return np.memmap(path, kind, "r+", shape=shape)


@contextmanager
def _ours(folder: Path, note: Note) -> Iterator[None]:
    """The folder is there, nobody else works in it, and who was killed there left nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):  # made by somebody else: all may be there
        yield
        return
    waiting = partial(note, "waiting for another run that prepares these pictures")
    with locked(folder / ".lock", waiting):
        remove_parts(folder)
        yield
