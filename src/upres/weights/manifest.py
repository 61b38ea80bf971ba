"""weights.toml, read into frozen, typed entries. Unknown keys are errors."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from upres.errors import WeightsError
from upres.weights.facts import FactsError, ModelFacts

Layout = Literal["upres", "super-image"]

# Models that are computed, and have no weights.
KERNELS: tuple[Literal["bicubic", "lanczos"], ...] = ("bicubic", "lanczos")
# Of a JPEG: below it "auto" takes a model that undoes what such files suffer from.
PHOTO_BELOW = 90

_SHARED = {"architecture", "numbers", "colour", "licence", "trained_by", "trained_on"}
_HUB = {"repository", "revision", "layout"}
# A file may have another story than its family.
_STORY = {"trained_by", "trained_on"}
_FILE = {"file", "sha256", "size", "scales", "measured"} | _STORY


@dataclass(frozen=True)
class Hub:
    """A file on the Hugging Face Hub, at one commit."""

    repository: str
    revision: str
    layout: Layout


@dataclass(frozen=True)
class WeightsEntry:
    """One file of weights.

    Attributes:
        facts: what the model is.
        file: its name, in ``upres/weights/bundled`` or in the Hub repository.
        sha256: of the file as published.
        size: bytes, or None where the publisher's page does not say.
        hub: where it is downloaded from, or None when it is bundled or added.
        local: where the user added it, or None.
    """

    facts: ModelFacts
    file: str
    sha256: str
    size: int | None
    hub: Hub | None
    local: Path | None = None

    @property
    def name(self) -> str:
        """Unique: "edsr-light-x4"."""
        return self.facts.file_name


@dataclass(frozen=True)
class Manifest:
    """All entries, and which model is meant when none is named: the first that serves a scale.

    Attributes:
        default: the best ones.
        fast: small ones, for ``--fast``.
        photo: ones that undo what JPEG does, for JPEG files of low quality.
        unusable: names of files that were added and cannot be told from their descriptions, and
            why.
    """

    default: tuple[str, ...]
    fast: tuple[str, ...]
    photo: tuple[str, ...]
    entries: tuple[WeightsEntry, ...]
    unusable: tuple[tuple[str, WeightsError], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Model names in the order of the file."""
        return tuple(dict.fromkeys(e.facts.name for e in self.entries))

    def files(self, name: str) -> tuple[WeightsEntry, ...]:
        """All files that can be used of a model, or the one file that is called ``name``."""
        return tuple(e for e in self.entries if name in (e.facts.name, e.name))

    def refuse_unusable(self, name: str) -> None:
        """See that no file that was added by this name is one of the ``unusable``.

        Raises:
            WeightsError: one is.
        """
        for stem, why in self.unusable:
            if name in (stem, re.sub(r"-x\d(-\d)*$", "", stem)):
                raise why

    def family(self, name: str) -> tuple[WeightsEntry, ...]:
        """The same for a name that somebody gave.

        Raises:
            WeightsError: there is no such model, or not all of it can be used.
        """
        self.refuse_unusable(name)
        found = self.files(name)
        if not found:
            if name in KERNELS:
                raise WeightsError(f"{name} is computed, it has no weights", "name another model")
            raise WeightsError(
                f"no model is called {name!r}",
                "'upres models' lists them; names of files end in .safetensors",
            )
        return found


def is_model_name(text: str) -> bool:
    """Lower-case letters and digits, in parts joined by "-"."""
    return re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text) is not None


def manifest_path() -> Path:
    """Inside the package in a wheel, at the top level in a checkout or an editable install."""
    package = Path(__file__).resolve().parent.parent
    for path in (package / "weights.toml", package.parent.parent / "weights.toml"):
        if path.is_file():
            return path
    raise WeightsError("weights.toml is missing from the installation", "install upres again")


@cache
def load_manifest() -> Manifest:
    """The manifest of this installation."""
    return read_manifest(manifest_path())


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        WeightsError: no TOML, an unknown or missing key, an impossible value.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read ({error})") from error
    try:
        return _manifest(raw)
    except FactsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _manifest(raw: dict[str, Any]) -> Manifest:
    if raw.pop("format", None) != 1:
        raise FactsError("format must be 1")
    auto = raw.pop("auto", None)
    entries: list[WeightsEntry] = []
    for name, family in raw.items():
        if not is_model_name(name) or not isinstance(family, dict):
            raise FactsError(f"{name!r} is no model name with a table")
        entries += _family(name, family)
    names = {e.facts.name for e in entries}
    if not isinstance(auto, dict) or set(auto) != {"default", "fast", "photo"}:
        raise FactsError("auto must be a table with default, fast and photo")
    for key, listed in auto.items():
        if not isinstance(listed, list) or not set(listed) <= names:
            raise FactsError(f"auto.{key} must list models of this file, not {listed!r}")
    if not auto["default"] or not auto["fast"]:
        raise FactsError("auto.default and auto.fast must each list a model at least")
    return Manifest(entries=tuple(entries), **{k: tuple(v) for k, v in auto.items()})


def _family(name: str, raw: dict[str, Any]) -> list[WeightsEntry]:
    files = {k: v for k, v in raw.items() if isinstance(v, dict) and k != "numbers"}
    shared = {k: v for k, v in raw.items() if k not in files}
    if unknown := sorted(set(shared) - _SHARED - _HUB):
        raise FactsError(f"{name}: unknown key {unknown[0]!r}")
    hub = _hub(name, shared)
    entries = []
    for key, file in files.items():
        where = f"{name}.{key}"
        if unknown := sorted(set(file) - _FILE):
            raise FactsError(f"{where}: unknown key {unknown[0]!r}")
        match = re.fullmatch(r"x([2-8])", key)
        scales = [int(match[1])] if match else file.get("scales")
        if match and "scales" in file:
            raise FactsError(f"{where}: the key says the scale already")
        measured = file.get("measured", [])
        if not isinstance(measured, list):
            raise FactsError(f"{where}: measured must be a list")
        try:
            facts = ModelFacts.from_mapping(
                {k: shared[k] for k in _SHARED if k in shared}
                | {k: file[k] for k in _STORY if k in file}
                | {
                    "name": name,
                    "scales": scales,
                    "measured": [_single(m, scales) for m in measured],
                }
            )
        except FactsError as error:
            raise FactsError(f"{where}: {error}") from None
        entries.append(_entry(where, facts, file, hub))
    if not entries:
        raise FactsError(f"{name}: no file")
    return entries


def _single(measured: Any, scales: Any) -> Any:
    """In a table of one scale, a measurement need not repeat it."""
    if isinstance(measured, Mapping) and isinstance(scales, list) and len(scales) == 1:
        return {"scale": scales[0], **measured}
    return measured


def _hub(name: str, shared: dict[str, Any]) -> Hub | None:
    given = _HUB & set(shared)
    if not given:
        return None
    if given != _HUB:
        raise FactsError(f"{name}: {', '.join(sorted(_HUB))} go together")
    if not re.fullmatch(r"[0-9a-f]{40}", str(shared["revision"])):
        raise FactsError(f"{name}: revision must be a full commit hash")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(shared["repository"])):
        raise FactsError(f"{name}: repository must be owner/name")
    if shared["layout"] not in ("upres", "super-image"):
        raise FactsError(f"{name}: layout must be 'upres' or 'super-image'")
    return Hub(shared["repository"], shared["revision"], cast("Layout", shared["layout"]))


def _entry(where: str, facts: ModelFacts, raw: dict[str, Any], hub: Hub | None) -> WeightsEntry:
    file, sha256, size = raw.get("file"), raw.get("sha256"), raw.get("size")
    if not isinstance(file, str) or not re.fullmatch(r"[\w][\w./-]*", file) or ".." in file:
        raise FactsError(f"{where}: file must be a plain file name, not {file!r}")
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise FactsError(f"{where}: sha256 must be 64 hexadecimal digits")
    if size is not None and (type(size) is not int or size <= 0):
        raise FactsError(f"{where}: size must be a number of bytes")
    return WeightsEntry(facts, file, sha256, size, hub)
