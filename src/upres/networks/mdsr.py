"""MDSR (Lim et al. 2017): one body shared by x2, x3 and x4."""

import torch
from torch import nn

from upres.networks.blocks import DIV2K_MEAN, ResidualBlock, Upsampler, conv
from upres.networks.chain import ChainNetwork, ResidualChain


class MDSR(ChainNetwork):
    """A shared head, body and tail; pre-processing and an upsampler for each scale.

    Args:
        scales: the factors it serves.
        blocks, channels, residual_scale: 80, 64, 1 is the paper's network; 16, 64, 1 its baseline.
        mean: RGB in 0..1, subtracted first and added last.
    """

    shares_scales = True
    splits_layers = True

    def __init__(
        self,
        scales: tuple[int, ...] = (2, 3, 4),
        *,
        blocks: int = 80,
        channels: int = 64,
        residual_scale: float = 1.0,
        mean: tuple[float, float, float] = DIV2K_MEAN,
    ) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.head = conv(3, channels)
        self.pre = nn.ModuleDict(
            {
                f"x{s}": nn.ModuleList(
                    ResidualBlock(channels, residual_scale, size=5) for _ in range(2)
                )
                for s in self.scales
            }
        )
        self.body = nn.ModuleList(ResidualBlock(channels, residual_scale) for _ in range(blocks))
        self.body_out = conv(channels, channels)
        self.up = nn.ModuleDict({f"x{s}": Upsampler(channels, s) for s in self.scales})
        self.tail = conv(channels, 3)

    def chain(self, scale: int) -> ResidualChain:
        """The layers that serve one scale, in order."""
        upsampler = self.up[f"x{scale}"]
        assert isinstance(upsampler, Upsampler)
        pre = self.pre[f"x{scale}"]
        return ResidualChain(
            mean=self.get_buffer("mean"),
            head=self.head,
            pre=tuple(b for b in pre.children() if isinstance(b, ResidualBlock)),
            body=tuple(b for b in self.body if isinstance(b, ResidualBlock)),
            body_out=self.body_out,
            upsampler=upsampler,
            tail=self.tail,
        )
