"""Sets of pictures that quality is measured on: copies on this machine, or downloaded."""

import gzip
import os
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from upres.data.catalog import DIV2K, fetch_set, one_fetches
from upres.data.download import ELSEWHERE
from upres.data.folders import partner
from upres.data.hub import HubFile, fetch_file
from upres.errors import InputError, OutputError, WeightsError, os_errors
from upres.hashing import sha256_of
from upres.imaging.formats import is_readable
from upres.progress import Note, Transfer, downloading


@dataclass(frozen=True)
class EvaluationSet:
    """Attributes:
    name: as people write it, in lower case.
    title: as papers write it, and as its folder is called.
    pictures: how many there are.
    licence: what its publisher says.
    source: an archive of high-resolution pictures on the Hub, or None where there is none.
    members: SHA-256 of pictures in the archive, where the archive's own is not published.
    """

    name: str
    title: str
    pictures: int
    licence: str
    source: HubFile | None = None
    members: Mapping[str, str] = field(default_factory=dict)


# Revisions and hashes are as the Hub shows them. It shows none for Set14's archive, but the
# pictures in it are known.
_SET14_MEMBERS = {
    "baboon.png": "bf6fb300762bcbe1340098b4309c179b2007c3bb81b7afde18c38a3ae70ac8a9",
    "barbara.png": "1ea77fe82564b55230d7c2439bef5738d18a4624280e263be48484c002b6280b",
    "bridge.png": "c0eb089ad3dacfa96ee79d9c112216265b36aaba205e06f80846b03b21884a53",
    "coastguard.png": "fc6c2acd5ca2116f37b1b38c0c2908ce64e2e414086fb43349c246d410669da6",
    "comic.png": "49ccc5e33deff33992b929b07549d803f176e01bf9f41b73de6b15437bc2280d",
    "face.png": "5cc7a1c5c013b46a7ab4850cb709974d26971550106375a36fd641c725bce9aa",
    "flowers.png": "609e9fc9ffd6c9689c6200a11e057c19e6e4ec5d385fe0d6eb59a7b24f327894",
    "foreman.png": "af4ad4771fd2def0a09ba0011e67225f10ad1590e85b48aab4f6820fa932b1ed",
    "lenna.png": "72d70a7a5051c6193f02b03decb6c7b1d336abe2d024f441a2384acaee84af55",
    "man.png": "ba7a7e45f690a542fc32fdefe1e04e0128d1cdf8c3817c1ee7b0300961636bfe",
    "monarch.png": "ed96187293a37c931250d137553928e1a9a63e31296b82a4968dde63683bb101",
    "pepper.png": "46339a09e2ae31d2f0513642607586a00d82feaf48dc3cc770e42be5684a11a9",
    "ppt3.png": "a9276fa3f7fbd4257ccede14d1004f836c10fcc2bac174b2428f43fe899b8f9d",
    "zebra.png": "af146347f19b1ab9f1da26113a88505d600e2dcb84bf91bb8e2013691e79bcc7",
}

EVALUATION_SETS: dict[str, EvaluationSet] = {
    known.name: known
    for known in (
        EvaluationSet(
            "set5",
            "Set5",
            5,
            "not stated; for academic use",
            HubFile(
                "eugenesiow/Set5",
                "d8b579a20afde95b4d8ed6bf6383447d33027295",
                "data/Set5_HR.tar.gz",
                "260fc447296333f6c2716bcd65513968c33b666f21a905537ee3330c51a1945b",
            ),
        ),
        EvaluationSet(
            "set14",
            "Set14",
            14,
            "for academic use",
            HubFile(
                "eugenesiow/Set14",
                "5afcf80d267dba61cdfa9a32b1a6fe4cca57b6d7",
                "data/Set14_HR.tar.gz",
                None,
            ),
            _SET14_MEMBERS,
        ),
        EvaluationSet(
            "b100",
            "B100",
            100,
            "Berkeley segmentation data set; for research",
            HubFile(
                "eugenesiow/BSD100",
                "8fbc3a31603eba947ea6eba928d31fee0f0c31bb",
                "data/BSD100_HR.tar.gz",
                "333495ccded04a0db52b33361140821ea7e0d8af8dfb54b58df79a00010858d6",
            ),
        ),
        EvaluationSet(
            "urban100",
            "Urban100",
            100,
            "CC BY 4.0",
            # No hash of it is shown anywhere; the commit alone pins it.
            HubFile(
                "eugenesiow/Urban100",
                "fb0d8a4c6b2471d32bd133de40bb8bb10dde69b9",
                "data/Urban100_HR.tar.gz",
                None,
            ),
        ),
        EvaluationSet("manga109", "Manga109", 109, "on request, from its authors"),
        EvaluationSet("div2k", "DIV2K_valid", 100, "for academic research only"),
    )
}


@dataclass(frozen=True)
class Truth:
    """One picture of a set, at one scale.

    Attributes:
        name: of its file, without the suffix unless another file differs in nothing else.
        path: the high-resolution picture.
        low: the low-resolution one, if it came with it.
    """

    name: str
    path: Path
    low: Path | None = None


def find_set(
    text: str,
    scale: int,
    *,
    data_dir: Path | None,
    home: Path,
    note: Note,
    progress: Transfer,
) -> tuple[str, list[Truth]]:
    """A set's name and its pictures, in the order of their names; where some of a known set's are
    missing, the name says so.

    Args:
        text: a known set's name in any case; a folder of pictures; or two folders joined by ":",
            high and low resolution.
        scale: some copies hold other files for each.
        data_dir: where copies may lie already, in any of the usual layouts.
        home: where downloads are kept.

    Raises:
        InputError: there is no such set, or it cannot be had.
        WeightsError, OutputError, ResourceError: the download failed.
    """
    known = EVALUATION_SETS.get(text.lower())
    if known is None:
        return _folder(text, scale)
    for place in (data_dir, home):
        if place is not None and (found := _copy(known, place, scale)):
            if len(found) == known.pictures:
                return known.name, found
            note(f"{place} holds {len(found)} of {known.title}'s {known.pictures} pictures")
            return f"{known.name} ({len(found)} of {known.pictures})", found
    place = home / known.title / ("DIV2K_valid_HR" if known.name == "div2k" else "HR")
    remedy = f"put its {known.pictures} PNG files into {place}"
    if known.name == "div2k":
        try:
            fetch_set(DIV2K, home / "DIV2K", note=note, progress=progress, only="DIV2K_valid_HR")
        except WeightsError as error:
            raise WeightsError(error.problem, f"try again later, or {remedy}") from error
    elif known.source is None:
        raise InputError(f"{known.title} cannot be downloaded ({known.licence})", remedy)
    else:
        archive = fetch_file(known.source, remedy, partial(downloading(progress), known.title))
        with one_fetches(home / known.title, note):
            if not _copy(known, home, scale):  # another process may have unpacked it meanwhile
                _unpack(known, archive, home)
    found = _copy(known, home, scale)
    if not found:
        place = home / ("DIV2K/DIV2K_valid_HR" if known.name == "div2k" else known.title)
        raise InputError(f"{place} holds no pictures", "remove that folder, and ask again")
    return known.name, found


def _folder(text: str, scale: int) -> tuple[str, list[Truth]]:
    folder, low = _two(text)
    if not is_folder(folder):
        raise InputError(
            f"{text} is neither a known set nor a folder",
            f"known are {', '.join(EVALUATION_SETS)}; or check the path",
        )
    name = folder.resolve().name
    found = _in_layout(folder, scale) or _truths(folder)
    if not found:
        raise InputError(f"{folder} holds no pictures", "give a folder of PNG files")
    if low is None:
        return name, found
    partners = {low_one.name: low_one.path for low_one in _truths(low)}
    lows = {truth.name: partner(partners, truth.name, scale) for truth in found}
    if missing := [picture for picture, path in lows.items() if path is None]:
        raise InputError(
            f"{low} has no picture called {missing[0]} or {missing[0]}x{scale}",
            "both folders need the same names",
        )
    return name, [Truth(truth.name, truth.path, lows[truth.name]) for truth in found]


def _two(text: str) -> tuple[Path, Path | None]:
    """One folder, or two with a ":" between, which names may hold as well."""
    if is_folder(Path(text)):
        return Path(text), None
    colons = [i for i, letter in enumerate(text) if letter == ":"]
    both = [(Path(text[:i]), Path(text[i + 1 :])) for i in colons]
    there = [pair for pair in both if all(map(is_folder, pair))]
    return next(iter(there or both), (Path(text), None))


def is_folder(path: Path) -> bool:
    """Whether it is one, and may be looked into."""
    try:
        return path.is_dir() and os.access(path, os.R_OK | os.X_OK)
    except OSError:  # no permission further up, or a name that no file can have
        return False


def _copy(known: EvaluationSet, place: Path, scale: int) -> list[Truth]:
    """The set in one of the usual layouts below ``place``, or nothing."""
    if not is_folder(place):
        return []
    titles = {known.title.lower(), known.name, *_ALSO.get(known.name, ())}
    for folder in sorted(place.iterdir()):
        title = folder.name.lower()
        if title in titles and (found := _in_layout(folder, scale) or _truths(folder)):
            return found
        if title in {f"{t}_hr" for t in titles}:
            beside = place / f"{folder.name[:-3]}_LR_bicubic"
            if found := _with_lows(_truths(folder), beside, scale):
                return found
    return []


# Names of folders that also mean a set.
_ALSO = {"b100": ("bsd100", "bsds100"), "div2k": ("div2k_valid",)}


def _in_layout(folder: Path, scale: int) -> list[Truth]:
    """HR/NAME.png with LR_bicubic/X2/NAMEx2.png; image_SRF_2/NAME_SRF_2_HR.png with _LR.png;
    DIV2K_valid_HR/ with DIV2K_valid_LR_bicubic/X2/."""
    end = f"_SRF_{scale}_"
    files = {path.stem: path for path in _files(folder / f"image_SRF_{scale}")}
    numbered = [
        Truth(stem.removesuffix(f"{end}HR"), path, files.get(stem.removesuffix("HR") + "LR"))
        for stem, path in files.items()
        if stem.endswith(f"{end}HR")
    ]
    for high, low in (("HR", "LR_bicubic"), ("DIV2K_valid_HR", "DIV2K_valid_LR_bicubic")):
        found = _with_lows(_truths(folder / high), folder / low, scale)
        # What was downloaded beside pictures of one's own does not stand for them.
        if found and (not numbered or any(one.low for one in found)):
            return found
    return numbered


def _with_lows(found: list[Truth], low: Path, scale: int) -> list[Truth]:
    """The same with the low-resolution files of a folder of folders, X2 or x2."""
    places = (low / f"X{scale}", low / f"x{scale}")
    lows = {one.name: one.path for place in places for one in _truths(place)}
    return [Truth(one.name, one.path, partner(lows, one.name, scale)) for one in found]


def _truths(folder: Path) -> list[Truth]:
    files = _files(folder)
    stems = Counter(path.stem for path in files)
    return [Truth(path.name if stems[path.stem] > 1 else path.stem, path) for path in files]


def _files(folder: Path) -> list[Path]:
    if not is_folder(folder):
        return []
    return sorted(filter(_is_picture, folder.iterdir()))


def _is_picture(path: Path) -> bool:
    return is_readable(path.name) and not path.name.startswith(".")


def _extract(known: EvaluationSet, archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as packed:
            # Pythons before 3.11.4 have no filter that keeps to the folder; links are left out.
            for member in packed:
                name = PurePosixPath(member.name)
                content = packed.extractfile(member) if member.isreg() else None
                if content is None or name.is_absolute() or ".." in name.parts:
                    continue
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with content, (folder / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise WeightsError(
            f"{known.source} is no archive that can be unpacked ({error})",
            f"remove {archive.resolve()} and ask again",  # the Hub's cache has links
        ) from error


def _unpack(known: EvaluationSet, archive: Path, home: Path) -> None:
    target = home / known.title
    beside = home / f".{known.title}.part"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with os_errors(home, ELSEWHERE):
            beside.mkdir(parents=True)
            _extract(known, archive, beside)
            files = [p for p in beside.rglob("*") if p.is_file() and _is_picture(p)]
            _verify(known, files)
            (beside / "HR").mkdir(exist_ok=True)
            for file in files:
                file.replace(beside / "HR" / file.name)
            target.mkdir(exist_ok=True)  # it may hold the set for other scales
            if (target / "HR").is_dir() and any((target / "HR").iterdir()):
                raise OutputError(
                    f"{target / 'HR'} holds other files than the set's pictures",
                    "rename or remove it, and ask again",
                )
            (beside / "HR").replace(target / "HR")
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _verify(known: EvaluationSet, files: list[Path]) -> None:
    if len(files) != known.pictures:
        raise WeightsError(
            f"{known.source} holds {len(files)} pictures, {known.title} has {known.pictures}",
            "put a copy of the set into UPRES_DATA yourself",
        )
    for file in files:
        wanted = known.members.get(file.name)
        if known.members and wanted != sha256_of(file):
            raise WeightsError(
                f"{file.name} of {known.source} is not what was published",
                "put a copy of the set into UPRES_DATA yourself",
            )
