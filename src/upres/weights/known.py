"""All models that this machine knows by name: those of weights.toml and those that were added."""

from dataclasses import replace

from upres.weights.added import added
from upres.weights.manifest import Manifest, load_manifest


def known_models() -> Manifest:
    """weights.toml's entries, then the user's."""
    shipped = load_manifest()
    return replace(shipped, entries=shipped.entries + added())
