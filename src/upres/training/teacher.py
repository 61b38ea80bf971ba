"""Learning from another network's pictures (Hinton et al. 2015, "Distilling the Knowledge in a
Neural Network").

Most of what separates a network's pictures from the truth cannot be known from low-resolution
pixels: it is noise to whoever learns. What a better network makes of the same pixels can be.
"""

import torch
from torch import Tensor

from upres.inference.executor import run_whole
from upres.inference.folded import layer_by_layer
from upres.inference.tiling import Cut
from upres.networks import Network


class Teacher:
    """A mean of the truth and of what another network makes.

    In each step the other network sees its input in another of the eight flips and rotations, and
    what it makes is turned back: over the steps that teaches the mean of all eight (Timofte et al.
    2016, "Seven Ways to Improve Example-Based Single Image Super Resolution").

    Args:
        network: the other one.
        scales: that it is asked for.
        share: its part of the mean, 0 to 1.
        device, dtype: where and in what it computes.
    """

    def __init__(
        self,
        network: Network,
        scales: tuple[int, ...],
        share: float,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        # Patches are small, and many: nothing would be gained from streaming rows.
        self.executors = {s: layer_by_layer(network, s, device, dtype) for s in scales}
        self.share = share
        # Tensors, so that a recorded step can be replayed with other values.
        self.turns = [torch.zeros((), dtype=torch.bool, device=device) for _ in range(3)]

    def prepare(self, step: int) -> None:
        """Turn the other network's input as it is this step's turn."""
        for i, turn in enumerate(self.turns):
            turn.fill_(bool(step >> i & 1))

    @torch.no_grad()
    def blend(self, low: Tensor, truth: Tensor, scale: int) -> Tensor:
        """What is to be learnt.

        Args:
            low: N x C x p x p float32 in 0..1.
            truth: their high-resolution partners, N x C x scale*p x scale*p.

        Returns:
            As ``truth``.
        """
        across, down, transposed = self.turns
        x = torch.where(across, low.flip(3), low)
        x = torch.where(down, x.flip(2), x)
        x = torch.where(transposed, x.transpose(2, 3), x)
        # Nobody is to learn what a result would lose: it is within 0..1.
        y = run_whole(self.executors[scale], x, Cut()).clamp(0, 1)
        y = torch.where(transposed, y.transpose(2, 3), y)
        y = torch.where(down, y.flip(2), y)
        y = torch.where(across, y.flip(3), y)
        return torch.lerp(truth, y, self.share)
