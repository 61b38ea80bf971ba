"""How fast the engine is, as ratios within one run: against the same network run in the usual way,
against OpenVINO where it is installed, and against itself without tiles.

    python benchmarks/engine.py [--rounds 5] [--channels 64] [--json out.json]

Each round runs every contender once, in turn, so that a machine that changes its speed changes it
for all; medians over the rounds are printed. Weights are random: speed does not depend on them.
The usual way is what most tools do: float32, NCHW, eager, the whole picture at once.
"""

import argparse
import importlib.util
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import torch

from upres.benchmark.contenders import Contender, eager, openvino
from upres.benchmark.speed import measured
from upres.imaging.picture import collect
from upres.inference.device import cpu_has_bfloat16
from upres.inference.engine import ModelStage, Target
from upres.inference.rows import ArrayRows
from upres.networks import EDSR

CPU = torch.device("cpu")


def ours(network: EDSR, pixels: np.ndarray, dtype: torch.dtype, tile: int | None) -> Contender:
    scale = network.scales[0]
    target = Target(CPU, dtype, "a benchmark")

    def run() -> object:
        stage = ModelStage(ArrayRows(pixels), network, scale, target, tile=tile, levels=255)
        return collect(stage.strips(), (stage.height, stage.width, 3), np.uint8)

    return run


def report(title: str, times: dict[str, list[float]], megapixels: float) -> dict[str, float]:
    print(f"\n{title}")
    first = statistics.median(next(iter(times.values())))
    rows = {}
    for name, values in times.items():
        middle = statistics.median(values)
        rows[name] = middle
        print(
            f"  {name:<34} {middle:7.2f} s  ({min(values):.2f} to {max(values):.2f})"
            f"  {megapixels / middle:6.3f} MP/s  {middle / first:5.2f} x the time of the first"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--channels", type=int, default=64, help="64 baseline, 32 light")
    parser.add_argument("--scale", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--skip", nargs="*", default=[], choices=["peers", "tiling"])
    parser.add_argument("--json")
    options = parser.parse_args()
    dtype = torch.bfloat16 if cpu_has_bfloat16() else torch.float32
    name = str(dtype).removeprefix("torch.")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {name}")
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (1000, 1000, 3), np.uint8)
    two = rng.integers(0, 256, (1224, 1632, 3), np.uint8)
    results = {}
    for scale in options.scale:
        torch.manual_seed(0)
        network = EDSR(scale, channels=options.channels).eval().requires_grad_(requires_grad=False)
        if "peers" not in options.skip:
            contenders = {"upres": ours(network, one, dtype, None)}
            contenders["usual: eager fp32 NCHW untiled"] = eager(network, scale, one, CPU)
            if importlib.util.find_spec("openvino"):
                contenders["OpenVINO untiled"] = openvino(network, scale, one)
            title = f"EDSR, {options.channels} channels, x{scale}, 1 megapixel"
            results[f"x{scale}"] = report(title, measured(contenders, options.rounds, CPU), 1.0)
        if "tiling" not in options.skip:
            contenders = {
                "untiled": ours(network, two, dtype, 0),
                "default tile": ours(network, two, dtype, None),
                "tile 512": ours(network, two, dtype, 512),
                "tile 256": ours(network, two, dtype, 256),
            }
            title = f"EDSR, {options.channels} channels, x{scale}, 2 megapixels"
            results[f"x{scale} tiling"] = report(
                title, measured(contenders, options.rounds, CPU), 2.0
            )
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    sys.exit(main())
