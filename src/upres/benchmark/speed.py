"""How fast models run, as ratios within one run against the same network run in the usual ways.

Each round runs every contender once, in turn, so that a machine that changes its speed changes it
for all; medians and spreads over the rounds are what counts.
"""

import importlib.util
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from upres.api import Upscaler
from upres.networks import Network

Contender = Callable[[], object]
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
        tile_memory: bytes that a tile was estimated to take, on upres's side; else 0.
    """

    model: str
    scale: int
    megapixels: float
    contender: str
    device: str
    precision: str
    seconds: tuple[float, ...]
    tiles: int = 1
    tile_memory: int = 0

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Megapixels of input a second."""
        return self.megapixels / self.median


def picture(megapixels: float) -> NDArray[np.uint8]:
    """Noise, 3 : 2; what is in a picture does not matter to a convolution."""
    height = max(16, round((megapixels * 1e6 / 1.5) ** 0.5))
    width = round(1.5 * height)
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def time_model(
    model: str,
    upscaler: Upscaler,
    scale: int,
    sizes: Sequence[float],
    rounds: int,
    counted: Callable[[str], None],
) -> Iterator[Timing]:
    """The model at each size, and below a limit the alternatives beside it."""
    for size in sizes:
        pixels = picture(size)
        pipeline = upscaler.pipeline(pixels)
        target = pipeline.steps.target
        contenders: dict[str, Contender] = {"upres": lambda p=pixels: upscaler.upscale(p)}  # type: ignore[misc]
        if pipeline.steps.networks and size <= WHOLE_MEGAPIXELS:
            network, _ = pipeline.steps.networks[0]
            contenders["eager"] = eager(network, scale, pixels, target.device)
            if target.device.type == "cpu":
                for name, (needs, make) in PEERS.items():
                    if all(importlib.util.find_spec(module) for module in needs):
                        contenders[name] = make(network, scale, pixels)
        counted(f"{model} x{scale}, {size:g} megapixels: {', '.join(contenders)}")
        for name, seconds in measured(contenders, rounds, target.device).items():
            ours = name == "upres"
            yield Timing(
                model,
                scale,
                size,
                name,
                target.device.type,
                target.precision if ours else _PRECISIONS[name],
                tuple(seconds),
                pipeline.tiles if ours else 1,
                pipeline.memory if ours else 0,
            )


def measured(
    contenders: dict[str, Contender], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every round of every contender; a first round warms up and does not count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(rounds + 1):
        for name, run in contenders.items():
            begun = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if index:
                times[name].append(time.perf_counter() - begun)
    return times


def eager(
    network: Network, scale: int, pixels: NDArray[np.uint8], device: torch.device
) -> Contender:
    """What most tools do: float32, NCHW, the whole picture at once, from bytes to bytes."""
    network = network.to(device)

    def run() -> object:
        with torch.inference_mode():
            x = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous().to(device) / 255
            y = network(x, scale)
            return y.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1)[0].cpu().numpy()

    return run


class _Fixed(torch.nn.Module):
    """A network at one scale, as exporters want it."""

    def __init__(self, network: Network, scale: int) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x 3 x h x w to N x 3 x scale*h x scale*w."""
        made: torch.Tensor = self.network(x, self.scale)
        return made


def openvino(network: Network, scale: int, pixels: NDArray[np.uint8]) -> Contender:
    """OpenVINO in bfloat16, tuned for one picture at a time."""
    import openvino as ov

    fixed, example = _Fixed(network, scale).eval(), torch.rand(1, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # OpenVINO traces, as it was taught to
        model = ov.convert_model(fixed, example_input=example)
    model.reshape([1, 3, *pixels.shape[:2]])
    options = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()

    def run() -> object:
        x = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / 255
        y = request.infer([x])[0]
        return (y.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)[0]

    return run


def onnxruntime(network: Network, scale: int, pixels: NDArray[np.uint8]) -> Contender:
    """ONNX Runtime in float32, the only format that its CPU provider computes networks in."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The older exporter needs fewer packages; that it is the older one, it says itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        file = str(Path(folder) / "network.onnx")
        torch.onnx.export(
            _Fixed(network, scale).eval(),
            (torch.rand(1, 3, *pixels.shape[:2]),),
            file,
            dynamo=False,
            input_names=["x"],
        )
        session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run() -> object:
        x = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / 255
        y = session.run(None, {"x": x})[0]
        return (y.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)[0]

    return run


# The modules that each needs, and how it is made.
PEERS: dict[str, tuple[tuple[str, ...], Callable[[Network, int, NDArray[np.uint8]], Contender]]] = {
    "openvino": (("openvino",), openvino),
    "onnxruntime": (("onnx", "onnxruntime"), onnxruntime),
}
_PRECISIONS = {"eager": "fp32", "openvino": "bf16", "onnxruntime": "fp32"}


def exponent(timings: Sequence[Timing]) -> float | None:
    """How time grows with size: the slope of log(seconds) over log(megapixels), least squares."""
    if len({t.megapixels for t in timings}) < 2:
        return None
    x = np.log([t.megapixels for t in timings])
    y = np.log([t.median for t in timings])
    return float(np.polyfit(x, y, 1)[0])


def operations(network: Network, scale: int) -> float:
    """Floating-point operations for a pixel of input, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    side = 32
    device = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.rand(1, network.channels, side, side, device=device), scale)
    return float(counter.get_total_flops()) / side**2


def matrix_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product: what no convolution is likely to beat."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device).to(dtype)

    def run() -> object:
        return a @ a

    seconds = measured({"product": run}, 5, device)["product"]
    return 2 * side**3 / statistics.median(seconds)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of a large copy."""
    source = torch.empty(2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def run() -> object:
        return target.copy_(source)

    seconds = measured({"copy": run}, 5, device)["copy"]
    return 2 * source.numel() / statistics.median(seconds)


def peak_memory(device: torch.device) -> int:
    """Most bytes that were in use: of the accelerator, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
