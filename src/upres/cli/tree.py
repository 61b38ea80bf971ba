"""A tree of pictures, and the mirrored one of their results."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from upres.cli.jobs import Job
from upres.cli.journal import NAME as JOURNAL
from upres.errors import InputError, OutputError


@dataclass(frozen=True)
class Chosen:
    """Which pictures are wanted: patterns over paths below the folder, with slashes; ``*`` matches
    them too. One without capitals matches them as well, as cameras write IMG_1.JPG."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]

    def __contains__(self, path: str) -> bool:
        name = path.rpartition("/")[2]
        parts = (path, name, path.lower(), name.lower())

        def matches(patterns: tuple[str, ...]) -> bool:
            return any(fnmatchcase(part, pattern) for part in parts for pattern in patterns)

        return (not self.include or matches(self.include)) and not matches(self.exclude)


def pictures_in(
    folder: Path, target: Path, chosen: Chosen, on_error: Callable[[OSError], None]
) -> tuple[list[Path], int]:
    """Files with a picture's suffix in a stable order, and how many others there are. Hidden files
    and folders and folders of results are left alone, and links to folders not followed.

    Raises:
        InputError: no folder is there.
        OutputError: results would go among the pictures.
    """
    from upres.imaging.formats import is_readable

    if not os.path.isdir(folder):  # noqa: PTH112 - pathlib raises on names that are too long
        raise InputError(f"{folder} is not a folder", "for single pictures leave out 'batch'")
    if os.path.realpath(folder) == os.path.realpath(target):
        raise OutputError(f"{target} is the folder of the pictures", "choose another with -o")
    found: list[Path] = []
    others = 0
    avoid = os.path.realpath(target)
    for place, folders, files in os.walk(folder, onerror=on_error):
        here = Path(place)
        folders[:] = sorted(
            f
            for f in folders
            if f[0] != "." and os.path.realpath(here / f) != avoid and not _is_made(here / f)
        )
        for file in sorted(files):
            suits = file[0] != "." and is_readable(file)
            if suits and (here / file).relative_to(folder).as_posix() in chosen:
                found.append(here / file)
            else:
                others += 1
    return found, others


def _is_made(folder: Path) -> bool:
    """Whether an earlier run's results are in it."""
    return os.path.isfile(folder / JOURNAL)  # noqa: PTH113 - never raises


def job_of(source: Path, folder: Path, target: Path, form: str | None) -> Job:
    """A picture and the place of its result in the mirrored tree."""
    from upres.imaging.formats import FORMATS, written_to

    name = source.relative_to(folder)
    place = written_to(target / name)
    if form is not None:
        place = place.with_suffix(FORMATS[form].suffixes[0])
    return Job(source, place, form, key=name.as_posix())


def places_of(job: Job) -> tuple[Path, Path]:
    """Where a job's picture is, and where its result goes."""
    assert job.source is not None
    assert job.target is not None
    return job.source, job.target


def sibling_of(folder: Path, label: str) -> Path:
    """The folder of results where none is given: beside the pictures'.

    Raises:
        OutputError: it has no place there.
    """
    named = folder if folder.name not in ("", "..") else folder.resolve()
    if not named.name:
        raise OutputError(f"{named} has no place beside it", "give a folder with -o")
    return named.with_name(f"{named.name}-{label}")


def refuse_mixing(jobs: list[Job], folder: Path, target: Path) -> None:
    """No result among the pictures, where it would replace one or be taken for one next time.

    Raises:
        OutputError: one would be.
    """
    pictures, results = (Path(os.path.realpath(place)) for place in (folder, target))
    if results.is_relative_to(pictures):
        return  # a folder within, which is never entered
    for job in jobs:
        place = places_of(job)[1]
        if Path(os.path.realpath(place)).is_relative_to(pictures):
            raise OutputError(
                f"{job.name} would be written to {place}, among the pictures",
                "choose another folder with -o",
            )


def make_folders(target: Path, jobs: list[Job]) -> None:
    """The folders that results go to.

    Raises:
        OutputError: the outermost cannot be made.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{target} cannot be created ({error.strerror})", "choose another folder with -o"
        ) from error
    for folder in {places_of(job)[1].parent for job in jobs}:
        with suppress(OSError):  # each of its pictures says so
            folder.mkdir(parents=True, exist_ok=True)
