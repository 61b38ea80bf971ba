"""How a network is run on one padded tile."""

import copy
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from upres.inference.device import all_of_float32
from upres.inference.tiling import Cut
from upres.networks import Network

# Told which part of a tile has been computed since the last time; a batch of n adds up to n.
OnShare = Callable[[float], None]


class Executor(Protocol):
    """A network, made ready for one scale, device and dtype; for several threads at once."""

    def rows(self, x: Tensor, cut: Cut, on_share: OnShare | None = None) -> Iterator[Tensor]:
        """Run a batch of equal tiles.

        Args:
            x: N x 3 x h x w float32 in 0..1 on the executor's device, halo included.
            cut: the halo, in pixels of ``x``; zero sides are the picture's own border.
            on_share: told of progress.

        Yields:
            N x 3 x rows x scale*(w - left - right) float32, unclamped: blocks from the top down,
            scale*(h - top - bottom) rows in all.
        """
        ...

    def bytes_per_pixel(self) -> float:
        """Memory that a pixel of ``x`` costs at the peak, beyond ``fixed_bytes`` and the result."""
        ...

    def fixed_bytes(self, height: int, width: int) -> float:
        """Memory that an ``x`` of this size costs besides."""
        ...

    def operations(self) -> float:
        """Floating-point operations for a pixel of ``x``, away from the picture's border."""
        ...

    def peak_values(self) -> int:
        """Numbers alive at the peak for a pixel of ``x``; no tensor is over two thirds of them."""
        ...


def run_whole(executor: Executor, x: Tensor, cut: Cut, on_share: OnShare | None = None) -> Tensor:
    """All that ``rows`` yields, as one tensor."""
    blocks = list(executor.rows(x, cut, on_share))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 2)


def to_dtype(network: Network, dtype: torch.dtype) -> Network:
    """A copy that computes in ``dtype``; mean shifts and batch statistics stay float32."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if isinstance(module, nn.Conv2d | nn.PReLU):
            module.to(dtype)
    return copied


class PlainExecutor:
    """Runs ``features``, crops what the second stage does not need, runs ``reconstruct``."""

    def __init__(
        self, network: Network, scale: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        # torch's stubs lose the overload of `to` that takes a memory format.
        prepared: nn.Module = to_dtype(network, dtype).to(device)
        self.network = prepared.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.scale, self.dtype = scale, dtype
        self.reach = network.reconstruct_halo(scale)
        self.values = network.peak_values(scale)

    def bytes_per_pixel(self) -> float:
        """From the network's own count of numbers alive at the peak."""
        return self.values * self.dtype.itemsize * 1.25 + 3 * 4 * (1 + 2 * self.scale**2)

    def fixed_bytes(self, height: int, width: int) -> float:
        """None: everything grows with the tile."""
        return 0.0

    def peak_values(self) -> int:
        """The network's own count."""
        return self.values

    def operations(self) -> float:
        """As torch counts them."""
        from torch.utils.flop_counter import FlopCounterMode

        side, device = 32, next(self.network.parameters()).device
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            self.network(
                torch.rand(1, self.network.channels, side, side, device=device), self.scale
            )
        return float(counter.get_total_flops()) / side**2

    def rows(self, x: Tensor, cut: Cut, on_share: OnShare | None = None) -> Iterator[Tensor]:
        """See ``Executor``; all in one block."""
        x = x.contiguous(memory_format=torch.channels_last)
        inner = Cut(*(max(0, side - self.reach) for side in vars(cut).values()))
        rest = Cut(*(min(side, self.reach) for side in vars(cut).values()))
        with all_of_float32(x.device):  # half types, too, are not to search for algorithms
            features = crop(self.network.features(x, self.scale), inner)
            if x.device.type == "mps":
                # torch's convolutions there took a part of a channels-last tensor for all of it
                # (pytorch issue 180984).
                features = features.contiguous(memory_format=torch.channels_last)
            picture = self._reconstruct(features, cut)
        if on_share is not None:
            on_share(float(len(x)))
        yield crop(picture.float(), rest, self.scale)

    def _reconstruct(self, features: Tensor, cut: Cut) -> Tensor:
        picture: Tensor = self.network.reconstruct(features, self.scale)
        return picture


def crop(x: Tensor, cut: Cut, scale: int = 1) -> Tensor:
    """N x C x h x w without ``scale`` times the cut on each side."""
    height, width = x.shape[2:]
    return x[
        :,
        :,
        cut.top * scale : height - cut.bottom * scale,
        cut.left * scale : width - cut.right * scale,
    ]
