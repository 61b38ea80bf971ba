"""Which pictures a folder holds, in the layouts that people have."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from upres.errors import InputError
from upres.imaging.formats import READABLE


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
    """

    train: tuple[PictureFile, ...]
    validation: tuple[PictureFile, ...] = ()
    strangers: tuple[Path, ...] = ()


def find_pictures(folder: Path) -> PictureFolder:
    """All pictures of a folder.

    Three layouts are known: DIV2K's (``DIV2K_train_HR/0001.png``,
    ``DIV2K_train_LR_bicubic/X2/0001x2.png``, and the same with ``valid``); ``HR/`` with
    ``LR_bicubic/X2/`` beside it; and any tree of pictures. Hidden files are left out, and what
    training runs left in folders of theirs.

    Raises:
        InputError: no folder, or nothing in it.
    """
    if not folder.is_dir():
        reason = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {reason}", "give a folder of pictures, or a set such as DIV2K")
    if (folder / "DIV2K_train_HR").is_dir():
        train, strangers = _pairs(folder, "DIV2K_train_HR", "DIV2K_train_LR_bicubic")
        validation: tuple[PictureFile, ...] = ()
        if (folder / "DIV2K_valid_HR").is_dir():
            validation, more = _pairs(folder, "DIV2K_valid_HR", "DIV2K_valid_LR_bicubic")
            strangers += more
        found = PictureFolder(train, validation, strangers)
    elif (folder / "HR").is_dir():
        train, strangers = _pairs(folder, "HR", "LR_bicubic")
        found = PictureFolder(train, (), strangers)
    else:
        found = PictureFolder(_pairs(folder, ".", None)[0])
    if not found.train:
        raise InputError(f"{folder} holds no pictures", "JPEG, PNG, TIFF, WebP, AVIF are usual")
    return found


def _pairs(
    root: Path, high: str, low: str | None
) -> tuple[tuple[PictureFile, ...], tuple[Path, ...]]:
    """Pictures below ``root/high``, with what lies in the same place in ``root/low/X2``...; and
    what lies there and belongs to none."""
    by_scale = {
        scale: _by_place(root / low / f"X{scale}")
        for scale in (2, 3, 4)
        if low is not None and (root / low / f"X{scale}").is_dir()
    }
    found = []
    for path in _tree(root / high):
        place = _place(path, root / high)
        partners = ((s, partner(lows, place, s)) for s, lows in by_scale.items())
        low_files = tuple((scale, low_file) for scale, low_file in partners if low_file is not None)
        found.append(PictureFile(path.relative_to(root).as_posix(), path, low_files))
    used = {path for file in found for _, path in file.low}
    there = (path for lows in by_scale.values() for path in lows.values())
    return tuple(found), tuple(path for path in there if path not in used)


def partner(lows: Mapping[str, Path], name: str, scale: int) -> Path | None:
    """The low-resolution file of a picture: DIV2K calls that of 0001 0001x2, others keep the name.

    Args:
        lows: low-resolution files by their name, without the suffix.
    """
    return lows.get(name) or lows.get(f"{name}x{scale}")


def _by_place(folder: Path) -> dict[str, Path]:
    return {_place(path, folder): path for path in _tree(folder)}


def _place(path: Path, folder: Path) -> str:
    """Its path below the folder, without the suffix."""
    return path.relative_to(folder).with_suffix("").as_posix()


def _tree(folder: Path) -> list[Path]:
    paths = list(folder.rglob("*"))
    runs = {path.parent for path in paths if path.name == "metrics.jsonl"}
    return sorted(
        path
        for path in paths
        if path.suffix.lower() in READABLE
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and runs.isdisjoint(path.parents)
        and path.is_file()
    )
