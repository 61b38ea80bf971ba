"""The upsampler is linear: no activation stands between the body and the picture.

Its convolutions, shuffles and the tail are one map: a 5 x 5 convolution to 3 * scale^2 channels
and one shuffle. At x4 that saves a third of EDSR-baseline's multiplications. The layers remain
what is trained and stored; the map is derived from them each time, so that gradients reach them
through it.

The layers pad with zeros between them, which the single convolution cannot know. That concerns
exactly one low-resolution pixel along the border.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from upres.networks.blocks import Upsampler

SIZE = 5


def fold(upsampler: Upsampler, tail: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """One convolution that, followed by a pixel shuffle, equals ``tail(upsampler(x))`` away from
    the border.

    Its weights are the adjoint of the layers applied to each output sub-pixel of one low-resolution
    pixel; its bias is what the layers make of zeros.

    Args:
        upsampler: see there.
        tail: from its channels to the picture's.

    Returns:
        Weights, tail's outputs * scale^2 x channels x 5 x 5, and as many biases: float32, with
        gradients.
    """
    scale = math.prod(upsampler.factors)
    inputs, outputs = upsampler.channels, tail.out_channels * scale * scale
    begin = scale * (SIZE // 2)
    device = tail.weight.device
    # In half precision the products of the layers' weights would be rounded twice.
    with torch.autocast(device.type, enabled=False):
        y = torch.eye(outputs, dtype=torch.float32, device=device)
        y = y.view(outputs, tail.out_channels, scale, scale)
        y = F.conv_transpose2d(F.pad(y, [begin] * 4), tail.weight.float(), padding=1)
        for module, factor in reversed(list(zip(upsampler, upsampler.factors, strict=True))):
            assert isinstance(module, nn.Conv2d)
            y = F.pixel_unshuffle(y, factor)
            y = F.conv_transpose2d(y, module.weight.float(), padding=1)
        zeros = torch.zeros(1, inputs, SIZE, SIZE, dtype=torch.float32, device=device)
        flat = tail(upsampler(zeros))[0, :, begin : begin + scale, begin : begin + scale]
    return y, flat.reshape(-1)
