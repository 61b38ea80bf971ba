"""What EDSR and MDSR have in common: their layers, at one scale, are a chain."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from upres.networks.blocks import ResidualBlock, Upsampler, shuffle
from upres.networks.folding import SIZE, fold
from upres.networks.network import Network


@dataclass(frozen=True)
class ResidualChain:
    """The layers of an EDSR-like network at one scale, in the order they are applied.

    features = body_out(body(h)) + h with h = pre(head(x - mean));
    picture = tail(upsampler(features)) + mean.
    """

    mean: Tensor
    head: nn.Conv2d
    pre: tuple[ResidualBlock, ...]
    body: tuple[ResidualBlock, ...]
    body_out: nn.Conv2d
    upsampler: Upsampler
    tail: nn.Conv2d

    @property
    def features_halo(self) -> int:
        """Low-resolution reach of everything before the upsampler."""
        return 2 + sum(block.reach for block in (*self.pre, *self.body))

    # One convolution before the (first) shuffle, and what follows reaches less than two pixels
    # at its own resolution: one more at low resolution.
    reconstruct_halo = 2

    def features(self, x: Tensor) -> Tensor:
        """N x 3 x h x w in 0..1 to N x C x h x w."""
        # The shift is made before any rounding to a half type.
        h = self.head((x.float() - self.mean).to(self.head.weight.dtype))
        for block in self.pre:
            h = block(h)
        y = h
        for block in self.body:
            y = block(y)
        out: Tensor = self.body_out(y) + h
        return out

    def reconstruct(self, features: Tensor) -> Tensor:
        """N x C x h x w to N x 3 x scale*h x scale*w, float32."""
        picture: Tensor = self.tail(self.upsampler(features))
        return picture.float() + self.mean

    def reconstruct_folded(self, features: Tensor) -> Tensor:
        """``reconstruct`` in less time and memory, forward and backward: the upsampler and the tail
        as one convolution (``upres.networks.folding``), and along the border the layers themselves.

        N x C x h x w to N x 3 x scale*h x scale*w, float32; h and w are at least 3.
        """
        weight, bias = fold(self.upsampler, self.tail)
        s = math.prod(self.upsampler.factors)
        inside = shuffle(F.conv2d(features, weight, bias, padding=SIZE // 2 - 1), s)
        rows = self.reconstruct(torch.cat([features[:, :, :3], features[:, :, -3:]]))
        columns = self.reconstruct(torch.cat([features[..., :3], features[..., -3:]]))
        top, bottom = rows.chunk(2)
        left, right = columns[:, :, s:-s].chunk(2)
        middle = [left[..., :s], inside.float() + self.mean, right[..., -s:]]
        return torch.cat([top[:, :, :s], torch.cat(middle, 3), bottom[:, :, -s:]], 2)


class ChainNetwork(Network):
    """A network whose layers at one scale are a ``ResidualChain``."""

    @abstractmethod
    def chain(self, scale: int) -> ResidualChain:
        """Its layers at this scale, in order; engines may run them in their own way."""

    def halo(self, scale: int) -> int:
        """EDSR: 36 pixels for 16 blocks, 68 for 32. MDSR: 44 for 16, 172 for 80."""
        return self.chain(scale).features_halo + self.reconstruct_halo(scale)

    def reconstruct_halo(self, scale: int) -> int:
        """The upsampler's and tail's part of the halo."""
        return self.chain(scale).reconstruct_halo

    def peak_values(self, scale: int) -> int:
        """The last upsampling convolution's output before and after its shuffle."""
        return 2 * self.chain(scale).head.out_channels * scale * scale

    def forward(self, x: Tensor, scale: int) -> Tensor:
        """See ``Network``. In training mode the upsampler is folded, for the same result; at x2
        the layers take no longer."""
        chain = self.chain(scale)
        features = chain.features(x)
        if self.training and scale > 2 and min(x.shape[2:]) >= 3:
            return chain.reconstruct_folded(features)
        return chain.reconstruct(features)

    def features(self, x: Tensor, scale: int) -> Tensor:
        """N x 3 x h x w in 0..1 to N x channels x h x w."""
        return self.chain(scale).features(x)

    def reconstruct(self, features: Tensor, scale: int) -> Tensor:
        """N x channels x h x w to N x 3 x scale*h x scale*w, float32."""
        return self.chain(scale).reconstruct(features)
