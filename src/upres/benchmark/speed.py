"""How fast models run, as ratios within one run against the same network run in the usual ways.

Each round runs every contender once, in turn, so that a machine that changes its speed changes it
for all; medians and spreads over the rounds are what counts.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from upres.benchmark.contenders import Contender
from upres.benchmark.workers import Setting, Worker, installed
from upres.errors import ResourceError
from upres.inference.device import wait_for
from upres.networks import Network
from upres.networks.chain import ChainNetwork
from upres.progress import Note

# Larger pictures than this are not given to contenders that take them whole: they would need tens
# of gigabytes.
WHOLE_MEGAPIXELS = 1.0


@dataclass(frozen=True)
class Timing:
    """One contender at one size.

    Attributes:
        contender: "upres", "eager", "openvino" or "onnxruntime".
        seconds: of each round.
        tiles: how many the picture was cut into; 1 for contenders that take it whole.
        peak_memory: bytes of the accelerator, or of the contender's process with all its libraries;
            0 where the system does not say.
    """

    model: str
    scale: int
    megapixels: float
    contender: str
    device: str
    precision: str
    seconds: tuple[float, ...]
    tiles: int = 1
    peak_memory: int = 0

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Megapixels of input a second."""
        return self.megapixels / self.median


def time_model(
    label: str,
    setting: Setting,
    sizes: Sequence[float],
    rounds: int,
    *,
    alternatives: bool,
    note: Note,
) -> Iterator[Timing]:
    """The model at each size, smallest first, and below a limit the alternatives beside it.

    Args:
        alternatives: whether to run the same network in other ways too.
        note: told what is measured, and which alternative failed.

    Raises:
        UpresError: upres itself cannot run; alternatives that cannot are left out.
    """
    with ExitStack() as stack:
        ours = stack.enter_context(Worker("upres", setting))
        others = []
        if alternatives and min(sizes) <= WHOLE_MEGAPIXELS:
            names = ["eager", *(installed() if setting.device != "cuda" else [])]
            others = [stack.enter_context(Worker(name, setting)) for name in names]
        for size in sorted(sizes):
            running = {ours: ours.prepare(size)}
            if "cuda" in running[ours].device:
                others = [worker for worker in others if worker.contender == "eager"]
            for worker in others if size <= WHOLE_MEGAPIXELS else []:
                try:
                    running[worker] = worker.prepare(size)
                except ResourceError as error:
                    note(f"{size:g} megapixels: {error}")
            names = [worker.contender for worker in running]
            note(f"{label} x{setting.scale}, {size:g} megapixels: {', '.join(names)}")
            seconds: dict[Worker, list[float]] = {worker: [] for worker in running}
            for _ in range(rounds):
                for worker in list(seconds):
                    try:
                        seconds[worker].append(worker.run())
                    except ResourceError as error:
                        if worker is ours:
                            raise
                        note(f"{size:g} megapixels: {error}")
                        del seconds[worker]
                        others.remove(worker)
            for worker, times in seconds.items():
                prepared = running[worker]
                try:
                    peak = worker.peak_memory()
                except ResourceError as error:
                    if worker is ours:
                        raise
                    note(f"{size:g} megapixels: {error}")
                    continue
                yield Timing(
                    label,
                    setting.scale,
                    size,
                    worker.contender,
                    prepared.device,
                    prepared.precision,
                    tuple(times),
                    prepared.tiles,
                    peak,
                )


def measured(
    contenders: dict[str, Contender], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every round of every contender, all in this process; a first round warms up and
    does not count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(rounds + 1):
        for name, run in contenders.items():
            begun = time.perf_counter()
            run()
            wait_for(device)
            if index:
                times[name].append(time.perf_counter() - begun)
    return times


def exponent(timings: Sequence[Timing]) -> float | None:
    """How time grows with size: the slope of log(seconds) over log(megapixels), least squares."""
    if len({t.megapixels for t in timings}) < 2:
        return None
    x = np.log([t.megapixels for t in timings])
    y = np.log([t.median for t in timings])
    return float(np.polyfit(x, y, 1)[0])


def traffic(network: Network, scale: int, dtype: torch.dtype) -> float:
    """Bytes for a pixel of input that convolutions read and write, all else being fused to them.

    EDSR's and MDSR's upsampler is one convolution, as ``upres.inference.folded`` runs it.
    """
    side, moved = 32, 0

    def count(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal moved
        moved += inputs[0].numel() + output.numel()

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    device = next(network.parameters()).device
    try:
        x = torch.rand(1, network.channels, side, side, device=device)
        with torch.inference_mode():
            if isinstance(network, ChainNetwork):
                features = network.features(x, scale)
                moved += features.numel() + x.numel() * scale**2
            else:
                network(x, scale)
    finally:
        for handle in handles:
            handle.remove()
    return moved * dtype.itemsize / side**2


def matrix_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product: what no convolution is likely to beat."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / _seconds(lambda: a @ a, device)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of a large copy."""
    size = 2**30 if device.type == "cuda" else 2**28
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _seconds(lambda: target.copy_(source), device)


def _seconds(run: Contender, device: torch.device) -> float:
    """The median of several rounds. A GPU answers in a fraction of what starting and waiting for it
    take, so there it is run many times in a row."""
    times = 20 if device.type == "cuda" else 1

    def rounds() -> None:
        for _ in range(times):
            run()

    return statistics.median(measured({"it": rounds}, 5, device)["it"]) / times
