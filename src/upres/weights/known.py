"""All models that this machine knows by name: those of weights.toml and those that were added."""

from dataclasses import replace

from upres.errors import WeightsError
from upres.weights.added import added, damaged
from upres.weights.manifest import Manifest, WeightsEntry, load_manifest


def known_models() -> Manifest:
    """weights.toml's entries, then the user's."""
    shipped = load_manifest()
    ours = {*shipped.names, *(entry.name for entry in shipped.entries)}
    mine, unusable = [], list(damaged())
    for entry in added():
        if ours & {entry.name, entry.facts.name}:
            unusable.append((entry.name, _taken(entry)))
        else:
            mine.append(entry)
    return replace(shipped, entries=(*shipped.entries, *mine), unusable=tuple(unusable))


def _taken(entry: WeightsEntry) -> WeightsError:
    """It was added before an update of upres brought a model of that name."""
    return WeightsError(
        f"{entry.name} was added, and upres has a model called {entry.facts.name} itself now",
        f"'upres models add {entry.local} --name ANOTHER', then 'upres models remove {entry.name}'",
    )
