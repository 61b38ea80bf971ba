"""PSNR and SSIM, with the protocol as an explicit argument."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upres.errors import InputError
from upres.imaging.color import rgb_to_y


@dataclass(frozen=True)
class Protocol:
    """How two pictures are compared. There is no default: a figure without it means nothing.

    Attributes:
        channel: "y" measures MATLAB's luma, "rgb" all three channels together.
        shave: pixels left out on every side; the field's usual choice is the scale.
    """

    channel: Literal["y", "rgb"]
    shave: int

    def __str__(self) -> str:
        return f"{self.channel.upper()} channel, {self.shave} pixels shaved, 8 bit"


def mod_crop(pixels: NDArray[Any], scale: int) -> NDArray[Any]:
    """H x W x C cut at the bottom and right to multiples of ``scale``."""
    height, width = (side - side % scale for side in pixels.shape[:2])
    return pixels[:height, :width]


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8], protocol: Protocol) -> float:
    """Peak signal-to-noise ratio in dB (peak 255); infinite when equal.

    Args:
        a, b: H x W x 3 uint8.

    Raises:
        InputError: the shapes differ, or nothing is left after shaving.
    """
    x, y = _planes(a, b, protocol)
    error = float(np.mean((x - y) ** 2))
    return float("inf") if error == 0 else 10.0 * float(np.log10(255.0**2 / error))


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8], protocol: Protocol) -> float:
    """Structural similarity (Wang et al. 2004): 11 x 11 Gaussian of sigma 1.5, K 0.01 and 0.03,
    dynamic range 255, float64, averaged over the region where the window fits.

    Args:
        a, b: H x W x 3 uint8.

    Raises:
        InputError: the shapes differ, or less than 11 x 11 pixels are left after shaving.
    """
    x, y = _planes(a, b, protocol)
    if min(x.shape[:2]) < 11:
        raise InputError(
            f"{x.shape[1]} x {x.shape[0]} pixels left after shaving {protocol.shave}, "
            "SSIM needs 11 x 11",
            "use a larger picture",
        )
    return float(np.mean([_ssim_plane(x[..., c], y[..., c]) for c in range(x.shape[2])]))


def _planes(
    a: NDArray[np.uint8], b: NDArray[np.uint8], protocol: Protocol
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if a.shape != b.shape:
        raise InputError(
            f"pictures of {a.shape} and {b.shape} cannot be compared", "crop them to one size"
        )
    n = protocol.shave
    if min(a.shape[:2]) <= 2 * n:
        raise InputError(
            f"a picture of {a.shape[1]} x {a.shape[0]} is gone after shaving {n} pixels",
            "use a larger picture",
        )
    x, y = (p[n : p.shape[0] - n, n : p.shape[1] - n] for p in (a, b))
    if protocol.channel == "y":
        return rgb_to_y(x)[..., None], rgb_to_y(y)[..., None]
    return x.astype(np.float64), y.astype(np.float64)


def _ssim_plane(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _gaussian(x), _gaussian(y)
    var_x = _gaussian(x * x) - mean_x**2
    var_y = _gaussian(y * y) - mean_y**2
    covariance = _gaussian(x * y) - mean_x * mean_y
    value = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return float(value.mean())


def _gaussian(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Valid convolution with the 11-tap Gaussian of sigma 1.5, both ways."""
    window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window /= window.sum()
    rows = plane.shape[0] - 10
    vertical = sum(w * plane[i : i + rows] for i, w in enumerate(window))
    columns = plane.shape[1] - 10
    return np.asarray(sum(w * vertical[:, i : i + columns] for i, w in enumerate(window)))
