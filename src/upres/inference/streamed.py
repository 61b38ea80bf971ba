"""EDSR and MDSR on the CPU: row by row through all layers, with nothing computed twice.

Three ideas, all exact:

*Rows flow.* A tile is not pushed through layer after layer as a whole, which would take its
activations through main memory once a layer and map them anew each time. A few dozen rows at a
time go through all layers; each layer keeps the last rows of its input for the next turn. The
buffers are small, are used again, and a block adds its result in place.

*The upsampler is linear*, and runs as one convolution (``upres.networks.folding``).

*Only a border differs* for that: one low-resolution pixel along the picture's own. There the layers
themselves are run, on strips four pixels wide.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from upres.inference.border import EDGE, Border, mend_border
from upres.inference.executor import OnShare, PlainExecutor, crop, run_whole
from upres.inference.onednn import FusedConv
from upres.inference.tiling import Cut
from upres.networks.blocks import ResidualBlock
from upres.networks.chain import ChainNetwork, ResidualChain
from upres.networks.folding import fold

# Allocations up to 32 MiB are taken from memory that the process has touched before (glibc);
# larger ones are mapped anew each time, and the page faults cost up to a sixth of the run time.
_STEP_BYTES = 31 * 2**20


def _folded(chain: ResidualChain) -> nn.Conv2d:
    with torch.no_grad():
        weight, bias = fold(chain.upsampler, chain.tail)
    outputs, inputs, size, _ = weight.shape
    folded = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    folded.weight, folded.bias = nn.Parameter(weight), nn.Parameter(bias)
    return folded


class _Block:
    """A residual block's two convolutions, with the residual scale in the second."""

    def __init__(self, block: ResidualBlock, dtype: torch.dtype) -> None:
        self.first = FusedConv(block.conv1, dtype)
        self.second = FusedConv(block.conv2, dtype, block.residual_scale)
        self.reach = block.reach


class StreamedExecutor:
    """See the module, and ``Executor`` for what a call takes and gives.

    Args:
        network: EDSR or MDSR, on the CPU.
        dtype: float32 or bfloat16.
        budget: bytes that a tile may take; a turn takes a twelfth of it at most.
        step_rows: rows that flow at a time; None chooses from the width.
    """

    def __init__(
        self,
        network: ChainNetwork,
        scale: int,
        dtype: torch.dtype,
        *,
        budget: float = math.inf,
        step_rows: int | None = None,
    ) -> None:
        chain = network.chain(scale)
        self.scale, self.dtype, self.step_rows = scale, dtype, step_rows
        self.step_bytes = int(min(_STEP_BYTES, budget / 12))
        self.mean = chain.mean.float()
        self.head = FusedConv(chain.head, dtype)
        self.channels = self.head.outputs
        self.pre = [_Block(b, dtype) for b in chain.pre]
        self.body = [_Block(b, dtype) for b in chain.body]
        self.body_out = FusedConv(chain.body_out, dtype)
        self.rebuild = FusedConv(_folded(chain), dtype)
        self.plain = PlainExecutor(network, scale, torch.device("cpu"), dtype)
        assert isinstance(self.plain.network, ChainNetwork)
        self.chain = self.plain.network.chain(scale)
        # Each block holds back `reach` rows in the first turn, and moves its window up by as much
        # in every turn.
        reach = sum(b.reach for b in (*self.pre, *self.body))
        self.lead, self.front = reach + 2 * EDGE, 2 * reach

    def operations(self) -> float:
        """Of what the layers were made into."""
        fused = [c for b in (*self.pre, *self.body) for c in (b.first, b.second)]
        return sum(c.operations for c in (self.head, *fused, self.body_out, self.rebuild))

    def peak_values(self) -> int:
        """The layers', each of which holds a few rows at most."""
        return self.plain.peak_values()

    def row_bytes(self, width: int) -> int:
        """Of one row of activations."""
        return width * self.channels * self.dtype.itemsize

    def rows_at_a_time(self, width: int) -> int:
        """How many flow in every turn; in the first there are ``lead`` more."""
        return self.step_rows or max(8, self.step_bytes // self.row_bytes(width) - 2 * EDGE)

    def bytes_per_pixel(self) -> float:
        """The input, in float32 and in the network's format."""
        return 3 * (4 + 4 + self.dtype.itemsize)

    def fixed_bytes(self, height: int, width: int) -> float:
        """The layers' buffers, which grow with a tile's width and hardly with its height: the one
        all work in, what each keeps, and at the peak as much again and four turns' rows."""
        turn = min(height, self.rows_at_a_time(width) + self.lead)
        kept = sum(2 * b.reach for b in (*self.pre, *self.body))
        return (2 * (turn + self.front) + kept + 4 * turn) * self.row_bytes(width)

    def rows(self, x: Tensor, cut: Cut, on_share: OnShare | None = None) -> Iterator[Tensor]:
        """See ``Executor``; a block for each turn."""
        if len(x) > 1:
            yield torch.cat(
                [run_whole(self, picture, cut, on_share) for picture in torch.split(x, 1)]
            )
        elif min(x.shape[2:]) < 2 * EDGE:
            yield run_whole(self.plain, x, cut, on_share)
        else:
            yield from _Flow(self, x, cut).run(on_share)


class _Flow:
    """One tile on its way through the layers. Tensors are 1 x C x rows x w, channels last."""

    def __init__(self, executor: StreamedExecutor, x: Tensor, cut: Cut) -> None:
        self.e, self.cut = executor, cut
        self.height, self.width = x.shape[2:]
        shifted = (x - executor.mean).to(executor.dtype)
        self.x = shifted.contiguous(memory_format=torch.channels_last)
        self.rows, self.lead = executor.rows_at_a_time(self.width), executor.lead
        self.front = executor.front
        blocks = [*executor.pre, *executor.body]
        largest = min(self.height, self.rows + self.lead) + self.front
        # N x rows x w x C: a range of rows is contiguous.
        self.buffer = self._empty(largest)
        # Made beforehand: small pieces between large ones that come and go would leave holes in
        # the heap that are a little too small, once a block.
        self.kept = [self._empty(2 * b.reach) for b in blocks]
        self.place: Tensor | None = None
        self.kept_body: Tensor | None = None
        self.kept_features: Tensor | None = None
        self.skip: Tensor | None = None
        self.done = 0  # rows of the tile whose features were turned into output

    def _empty(self, rows: int) -> Tensor:
        shape = (1, rows, self.width, self.e.channels)
        return torch.empty(shape, dtype=self.e.dtype).permute(0, 3, 1, 2)

    def run(self, on_share: OnShare | None) -> Iterator[Tensor]:
        start = 0
        while start < self.height:
            stop = min(self.height, start + self.rows + (self.lead if start == 0 else 0))
            block = self._without_halo(self._turn(start, stop))
            if on_share is not None:
                on_share((stop - start) / self.height)
            if block.shape[2]:
                yield block
            start = stop

    def _turn(self, start: int, stop: int) -> Tensor:
        """Rows ``start``..``stop`` of the input enter; output rows leave, some turns late."""
        first, last = start == 0, stop == self.height
        above, below = start - max(0, start - 1), min(self.height, stop + 1) - stop
        head = self.e.head(self.x[:, :, start - above : stop + below])
        # The window of the buffer that is at work: it begins at `top` and holds `count` rows.
        top, count = self.front, stop - start
        self._window(top, count).copy_(head[:, :, above : above + count])
        for i, block in enumerate([*self.e.pre, *self.e.body]):
            if i == len(self.e.pre):
                self._remember_skip(self._window(top, count))
            kept = self.kept[i]
            if not first:
                top, count = top - kept.shape[2], count + kept.shape[2]
                self._window(top, kept.shape[2]).copy_(kept)
            window = self._window(top, count)
            if not last:
                kept.copy_(window[:, :, count - 2 * block.reach :])
            block.second.add_to(window, self._activated(block, window, grows=last and not first))
            # Rows within reach of an end that is not the picture's saw zeros instead of pixels.
            if not first:
                top, count = top + block.reach, count - block.reach
            if not last:
                count -= block.reach
        return self._leave(self._window(top, count), first=first, last=last)

    def _activated(self, block: _Block, window: Tensor, *, grows: bool) -> Tensor:
        """The first half of a block. In a tile's last turn each block's window is larger than the
        one before, and the heap would find no hole for it where that has been: one place, made
        before, is used for all."""
        if not grows:
            return block.first(window, relu=True)
        if self.place is None:
            self.place = self._empty(self.rows + self.lead)
        result = self.place[:, :, : window.shape[2]].zero_()
        block.first.add_to(result, window, relu=True)
        return result

    def _window(self, top: int, count: int) -> Tensor:
        return self.buffer[:, :, top : top + count]

    def _remember_skip(self, window: Tensor) -> None:
        """The long skip adds rows that entered several turns before."""
        self.skip = window.clone() if self.skip is None else _stack(self.skip, window)

    def _leave(self, body: Tensor, *, first: bool, last: bool) -> Tensor:
        """From the last block's output to rows of the picture."""
        joined = body.clone() if self.kept_body is None else _stack(self.kept_body, body)
        count = joined.shape[2]
        self.kept_body = None if last else joined[:, :, count - 2 :].clone()
        assert self.skip is not None
        features = self.skip[:, :, :count].clone()
        self.skip = self.skip[:, :, count - 2 :].clone()
        self.e.body_out.add_to(features, joined)
        features = features[:, :, 0 if first else 1 : count if last else count - 1]

        if self.kept_features is not None:
            features = _stack(self.kept_features, features)
        count = features.shape[2]
        self.kept_features = None if last else features[:, :, count - EDGE :].clone()
        begin, end = (0 if first else 2), (count if last else count - 2)
        features = features.contiguous(memory_format=torch.channels_last)
        picture = F.pixel_shuffle(self.e.rebuild(features).float(), self.e.scale) + self.e.mean
        own = Border.of(self.cut)
        border = Border(own.top and first, own.left, own.bottom and last, own.right)
        mend_border(picture, features, self.e.chain, border)
        return picture[:, :, begin * self.e.scale : end * self.e.scale]

    def _without_halo(self, picture: Tensor) -> Tensor:
        """What of these rows, which follow those before, belongs to the core."""
        rows = picture.shape[2] // self.e.scale
        begin, self.done = self.done, self.done + rows
        above = min(rows, max(0, self.cut.top - begin))
        below = min(rows - above, max(0, self.done - (self.height - self.cut.bottom)))
        return crop(picture, Cut(above, self.cut.left, below, self.cut.right), self.e.scale)


def _stack(above: Tensor, below: Tensor) -> Tensor:
    return torch.cat([above, below], 2).contiguous(memory_format=torch.channels_last)
