"""Muon: every update of a weight matrix made as long in every direction."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# Five steps of this polynomial bring all singular values from (0, 1] to about 0.7 .. 1.2, which
# is as good as 1 here (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """Momentum, whose direction is orthogonalised for each convolution.

    Adam scales every weight for itself. Of a matrix's update that leaves a few directions with
    nearly all of its length; Muon gives all singular directions the same length, so that rare
    ones are learnt as quickly (Jordan et al. 2024). The length is 0.2 of the square root of the
    larger side, by which an update is as long as Adam's commonly is, so that rates compare (Liu
    et al. 2025, https://arxiv.org/abs/2502.16982).

    Args:
        parameters: convolutions' weights (out, in, height, width), or matrices.
        lr: learning rate, a tensor of no dimensions.
        momentum: of the gradients' running sum.
        weight_decay: decoupled, as in AdamW.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: Tensor,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change the weights by their gradients."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape[0], parameter[0].numel()].append(parameter)
            for shape, parameters in alike.items():
                self._change(parameters, shape, group)

    def _change(
        self, parameters: list[Tensor], shape: tuple[int, int], group: dict[str, Any]
    ) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        gradients = [p.grad for p in parameters if p.grad is not None]
        momenta = [self.state[p]["momentum"] for p in parameters]
        # All at once: on an accelerator a kernel's launch takes longer than its work here.
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        updates = orthogonalised(torch.stack([one.reshape(shape) for one in ahead]))
        updates = updates * (0.2 * max(shape) ** 0.5 * group["lr"])
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        changes = [u.reshape(p.shape) for u, p in zip(updates, parameters, strict=True)]
        torch._foreach_sub_(parameters, changes)


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, about, by Newton-Schulz iteration.

    Args:
        matrices: float32 (n, rows, columns).

    Returns:
        The same shape; U V^T of each one's U S V^T, but singular values between 0.7 and 1.2.
    """
    turned = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if turned else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-12)
    a, b, c = _COEFFICIENTS
    for _ in range(_ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if turned else x
