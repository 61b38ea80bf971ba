"""Models that the user added: copies in ``home()/models``, each with a JSON of what it is."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from upres.errors import OutputError, UsageError, WeightsError, os_errors
from upres.files import atomic_write, locked, new_part, remove_parts, settle
from upres.places import home
from upres.weights.facts import FactsError, ModelFacts
from upres.weights.header import read_facts
from upres.weights.manifest import KERNELS, WeightsEntry, is_model_name, load_manifest
from upres.weights.store import checked_sha256

# What --model, --init and the pages of "upres bench" call by these names is no added model.
_MEANT_OTHERWISE = ("auto", "none", "truth", *KERNELS)


def folder() -> Path:
    """Where added models are."""
    return home() / "models"


def added() -> tuple[WeightsEntry, ...]:
    """All added models, by name, but for the ``damaged`` ones, which must not stop the others."""
    return tuple(entry for _, entry in _described() if isinstance(entry, WeightsEntry))


def damaged() -> tuple[tuple[str, WeightsError], ...]:
    """The names of files whose descriptions cannot be read, and why."""
    return tuple((path.stem, why) for path, why in _described() if isinstance(why, WeightsError))


def _described() -> Iterator[tuple[Path, WeightsEntry | WeightsError]]:
    try:
        found = sorted(p for p in folder().glob("*.json") if not p.name.startswith("."))
    except (OSError, UsageError):  # a home that cannot be read, or that nobody has
        return
    for path in found:
        try:
            yield path, _entry(path)
        except WeightsError as error:
            if path.exists():  # else another process removes it
                yield path, error


def _entry(path: Path) -> WeightsEntry:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        facts = ModelFacts.from_mapping(raw["facts"])
        # Earlier versions called it as its description.
        weights = path.with_name(Path(raw.get("file", f"{path.stem}.safetensors")).name)
        return WeightsEntry(facts, weights.name, raw["sha256"], raw["size"], None, weights)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read ({error.strerror})", "check its permissions"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, FactsError) as error:
        raise WeightsError(
            f"{path} is damaged ({error})",
            f"'upres models remove {path.stem}', and add the model again",
        ) from error


def add(source: Path, name: str = "", *, overwrite: bool = False) -> WeightsEntry:
    """Copy a weights file of ours where ``--model NAME`` finds it.

    Args:
        name: what it is called from now on; "" for what the file says.

    Raises:
        WeightsError: it is no weights file of ours, or its name is impossible or taken.
        OutputError, ResourceError: it cannot be copied.
    """
    told = read_facts(source)
    chosen = name or told.name
    if not is_model_name(chosen):
        raise WeightsError(
            f"{chosen!r} is no model name", "use lower-case letters, digits and -, with --name"
        )
    shipped = load_manifest()
    if chosen in (*_MEANT_OTHERWISE, *shipped.names, *(entry.name for entry in shipped.entries)):
        raise WeightsError(f"{chosen} comes with upres already", "choose another --name")
    with os_errors(folder(), "set UPRES_HOME to another folder"):
        folder().mkdir(parents=True, exist_ok=True)
        with locked(_lock()), new_part(folder()) as part:
            remove_parts(folder())
            # What is looked at is the copy: training may be writing the source.
            shutil.copyfile(source, part)
            facts = ModelFacts.from_mapping({**read_facts(part).to_mapping(), "name": chosen})
            description = folder() / f"{facts.file_name}.json"
            _refuse_taken(facts, description, overwrite=overwrite)
            sha256 = checked_sha256(part)
            # Beside the weights that it takes the place of: a new description is what counts.
            weights = description.with_suffix(f".{sha256[:12]}.safetensors")
            words = {
                "facts": facts.to_mapping(),
                "file": weights.name,
                "sha256": sha256,
                "size": part.stat().st_size,
            }
            settle(part, weights)
            with atomic_write(description) as text:
                text.write_text(json.dumps(words, indent=1), encoding="utf-8")
            for other in _weights_of(description.stem):
                if other != weights:
                    other.unlink(missing_ok=True)
    return _entry(description)


def _weights_of(stem: str) -> list[Path]:
    """What is there of one file of a model, whatever its description says."""
    names = re.compile(rf"{re.escape(stem)}(\.[0-9a-f]{{12}})?\.safetensors")
    return [path for path in folder().iterdir() if names.fullmatch(path.name)]


def _lock() -> Path:
    """One process adds or removes at a time."""
    return folder().with_name(".models.lock")


def _refuse_taken(facts: ModelFacts, description: Path, *, overwrite: bool) -> None:
    stem, chosen = facts.file_name, facts.name
    if description.exists() and not overwrite:
        raise WeightsError(f"{stem} is added already", "choose another --name, or --overwrite it")
    there = added()
    others = {other for e in there if e.name != stem for other in (e.facts.name, e.name)}
    if stem in others or any(chosen == e.name for e in there):
        raise WeightsError(
            f"{chosen} would be mistaken for a model that was added", "choose another --name"
        )
    for entry in there:
        shared = {*entry.facts.scales} & {*facts.scales}
        if entry.facts.name == chosen and entry.name != stem and shared:
            raise WeightsError(
                f"{entry.name} is added already and serves x{min(shared)} too",
                f"choose another --name, or 'upres models remove {entry.name}'",
            )


def remove(name: str) -> tuple[str, ...]:
    """Forget all files of an added model, or the one file of that name.

    Returns:
        The names of these files.

    Raises:
        WeightsError: no added model has that name.
        OutputError: it cannot be removed.
    """
    unknown = WeightsError(f"no model called {name!r} was added", "'upres models' lists them")
    try:
        if not folder().is_dir():
            raise unknown
        with locked(_lock()):
            found = tuple(stem for stem, _ in damaged() if stem == name)
            found = found or tuple(e.name for e in added() if name in (e.facts.name, e.name))
            if not found:
                raise unknown
            for stem in found:
                for path in (*_weights_of(stem), folder() / f"{stem}.json"):
                    path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{name} cannot be removed ({error.strerror})", "check the folder's permissions"
        ) from error
    return found
