"""Which pictures a folder holds, in the layouts that people have."""

import os
import re
from collections.abc import Iterator, Mapping
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
_VALIDATION = {"valid", "val", "validation", "test"}
_SCALES = (2, 3, 4)


def find_pictures(folder: Path) -> PictureFolder:
    """All pictures of a folder.

    Any tree of pictures, and within it, or as the whole, the layouts of known sets:
    ``DIV2K_train_HR/0001.png`` or ``HR/a.png``, with ``DIV2K_train_LR_bicubic/X2/0001x2.png`` or
    ``LR_bicubic/X2/a.png`` beside it, and the same with ``valid``. What else lies beside them is
    not used, nor are other low-resolution folders, hidden files, links to folders, and what
    training runs left in folders of theirs.

    Raises:
        InputError: no folder, or nothing in it.
        OSError: it cannot be read.
    """
    if not folder.is_dir():
        reason = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {reason}", "give a folder of pictures, or a set such as DIV2K")
    found = _Found(folder)
    found.look_into(folder)
    if not found.train:
        raise InputError(f"{folder} holds no pictures", "JPEG, PNG, TIFF, WebP, AVIF are usual")
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

    def look_into(self, here: Path) -> None:
        """Raises:
        OSError: the root cannot be read; other folders are noted.
        """
        folders, pictures = self._listed(here)
        highs = [name for name in folders if _HIGH.fullmatch(name)]
        lows = [name for name in folders if _is_low(here / name, beside_high=bool(highs))]
        if highs:
            self._layout(here, folders, highs)
            others = [name for name in folders if name not in (*highs, *lows)]
            unused = len(pictures) + sum(len(list(self._tree(here / name))) for name in others)
            if unused:
                self.notes.append(f"{unused} pictures beside {here / highs[0]} are not used")
            return
        self.train += (self._file(path) for path in pictures)
        for name in folders:
            if name in lows:
                self.notes.append(f"low-resolution pictures in {here / name} are not used")
            else:
                self.look_into(here / name)

    def _layout(self, here: Path, folders: list[str], highs: list[str]) -> None:
        apart = {name for name in highs if _VALIDATION & {*name.lower().split("_")}}
        if len(apart) == len(highs):  # nothing else to train on
            apart = set()
        for name in highs:
            partners = f"{name[:-2]}LR_bicubic".lower()
            low = next((here / f for f in folders if f.lower() == partners), None)
            files = self._pairs(here / name, low)
            (self.validation if name in apart else self.train).extend(files)

    def _pairs(self, high: Path, low: Path | None) -> list[PictureFile]:
        """Pictures below ``high``, with what lies in the same place in ``low/X2``...; what lies
        there and belongs to none are strangers."""
        given = {} if low is None else _by_scale(low)
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
        try:
            return _listed(folder)
        except OSError as error:
            if folder == self.root:
                raise
            self.notes.append(f"{folder} cannot be read ({error.strerror})")
            return [], []

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


def _place(path: Path, folder: Path) -> str:
    """Its path below the folder, without the suffix."""
    return path.relative_to(folder).with_suffix("").as_posix()


def _listed(folder: Path) -> tuple[list[str], list[Path]]:
    """Names of the folders and the pictures in it, in order; none in the folder of a run."""
    with os.scandir(folder) as entries:
        there = sorted(entries, key=lambda entry: entry.name)
    if any(entry.name == "metrics.jsonl" for entry in there):
        return [], []
    seen = [entry for entry in there if not entry.name.startswith(".")]
    return (
        [entry.name for entry in seen if entry.is_dir(follow_symlinks=False)],
        [folder / entry.name for entry in seen if is_readable(entry.name) and entry.is_file()],
    )
