"""The contract that every network keeps and that the engine relies on."""

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A super-resolution network.

    ``forward(x, scale)`` maps N x C x h x w low-resolution floats in 0..1 to
    N x C x scale*h x scale*w, unclamped. It pads with zeros, so that a picture's border is
    treated the same whatever lies beyond it.

    The engine runs it in two stages, ``reconstruct(features(x))``, and between them crops what
    the second does not need. A network without a cheap low-resolution stage leaves ``features``
    and ``reconstruct_halo`` as they are here.

    Attributes:
        scales: the factors it serves.
        colour: "rgb" (C = 3) or "y" (C = 1: BT.601 studio luma / 255).
        shares_scales: whether one instance serves several scales; its class then takes ``scales``,
            a tuple, and otherwise ``scale``, a number.
        splits_layers: whether some of its layers serve one of those scales alone.
    """

    shares_scales = False
    splits_layers = False
    scales: tuple[int, ...]
    colour: Literal["rgb", "y"] = "rgb"

    @property
    def channels(self) -> int:
        """Planes in and out: 3 for RGB, 1 for luma."""
        return 3 if self.colour == "rgb" else 1

    @abstractmethod
    def halo(self, scale: int) -> int:
        """Low-resolution pixels that an output pixel depends on, in each direction."""

    def reconstruct_halo(self, scale: int) -> int:
        """The part of ``halo`` that belongs to ``reconstruct``; all of it here."""
        return self.halo(scale)

    @abstractmethod
    def peak_values(self, scale: int) -> int:
        """Numbers alive at the peak for each low-resolution pixel; sizes tiles."""

    def features(self, x: Tensor, scale: int) -> Tensor:
        """First stage, at low resolution; the picture itself here."""
        return x

    @abstractmethod
    def reconstruct(self, features: Tensor, scale: int) -> Tensor:
        """Second stage: from low-resolution features to the picture."""

    def forward(self, x: Tensor, scale: int) -> Tensor:
        """N x C x h x w in 0..1 to N x C x scale*h x scale*w, unclamped."""
        return self.reconstruct(self.features(x, scale), scale)
