"""What all runs of an order share, and who watches them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from upres.data.gather import Pictures
from upres.model import Model
from upres.training.distributed import Processes
from upres.training.order import Order, Plan
from upres.training.recipe import Recipe
from upres.training.record import View
from upres.training.stop import Stopping
from upres.training.validation import Quality


class TrainingView(View, Protocol):
    """What people see, from the first picture read to the last weights written."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Pictures are being decoded, shrunk, degraded."""
        ...

    def begins(self, title: str, recipe: Recipe, minutes: float | None) -> None:
        """A run begins; ``steps`` and ``validated`` belong to it from now on."""
        ...


class Nobody:
    """Watches for the processes that only compute, and is what people see of them."""

    def preparing(self, what: str, done: int, total: int) -> None:
        pass

    def begins(self, title: str, recipe: Recipe, minutes: float | None) -> None:
        pass

    def validated(self, step: int, quality: Sequence[Quality]) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def steps(self, facts: Mapping[str, Any]) -> None:
        pass

    def event(self, name: str, facts: Mapping[str, Any]) -> None:
        pass

    def validate(self, step: int, model: Model, dtype: torch.dtype) -> Sequence[Quality]:
        return ()


@dataclass(frozen=True)
class Shared:
    """What all runs of an order share."""

    order: Order
    first_plan: Plan
    pictures: Pictures
    view: TrainingView
    stop: Stopping
    processes: Processes
    device: torch.device
