"""EDSR and MDSR on accelerators: their upsampler as one convolution."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from upres.inference.executor import PlainExecutor
from upres.inference.tiling import Cut
from upres.networks.blocks import shuffle
from upres.networks.chain import ChainNetwork, ResidualChain
from upres.networks.folding import SIZE, fold

EDGE = 4  # two pixels of reach, one of result, one to spare


@dataclass(frozen=True)
class Border:
    """The sides of a tile that are the picture's own."""

    top: bool
    left: bool
    bottom: bool
    right: bool

    @classmethod
    def of(cls, cut: Cut) -> "Border":
        """A side without a halo."""
        return cls(cut.top == 0, cut.left == 0, cut.bottom == 0, cut.right == 0)


def mend_border(picture: Tensor, features: Tensor, chain: ResidualChain, border: Border) -> None:
    """Make the outermost low-resolution pixel by the layers themselves, in place.

    Args:
        picture: N x 3 x scale*h x scale*w float32, of the folded upsampler.
        features: N x C x h x w, what it was made from.
        chain: the layers.
        border: where.
    """
    s = picture.shape[-1] // features.shape[-1]
    if border.left:
        picture[..., :s] = chain.reconstruct(features[..., :EDGE])[..., :s]
    if border.right:
        picture[..., -s:] = chain.reconstruct(features[..., -EDGE:])[..., -s:]
    if border.top:
        picture[..., :s, :] = chain.reconstruct(features[..., :EDGE, :])[..., :s, :]
    if border.bottom:
        picture[..., -s:, :] = chain.reconstruct(features[..., -EDGE:, :])[..., -s:, :]


class FoldedExecutor(PlainExecutor):
    """Layer by layer, with a third less to multiply at x4, and no activations at the size of the
    result: tiles may be larger. See ``upres.networks.folding``.

    Args:
        network: EDSR or MDSR.
    """

    def __init__(
        self, network: ChainNetwork, scale: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__(network, scale, device, dtype)
        assert isinstance(self.network, ChainNetwork)
        self.chain = self.network.chain(scale)
        layers = network.chain(scale)
        with torch.no_grad():
            weight, bias = fold(layers.upsampler, layers.tail)
        self.weight = weight.to(device, dtype, memory_format=torch.channels_last)
        self.bias = bias.to(device, dtype)
        self.strip_values = self.values
        # The long skip, a block's input, what its convolutions make, their sum; twice the result.
        self.values = 5 * layers.head.out_channels + 2 * len(bias)

    def fixed_bytes(self, height: int, width: int) -> float:
        """What mends a side."""
        return EDGE * max(height, width) * self.strip_values * self.dtype.itemsize * 1.25

    def operations(self) -> float:
        """The layers', but for the upsampler and the tail."""
        from torch.utils.flop_counter import FlopCounterMode

        side = 32
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            features = self.chain.features(torch.rand(1, 3, side, side, device=self.weight.device))
            self._folded(features)
        return float(counter.get_total_flops()) / side**2

    def _folded(self, features: Tensor) -> Tensor:
        y = F.conv2d(features, self.weight, self.bias, padding=SIZE // 2)
        return shuffle(y, self.scale).float() + self.chain.mean

    def _reconstruct(self, features: Tensor, cut: Cut) -> Tensor:
        picture = self._folded(features)
        mend_border(picture, features, self.chain, Border.of(cut))
        return picture
