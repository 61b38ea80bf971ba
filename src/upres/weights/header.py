"""The JSON header of a safetensors file, read without torch.

Layout (safetensors format): 8 bytes little-endian length n, n bytes of JSON, then the tensors'
bytes. Our facts are one metadata entry, "upres": a JSON text with ``"format": 1``.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from upres.errors import WeightsError, printable
from upres.weights.facts import FactsError, ModelFacts

KEY = "upres"
FORMAT = 1
_LARGEST_HEADER = 16 * 2**20
# What a file says besides its facts.
_ASIDE = ("format", "source", "training")
_TOLD = ("recipe", "steps", "hours", "device", "seed", "version", "start", "data", "validation")
_LOOK = ("scale", "psnr", "ssim", "bicubic_psnr", "bicubic_ssim")


def read_header(path: Path) -> dict[str, Any]:
    """The header as it stands: tensor names to dtype, shape and offsets, and "__metadata__".

    Raises:
        WeightsError: the file cannot be read or is no safetensors file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _LARGEST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
            size = file.seek(0, 2)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path} is not a safetensors file",
            "give one that upres wrote; those of other programs are not read",
        ) from error
    if not isinstance(header, dict):
        raise WeightsError(f"{path} is not a safetensors file")
    if size != 8 + length + _end(header):
        raise WeightsError(f"{path} is cut short or has grown", "fetch or train it again")
    return header


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors, as far as the file has the bytes for them.

    Raises:
        WeightsError: see ``read_header``.
    """
    header = read_header(path)
    shapes = {}
    for name, told in header.items():
        shape, offsets = (told.get(k) if isinstance(told, dict) else None for k in _PLACE)
        if not (_are_counts(shape) and _are_counts(offsets) and len(offsets) == 2):
            continue
        size = offsets[1] - offsets[0]  # a byte an element, at least
        if len(shape) <= _MOST_AXES and max(shape, default=1) <= size >= math.prod(shape) > 0:
            shapes[name] = tuple(shape)
    return shapes


_PLACE, _MOST_AXES = ("shape", "data_offsets"), 8


def _are_counts(raw: Any) -> TypeGuard[list[int]]:
    return isinstance(raw, list) and all(type(one) is int and one >= 0 for one in raw)


def _end(header: dict[str, Any]) -> int:
    """Where the last tensor's bytes end."""
    tensors = [value for name, value in header.items() if name != "__metadata__"]
    offsets = [t.get("data_offsets") for t in tensors if isinstance(t, dict)]
    ends = [o[1] for o in offsets if isinstance(o, list) and len(o) == 2 and type(o[1]) is int]
    return max(ends, default=0)


def read_facts(path: Path) -> ModelFacts:
    """The facts that upres embedded.

    Raises:
        WeightsError: not a safetensors file, not one of ours, or of a later format.
    """
    raw = _embedded(path)
    try:
        return ModelFacts.from_mapping({k: v for k, v in raw.items() if k not in _ASIDE})
    except FactsError as error:
        raise WeightsError(f"{path}: {error}", "use a file written by upres") from error


def read_training(path: Path) -> dict[str, Any] | None:
    """How the weights were trained, if upres trained them: recipe, steps, data, quality.

    None, too, if somebody else's words stand there.

    Raises:
        WeightsError: as ``read_facts``.
    """
    training = _embedded(path).get("training")
    return _printable(training) if _is_story(training) else None


def _printable(value: Any) -> Any:
    """Without what would command the terminal that shows it, or break a card's lines."""
    if isinstance(value, dict):
        return {_printable(key): _printable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_printable(one) for one in value]
    return printable(value) if isinstance(value, str) else value


def _is_story(raw: Any) -> bool:
    """Whether all is there that ``models show`` and a model card tell."""
    if not isinstance(raw, dict) or not all(key in raw for key in _TOLD):
        return False
    data, looks = raw["data"], raw["validation"]
    return (
        isinstance(raw["recipe"], dict)
        and "name" in raw["recipe"]
        and ("teacher" not in raw or _is_named(raw["teacher"]))
        and isinstance(raw["steps"], int)
        and isinstance(data, dict)
        and all(key in data for key in ("names", "pictures", "megapixels", "sha256"))
        and isinstance(data["names"], list)
        and all(isinstance(name, str) for name in data["names"])
        and isinstance(looks, list)
        and all(isinstance(q, dict) and all(_number(q.get(k)) for k in _LOOK) for q in looks)
    )


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str)


def _number(value: Any) -> bool:
    return isinstance(value, int | float)


def _embedded(path: Path) -> dict[str, Any]:
    metadata = read_header(path).get("__metadata__")
    text = metadata.get(KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise WeightsError(
            f"{path} carries no upres metadata, so its architecture is unknown",
            "use a file written by upres",
        )
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise FactsError(f"its format is not {FORMAT}, the one this version reads")
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: {error}", "use a file written by upres") from error
    return raw


def facts_metadata(
    facts: ModelFacts, source: str = "", training: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """The metadata for a file.

    Args:
        facts: what the model is.
        source: SHA-256 of the file it was converted from, if it was.
        training: how it was trained, as JSON types, if we trained it.
    """
    raw = {"format": FORMAT, **facts.to_mapping()}
    if source:
        raw["source"] = source
    if training:
        raw["training"] = training
    return {KEY: json.dumps(raw, sort_keys=True)}
