"""Stages in a row: networks, a last resize; colours, alpha and further channels side by side."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np

from upres.errors import ResourceError, UsageError
from upres.imaging.picture import Extra, collect, extras_of
from upres.imaging.resize import Kernel
from upres.imaging.streaming import StreamedPixels
from upres.inference.engine import ModelStage
from upres.inference.ranges import Part, Range, RestoredStage, ends_of, filled
from upres.inference.rows import (
    ArrayRows,
    Channels,
    NarrowedStage,
    OpaqueColours,
    Pixels,
    ResizeStage,
    Rows,
    Stage,
    StageRows,
    Widened,
)
from upres.inference.steps import LEAST_PROBE, Steps
from upres.memory import free_main_memory
from upres.progress import Note, TileProgress

# Below so many pixels in height or width, the border that networks pad with zeros is everywhere;
# such pictures are run with their own border repeated so far.
_TINY = 16
_BORDER = 8
# Sides of the tiles that time is estimated from.
_PROBE, _CUDA_PROBE = 256, 1024


@dataclass
class Pipeline:
    """Ready to run over one picture.

    Args:
        source: H x W x C, uint8, uint16 or float in 0..1. Streamed pixels serve one run.
        size: height and width of the result.
        remarks: what people should know about the choice of steps.
        ranged: floats may lie in any range, and some may not be finite; see ``Range``.
        no_data: the value that stands for missing ones, or None.
        extra: what the channels beyond colours are; see ``extras_of``.

    Raises:
        UsageError: a picture that is to wrap around, and a factor that is not whole.
    """

    steps: Steps
    source: Pixels | StreamedPixels
    size: tuple[int, int]
    remarks: tuple[str, ...] = ()
    ranged: bool = False
    no_data: float | None = None
    extra: tuple[Extra, ...] = ()
    models: list[ModelStage] = field(default_factory=list, init=False)
    resizes: list[ResizeStage] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        extras = extras_of(self.source.shape[2], self.extra)
        self._count = self.source.shape[2] - len(extras)
        self._alpha = self._count + extras.index("alpha") if "alpha" in extras else None
        self._colours = self._values(0, self._count, self._alpha)
        # The channels after them: one value everywhere, or rows that are computed beside.
        self._beside: list[Pixels | StageRows] = [
            self._channel(index, is_alpha=index == self._alpha)
            for index in range(self._count, self.source.shape[2])
        ]

    def _part(self, first: int, end: int) -> Rows:
        """Channels of the picture."""
        if isinstance(self.source, StreamedPixels):
            return Channels(self.source.reader(), first, end)
        return ArrayRows(self.source[..., first:end])

    def _constant(self, index: int) -> Pixels | None:
        """The value of a channel that has the same one everywhere, 1 x 1 x 1, if that is known."""
        if isinstance(self.source, StreamedPixels):
            if not self._looked_at:
                return None
            least, largest = self._ends[Part(index, index + 1, raw=True)]
            value = np.full((1, 1, 1), least, self.source.dtype)
            return value if least == largest else None
        channel = self.source[..., index : index + 1]
        if channel.min() != channel.max():
            return None
        value = channel[:1, :1]
        return value if self.ranged or value.dtype.kind != "f" else np.clip(value, 0, 1)

    @property
    def _looked_at(self) -> bool:
        """Whether streamed pixels are read once before the run: a network is to enlarge more than
        colours of 8 bits, which it takes as they are. Kernels keep what is the same everywhere."""
        further = self.source.shape[2] - self._count - (self._alpha is not None)
        by_network = self._alpha is not None and self.steps.alpha == "network"
        deep = self.source.dtype != np.uint8
        return bool(self.steps.networks) and bool(deep or further or by_network)

    @cached_property
    def _ends(self) -> dict[Part, tuple[float, float]]:
        """Of streamed pixels, in one pass: the least and the largest values of each further channel
        and, of 16 bits, of the colours and of those that are seen."""
        assert isinstance(self.source, StreamedPixels)
        beside = range(self._count, self.source.shape[2])
        parts = {Part(index, index + 1, raw=True) for index in beside}
        if self.source.dtype != np.uint8:  # whose range is known
            parts |= {Part(0, self._count, self._alpha), Part(0, self._count)}
            parts |= {Part(index, index + 1) for index in beside}
        return ends_of(self.source.blocks(), parts, self._stated())

    def _channel(self, index: int, *, is_alpha: bool) -> Pixels | StageRows:
        if (value := self._constant(index)) is not None:
            return value
        if not is_alpha:
            return StageRows(self._values(index, index + 1))
        part, kernel = self._part(index, index + 1), self.steps.alpha == "bicubic"
        bounds = self._opacity(index)
        if bounds is None:
            return StageRows(self._stage(part, kernel=kernel))
        stage = self._stage(part, None, bounds, kernel=kernel)
        return StageRows(RestoredStage(stage, self._part(index, index + 1), bounds))

    def _opacity(self, index: int) -> Range | None:
        """Of floats that are not 0 to 1: which of them is opaque."""
        if isinstance(self.source, StreamedPixels) or self.source.dtype.kind != "f":
            return None
        if not self.ranged:  # they are cut to it
            return None
        alpha = self.source[..., index : index + 1]
        bounds = Range(self.source.dtype)
        known = bounds.known(alpha)
        top = float(alpha.max(where=known, initial=0))
        if top <= 1 and known.all():
            return None
        return Range(self.source.dtype, mapped=True, span=max(1.0, top))

    def _values(self, first: int, end: int, alpha: int | None = None) -> Stage:
        """All steps over some channels, their range and holes minded.

        Args:
            alpha: the channel that says where they can be seen, or None.
        """
        if alpha is not None and self._constant(alpha) is not None:
            alpha = None
        source, bounds = self._part(first, end), self._bounds(first, end, alpha)
        if bounds is None and alpha is None:
            return self._stage(source)
        hides = None if alpha is None else self._part(alpha, alpha + 1)
        stage = self._stage(source, hides, bounds or Range(self.source.dtype))
        return RestoredStage(stage, self._part(first, end), bounds) if bounds else stage

    def _bounds(self, first: int, end: int, alpha: int | None) -> Range | None:
        """None where every number is a value that networks can be given.

        Args:
            alpha: see ``_values``.
        """
        bounds = self._stated()
        # A kernel keeps whole numbers' values wherever they lie.
        if bounds.floats or (self.source.dtype == np.uint16 and self.steps.networks):
            if isinstance(self.source, StreamedPixels):
                found = bounds.between(*self._ends[Part(first, end, alpha)])
            else:
                found = bounds.of(_blocks(self.source, first, end, alpha))
            if found.absurd < bounds.absurd and self.ranged:
                what = f"values of {found.absurd:.0e} and more are treated as missing"
                self.remarks = (*self.remarks, what)
            # Arrays of floats may lie a little beyond 0..1, and are cut there.
            beyond = found.mapped and (found.low < 0 or found.low + found.span > 1)
            if self.ranged or not bounds.floats or not beyond:
                bounds = found
        needed = bounds.mapped or bounds.no_data is not None or (bounds.floats and self.ranged)
        return bounds if needed else None

    def _stated(self) -> Range:
        dtype = self.source.dtype
        return Range.stated(dtype, self.no_data if self.ranged or dtype.kind != "f" else None)

    def _stage(
        self,
        source: Rows,
        hides: Rows | None = None,
        within: Range | None = None,
        *,
        kernel: bool = False,
    ) -> Stage:
        """All steps over a source.

        Args:
            hides, within: what holes are filled by, where there may be some; see ``filled``.
            kernel: bicubic alone.
        """
        # Whole numbers become floats where they are mapped.
        levels = None if within is not None and within.mapped else _levels(self.source)
        if not self.steps.wrap:
            source = source if within is None else filled(source, hides, within)
            return self._steps(source, self.size, levels, kernel=kernel)
        factor, rest = divmod(self.size[0], source.height)
        if rest or self.size[1] != factor * source.width:
            raise UsageError(
                f"{source.width} x {source.height} to {self.size[1]} x {self.size[0]} is no whole "
                "factor, so the result could not wrap around",
                "use --scale 2, 3 or 4",
            )
        # What a pixel of the result depends on, and a kernel's reach.
        halo, scale = 8.0, 1
        for network, one in self.steps.networks:
            halo, scale = halo + network.halo(one) / scale, scale * one
        # What fills a hole may come from the other side, too.
        by = math.ceil(halo) + (OpaqueColours.REACH if within is not None else 0)
        wide: Rows = Widened(source, by, "wrap")
        if within is not None:
            wide = filled(wide, None if hides is None else Widened(hides, by, "wrap"), within)
        size = (wide.height * factor, wide.width * factor)
        return NarrowedStage(self._steps(wide, size, levels, kernel=kernel), by * factor)

    def _steps(
        self, source: Rows, size: tuple[int, int], levels: int | None, *, kernel: bool
    ) -> Stage:
        if kernel:
            return self._resized(source, size, "bicubic", levels)
        factor = prod(scale for _, scale in self.steps.networks)
        exact = (source.height * factor, source.width * factor) == size
        if not self.steps.networks:
            return self._resized(source, size, self.steps.kernel, levels)
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
                max_memory=self.steps.max_memory,
                levels=levels if last and exact else None,
                executor=self.steps.executor(i),
                channels=self.source.shape[2],
                bands=len(self.steps.networks),
            )
            self.models.append(model)
            source = StageRows(model)
        made: Stage = NarrowedStage(model, border * factor) if border else model
        if exact:
            return made
        return self._resized(StageRows(made), size, self.steps.kernel, levels)

    def _resized(
        self, source: Rows, size: tuple[int, int], kernel: Kernel, levels: int | None
    ) -> Stage:
        stage = ResizeStage(source, *size, kernel, levels)
        self.resizes.append(stage)
        return stage

    @property
    def tiles(self) -> int:
        """Tiles of all networks together."""
        return sum(len(m.plan.grid) for m in self.models)

    @property
    def memory(self) -> int:
        """Bytes that tiles are estimated to take, beside the picture and the result."""
        return max((m.plan.memory for m in self.models), default=0)

    def estimate(self) -> float:
        """Seconds that it will take, from a small tile through each network and a few rows through
        each resize. Reading and writing are beside them."""
        total = sum(stage.estimate() for stage in self.resizes)
        for i, model in enumerate(self.models):
            grid = model.plan.grid
            # On a GPU a small tile takes as long as starting its kernels does.
            most = _CUDA_PROBE if model.target.device.type == "cuda" else _PROBE
            tile = min(max(grid.height, grid.width), grid.core + 2 * grid.halo)
            side = min(most, max(LEAST_PROBE, 1 << (tile - 1).bit_length()))
            pixels = grid.overhead * grid.height * grid.width * (8 if model.ensemble else 1)
            total += pixels * self.steps.pace(i % len(self.steps.networks), side)
        return total

    @property
    def notes(self) -> list[str]:
        """Remarks, and why tiles are smaller than usual, where they are."""
        broken = self.steps.target.passed_over
        # Several networks and channels may have the same to say.
        return list(
            dict.fromkeys(
                [
                    *self.remarks,
                    *([f"{broken}: on the CPU"] if broken else []),
                    *(m.plan.note for m in self.models if m.plan.note),
                ]
            )
        )

    def strips(
        self,
        progress: TileProgress | None = None,
        on_note: Note | None = None,
        start: int = 0,
    ) -> Iterator[Pixels]:
        """Rows of the result from the top down, in the type of the source. Once.

        Args:
            on_note: told what people should know; without it, that is a ``RuntimeWarning``.
            start: the first row that is wanted.
        """
        total = self.tiles
        done = total * start / self.size[0]

        def count(share: float) -> None:
            nonlocal done
            done += share
            if progress is not None:
                progress(min(done, total), total)

        for model in self.models:
            model.on_share = count
            model.on_note = on_note or model.on_note
        if start >= self.size[0]:
            return
        if self.models:  # what there is before anything is computed
            count(0.0)
        top = self._colours.start_of(start)
        for strip in self._colours.strips(start):
            if top < start:  # a block that was begun
                strip, top = strip[start - top :], start
            bottom = top + len(strip)
            beside = [
                part.read(top, bottom)
                if isinstance(part, StageRows)
                else np.broadcast_to(part, (*strip.shape[:2], 1))
                for part in self._beside
            ]
            if progress is not None and not self.models:
                progress(bottom / self.size[0], 1)
            yield np.concatenate([strip, *beside], axis=2) if beside else strip
            top = bottom

    def run(self, progress: TileProgress | None = None, on_note: Note | None = None) -> Pixels:
        """The whole result, H x W x C in the type of the source; see ``strips``.

        Raises:
            ResourceError: it does not fit into memory.
        """
        shape = (*self.size, self.source.shape[2])
        # Systems hand out memory that they do not have and then kill; so count first.
        needed, free = prod(shape) * self.source.dtype.itemsize, free_main_memory()
        tiles = self.memory if self.steps.target.device.type == "cpu" else 0
        if needed + tiles > free:
            what = "result"
            next_step = "take a smaller scale, or 'upres FILE -o RESULT', which streams files"
            if needed <= free:
                needed, what, next_step = tiles, "tile", "let tiles be chosen, or give smaller ones"
            raise ResourceError(
                f"the {what} needs {needed / 2**30:.1f} GiB of memory, "
                f"{free / 2**30:.1f} GiB are free",
                next_step,
            )
        return collect(self.strips(progress, on_note), shape, self.source.dtype)


def _blocks(
    pixels: Pixels, first: int, end: int, alpha: int | None
) -> Iterator[tuple[Pixels, Pixels | None]]:
    """Colours and alpha of the whole picture; see ``Range.of``."""
    rows = len(pixels) if pixels.dtype.kind == "f" else 256
    for top in range(0, len(pixels), rows):
        block = pixels[top : top + rows]
        yield block[..., first:end], None if alpha is None else block[..., alpha : alpha + 1]


def _levels(source: Pixels | StreamedPixels) -> int | None:
    if np.issubdtype(source.dtype, np.floating):
        return None
    return int(np.iinfo(source.dtype).max)
