"""Everything that a training step changes: network, optimiser, running average."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from upres.errors import UsageError
from upres.inference.device import all_of_float32, multiplies_bfloat16
from upres.networks import Network
from upres.training.loss import loss_of
from upres.training.muon import Muon
from upres.training.recipe import OptimiserRecipe, Recipe
from upres.training.teacher import Teacher


def training_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type of the network's arithmetic; weights, loss and optimiser are always float32.

    Raises:
        UsageError: bf16 is asked for, and the device does not multiply it natively.
    """
    if precision == "fp32":
        return torch.float32
    native = multiplies_bfloat16(device)
    if precision == "bf16" and not native:
        raise UsageError("bf16 is not computed natively here", "use --set precision=auto")
    return torch.bfloat16 if native else torch.float32


class Learner:
    """A network that learns from batches.

    Args:
        network: float32; moved to the device, channels last.
        recipe: see there.
        device: where it learns.
        teacher: whose pictures are a part of what is learnt, with ``recipe.teacher.share``.

    Attributes:
        network: the weights being trained.
        kept: the weights that count: their running average, or the same ones.
        rate, follow: the learning rate, and by how much the average moves, of the next step:
            tensors, so that a recorded step can be replayed with other values.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        device: torch.device,
        teacher: Network | None = None,
    ) -> None:
        self.recipe, self.device = recipe, device
        self.dtype = training_dtype(recipe.precision, device)
        self.network = network.to(device)
        for parameter in self.network.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.network.train().requires_grad_()
        averaged = recipe.optimiser.ema > 0
        self.kept = copy.deepcopy(self.network) if averaged else self.network
        self.kept.requires_grad_(requires_grad=not averaged)
        self.rate = torch.zeros((), device=device)
        self.follow = torch.zeros((), device=device)
        self.optimisers = _optimisers(recipe.optimiser, self.network, self.rate)
        self.loss = loss_of(recipe, device)
        self.teacher: Teacher | None = None
        if teacher is not None:
            share = recipe.teacher.share
            self.teacher = Teacher(teacher, network.scales, share, device, self.dtype)
        # What computes gradients; several processes put their wrapper there.
        self.forward: Callable[[Tensor, int], Tensor] = self.network

    def gradients(self, low: Tensor, high: Tensor, scale: int) -> Tensor:
        """Set the gradients of a batch, computed in ``accumulate`` parts; its mean loss."""
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        parts = self.recipe.data.accumulate
        total = torch.zeros((), device=self.device)
        chunks = zip(low.chunk(parts), high.chunk(parts), strict=True)
        for number, (some, truth) in enumerate(chunks, 1):
            wanted = truth if self.teacher is None else self.teacher.blend(some, truth, scale)
            exact = all_of_float32(self.device)
            with self._shared_only_at_end(last=number == parts), exact:
                with torch.autocast(
                    self.device.type,
                    self.dtype,
                    enabled=self.dtype != torch.float32,
                    cache_enabled=False,  # a recorded step has none
                ):
                    picture = self.forward(some, scale)
                loss = self.loss(picture.float(), wanted) / parts
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def prepare(self, rate: float, step: int) -> None:
        """Set what the next step depends on, besides its patches."""
        self.rate.fill_(rate)
        if self.teacher is not None:
            self.teacher.prepare(step)
        # Early on the average follows quickly: the first weights are not worth remembering.
        settings = self.recipe.optimiser
        self.follow.fill_(max(1 - settings.ema, 1 / (1 + settings.ema_span * (step + 1))))

    def update(self) -> None:
        """Clip the gradients, take an optimiser step, move the average along."""
        settings = self.recipe.optimiser
        if settings.clip > 0:
            nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
        for optimiser in self.optimisers:
            optimiser.step()
        if self.kept is not self.network:
            kept: list[Tensor] = list(self.kept.parameters())
            target: list[Tensor] = list(self.network.parameters())
            with torch.no_grad():
                way = list(torch._foreach_sub(target, kept))
                torch._foreach_mul_(way, self.follow)
                torch._foreach_add_(kept, way)
                # Statistics of a batch normalisation belong to the weights behind them.
                for average, now in zip(self.kept.buffers(), self.network.buffers(), strict=True):
                    if now.is_floating_point():
                        average.lerp_(now, self.follow.to(now.dtype))
                    else:
                        average.copy_(now)

    def finite(self) -> bool:
        """Whether every weight is a number."""
        return all(bool(torch.isfinite(p).all()) for p in self.network.parameters())

    def state(self) -> dict[str, Any]:
        """Everything that must survive, as ``load_state`` takes it."""
        state = {
            "network": self.network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        if self.kept is not self.network:
            state["ema"] = self.kept.state_dict()
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Go back, or on, to a state.

        Raises:
            KeyError, ValueError, RuntimeError: it belongs to another network or recipe.
        """
        self.network.load_state_dict(state["network"])
        if self.kept is not self.network:
            self.kept.load_state_dict(state["ema"])
        # torch keeps the tensors it is given here, and would go on to change them.
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(copy.deepcopy(kept))
            for group in optimiser.param_groups:
                group["lr"] = self.rate
                if "capturable" in group:  # the run may have begun on another device
                    group["capturable"] = self.device.type == "cuda"

    @contextmanager
    def _shared_only_at_end(self, *, last: bool) -> Iterator[None]:
        """Several processes exchange gradients once a batch, not once a part."""
        waits = getattr(self.forward, "no_sync", None)
        if last or waits is None:
            yield
        else:
            with waits():
                yield


def _optimisers(
    settings: OptimiserRecipe, network: nn.Module, rate: Tensor
) -> list[torch.optim.Optimizer]:
    """One, or two that share the weights."""
    everything = list(network.parameters())
    if settings.kind != "muon":
        return [_adam(settings, everything, rate)]
    # Muon is for matrices between hidden layers; colours and biases stay Adam's.
    hidden = [p for p in everything if p.ndim == 4 and min(p.shape[:2]) > 3]
    others = [p for p in everything if all(p is not h for h in hidden)]
    if not hidden:
        return [_adam(settings, everything, rate)]
    momentum = settings.momentum
    return [
        Muon(hidden, rate, momentum=momentum, weight_decay=settings.weight_decay),
        _adam(settings, others, rate),
    ]


def _adam(
    settings: OptimiserRecipe, parameters: list[nn.Parameter], rate: Tensor
) -> torch.optim.Adam:
    # Muon's weight decay is AdamW's, not a part of the gradient.
    kind = torch.optim.Adam if settings.kind == "adam" else torch.optim.AdamW
    return kind(
        parameters,
        lr=rate,
        betas=(settings.betas[0], settings.betas[1]),
        weight_decay=settings.weight_decay,
        fused=rate.device.type in ("cpu", "cuda"),
        capturable=rate.device.type == "cuda",
    )
