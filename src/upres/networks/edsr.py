"""EDSR (Lim et al. 2017, "Enhanced Deep Residual Networks for Single Image Super-Resolution")."""

import torch
from torch import nn

from upres.networks.blocks import DIV2K_MEAN, ResidualBlock, Upsampler, conv
from upres.networks.chain import ChainNetwork, ResidualChain


class EDSR(ChainNetwork):
    """One residual body without batch normalisation, and a pixel-shuffle upsampler.

    Args:
        scale: 2, 3 or 4.
        blocks, channels, residual_scale: 16, 64, 1 is the paper's baseline; 32, 256, 0.1 its
            large network; 16, 32, 1 is what upres calls EDSR-light.
        mean: RGB in 0..1, subtracted first and added last.
    """

    def __init__(
        self,
        scale: int,
        *,
        blocks: int = 16,
        channels: int = 64,
        residual_scale: float = 1.0,
        mean: tuple[float, float, float] = DIV2K_MEAN,
    ) -> None:
        super().__init__()
        self.scales = (scale,)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.head = conv(3, channels)
        self.body = nn.ModuleList(ResidualBlock(channels, residual_scale) for _ in range(blocks))
        self.body_out = conv(channels, channels)
        self.up = Upsampler(channels, scale)
        self.tail = conv(channels, 3)

    def chain(self, scale: int) -> ResidualChain:
        """Its layers in order, for engines that run them in their own way."""
        return ResidualChain(
            mean=self.get_buffer("mean"),
            head=self.head,
            pre=(),
            body=tuple(b for b in self.body if isinstance(b, ResidualBlock)),
            body_out=self.body_out,
            upsampler=self.up,
            tail=self.tail,
        )
