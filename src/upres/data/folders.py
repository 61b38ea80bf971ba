"""Which pictures a folder holds, in the layouts that people have."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from upres.errors import InputError
from upres.imaging.formats import is_readable


@dataclass(frozen=True)
class PictureFile:
    """One high-resolution picture.

    Attributes:
        name: its path below the folder that was given, with "/".
        path: where it lies.
        low: low-resolution files that came with it, as (scale, path).
    """

    name: str
    path: Path
    low: tuple[tuple[int, Path], ...] = ()

    def low_at(self, scale: int) -> Path | None:
        """The low-resolution file at this scale, if one came with it."""
        return dict(self.low).get(scale)


@dataclass(frozen=True)
class PictureFolder:
    """What a folder holds.

    Attributes:
        train: pictures to train on.
        validation: the ones that the layout sets apart for that.
        strangers: low-resolution files that belong to no picture, by their paths.
        notes: what else people should know of what is not used.
    """

    train: tuple[PictureFile, ...]
    validation: tuple[PictureFile, ...] = ()
    strangers: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


# DIV2K_train_HR, Flickr2K_HR, HR; what is called valid among them is for validation.
_HIGH = re.compile(r"(?:(.+)_)?HR", re.IGNORECASE)
_LOW = re.compile(r"(?:.+_)?LR(?:_.+)?", re.IGNORECASE)
_TRAINING = {"train", "training"}
_VALIDATION = {"valid", "val", "validation", "test"}
# Their pictures are for measuring; whoever trained on them could publish nothing.
_TEST_SETS = {"set5", "set14", "b100", "bsd100", "bsds100", "urban100", "manga109"}
_SCALES = (2, 3, 4)
_OF_A_RUN = "metrics.jsonl"


def find_pictures(folder: Path) -> PictureFolder:
    """All pictures of a folder.

    Any tree of pictures, and within it, or as the whole, the layouts of known sets:
    ``DIV2K_train_HR/0001.png`` or ``HR/a.png``, with ``DIV2K_train_LR_bicubic/X2/0001x2.png`` or
    ``LR_bicubic/X2/a.png`` (or ``LR/X2/a.png``) beside it, and the same with ``valid``. Beside a
    folder ``train``, one called ``valid``, ``val`` or ``test`` is for validation. What else lies
    beside such sets is not used, nor are other low-resolution folders, known test sets below the
    folder, hidden files, and what training runs left in folders of theirs.

    Raises:
        InputError: no folder, or nothing in it.
        OSError: it cannot be read.
    """
    if not folder.is_dir():
        reason = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {reason}", "give a folder of pictures, or a set such as DIV2K")
    found = _Found(folder)
    found.look_into(folder)
    if not found.train:  # nothing else to train on
        found.train, found.validation = found.validation, []
    if not found.train:
        why = found.notes[0] if found.notes else "JPEG, PNG, TIFF, WebP, AVIF are usual"
        if (folder / _OF_A_RUN).exists():
            why = "it is a training run's, which is not looked into"
        raise InputError(f"{folder} holds no pictures", why)
    return PictureFolder(
        tuple(found.train), tuple(found.validation), tuple(found.strangers), tuple(found.notes)
    )


@dataclass
class _Found:
    """What was found below ``root``; see ``PictureFolder``."""

    root: Path
    train: list[PictureFile] = field(default_factory=list)
    validation: list[PictureFile] = field(default_factory=list)
    strangers: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def look_into(self, here: Path, *, apart: bool = False) -> None:
        """Args:
            apart: what is there is for validation.

        Raises:
            OSError: the root cannot be read; other folders are noted.
        """
        folders, pictures = self._listed(here)
        highs = [name for name in folders if _HIGH.fullmatch(name)]
        lows = [name for name in folders if _is_low(here / name, beside_high=bool(highs))]
        if highs:
            used = self._layout(here, folders, highs, apart=apart)
            others = [name for name in folders if name not in (*highs, *lows)]
            unused = len(pictures) + sum(len(list(self._tree(here / name))) for name in others)
            if unused:
                self.notes.append(f"{unused} pictures beside {here / highs[0]} are not used")
            self._not_used(here, (name for name in lows if name not in used))
            return
        (self.validation if apart else self.train).extend(self._file(path) for path in pictures)
        self._not_used(here, lows)
        for_validation = _for_validation(folders)
        for name in folders:
            if name not in lows:
                self.look_into(here / name, apart=apart or name in for_validation)

    def _not_used(self, here: Path, lows: Iterable[str]) -> None:
        self.notes += (f"low-resolution pictures in {here / name} are not used" for name in lows)

    def _layout(self, here: Path, folders: list[str], highs: list[str], *, apart: bool) -> set[str]:
        """Take the pictures of folders that are called HR.

        Returns:
            The low-resolution folders whose pictures are theirs.
        """
        used = set()
        for name in highs:
            wanted = [f"{name[:-2]}{low}".lower() for low in ("LR_bicubic", "LR")]
            partners = sorted(
                (f for f in folders if f.lower() in wanted and _by_scale(here / f)),
                key=lambda f: wanted.index(f.lower()),
            )
            used |= {*partners[:1]}
            files = self._pairs(here / name, _by_scale(here / partners[0]) if partners else {})
            whole = apart or bool(_VALIDATION & {*name.lower().split("_")})
            tops = [file.path.relative_to(here / name).parts[:-1][:1] for file in files]
            for_validation = _for_validation([folder for top in tops for folder in top])
            for file, top in zip(files, tops, strict=True):
                sets_apart = whole or not for_validation.isdisjoint(top)
                (self.validation if sets_apart else self.train).append(file)
        return used

    def _pairs(self, high: Path, given: Mapping[int, Path]) -> list[PictureFile]:
        """Pictures below ``high``, with what lies in the same place in the folders of scales; what
        lies there and belongs to none are strangers."""
        by_scale = {
            scale: {_place(path, folder): path for path in self._tree(folder)}
            for scale, folder in given.items()
        }
        files = []
        for path in self._tree(high):
            place = _place(path, high)
            partners = ((scale, partner(by_scale[scale], place, scale)) for scale in by_scale)
            files.append(self._file(path, tuple((s, file) for s, file in partners if file)))
        used = {path for file in files for _, path in file.low}
        there = (path for lows in by_scale.values() for path in lows.values())
        self.strangers += (path for path in there if path not in used)
        return files

    def _tree(self, folder: Path) -> Iterator[Path]:
        """All pictures below a folder."""
        folders, pictures = self._listed(folder)
        yield from pictures
        for name in folders:
            yield from self._tree(folder / name)

    def _listed(self, folder: Path) -> tuple[list[str], list[Path]]:
        """Names of the folders in it that are looked into, and its pictures."""
        try:
            folders, pictures = _listed(folder)
        except OSError as error:
            if folder == self.root:
                raise
            self.notes.append(f"{folder} cannot be read ({error.strerror})")
            return [], []
        tests = [f for f in folders if f.lower().removesuffix("_hr") in _TEST_SETS]
        self.notes += (
            f"{folder / name} has the name of a test set and is not used; to train on it, give it "
            "to --data itself"
            for name in tests
        )
        return [f for f in folders if f not in tests and self._goes_on(folder / f)], pictures

    def _goes_on(self, folder: Path) -> bool:
        """False for a link back to a folder that it was reached through."""
        if not folder.is_symlink():
            return True
        real, above = os.path.realpath(folder), folder
        while above != self.root:
            above = above.parent
            if os.path.realpath(above) == real:
                return False
        return True

    def _file(self, path: Path, low: tuple[tuple[int, Path], ...] = ()) -> PictureFile:
        return PictureFile(path.relative_to(self.root).as_posix(), path, low)


def partner(lows: Mapping[str, Path], name: str, scale: int) -> Path | None:
    """The low-resolution file of a picture: DIV2K calls that of 0001 0001x2, others keep the name.

    Args:
        lows: low-resolution files by their name, without the suffix.
    """
    return lows.get(name) or lows.get(f"{name}x{scale}")


def _is_low(folder: Path, *, beside_high: bool) -> bool:
    """Whether it holds a set's low-resolution pictures: others may call a folder LR, too."""
    return bool(_LOW.fullmatch(folder.name)) and (beside_high or bool(_by_scale(folder)))


def _by_scale(low: Path) -> dict[int, Path]:
    """The folders of its scales: X2, or x2."""
    names = {f"x{scale}": scale for scale in _SCALES}
    try:
        return {names[n.lower()]: low / n for n in _listed(low)[0] if n.lower() in names}
    except OSError:
        return {}


def _for_validation(names: Iterable[str]) -> set[str]:
    """Which of the folders side by side are: those called so beside one that is for training."""
    names = set(names)
    trains = any(name.lower() in _TRAINING for name in names)
    return {name for name in names if trains and name.lower() in _VALIDATION}


def _place(path: Path, folder: Path) -> str:
    """Its path below the folder, without the suffix."""
    return path.relative_to(folder).with_suffix("").as_posix()


def _listed(folder: Path) -> tuple[list[str], list[Path]]:
    """Names of the folders and the pictures in it, in order; none in the folder of a run."""
    with os.scandir(folder) as entries:
        there = sorted(entries, key=lambda entry: entry.name)
    if any(entry.name == _OF_A_RUN for entry in there):
        return [], []
    seen = [entry for entry in there if not entry.name.startswith(".")]
    return (
        # Of a link that leads nowhere, entry.is_dir() may raise.
        [e.name for e in seen if os.path.isdir(folder / e.name)],  # noqa: PTH112
        [folder / entry.name for entry in seen if is_readable(entry.name) and entry.is_file()],
    )
