"""Stages in a row: networks, a last resize, colours and alpha side by side."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from upres.imaging.resize import Kernel
from upres.inference.device import Target
from upres.inference.engine import ModelStage, collect, executor_for
from upres.inference.executor import Executor
from upres.inference.rows import (
    ArrayRows,
    Channel,
    NarrowedStage,
    OpaqueColours,
    Pixels,
    ResizeStage,
    Rows,
    Stage,
    StageRows,
    Widened,
)
from upres.networks import Network

# Below so many pixels in height or width, the border that networks pad with zeros is everywhere;
# such pictures are run with their own border repeated so far.
_TINY = 16
_BORDER = 8

# Told how many of all tiles are done; a part of one counts.
Progress = Callable[[float, int], None]


@dataclass(frozen=True)
class Steps:
    """What is applied to every picture of a run.

    Attributes:
        networks: each with its scale, in order; none means the kernel does it all.
        kernel: of the last resize, where one is needed.
        name: of the models, for people.
    """

    networks: Sequence[tuple[Network, int]]
    kernel: Kernel
    target: Target
    tile: int | None = None
    ensemble: bool = False
    name: str = ""
    _executors: dict[int, Executor] = field(default_factory=dict, init=False, repr=False)

    def executor(self, index: int) -> Executor:
        """The executor of one of the networks, made ready once for all pictures."""
        if index not in self._executors:
            network, scale = self.networks[index]
            self._executors[index] = executor_for(network, scale, self.target)
        return self._executors[index]


@dataclass
class Pipeline:
    """Ready to run over one picture.

    Args:
        source: H x W x C, uint8, uint16 or float in 0..1; an even C has alpha last.
        size: height and width of the result.
        remarks: what people should know about the choice of steps.
    """

    steps: Steps
    source: Pixels
    size: tuple[int, int]
    remarks: tuple[str, ...] = ()
    models: list[ModelStage] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        rows = ArrayRows(self.source)
        # Alpha in the result: none, one value everywhere, or rows that are computed beside.
        self._alpha: Pixels | StageRows | None = None
        if rows.channels not in (2, 4):
            self._colours = self._stage(rows)
            return
        alpha = self.source[..., -1]
        if alpha.min() == alpha.max():
            self._colours = self._stage(ArrayRows(self.source[..., :-1]))
            self._alpha = alpha[:1, :1, None]
        else:
            # A network rings along the hard edges of a mask; a clamped bicubic does not.
            levels = _levels(self.source)
            self._colours = self._stage(OpaqueColours(rows))
            self._alpha = StageRows(
                ResizeStage(Channel(ArrayRows(self.source), -1), *self.size, "bicubic", levels)
            )

    def _stage(self, source: Rows) -> Stage:
        levels = _levels(self.source)
        factor = prod(scale for _, scale in self.steps.networks)
        exact = (source.height * factor, source.width * factor) == self.size
        if not self.steps.networks:
            return ResizeStage(source, *self.size, self.steps.kernel, levels)
        border = _BORDER if min(source.height, source.width) < _TINY else 0
        if border:
            source = Widened(source, border)
        for i, (network, scale) in enumerate(self.steps.networks):
            last = i == len(self.steps.networks) - 1
            model = ModelStage(
                source,
                network,
                scale,
                self.steps.target,
                tile=self.steps.tile,
                ensemble=self.steps.ensemble,
                levels=levels if last and exact else None,
                executor=self.steps.executor(i),
            )
            self.models.append(model)
            source = StageRows(model)
        made: Stage = NarrowedStage(model, border * factor) if border else model
        if exact:
            return made
        return ResizeStage(StageRows(made), *self.size, self.steps.kernel, levels)

    @property
    def tiles(self) -> int:
        """Tiles of all networks together."""
        return sum(len(m.plan.grid) for m in self.models)

    @property
    def memory(self) -> int:
        """Bytes that tiles are estimated to take, beside the picture and the result."""
        return max((m.plan.memory for m in self.models), default=0)

    @property
    def notes(self) -> list[str]:
        """Remarks, and why tiles are smaller than usual, where they are."""
        return [*self.remarks, *(m.plan.note for m in self.models if m.plan.note)]

    def strips(
        self, progress: Progress | None = None, on_note: Callable[[str], None] | None = None
    ) -> Iterator[Pixels]:
        """Rows of the result from the top down, in the type of the source.

        Args:
            on_note: told what people should know; without it, that is a ``RuntimeWarning``.
        """
        done = 0.0

        def count(share: float) -> None:
            nonlocal done
            done += share
            if progress is not None:
                progress(min(done, self.tiles), self.tiles)

        for model in self.models:
            model.on_share = count
            model.on_note = on_note or model.on_note
        top = 0
        for strip in self._colours.strips():
            bottom = top + len(strip)
            alpha = self._alpha
            if isinstance(alpha, StageRows):
                alpha = alpha.read(top, bottom)
            elif alpha is not None:
                alpha = np.broadcast_to(alpha, (*strip.shape[:2], 1))
            yield strip if alpha is None else np.concatenate([strip, alpha], axis=2)
            top = bottom

    def run(
        self, progress: Progress | None = None, on_note: Callable[[str], None] | None = None
    ) -> Pixels:
        """The whole result, H x W x C in the type of the source; see ``strips``."""
        shape = (*self.size, self.source.shape[2])
        return collect(self.strips(progress, on_note), shape, self.source.dtype)


def _levels(source: Pixels) -> int | None:
    if np.issubdtype(source.dtype, np.floating):
        return None
    return int(np.iinfo(source.dtype).max)
