"""What training makes small."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from upres.imaging.color import STUDIO_LUMA
from upres.training.recipe import Recipe

Loss = Callable[[Tensor, Tensor], Tensor]


def _charbonnier(a: Tensor, b: Tensor) -> Tensor:
    """Mean of sqrt(d^2 + 1e-6) (Lai et al. 2017)."""
    return torch.sqrt((a - b) ** 2 + 1e-6).mean()


def _psnr(a: Tensor, b: Tensor) -> Tensor:
    """10 log10 of each patch's mean squared error, which is its PSNR below zero (Chen et al. 2021).

    A patch counts as much as any other, however hard it is. The least error is 1e-6, which is
    rounding to 8 bits: nobody needs more.
    """
    return 10 * torch.log10(((a - b) ** 2).mean((1, 2, 3)) + 1e-6).mean()


LOSSES: dict[str, Loss] = {
    "l1": F.l1_loss,
    "l2": F.mse_loss,
    "charbonnier": _charbonnier,
    "psnr": _psnr,
}


def loss_of(recipe: Recipe, device: torch.device) -> Loss:
    """The loss of two batches N x C x H x W, float32 in 0..1, made and true: a scalar.

    With ``recipe.luma`` above 0, a mean of the loss of all colours and the loss of Y alone.
    """
    loss, share = LOSSES[recipe.loss], recipe.luma
    if share == 0:
        return loss
    weights = torch.tensor(STUDIO_LUMA, device=device).view(1, 3, 1, 1)

    def mixed(a: Tensor, b: Tensor) -> Tensor:
        # The offset of Y is the same in both.
        light = [(x * weights).sum(1, keepdim=True) for x in (a, b)]
        return (1 - share) * loss(a, b) + share * loss(*light)

    return mixed
