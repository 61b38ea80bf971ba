"""Where a picture ends, the folded upsampler is not the layers: see ``upres.networks.folding``."""

from dataclasses import dataclass

import torch
from torch import Tensor

from upres.inference.tiling import Cut
from upres.networks.chain import ResidualChain

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

    def made(strip: Tensor) -> Tensor:
        # Copied: torch's convolutions on MPS took a part of a channels-last tensor for all of it
        # (pytorch issue 180984).
        return chain.reconstruct(strip.clone(memory_format=torch.channels_last))

    if border.left:
        picture[..., :s] = made(features[..., :EDGE])[..., :s]
    if border.right:
        picture[..., -s:] = made(features[..., -EDGE:])[..., -s:]
    if border.top:
        picture[..., :s, :] = made(features[..., :EDGE, :])[..., :s, :]
    if border.bottom:
        picture[..., -s:, :] = made(features[..., -EDGE:, :])[..., -s:, :]
