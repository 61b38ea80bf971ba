"""Other ways to run a network, to compare speeds with: from 8-bit pixels to 8-bit pixels."""

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from upres.inference.device import cpu_has_bfloat16
from upres.networks import Network

Contender = Callable[[], object]


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


def openvino(
    network: Network, scale: int, pixels: NDArray[np.uint8], threads: int | None = None
) -> Contender:
    """OpenVINO, tuned for one picture at a time, in bfloat16 where the CPU computes that."""
    import openvino as ov

    fixed, example = _Fixed(network, scale).eval(), torch.rand(1, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # OpenVINO traces, as it was taught to
        model = ov.convert_model(fixed, example_input=example)
    model.reshape([1, 3, *pixels.shape[:2]])
    hint = "bf16" if cpu_has_bfloat16() else "f32"
    options: dict[str, str | int] = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
    }
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()

    def run() -> object:
        x = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / 255
        y = request.infer([x])[0]
        return (y.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)[0]

    return run


def onnxruntime(
    network: Network, scale: int, pixels: NDArray[np.uint8], threads: int | None = None
) -> Contender:
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
        options = ort.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run() -> object:
        x = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / 255
        y = session.run(None, {"x": x})[0]
        return (y.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)[0]

    return run


@dataclass(frozen=True)
class Peer:
    """Another library.

    Attributes:
        needs: modules that must be installed.
        make: a contender from a network, its scale, the picture, and how many threads it may use.
        precision: what it computes in.
    """

    needs: tuple[str, ...]
    make: Callable[[Network, int, NDArray[np.uint8], int | None], Contender]
    precision: str


PEERS = {
    "openvino": Peer(("openvino",), openvino, "bf16" if cpu_has_bfloat16() else "fp32"),
    "onnxruntime": Peer(("onnx", "onnxruntime"), onnxruntime, "fp32"),
}
