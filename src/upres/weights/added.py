"""Models that the user added: copies in ``home()/models``, each with a JSON of what it is."""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from upres.errors import OutputError, UsageError, WeightsError, os_errors
from upres.files import locked, part_in
from upres.places import home
from upres.weights.facts import FactsError, ModelFacts
from upres.weights.header import read_facts
from upres.weights.manifest import KERNELS, WeightsEntry, is_model_name, load_manifest
from upres.weights.store import checked_sha256

# What --model takes that is no name of weights.
_MEANT_OTHERWISE = ("auto", *KERNELS)


def folder() -> Path:
    """Where added models are."""
    return home() / "models"


def added() -> tuple[WeightsEntry, ...]:
    """All added models, by name, but for the ``damaged`` ones, which must not stop the others."""
    return tuple(entry for _, entry in _described() if entry is not None)


def damaged() -> tuple[Path, ...]:
    """Descriptions that cannot be read."""
    return tuple(path for path, entry in _described() if entry is None)


def _described() -> Iterator[tuple[Path, WeightsEntry | None]]:
    try:
        found = sorted(p for p in folder().glob("*.json") if not p.name.startswith("."))
    except (OSError, UsageError):  # a home that cannot be read, or that nobody has
        return
    for path in found:
        try:
            yield path, _entry(path)
        except WeightsError:
            if path.exists():  # else another process removes it
                yield path, None


def _entry(path: Path) -> WeightsEntry:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        facts = ModelFacts.from_mapping(raw["facts"])
        weights = path.with_suffix(".safetensors")
        return WeightsEntry(facts, weights.name, raw["sha256"], raw["size"], None, weights)
    except (OSError, ValueError, KeyError, TypeError, FactsError) as error:
        raise WeightsError(
            f"{path} is damaged ({error})", "remove it, and add the model again"
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
    parts = [part_in(folder()), part_in(folder())]  # of the weights, and of their description
    try:
        with os_errors(folder(), "set UPRES_HOME to another folder"):
            folder().mkdir(parents=True, exist_ok=True)
            # What is looked at is the copy: training may be writing the source.
            shutil.copyfile(source, parts[0])
            facts = ModelFacts.from_mapping({**read_facts(parts[0]).to_mapping(), "name": chosen})
            words = {
                "facts": facts.to_mapping(),
                "sha256": checked_sha256(parts[0]),
                "size": parts[0].stat().st_size,
            }
            parts[1].write_text(json.dumps(words, indent=1), encoding="utf-8")
            weights = folder() / f"{facts.file_name}.safetensors"
            description = weights.with_suffix(".json")
            with locked(_lock()):
                _refuse_taken(facts, description, overwrite=overwrite)
                parts[0].replace(weights)
                parts[1].replace(description)
    finally:
        for part in parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    return _entry(description)


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


def remove(name: str) -> tuple[WeightsEntry, ...]:
    """Forget all files of an added model, or the one file of that name.

    Returns:
        What they were; nothing of one whose description is damaged.

    Raises:
        WeightsError: no added model has that name.
        OutputError: it cannot be removed.
    """
    unknown = WeightsError(f"no model called {name!r} was added", "'upres models' lists them")
    try:
        if not folder().is_dir():
            raise unknown
        with locked(_lock()):
            broken = [path.stem for path in damaged() if path.stem == name]
            found = tuple(e for e in added() if name in (e.facts.name, e.name) and not broken)
            if not broken and not found:
                raise unknown
            for stem in (*broken, *(entry.name for entry in found)):
                (folder() / f"{stem}.json").unlink(missing_ok=True)
                (folder() / f"{stem}.safetensors").unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{name} cannot be removed ({error.strerror})", "check the folder's permissions"
        ) from error
    return found
