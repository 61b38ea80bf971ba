"""How good the weights are on pictures that they never saw."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from upres.data.folders import PictureFile
from upres.data.rgb import check_low, read_full_range, read_rgb
from upres.errors import InputError, ResourceError
from upres.hashing import seed_of
from upres.imaging.degrade import light_photo
from upres.imaging.metrics import Protocol, psnr, ssim
from upres.imaging.resize import imresize
from upres.inference.device import all_of_float32
from upres.model import Model
from upres.progress import Note

SIDE = 480  # pixels of the truth that are looked at, from the middle of each picture


@dataclass(frozen=True)
class Pair:
    """A validation picture at one scale; arrays are H x W x 3 uint8.

    Attributes:
        bicubic: the low-resolution picture enlarged by MATLAB's imresize.
        bicubic_psnr, bicubic_ssim: its quality, see ``Quality``.
    """

    name: str
    scale: int
    low: NDArray[np.uint8]
    high: NDArray[np.uint8]
    bicubic: NDArray[np.uint8]
    bicubic_psnr: float
    bicubic_ssim: float


@dataclass(frozen=True)
class Quality:
    """Means over the validation pictures (Y channel, ``scale`` pixels shaved)."""

    scale: int
    psnr: float
    ssim: float
    bicubic_psnr: float
    bicubic_ssim: float


def make_pairs(
    files: Sequence[PictureFile],
    scales: Sequence[int],
    *,
    degraded: bool,
    note: Note,
) -> tuple[Pair, ...]:
    """Cut the middle of each picture, shrink it as training does.

    Args:
        degraded: apply the light photo degradation; which one, the picture's name decides.
        note: is told of pictures that cannot be read, and of blank ones, whose PSNR is infinite.

    Raises:
        InputError: a low-resolution picture that came with one has another size.
    """
    pairs = []
    for file in files:
        try:
            whole = read_full_range(file.path)
        except (InputError, ResourceError) as error:
            note(f"skipped {file.name} ({error.problem}), which was held out for validation")
            continue
        for scale in scales:
            high = _middle(whole, SIDE - SIDE % scale, scale)
            if min(high.shape[:2]) < 16 * scale:
                note(f"skipped {file.name} x{scale} held out for validation: it is too small")
                continue
            given = None if degraded else _given(file, whole.shape, scale, note)
            if degraded:
                random = np.random.default_rng(seed_of(os.fsencode(f"{file.name} x{scale}")))
                low = light_photo(random).apply(high, scale, random)
            elif given is not None:
                low = _middle(given, high.shape[0] // scale, 1, high.shape[1] // scale)
            else:
                low = imresize(high, 1 / scale)
            bicubic = imresize(low, scale)
            protocol = Protocol("y", scale)
            usual = psnr(high, bicubic, protocol), ssim(high, bicubic, protocol)
            if math.isinf(usual[0]):
                note(f"skipped {file.name} x{scale} held out for validation: bicubic is perfect")
                continue
            pairs.append(Pair(file.name, scale, low, high, bicubic, *usual))
    return tuple(pairs)


def _given(
    file: PictureFile, shape: tuple[int, ...], scale: int, note: Note
) -> NDArray[np.uint8] | None:
    """The low-resolution picture that came with it, or None where one is to be made.

    Raises:
        InputError: it has another size.
    """
    path = file.low_at(scale)
    if path is None:
        return None
    try:
        low = read_rgb(path)
    except InputError as error:
        note(f"skipped {path.name} ({error.problem}), made from its picture")
        return None
    check_low(low, path, file.name, shape, scale)
    return low


def _middle(
    pixels: NDArray[np.uint8], height: int, step: int, width: int | None = None
) -> NDArray[np.uint8]:
    """At most ``height`` x ``width`` pixels from the middle, on a grid of ``step``."""
    rows, columns = (side - side % step for side in pixels.shape[:2])
    h, w = min(height, rows), min(width or height, columns)
    top = (rows - h) // 2 // step * step
    left = (columns - w) // 2 // step * step
    return np.ascontiguousarray(pixels[top : top + h, left : left + w])


def enlarge(
    model: Model, low: NDArray[np.uint8], scale: int, dtype: torch.dtype
) -> NDArray[np.uint8]:
    """H x W x 3 uint8 through the network, where it is and without tiles."""
    device = next(model.network.parameters()).device
    x = torch.tensor(low, device=device).permute(2, 0, 1)[None].float() / 255
    x = x.contiguous(memory_format=torch.channels_last)
    network = model.as_rgb().to(device).eval()
    halved = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    with torch.no_grad(), halved, all_of_float32(device):
        y = network(x, scale).float()
    picture = y[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    return np.asarray(picture.cpu().numpy())


def measure(
    model: Model, pairs: Sequence[Pair], dtype: torch.dtype
) -> tuple[tuple[Quality, ...], list[NDArray[np.uint8]]]:
    """Quality at each scale, and the pictures that were made."""
    learning = model.network.training
    made = [enlarge(model, pair.low, pair.scale, dtype) for pair in pairs]
    model.network.train(learning)
    result = []
    for scale in sorted({pair.scale for pair in pairs}):
        rows = []
        for pair, picture in zip(pairs, made, strict=True):
            if pair.scale != scale:
                continue
            protocol = Protocol("y", scale)
            ours = psnr(pair.high, picture, protocol), ssim(pair.high, picture, protocol)
            rows.append([*ours, pair.bicubic_psnr, pair.bicubic_ssim])
        means = np.mean(rows, axis=0)
        result.append(Quality(scale, *(round(float(m), 4) for m in means)))
    return tuple(result), made
