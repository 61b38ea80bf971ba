"""Beginning from other weights: those of a lower scale, or of a narrower network.

Weights of another scale fit everywhere but in the upsampler; the upsampler is derived from the one
that is there, so that the new network begins near the old one's pictures. Weights of a narrower
network are embedded: the old channels keep their weights and hear nothing of the new ones at
first (Chen et al. 2016, "Net2Net", with zeros in place of copies), so that the new network begins
by giving the very same pictures.

What training made of one network can be done to another that shares its beginnings: the difference
of the weights after and before is added (Ilharco et al. 2023, "Editing models with task
arithmetic"). So a wide network learns x4 from its x2 and a narrow one's way from x2 to x4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from upres.errors import WeightsError
from upres.networks import Network

_UPSAMPLER, _UPSAMPLER_ACTIVATION = "up.", "up_act."
# Another scale has no place for these.
_OF_A_SCALE = (_UPSAMPLER, _UPSAMPLER_ACTIVATION, "pre.")


@dataclass(frozen=True)
class WarmStart:
    """Attributes:
    state: a whole state dict of the new network.
    taken: tensors taken as they were.
    derived: tensors made from ones that were there.
    new: tensors that begin at random.
    """

    state: dict[str, Tensor]
    taken: tuple[str, ...]
    derived: tuple[str, ...]
    new: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.taken)} tensors taken"]
        for what, names in (("derived", self.derived), ("new", self.new)):
            if names:
                shown = ", ".join(sorted({name.rpartition(".")[0] for name in names})[:4])
                parts.append(f"{len(names)} {what} ({shown})")
        return ", ".join(parts)


def mean_of(sources: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several networks' weights (Wortsman et al. 2022, "Model soups").

    Better than each where one comes from the other, or both from a third, by training at a modest
    rate; the mean of strangers is nothing.

    Raises:
        WeightsError: they are not of one architecture, width, depth and scale.
    """
    first, *others = sources
    for other in others:
        if {n: v.shape for n, v in first.items()} != {n: v.shape for n, v in other.items()}:
            raise WeightsError(
                "the weights to take the mean of do not fit each other",
                "give --init files of the same architecture, width, depth and scale",
            )
    return {name: torch.stack([s[name].float() for s in sources]).mean(0) for name in first}


def warm_start(network: Network, source: Mapping[str, Tensor], *, grow: bool) -> WarmStart:
    """What ``network`` begins with, given another network's state dict.

    Args:
        network: freshly built; its own values are what stays new.
        source: of the same architecture, at any scale; narrower only if ``grow``.

    Raises:
        WeightsError: they differ in more than that.
    """
    state = {name: value.clone() for name, value in network.state_dict().items()}
    taken, derived, new = [], [], []
    for name, value in state.items():
        old = source.get(name)
        if old is not None and old.shape == value.shape:
            value.copy_(old)
            taken.append(name)
        elif (
            old is not None
            and grow
            and _fits_inside(old, value)
            and _phases(name, source) == _phases(name, state)
        ):
            _embed(value, old)
            derived.append(name)
        elif name.startswith(_UPSAMPLER):
            made = _upsampler(name, _narrowed(name, state, source) if grow else value, source)
            if made is None:
                new.append(name)
            else:
                _embed(value, made)
                derived.append(name)
        elif (
            name.startswith(_UPSAMPLER_ACTIVATION) and f"{_UPSAMPLER_ACTIVATION}0.weight" in source
        ):
            value.copy_(source[f"{_UPSAMPLER_ACTIVATION}0.weight"])  # SRResNet's second stage
            derived.append(name)
        elif name.startswith("pre."):  # MDSR's, one for each scale: a new scale learns its own
            new.append(name)
        else:
            reason = (
                "is missing there"
                if old is None
                else f"is {tuple(old.shape)} there and {tuple(value.shape)} here"
            )
            raise WeightsError(
                f"the weights to start from do not fit: {name} {reason}",
                "start from weights of the same architecture and width, or from nothing (--init "
                "none)" + ("" if grow else ", or from narrower ones with --set network.grow=true"),
            )
    left = sorted(n for n in set(source) - set(state) if not n.startswith(_OF_A_SCALE))
    if left:
        raise WeightsError(
            f"the weights to start from do not fit: {left[0]} has no place here",
            "start from weights of the same architecture and depth, or with --init none",
        )
    return WarmStart(state, tuple(taken), tuple(derived), tuple(new))


def add_difference(
    state: Mapping[str, Tensor], after: Mapping[str, Tensor], before: Mapping[str, Tensor]
) -> None:
    """Add what training made of another network, in place; a narrower one's in the first channels.

    Args:
        state: of the network that is changed.
        after, before: of the other one, alike in all shapes.

    Raises:
        WeightsError: the other one is of another depth or wider.
    """
    wrong = sorted(set(state) ^ set(after)) or [
        name for name, value in state.items() if not _fits_inside(after[name], value)
    ]
    if wrong:
        raise WeightsError(
            f"the weights whose difference is added do not fit: {wrong[0]} differs",
            "take ones of the same architecture, depth and scale, as wide or narrower",
        )
    for name, value in state.items():
        if value.is_floating_point():
            inside = tuple(slice(0, size) for size in after[name].shape)
            value[inside] += after[name] - before[name]


def _fits_inside(old: Tensor, new: Tensor) -> bool:
    return old.ndim == new.ndim and all(a <= b for a, b in zip(old.shape, new.shape, strict=True))


def _embed(value: Tensor, old: Tensor) -> None:
    """Put ``old`` into ``value`` in place; old outputs must not hear new inputs.

    An upsampling convolution's outputs come in groups of scale * scale for each channel, so a
    narrower one's are the first of them, and nothing else is needed.
    """
    outputs = old.shape[0]
    if value.ndim == 4:
        inputs = old.shape[1]
        value[:outputs, inputs:] = 0
        value[:outputs, :inputs] = old
    else:
        value[:outputs] = old


def _phases(name: str, weights: Mapping[str, Tensor]) -> int:
    """Outputs for each channel of the upsampling convolution that a tensor belongs to; else 1."""
    if not name.startswith(_UPSAMPLER):
        return 1
    weight = weights[f"{name.rpartition('.')[0]}.weight"]
    return weight.shape[0] // weight.shape[1]


def _narrowed(name: str, state: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> Tensor:
    """The part of an upsampling tensor that the source's channels have in it."""
    stem, _, _ = name.rpartition(".")
    first = source.get(f"{stem.rpartition('.')[0]}.0.weight")
    if first is None:
        return state[name]
    width = first.shape[1]
    outputs = width * _phases(name, state)
    return state[name][(slice(outputs), slice(width))[: state[name].ndim]]


def _upsampler(name: str, value: Tensor, source: Mapping[str, Tensor]) -> Tensor | None:
    """Weights or biases of an upsampling convolution, from those of another scale.

    x3 from x2: each of 3 x 3 phases from the nearest phases of 2 x 2. x4 from x2: the first stage
    is taken, and the second enlarges each channel linearly.
    """
    stem, _, kind = name.rpartition(".")
    prefix, _, stage = stem.rpartition(".")
    first = source.get(f"{prefix}.0.{kind}")
    if stage == "1" and kind == "weight":
        channels = value.shape[1]
        taps = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]])
        phases = torch.einsum("ia,jb->ijab", taps, taps).reshape(4, 3, 3)
        linear = torch.zeros_like(value)
        for channel in range(channels):
            linear[4 * channel : 4 * channel + 4, channel] = phases
        return linear
    if stage == "1":
        return torch.zeros_like(value)
    weight = source.get(f"{prefix}.0.weight")
    if first is None or weight is None:
        return None
    if kind == "weight" and weight.shape[1] != value.shape[1]:
        return None
    width = weight.shape[1]
    old_side, new_side = (round((n / width) ** 0.5) for n in (weight.shape[0], value.shape[0]))
    if old_side**2 * width != first.shape[0] or new_side**2 * width != value.shape[0]:
        return None
    # Where the centre of each new phase lies among the old ones, clamped to their centres.
    at = ((torch.arange(new_side) + 0.5) * old_side / new_side - 0.5).clamp(0, old_side - 1)
    below = at.floor().long()
    above = (below + 1).clamp(max=old_side - 1)
    share = at - below
    mix = torch.zeros(new_side, old_side)
    mix[torch.arange(new_side), below] += 1 - share
    mix[torch.arange(new_side), above] += share
    phases = first.float().view(width, old_side, old_side, -1)
    made = torch.einsum("ia,jb,cabk->cijk", mix, mix, phases)
    return made.reshape(value.shape)
