"""Patches cut, flipped and turned from prepared pictures, on the device that trains.

Cropping is one indexed read of pixels, so it is the same code on a CPU, where the files are
mapped into memory, and on an accelerator that holds them whole.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upres.data.patches import Batch
from upres.data.prepared import Prepared
from upres.imaging.color import STUDIO_LUMA, STUDIO_LUMA_OFFSET
from upres.inference.device import free_memory


class PatchStore:
    """Prepared pictures' pixels as tensors.

    Args:
        prepared: the folder.
        scales: whose low-resolution partners are used.
        versions: degraded versions of each picture; 0 for none.
        patch: side in low-resolution pixels.
        colour: "rgb", or "y" for networks that know only luma.
        device: where patches are wanted.
        taught: what a teacher made of the pictures, laid out as they are, for each scale that it
            taught.
        share: its part of what is learnt; the rest is the pictures themselves.
    """

    def __init__(
        self,
        prepared: Prepared,
        *,
        scales: tuple[int, ...],
        versions: int,
        patch: int,
        colour: Literal["rgb", "y"],
        device: torch.device,
        taught: Mapping[int, NDArray[np.uint8]] | None = None,
        share: float = 0.0,
    ) -> None:
        self.patch, self.colour, self.device = patch, colour, device
        self.luma = torch.tensor(STUDIO_LUMA, device=device)
        high = torch.from_numpy(prepared.high())
        low = {s: torch.from_numpy(prepared.low(s)) for s in scales}
        degraded = {s: torch.from_numpy(prepared.degraded(s, versions)) for s in scales if versions}
        made = {s: torch.from_numpy(pixels) for s, pixels in (taught or {}).items()}
        every = (high, *low.values(), *degraded.values(), *made.values())
        size = sum(t.numel() for t in every)
        self.resident = device.type == "cuda" and size < free_memory(device) // 2
        if self.resident:
            high = high.to(device)
            low = {s: t.to(device) for s, t in low.items()}
            degraded = {s: t.to(device) for s, t in degraded.items()}
            made = {s: t.to(device) for s, t in made.items()}
        self.high, self.low, self.degraded = high, low, degraded
        self.taught, self.share = made, share

    def places(self, batch: Batch) -> Tensor:
        """Where a batch's patches lie, as ``cut`` takes it.

        The copy to an accelerator is not waited for: from memory that is not pinned it would
        begin only when all earlier steps are done.
        """
        places = torch.from_numpy(batch.as_array())
        if not self.resident:
            return places
        return places.pin_memory().to(self.device, non_blocking=True)

    def cut(self, places: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        """The patches of a batch: what is seen, and what is to be made of it.

        Args:
            places: 6 x N int64, ``Batch.as_array``, on the device if the pictures are resident.
            scale: of the batch.

        Returns:
            N x C x p x p and N x C x scale*p x scale*p, float32 in 0..1, channels last.
        """
        low_start, low_stride, high_start, high_stride, turn, degraded = places
        at = _pixels(low_start, low_stride, turn, self.patch)
        low = _cut(self.low[scale], at, 1 - degraded)
        if self.degraded:
            bad = _cut(self.degraded[scale], at, degraded)
            low = torch.where(degraded.view(-1, 1, 1, 1) == 1, bad, low)
        at = _pixels(high_start, high_stride, turn, self.patch * scale)
        high = self._values(self.high[at])
        if scale in self.taught:
            high = torch.lerp(high, self._values(self.taught[scale][at]), self.share)
        return self._values(low), high

    def _values(self, pixels: Tensor) -> Tensor:
        if self.device.type == "cuda" and not self.resident:
            # From other memory the copy would wait for all steps before.
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        values = pixels.to(self.device).float().div_(255.0)
        if self.colour == "y":
            values = (values @ self.luma + STUDIO_LUMA_OFFSET).unsqueeze(-1)
        # N x H x W x C in memory is what torch calls channels last.
        return values.permute(0, 3, 1, 2)


def _pixels(start: Tensor, stride: Tensor, turn: Tensor, side: int) -> Tensor:
    """N x side x side: the index of each patch's each pixel, patches turned."""
    at = torch.arange(side, device=start.device)
    rows, columns = at.view(1, -1, 1), at.view(1, 1, -1)
    bits = turn.view(-1, 1, 1)
    r = torch.where(bits & 4 != 0, columns, rows)
    c = torch.where(bits & 4 != 0, rows, columns)
    r = torch.where(bits & 1 != 0, side - 1 - r, r)
    c = torch.where(bits & 2 != 0, side - 1 - c, c)
    return start.view(-1, 1, 1) + r * stride.view(-1, 1, 1) + c


def _cut(store: Tensor, at: Tensor, used: Tensor) -> Tensor:
    """N x side x side x 3 uint8. Where ``used`` is 0 the patch is arbitrary."""
    return store[at * used.view(-1, 1, 1)]
