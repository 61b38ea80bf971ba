"""A training run: what it is made of, how far it is, how it ended."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from upres.data.patches import Sampler
from upres.errors import UpresError
from upres.model import Model
from upres.training.distributed import Processes
from upres.training.patches import PatchStore
from upres.training.recipe import Recipe
from upres.training.validation import Quality


class Watch(Protocol):
    """Who looks on. Only the first process calls it."""

    def steps(self, facts: Mapping[str, Any]) -> None:
        """Some steps were made: step, loss, rate, progress, speed."""
        ...

    def event(self, name: str, facts: Mapping[str, Any]) -> None:
        """Something else happened: a checkpoint, a rollback, a pause."""
        ...

    def validate(self, step: int, model: Model, dtype: torch.dtype) -> Sequence[Quality]:
        """Time to measure the weights as they would be kept now."""
        ...


class Write(Protocol):
    """Writes weights as the file that a run is for.

    Raises:
        OutputError, ResourceError: it cannot be written; the one before is still there.
    """

    def __call__(
        self, run: "Run", kept: Model, position: "Position", quality: Sequence[Quality]
    ) -> None: ...


def _nothing(run: "Run", kept: Model, position: "Position", quality: Sequence[Quality]) -> None:
    pass


@dataclass(frozen=True)
class Taught:
    """Attributes:
    model: that teaches.
    told: its name, sha256, licence and trained_on.
    """

    model: Model
    told: Mapping[str, Any]


@dataclass
class Run:
    """What is trained, on what, for how long.

    Attributes:
        recipe: how.
        model: untrained or warm; its network is trained in place.
        sampler, store: where patches come from.
        folder: where last.pt goes.
        origin: what the weights begin with, in words.
        sources: and each of those weights: its name, sha256, licence and trained_on.
        teacher: whose pictures are a part of what is learnt, if any.
        data: the pictures: what the result tells of them, with their fingerprint as "sha256".
        data_before: the same of those that it was trained on before it was resumed with others.
        minutes: how long, or None to make ``recipe.steps`` steps.
        resume: go on from the folder's checkpoint.
        stop: asked before every step; a true answer saves and ends.
        write: called with what the weights are each time that they were measured.
        report_every, report_seconds: steps or seconds between reports, whichever comes first.
        validate_every, save_every: seconds between measurements (which take a tenth of the time at
            most) and between checkpoints.
    """

    recipe: Recipe
    model: Model
    sampler: Sampler
    store: PatchStore
    folder: Path
    device: torch.device
    processes: Processes
    watch: Watch
    origin: str = ""
    sources: tuple[Mapping[str, Any], ...] = ()
    teacher: Taught | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    data_before: tuple[Mapping[str, Any], ...] = ()
    minutes: float | None = None
    resume: bool = False
    stop: Callable[[], bool] = lambda: False
    write: Write = _nothing
    report_every: int = 50
    report_seconds: float = 20.0
    validate_every: float = 300.0
    save_every: float = 120.0

    def progress_at(self, position: "Position") -> float:
        """From 0 to 1, where the run ends."""
        if self.minutes is not None:
            return position.seconds / (60 * self.minutes)
        # Without steps it is at its end.
        return position.step / self.recipe.steps if self.recipe.steps else 1.0


@dataclass(frozen=True)
class Position:
    """How far a run is. Patches depend on nothing else, so it is their position as well.

    Attributes:
        step: steps made.
        seconds: time spent on them, measurements included, pauses not.
        slowed: what rollbacks multiplied the rate with.
        rollbacks: how many there were since the last good report.
    """

    step: int = 0
    seconds: float = 0.0
    slowed: float = 1.0
    rollbacks: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: as it was, however often it was resumed.
        kept: the network with the weights that count.
        position: where the run ended.
        finished: whether that was the end, or ``stop``.
        unsaved: why the last state could not be saved, if it could not.
    """

    run: Run
    kept: Model
    position: Position
    finished: bool
    unsaved: UpresError | None = None
