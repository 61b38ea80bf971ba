"""What a run begins with: a new network, and the weights that it takes over."""

from pathlib import Path

import torch

from upres.errors import UsageError
from upres.model import Model, build, load, load_published
from upres.networks import ARCHITECTURES
from upres.training.order import Order, Plan
from upres.training.warmstart import mean_of, warm_start
from upres.version import __version__
from upres.weights.facts import ModelFacts
from upres.weights.known import known_models
from upres.weights.store import fetch


def begin(order: Order, plan: Plan, first: Path | None) -> tuple[Model, str]:
    """A model to train, and what it begins with, in words.

    Args:
        first: the weights that the order's first run made, which higher scales begin with unless
            the order says otherwise.

    Raises:
        UsageError: the weights to begin with are of another architecture, or several files.
        WeightsError: they do not fit, or cannot be read.
    """
    recipe = plan.recipe
    start = order.init if order.init is not None else str(first or recipe.network.start)
    architecture = ARCHITECTURES[recipe.network.architecture]
    facts = ModelFacts.from_mapping(
        {
            "name": order.name or recipe.name,
            "architecture": recipe.network.architecture,
            "numbers": recipe.network.numbers,
            "scales": plan.scales,
            "colour": architecture.colour,
            "licence": order.licence or "not stated",
            "trained_by": order.trained_by or f"upres {__version__}",
            "trained_on": "nothing yet",
        }
    )
    torch.manual_seed(order.seed)
    model = build(facts)
    if start in ("", "none"):
        return model, f"nothing (seed {order.seed})"
    names = start.split(",")
    sources = [_weights(name.strip()) for name in names]
    for name, source in zip(names, sources, strict=True):
        if source.facts.architecture != facts.architecture:
            raise UsageError(
                f"{name} is {source.facts.architecture}, the recipe trains {facts.architecture}",
                "give --init a file of the same architecture, or --init none",
            )
    state = mean_of([source.network.state_dict() for source in sources])
    warm = warm_start(model.network, state, grow=recipe.network.grow)
    model.network.load_state_dict(warm.state)
    origin = start if len(names) == 1 else f"the mean of {' and '.join(names)}"
    return model, f"{origin}: {warm}"


def _weights(name: str) -> Model:
    if name.endswith(".safetensors"):
        return load(Path(name))
    entries = known_models().family(name)
    if len(entries) > 1:
        raise UsageError(
            f"{name} has several files", f"name one: {', '.join(e.name for e in entries)}"
        )
    return load_published(entries[0], fetch(entries[0]))
