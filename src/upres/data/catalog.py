"""Sets of pictures that upres knows by name: where they are published, and on what terms."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from upres.data.download import ELSEWHERE, download, unpack
from upres.data.folders import PictureFolder, find_pictures
from upres.errors import InputError, ResourceError, os_errors
from upres.files import locked
from upres.progress import Note, Transfer


@dataclass(frozen=True)
class Archive:
    """A zip file as its publisher offers it.

    Attributes:
        url: where.
        size: bytes.
        sha256: of the whole file.
        holds: the folder that it unpacks to.
    """

    url: str
    size: int
    sha256: str
    holds: str


@dataclass(frozen=True)
class TrainingSet:
    """Attributes:
    name: as people write it.
    archives: all that is needed; low-resolution pictures are made here.
    licence: in a few words, as results tell it.
    terms: what one must know before downloading.
    """

    name: str
    archives: tuple[Archive, ...]
    licence: str
    terms: str

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(archive.size for archive in self.archives)


_DIV2K_URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"

# Sizes and hashes: the checksums that TensorFlow Datasets publishes for the official files.
DIV2K = TrainingSet(
    "DIV2K",
    (
        Archive(
            _DIV2K_URL + "DIV2K_train_HR.zip",
            3_530_603_713,
            "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
            "DIV2K_train_HR",
        ),
        Archive(
            _DIV2K_URL + "DIV2K_valid_HR.zip",
            448_993_893,
            "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
            "DIV2K_valid_HR",
        ),
    ),
    "for academic research only",
    "DIV2K (Agustsson and Timofte 2017) is for academic research only, and so are weights trained "
    "on it as far as its authors' rights reach; see https://data.vision.ee.ethz.ch/cvl/DIV2K/",
)

TRAINING_SETS: dict[str, TrainingSet] = {DIV2K.name: DIV2K}


def training_set(name: str) -> TrainingSet | None:
    """The set of that name, whatever its case."""
    return next((s for s in TRAINING_SETS.values() if s.name.lower() == name.lower()), None)


def check_named(text: str) -> None:
    """See that ``--data`` names something, before anything is downloaded.

    Raises:
        InputError: neither a folder nor a known set.
    """
    if not text:  # as of an empty variable in a script; Path("") is the current folder
        raise InputError("the name of the pictures' folder is empty", "give --data a folder")
    try:
        there = Path(text).exists()
    except OSError as error:  # no permission, or a name that no file can have
        raise InputError(f"{text} cannot be read ({error.strerror})", "check the path") from error
    if not there and training_set(text) is None:
        raise InputError(
            f"{text} is neither a folder nor a known set",
            f"check the path; known: {', '.join(TRAINING_SETS)}",
        )


def training_pictures(
    text: str, home: Path, *, note: Note, progress: Transfer
) -> tuple[str, PictureFolder]:
    """A name for it, and the pictures that ``--data`` means.

    Args:
        text: a folder, or a set's name; a folder of that name comes first.
        home: where sets are kept, each in a folder of its name.
        note: is told the terms before anything is downloaded.
        progress: told of downloads and unpacking.

    Raises:
        InputError: neither a folder nor a known set.
        WeightsError, OutputError, ResourceError: see ``download``.
    """
    check_named(text)
    path = Path(text)
    try:
        if path.exists():
            found = find_pictures(path)
            if found.strangers:
                note(
                    "low-resolution files that belong to no picture are not used: "
                    f"{len(found.strangers)}, such as {found.strangers[0]}"
                )
            for line in found.notes:
                note(line)
            # What the result calls its pictures is a line of text.
            name = "".join(c if c.isprintable() else " " for c in path.resolve().name).strip()
            return name or "pictures", found
    except OSError as error:  # no permission, or a name that no file can have
        raise InputError(f"{text} cannot be read ({error.strerror})", "check the path") from error
    known = training_set(text)
    assert known is not None  # it is no folder
    folder = home / known.name
    fetch_set(known, folder, note=note, progress=progress)
    return known.name, find_pictures(folder)


def fetch_set(
    known: TrainingSet, folder: Path, *, note: Note, progress: Transfer, only: str = ""
) -> None:
    """Download, verify and unpack what is missing.

    Args:
        only: the one folder that is wanted, if not all are.

    Raises:
        WeightsError, OutputError, ResourceError: see ``download``.
    """
    wanted = [a for a in known.archives if only in ("", a.holds)]
    if all((folder / a.holds).is_dir() for a in wanted):
        return
    note(known.terms)  # to whoever asked, whichever process downloads
    # Of several processes one does, and the others then find everything there.
    with one_fetches(folder, note):
        _fetch(wanted, folder, note=note, progress=progress)


@contextmanager
def one_fetches(folder: Path, note: Note) -> Iterator[None]:
    """No other process works on this folder, which need not be there, meanwhile.

    Raises:
        OutputError, ResourceError: its place cannot be written.
    """
    with ExitStack() as held:
        with os_errors(folder.parent, ELSEWHERE):
            folder.parent.mkdir(parents=True, exist_ok=True)
            waiting = partial(note, f"waiting for another run that fetches {folder.name}")
            held.enter_context(locked(folder.with_name(f".{folder.name}.lock"), waiting))
        yield


def _check_room(missing: Sequence[Archive], folder: Path) -> None:
    """Before the first byte: PNGs hardly compress, so that each archive takes its size once more
    while it is unpacked, and those before it are there already.

    Raises:
        ResourceError: the disk has not so much free.
    """
    unpacked = most = 0
    for archive in missing:
        most, unpacked = max(most, unpacked + 2 * archive.size), unpacked + archive.size
    with os_errors(folder, ELSEWHERE):
        folder.mkdir(parents=True, exist_ok=True)
        for archive in missing:  # what a killed run unpacked
            shutil.rmtree(folder / f".{archive.holds}.part", ignore_errors=True)
        there = sum(
            path.stat().st_size
            for archive in missing
            for path in folder.glob(f"{archive.url.rpartition('/')[2]}*")
        )
        free = shutil.disk_usage(folder).free
    if most - there > free:
        raise ResourceError(
            f"{folder.name} takes {(most - there) / 1e9:.2f} GB more until it is unpacked, "
            f"{folder} has {free / 1e9:.2f} GB free",
            f"free disk space, or {ELSEWHERE}",
        )


def _fetch(wanted: Sequence[Archive], folder: Path, *, note: Note, progress: Transfer) -> None:
    missing = [a for a in wanted if not (folder / a.holds).is_dir()]
    if not missing:
        return
    size = sum(a.size for a in missing)
    _check_room(missing, folder)
    note(f"downloading {size / 1e9:.1f} GB to {folder}; interrupt at will, it goes on later")
    for archive in missing:
        zipped = download(
            archive.url, folder, size=archive.size, sha256=archive.sha256, progress=progress
        )
        unpack(zipped, folder, archive.holds, progress=progress)
        zipped.unlink()
