"""What networks are made of."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Mean RGB of the DIV2K training pictures (Lim et al. 2017); EDSR's usual input shift.
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


def conv(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2)


class ResidualBlock(nn.Module):
    """x + scale * conv2(relu(conv1(x))), without batch normalisation (Lim et al. 2017)."""

    def __init__(self, channels: int, residual_scale: float = 1.0, size: int = 3) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, size)
        self.conv2 = conv(channels, channels, size)
        self.residual_scale = residual_scale

    @property
    def reach(self) -> int:
        """Pixels that an output pixel depends on, in each direction."""
        return sum(int(c.padding[0]) for c in (self.conv1, self.conv2))

    def forward(self, x: Tensor) -> Tensor:
        """N x C x h x w to the same shape."""
        residual: Tensor = self.conv2(F.relu(self.conv1(x), inplace=True))
        if self.residual_scale != 1.0:
            residual = residual * self.residual_scale
        return x + residual


def shuffle(x: Tensor, factor: int) -> Tensor:
    """``torch.pixel_shuffle``, N x C*f*f x h x w to N x C x f*h x f*w (Shi et al. 2016).

    On CUDA torch's own leaves channels-last memory, and the next convolution copies all of it back:
    here it is moved once.
    """
    if x.device.type == "cuda" and x.is_contiguous(memory_format=torch.channels_last):
        return _shuffle_last(x, factor)
    return F.pixel_shuffle(x, factor)


def _shuffle_last(x: Tensor, factor: int) -> Tensor:
    n, c, h, w = x.shape
    c //= factor * factor
    y = x.permute(0, 2, 3, 1).reshape(n, h, w, c, factor, factor)
    y = y.permute(0, 1, 4, 2, 5, 3).reshape(n, h * factor, w * factor, c)
    return y.permute(0, 3, 1, 2)


def shuffle_factors(scale: int) -> tuple[int, ...]:
    """Of the pixel shuffles that enlarge by ``scale``, one after the other."""
    return (2, 2) if scale == 4 else (scale,)


class Upsampler(nn.ModuleList):
    """Convolutions, each followed by a pixel shuffle: two of factor 2 for x4, else one.

    Linear, since no activation follows the shuffle (Shi et al. 2016, Lim et al. 2017).
    """

    def __init__(self, channels: int, scale: int) -> None:
        self.channels, self.factors = channels, shuffle_factors(scale)
        super().__init__(conv(channels, channels * f * f) for f in self.factors)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x h x w to N x C x scale*h x scale*w."""
        for module, factor in zip(self, self.factors, strict=True):
            x = shuffle(module(x), factor)
        return x


# Low-resolution pixels that ``bicubic`` depends on, in each direction: (i + 0.5) / scale - 0.5 lies
# within half a sample of i // scale, and five taps hold Keys' four.
BICUBIC_REACH = 2


def bicubic(x: Tensor, scale: int) -> Tensor:
    """Enlarge as MATLAB's imresize does (Keys 1981, a = -0.5, borders half-sample symmetric).

    Args:
        x: N x C x h x w floating point. The sums are made in float32.
        scale: an integer of at least 2.

    Returns:
        N x C x scale*h x scale*w, in the dtype of ``x``.
    """
    phase = (torch.arange(scale, device=x.device, dtype=torch.float32) + 0.5) / scale - 0.5
    taps = torch.arange(-BICUBIC_REACH, BICUBIC_REACH + 1, device=x.device)
    a = (phase[:, None] - taps).abs()
    near = (1.5 * a - 2.5) * a * a + 1.0
    far = ((-0.5 * a + 2.5) * a - 4.0) * a + 2.0
    weights = torch.where(a <= 1.0, near, torch.where(a <= 2.0, far, torch.zeros_like(a)))
    y = x.float()
    for axis in (2, 3):
        y = _enlarge(y, weights, axis)
    return y.to(x.dtype)


def _enlarge(x: Tensor, weights: Tensor, axis: int) -> Tensor:
    length = x.shape[axis]
    positions = torch.arange(-BICUBIC_REACH, length + BICUBIC_REACH, device=x.device)
    mirrored = positions.remainder(2 * length)
    mirrored = torch.minimum(mirrored, 2 * length - 1 - mirrored)
    padded = x.index_select(axis, mirrored)
    windows = [padded.narrow(axis, k, length) for k in range(weights.shape[1])]
    phases = [
        sum((w * window for w, window in zip(row, windows, strict=True)), torch.zeros_like(x))
        for row in weights
    ]
    return torch.stack(phases, axis + 1).flatten(axis, axis + 1)
