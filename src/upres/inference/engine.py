"""The engine: tile, run, retry smaller, paste; stage after stage."""

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from upres.errors import ResourceError
from upres.imaging.color import FULL_RANGE_LUMA
from upres.inference.device import Target, on_cpu
from upres.inference.executor import Executor, OnShare, run_whole
from upres.inference.folded import layer_by_layer
from upres.inference.planning import SMALLEST_CORE, is_streamed, plan_tiles, tile_budget
from upres.inference.rows import Pixels, Rows
from upres.inference.streamed import StreamedExecutor
from upres.inference.tiling import Cut, Tile
from upres.networks import Network
from upres.progress import Note


def executor_for(
    network: Network, scale: int, target: Target, max_memory: int | None = None
) -> Executor:
    """The fastest exact way to run a network on a device."""
    with torch.autocast(target.device.type, enabled=False), on_cpu():
        if is_streamed(network, target):
            budget, _ = tile_budget(target, max_memory)
            return StreamedExecutor(network, scale, target.dtype, budget=budget)
        return layer_by_layer(network, scale, target.device, target.dtype)


@contextmanager
def own_modes(device: torch.device) -> Iterator[None]:
    """What the caller may have switched on is not ours: gradients, other number formats and
    devices."""
    with torch.inference_mode(), torch.autocast(device.type, enabled=False), on_cpu():
        yield


class ModelStage:
    """A network over a picture, tile by tile.

    Args:
        source: 1 or 3 channels. Integers are read as fractions of their range.
        network: RGB in and out.
        tile: see ``plan_tiles``.
        ensemble: average over the eight flips and rotations (x8, Timofte et al. 2016).
        max_memory, bands: see ``plan_tiles``.
        levels: 255 or 65535 to round to integers; None gives float32 in 0..1.
        executor: replaces the usual one, for tests and other backends.
        channels: of the whole picture, where other stages hold rows of the rest beside this one.
    """

    def __init__(
        self,
        source: Rows,
        network: Network,
        scale: int,
        target: Target,
        *,
        tile: int | None = None,
        ensemble: bool = False,
        max_memory: int | None = None,
        levels: int | None = None,
        executor: Executor | None = None,
        channels: int = 0,
        bands: int = 1,
    ) -> None:
        self.source, self.network, self.scale, self.target = source, network, scale, target
        self.height, self.width = source.height * scale, source.width * scale
        self.channels = source.channels
        self.ensemble, self.levels, self.max_memory = ensemble, levels, max_memory
        self.executor = executor or executor_for(network, scale, target, max_memory)
        # Batches that a device beside the CPU has to do, of the next band too, while one is put
        # into its place and bands are written.
        self.ahead = 0 if target.device.type == "cpu" else 1
        self.plan = plan_tiles(
            network,
            scale,
            target,
            (source.height, source.width),
            tile,
            # The result is there twice when its blocks are put together; the mean of an ensemble
            # is made in float32 from whole results.
            bytes_per_pixel=self.executor.bytes_per_pixel()
            + 2 * source.channels * scale**2 * (1 if levels == 255 else 4)  # torch has no uint16
            + (4 * 3 * 4 * scale**2 if ensemble else 0),
            fixed_bytes=self._fixed_bytes,
            values=self.executor.peak_values(),
            bytes_per_row=4 * source.width * max(channels, source.channels),
            # The band, the copy that is written, and what is begun of the next.
            bytes_per_result=source.width
            * max(channels, source.channels)
            * (2 + self.ahead)
            * scale**2
            * np.dtype(_dtype(levels)).itemsize,
            max_memory=max_memory,
            bands=bands,
        )
        # Pixels of a padded tile that once did not fit, in each number format.
        self.largest: dict[Executor, int] = {}
        self._refused = ""  # what the allocator said then
        self._luma = torch.tensor(FULL_RANGE_LUMA, dtype=torch.float32, device=target.device).view(
            1, 3, 1, 1
        )
        self._exact: Executor | None = None  # the same in float32, made when first needed
        self.on_note: Note = _warn
        self.on_share: OnShare | None = None  # told which part of a tile was computed

    def _fixed_bytes(self, height: int, width: int) -> float:
        """Of a tile; half of an ensemble's views lie on their side."""
        upright = self.executor.fixed_bytes(height, width)
        if not self.ensemble:
            return upright
        return max(upright, self.executor.fixed_bytes(width, height))

    def start_of(self, row: int) -> int:
        """See ``Stage``."""
        return next(a for a, b in self.plan.grid.rows if row < b * self.scale) * self.scale

    def strips(self, start: int = 0) -> Iterator[Pixels]:
        """Blocks of rows: uint8 or uint16 with ``levels``, else float32 clamped to 0..1.

        Args:
            start: any row of the block that comes first.
        """
        waiting: deque[_Begun] = deque()
        try:
            for _ in self._begin(waiting, self.start_of(start) // self.scale):
                yield from self._finished(waiting, self.ahead)
        except Exception:  # of what was to be next; what is done can be kept
            yield from self._finished(waiting, 0)
            raise
        yield from self._finished(waiting, 0)

    def _begin(self, waiting: deque["_Begun"], start: int) -> Iterator[None]:
        """Begin the batches of all bands from one on, each when it is asked for."""
        for top, bottom in self.plan.grid.rows:
            if top < start:
                continue
            tiles = list(self.plan.grid.band(top, bottom))
            first, _, end, _ = tiles[0].padded
            window = self.source.read(first, end)
            band = np.empty(
                ((bottom - top) * self.scale, self.width, self.channels), _dtype(self.levels)
            )
            for batch in _batches(tiles, self.plan.batch):
                result = self._start(window, batch)
                waiting.append(_Begun(band, batch, result, batch[-1] is tiles[-1]))
                del result  # or its pixels would be kept until the next are there
                yield
            del window, band

    def _finished(self, waiting: deque["_Begun"], leave: int) -> Iterator[Pixels]:
        """Put batches into their places until so many are left; the bands that this completes."""
        while len(waiting) > leave:
            if (band := self._finish(waiting.popleft())) is not None:
                yield band
                del band

    def _start(self, window: Pixels, batch: list[Tile]) -> Callable[[], Pixels]:
        spans = [(tile.padded[1], tile.padded[3]) for tile in batch]
        pixels = np.stack([window[:, left:right] for left, right in spans])
        return self._launch(pixels, batch[0].cut)

    def _finish(self, begun: "_Begun") -> Pixels | None:
        """The band, if this was its last batch."""
        for tile, pixels in zip(begun.batch, begun.result(), strict=True):
            begun.band[:, tile.left * self.scale : tile.right * self.scale] = pixels
        return begun.band if begun.last else None

    def _launch(
        self, pixels: Pixels, cut: Cut, executor: Executor | None = None, share: float = 1.0
    ) -> Callable[[], Pixels]:
        """Begin a batch; the returned function waits for it. N x h x w x C in and out.

        Args:
            share: which part of a planned tile each of the batch is.
        """
        executor = executor or self.executor
        if pixels[..., 0].size >= self.largest.get(executor, math.inf):
            return lambda: self._halves(pixels, cut, executor, share)
        try:
            with own_modes(self.target.device):
                return self._compute(pixels, cut, executor, share)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.largest[executor] = pixels[..., 0].size
            self._refused = str(error).partition("\n")[0] or type(error).__name__
        if self.target.device.type == "cuda":
            torch.cuda.empty_cache()
        return lambda: self._halves(pixels, cut, executor, share)

    def _halves(self, pixels: Pixels, cut: Cut, executor: Executor, share: float) -> Pixels:
        """The same result from smaller tiles: one by one, then each cut across its longer side."""
        if len(pixels) > 1:
            each = (pixels[i : i + 1] for i in range(len(pixels)))
            return np.concatenate([self._launch(one, cut, executor, share)() for one in each])
        height = pixels.shape[1] - cut.top - cut.bottom
        width = pixels.shape[2] - cut.left - cut.right
        if max(height, width) <= SMALLEST_CORE:
            raise ResourceError(
                f"a tile of {width} x {height} pixels does not fit into the memory of "
                f"{self.target.device.type} ({self._refused})",
                "free memory, or use a smaller model or --device cpu",
            )
        halo = self.plan.grid.halo
        tall = height >= width
        axis = 1 if tall else 2
        before, core = (cut.top, height) if tall else (cut.left, width)
        middle, total = before + core // 2, pixels.shape[axis]
        low, high = max(0, middle - halo), min(total, middle + halo)
        if tall:
            cuts = replace(cut, bottom=high - middle), replace(cut, top=middle - low)
            parts = pixels[:, :high], pixels[:, low:]
        else:
            cuts = replace(cut, right=high - middle), replace(cut, left=middle - low)
            parts = pixels[:, :, :high], pixels[:, :, low:]
        shares = share * (core // 2) / core, share * (core - core // 2) / core
        first, second = (
            self._launch(p, c, executor, s)() for p, c, s in zip(parts, cuts, shares, strict=True)
        )
        return np.concatenate([first, second], axis)

    def _compute(
        self, pixels: Pixels, cut: Cut, executor: Executor, share: float
    ) -> Callable[[], Pixels]:
        y, finite = self._network(executor, pixels, cut, share)
        done = self._from_device(y, finite)

        def result() -> Pixels:
            values, fine = done()
            in_half = executor is self.executor and self.target.dtype != torch.float32
            return values if fine or not in_half else self._recompute(pixels, cut)

        return result

    def _recompute(self, pixels: Pixels, cut: Cut) -> Pixels:
        """A half type overflowed: the same tile in float32."""
        if self._exact is None:
            self.on_note(
                f"{self.target.precision} overflowed; such tiles are computed again in fp32"
            )
            exact = Target(self.target.device, torch.float32, "")
            self._exact = executor_for(self.network, self.scale, exact, self.max_memory)
        # A batch was planned for numbers of half the size.
        each = (pixels[i : i + 1] for i in range(len(pixels)))
        return np.concatenate([self._launch(one, cut, self._exact)() for one in each])

    def _network(
        self, executor: Executor, pixels: Pixels, cut: Cut, share: float
    ) -> tuple[Tensor, Tensor]:
        """N x h x w x C in; N x H x W x C out, on the device, and whether it was finite."""
        x = self._to_device(pixels)
        gray = x.shape[1] == 1
        x = x.expand(-1, 3, -1, -1) if gray else x
        # What is computed again was told of before.
        tell = self.on_share if executor is self.executor else None
        told = None if tell is None else lambda part: tell(part * share)
        if self.ensemble:
            blocks = iter([_ensemble(executor, x, cut, told)])
        else:
            blocks = executor.rows(x, cut, told)
        # Made by a kernel: a copy from the host would wait for the batch before.
        finite, rounded = torch.ones((), dtype=torch.bool, device=x.device), []
        for block in blocks:
            y = (block * self._luma).sum(1, keepdim=True) if gray else block
            # One number that is not finite makes the sum so.
            finite = finite & torch.isfinite(y.sum())
            rounded.append(self._round(y))
        return rounded[0] if len(rounded) == 1 else torch.cat(rounded, 1), finite

    def _to_device(self, pixels: Pixels) -> Tensor:
        # torch has few operators for uint16, whose values float32 holds all, and MPS no float64.
        values = pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32, copy=False)
        host = torch.from_numpy(np.ascontiguousarray(values))
        cuda = self.target.device.type == "cuda"
        if cuda:
            host = host.pin_memory()
        # Only CUDA's allocator keeps pinned memory until the copy has been made.
        x = host.to(self.target.device, non_blocking=cuda).permute(0, 3, 1, 2).float()
        if np.issubdtype(pixels.dtype, np.integer):
            x = x / np.iinfo(pixels.dtype).max
        return x

    def _round(self, y: Tensor) -> Tensor:
        """N x C x h x w float to N x h x w x C in the output's type, in place as far as it goes:
        the result is the largest thing in memory."""
        y = y.permute(0, 2, 3, 1)
        if y.device.type == "mps":  # what is written into a view may be lost: pytorch#147510
            y = y.contiguous()
        y = y.clamp_(0, 1)
        if self.levels is None:
            return y
        return y.mul_(self.levels).round_().to(torch.uint8 if self.levels == 255 else torch.int32)

    def _from_device(self, y: Tensor, finite: Tensor) -> Callable[[], tuple[Pixels, bool]]:
        """A function that waits for both to arrive."""
        dtype = _dtype(self.levels)
        if y.device.type != "cuda":
            return lambda: (y.cpu().numpy().astype(dtype, copy=False), bool(finite))
        host = torch.empty(y.shape, dtype=y.dtype, pin_memory=True)
        fine = torch.empty((), dtype=torch.bool, pin_memory=True)
        host.copy_(y, non_blocking=True)
        fine.copy_(finite, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        # Without a stream that would be the thread's own device's.
        event.record(torch.cuda.current_stream(y.device))

        def result() -> tuple[Pixels, bool]:
            event.synchronize()
            return host.numpy().astype(dtype, copy=False), bool(fine)

        return result


class _Begun(NamedTuple):
    """A batch of tiles that is being computed: where it goes, and whether it ends its band."""

    band: Pixels
    batch: list[Tile]
    result: Callable[[], Pixels]
    last: bool


def _warn(note: str) -> None:
    warnings.warn(note, RuntimeWarning, stacklevel=2)


def _dtype(levels: int | None) -> type[Any]:
    return np.float32 if levels is None else np.uint8 if levels == 255 else np.uint16


def _batches(tiles: list[Tile], size: int) -> Iterator[list[Tile]]:
    """Runs of neighbours with equal shapes and cuts, at most ``size`` long."""
    batch: list[Tile] = []
    for tile in tiles:
        if batch and (len(batch) == size or _shape(tile) != _shape(batch[0])):
            yield batch
            batch = []
        batch.append(tile)
    yield batch


def _shape(tile: Tile) -> tuple[int, int, Cut]:
    top, left, bottom, right = tile.padded
    return bottom - top, right - left, tile.cut


def _ensemble(executor: Executor, x: Tensor, cut: Cut, on_share: OnShare | None) -> Tensor:
    """Mean over the flips and rotations of the input, each undone on the output."""
    total: Tensor | None = None
    eighth: OnShare | None = None if on_share is None else lambda share: on_share(share / 8)
    for transposed in (False, True):
        for dims in ((), (2,), (3,), (2, 3)):
            top, bottom = (cut.bottom, cut.top) if 2 in dims else (cut.top, cut.bottom)
            left, right = (cut.right, cut.left) if 3 in dims else (cut.left, cut.right)
            turned = x.flip(dims)
            if transposed:
                y = run_whole(
                    executor, turned.transpose(2, 3), Cut(left, top, right, bottom), eighth
                )
                y = y.transpose(2, 3)
            else:
                y = run_whole(executor, turned, Cut(top, left, bottom, right), eighth)
            y = y.flip(dims)
            total = y if total is None else total.add_(y)
    assert total is not None
    return total.div_(8)


# What the allocators of CPUs, Apple's, Windows and the libraries beneath torch say, as plain
# RuntimeErrors. The last three may mean something else; then smaller tiles do not help, and the
# words are repeated.
_ALLOCATORS_SAY = (
    "can't allocate",
    "out of memory",
    "not enough memory",
    "Invalid buffer size",  # MPS
    "bad_alloc",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "STATUS_NOT_INITIALIZED",
    "could not create a primitive",
    "unable to find an engine to execute this computation",
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocator's own error says that memory is full."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in text for words in _ALLOCATORS_SAY
    )


@contextmanager
def memory_errors(
    problem: str = "memory is full", next_step: str = "use smaller tiles, or --device cpu"
) -> Iterator[None]:
    """What an allocator says, for people.

    Raises:
        ResourceError: memory is full.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        why = str(error).partition("\n")[0] or type(error).__name__
        raise ResourceError(f"{problem} ({why})", next_step) from error
