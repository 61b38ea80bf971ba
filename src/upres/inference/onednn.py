"""Convolutions with the activation or the addition fused in, as oneDNN offers them on CPUs.

torch reaches these kernels through operators that its own compiler uses. Where a build of torch
lacks them, the same arithmetic is done in separate steps.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_OPERATORS = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")


def available() -> bool:
    """Whether this build of torch has the fused operators."""
    return torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
        hasattr(torch.ops.mkldnn, name) for name in _OPERATORS
    )


class FusedConv:
    """A convolution of stride 1 that keeps height and width, on channels-last tensors.

    Args:
        convolution: its weights are copied, cast and laid out for the machine.
        dtype: float32 or bfloat16.
        factor: multiplies weights and bias, before they are cast.
    """

    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype, factor: float = 1.0) -> None:
        weight = (convolution.weight.detach() * factor).to(dtype)
        assert convolution.bias is not None
        self.bias = (convolution.bias.detach() * factor).to(dtype)
        self.reach = convolution.kernel_size[0] // 2
        self.outputs = convolution.out_channels
        self.operations = 2 * weight.numel()  # for a pixel
        self._pad = [self.reach, self.reach]
        self._ops: Any = torch.ops.mkldnn if available() else None
        if self._ops is None:
            self.weight = weight.contiguous(memory_format=torch.channels_last)
        else:
            # The size is a hint; any height and width can be run afterwards.
            size = [1, weight.shape[1], 256, 256]
            self.weight = self._ops._reorder_convolution_weight(
                weight.contiguous(), self._pad, [1, 1], [1, 1], 1, size
            )

    def __call__(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """N x C x h x w to N x outputs x h x w."""
        if self._ops is None:
            plain = F.conv2d(x, self.weight, self.bias, padding=self.reach)
            return F.relu_(plain) if relu else plain
        y: Tensor = self._ops._convolution_pointwise(
            x,
            self.weight,
            self.bias,
            self._pad,
            [1, 1],
            [1, 1],
            1,
            "relu" if relu else "none",
            [],
            "",
        )
        return y

    def add_to(self, other: Tensor, x: Tensor, *, relu: bool = False) -> None:
        """other += convolution(x), in place, then its positive part with ``relu``; the sum is made
        before it is rounded."""
        if self._ops is None:
            other += F.conv2d(x, self.weight, self.bias, padding=self.reach)
            if relu:
                F.relu_(other)
        else:
            self._ops._convolution_pointwise_(
                other,
                x,
                self.weight,
                self.bias,
                self._pad,
                [1, 1],
                [1, 1],
                1,
                "add",
                1.0,
                "relu" if relu else None,
                [],
                None,
            )
