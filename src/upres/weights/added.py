"""Models that the user added: copies in ``home()/models``, each with a JSON of what it is."""

import json
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from upres.errors import OutputError, ResourceError, UsageError, WeightsError, is_disk_full
from upres.weights.facts import FactsError, ModelFacts
from upres.weights.header import read_facts
from upres.weights.manifest import WeightsEntry, is_model_name, load_manifest
from upres.weights.store import home, sha256_of

# What --model takes that is no name of weights.
_MEANT_OTHERWISE = ("auto", "bicubic", "lanczos")


def folder() -> Path:
    """Where added models are."""
    return home() / "models"


def added() -> tuple[WeightsEntry, ...]:
    """All added models, by name.

    Raises:
        WeightsError: a description there cannot be read.
    """
    try:
        found = sorted(p for p in folder().glob("*.json") if not p.name.startswith("."))
    except (OSError, UsageError):  # a home that cannot be read, or that nobody has
        return ()
    return tuple(_entry(path) for path in found)


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
    facts = read_facts(source)
    chosen = name or facts.name
    if not is_model_name(chosen):
        raise WeightsError(
            f"{chosen!r} is no model name", "use lower-case letters, digits and -, with --name"
        )
    shipped = load_manifest()
    if chosen in (*_MEANT_OTHERWISE, *shipped.names, *(entry.name for entry in shipped.entries)):
        raise WeightsError(f"{chosen} comes with upres already", "choose another --name")
    facts = ModelFacts.from_mapping({**facts.to_mapping(), "name": chosen})
    digest, size = sha256_of(source), source.stat().st_size
    stem = facts.file_name
    weights, description = folder() / f"{stem}.safetensors", folder() / f"{stem}.json"
    if description.exists() and not overwrite:
        raise WeightsError(f"{stem} is added already", "choose another --name, or --overwrite it")
    there = added()
    others = {other for e in there if e.name != stem for other in (e.facts.name, e.name)}
    if stem in others or any(chosen == e.name for e in there):
        raise WeightsError(
            f"{chosen} would be mistaken for a model that was added", "choose another --name"
        )
    text = json.dumps({"facts": facts.to_mapping(), "sha256": digest, "size": size}, indent=1)
    end = secrets.token_hex(8)
    parts = [folder() / f".upres-{end}-{kind}.part" for kind in ("weights", "description")]
    try:
        folder().mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, parts[0])
        parts[1].write_text(text, encoding="utf-8")
        parts[0].replace(weights)
        parts[1].replace(description)
    except OSError as error:
        if is_disk_full(error):
            raise ResourceError(
                f"the disk is full, {source} cannot be copied to {folder()}",
                "free some, or set UPRES_HOME to a folder on another disk",
            ) from error
        raise OutputError(
            f"{folder()} cannot be written ({error.strerror})", "set UPRES_HOME to another folder"
        ) from error
    finally:
        for part in parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    return _entry(description)


def remove(name: str) -> tuple[WeightsEntry, ...]:
    """Forget all files of an added model, or the one file of that name.

    Raises:
        WeightsError: no added model has that name.
        OutputError: it cannot be removed.
    """
    found = tuple(e for e in added() if name in (e.facts.name, e.name))
    if not found:
        raise WeightsError(f"no model called {name!r} was added", "'upres models' lists them")
    try:
        for entry in found:
            (folder() / f"{entry.name}.json").unlink()
            (folder() / f"{entry.name}.safetensors").unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{name} cannot be removed ({error.strerror})", "check the folder's permissions"
        ) from error
    return found
