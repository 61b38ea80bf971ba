"""Model: a network, its weights, and the facts needed to use them, as one safetensors file."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from upres.convert import super_image_state
from upres.errors import (
    DISK_FULL,
    OutputError,
    ResourceError,
    UpresError,
    UsageError,
    WeightsError,
    is_disk_full,
)
from upres.files import atomic_write
from upres.hashing import sha256_of
from upres.imaging.color import STUDIO_OFFSET, STUDIO_RGB_TO_YCBCR
from upres.networks import ARCHITECTURES, Network
from upres.networks.blocks import BICUBIC_REACH, bicubic
from upres.places import home
from upres.weights.facts import ModelFacts
from upres.weights.header import facts_metadata, read_facts, read_shapes
from upres.weights.manifest import WeightsEntry

_OTHER_FILE = "train or convert it again, or use another file"


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode, float32, on the CPU, and what is known about it."""

    network: Network
    facts: ModelFacts

    @property
    def parameters(self) -> int:
        """How many numbers were learned."""
        return sum(p.numel() for p in self.network.parameters())

    def as_rgb(self) -> Network:
        """The network, or the network in a colour space change: N x 3 in and out either way."""
        return self.network if self.network.colour == "rgb" else _LumaOnly(self.network)

    def save(
        self,
        path: Path,
        *,
        dtype: torch.dtype = torch.float32,
        source: str = "",
        training: Mapping[str, Any] | None = None,
    ) -> None:
        """Write one safetensors file that carries its own facts.

        Args:
            path: written beside its place and renamed.
            dtype: of its floating-point numbers: float32, or float16 to halve the file.
            source: SHA-256 of the file it was converted from, if it was.
            training: how it was trained, as JSON types, if we trained it.

        Raises:
            OutputError, ResourceError: it cannot be written; what was there stays.
        """
        state = {
            k: (v.to(dtype) if v.is_floating_point() else v).cpu().contiguous()
            for k, v in self.network.state_dict().items()
        }
        try:
            with atomic_write(path) as part:
                part.touch()  # safetensors makes files that only their owner reads
                mode = part.stat().st_mode
                save_file(state, part, metadata=facts_metadata(self.facts, source, training))
                part.chmod(mode)
        except (OSError, SafetensorError) as error:
            # safetensors gives the system's number in words only.
            words = (f"(os error {number})" for number in DISK_FULL)
            full = is_disk_full(error) or any(word in str(error) for word in words)
            kind = ResourceError if full else OutputError
            raise kind(
                f"{path} cannot be written ({error})", "free disk space, or write elsewhere"
            ) from error


def build(facts: ModelFacts) -> Model:
    """An untrained model of this architecture.

    Raises:
        WeightsError: the architecture is unknown or refuses the numbers.
    """
    architecture = ARCHITECTURES.get(facts.architecture)
    if architecture is None:
        raise WeightsError(
            f"{facts.name}: no architecture is called {facts.architecture!r}",
            f"known are {', '.join(sorted(ARCHITECTURES))}",
        )
    served: dict[str, Any] = (
        {"scales": facts.scales} if architecture.shares_scales else {"scale": facts.scales[0]}
    )
    try:
        network = architecture(**served, **dict(facts.numbers)).float()
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        raise WeightsError(
            f"{facts.name}: {facts.architecture} cannot be built from its numbers ({error})",
            _OTHER_FILE,
        ) from error
    if network.colour != facts.colour or network.scales != facts.scales:
        raise WeightsError(
            f"{facts.name}: the facts say {facts.colour} x{facts.scales}, "
            f"the architecture {network.colour} x{network.scales}",
            _OTHER_FILE,
        )
    return Model(network.eval().requires_grad_(requires_grad=False), facts)


def load(path: Path) -> Model:
    """Read a file that ``Model.save`` wrote. Half-precision numbers become float32.

    Raises:
        WeightsError: not a safetensors file of ours, damaged, or its tensors do not fit.
    """
    facts = read_facts(path)
    _check_shapes(facts, path)
    model = _blank(facts)
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} is damaged ({error})", "fetch or train it again") from error
    fill(model.network, state, str(path))
    return model


def _blank(facts: ModelFacts) -> Model:
    """To be filled: whatever the caller made the default device, and without a number drawn from
    the caller's generator."""
    with torch.device("cpu"), torch.random.fork_rng(devices=()):
        return build(facts)


_MOST_CHANNELS = 2**16  # so many layers are built, should a number mean them, in seconds


def _check_shapes(facts: ModelFacts, path: Path) -> None:
    """Before any memory is taken for it: whether the network is the one that the file holds.

    Raises:
        WeightsError: it is another one.
    """
    shapes = read_shapes(path)
    # A number is how many layers there are, or how many channels one of them has.
    sides = (side for shape in shapes.values() for side in shape)
    most = max(len(shapes), min(_MOST_CHANNELS, max(sides, default=0)))
    for key, value in facts.numbers:
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, int) and one > most:
                raise WeightsError(
                    f"{path} does not fit its own facts: {key} is {one}", _OTHER_FILE
                )
    with torch.device("meta"):
        expected = build(facts).network.state_dict()
    wrong = {k for k, v in expected.items() if shapes.get(k) != tuple(v.shape)} | (
        shapes.keys() - expected.keys()
    )
    if wrong:
        raise WeightsError(
            f"{path} does not fit {facts.architecture}: {min(wrong)} differs", _OTHER_FILE
        )


def load_published(entry: WeightsEntry, path: Path) -> Model:
    """The model in a verified file, converted if it is not ours.

    A converted file is kept in ``home()`` under the original's SHA-256; where that folder cannot
    be written, the conversion is simply made again next time.

    Raises:
        WeightsError: the file does not hold what the manifest says.
    """
    if entry.hub is None or entry.hub.layout == "upres":
        return load(path)
    with suppress(OSError, ValueError, UsageError, WeightsError):
        kept = _converted(entry)
        # A file of ours has no checksum within.
        if kept.with_suffix(".sha256").read_text(encoding="ascii") == sha256_of(kept):
            model = load(kept)
            if model.facts == entry.facts:
                return model
    model = _blank(entry.facts)
    fill(model.network, super_image_state(path), str(path))
    with suppress(OSError, UpresError):
        kept = _converted(entry)
        kept.parent.mkdir(parents=True, exist_ok=True)
        model.save(kept, source=entry.sha256)
        with atomic_write(kept.with_suffix(".sha256")) as part:
            part.write_text(sha256_of(kept), encoding="ascii")
    return model


def _converted(entry: WeightsEntry) -> Path:
    return home() / "converted" / f"{entry.sha256}.safetensors"


def fill(network: Network, state: dict[str, Tensor], where: str) -> None:
    """Load a state dict that must fit exactly.

    Raises:
        WeightsError: a tensor is missing, left over, or of another shape or kind.
    """
    expected = network.state_dict()
    wrong = sorted(set(expected) ^ set(state)) or [
        k for k, v in expected.items() if v.shape != state[k].shape or not _alike(v, state[k])
    ]
    if wrong:
        raise WeightsError(
            f"{where} does not fit {type(network).__name__}: {wrong[0]} differs", _OTHER_FILE
        )
    if not all(torch.isfinite(v).all() for v in state.values() if v.is_floating_point()):
        raise WeightsError(f"{where} holds numbers that are not finite", _OTHER_FILE)
    network.load_state_dict({k: v.to(expected[k].dtype) for k, v in state.items()}, strict=True)


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether numbers of one kind may stand for the other's."""
    usual = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    return b.dtype in usual if a.dtype in usual else a.dtype == b.dtype


class _LumaOnly(Network):
    """RGB through a network that knows only luma; Cb and Cr are enlarged by bicubic.

    MATLAB rgb2ycbcr (BT.601 studio range), with 8-bit values divided by 255.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.scales = network.scales
        to_ycc = torch.tensor(STUDIO_RGB_TO_YCBCR, dtype=torch.float32)
        offset = torch.tensor(STUDIO_OFFSET, dtype=torch.float32).view(1, 3, 1, 1)
        self.register_buffer("to_ycc", (to_ycc / 255.0).view(3, 3, 1, 1), persistent=False)
        self.register_buffer(
            "to_rgb", torch.linalg.inv(to_ycc / 255.0).view(3, 3, 1, 1), persistent=False
        )
        self.register_buffer("offset", offset / 255.0, persistent=False)

    def halo(self, scale: int) -> int:
        return max(self.network.halo(scale), BICUBIC_REACH)

    def peak_values(self, scale: int) -> int:
        return self.network.peak_values(scale) + 9 * scale * scale

    def reconstruct(self, features: Tensor, scale: int) -> Tensor:
        ycc = self._convert(features.float(), "to_ycc") + self.get_buffer("offset")
        luma = self.network(ycc[:, :1], scale)
        joined = torch.cat([luma.float(), bicubic(ycc[:, 1:], scale)], 1)
        return self._convert(joined - self.get_buffer("offset"), "to_rgb")

    def _convert(self, x: Tensor, matrix: str) -> Tensor:
        # Colours are exact, whatever the network is run in: cuDNN's convolutions could be TF32's.
        columns = self.get_buffer(matrix)
        one, two, three = (x[:, i : i + 1] * columns[:, i].view(1, 3, 1, 1) for i in range(3))
        return one + two + three
