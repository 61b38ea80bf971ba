"""What tiles cost: EDSR in tiles of several sizes against the whole picture at once, in one run.

    python benchmarks/tiling.py [--rounds 5] [--channels 64] [--scale 2 4] [--json out.json]

Each round runs every size once, in turn, so that a machine that changes its speed changes it for
all; medians over the rounds are printed. Weights are random: speed does not depend on them. (Other
ways to run a network disturb each other in one process: "upres bench --speed" gives each its own.)
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from upres.benchmark.speed import measured
from upres.imaging.picture import collect
from upres.inference.device import cpu_has_bfloat16
from upres.inference.engine import ModelStage, Target
from upres.inference.executor import Executor
from upres.inference.rows import ArrayRows
from upres.networks import EDSR

CPU = torch.device("cpu")


def contender(
    network: EDSR, pixels: np.ndarray, target: Target, executor: Executor, tile: int | None
) -> Callable[[], object]:
    scale = network.scales[0]

    def run() -> object:
        stage = ModelStage(
            ArrayRows(pixels), network, scale, target, tile=tile, levels=255, executor=executor
        )
        return collect(stage.strips(), (stage.height, stage.width, 3), np.uint8)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--channels", type=int, default=64, help="64 baseline, 32 light")
    parser.add_argument("--scale", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--size", type=int, nargs=2, default=[1632, 1224], help="width and height")
    parser.add_argument("--tiles", type=int, nargs="*", default=[512, 256])
    parser.add_argument("--json")
    options = parser.parse_args()
    dtype = torch.bfloat16 if cpu_has_bfloat16() else torch.float32
    name = str(dtype).removeprefix("torch.")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {name}")
    width, height = options.size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    tiles = {"untiled": 0, "default tile": None, **{f"tile {t}": t for t in options.tiles}}
    target, results = Target(CPU, dtype, "a benchmark"), {}
    for scale in options.scale:
        torch.manual_seed(0)
        network = EDSR(scale, channels=options.channels).eval().requires_grad_(requires_grad=False)
        # Made once, as for a folder of pictures.
        executor = ModelStage(ArrayRows(pixels), network, scale, target).executor
        contenders = {
            what: contender(network, pixels, target, executor, tile) for what, tile in tiles.items()
        }
        times = measured(contenders, options.rounds, CPU)
        results[f"x{scale}"] = times
        print(f"\nEDSR, {options.channels} channels, x{scale}, {width} x {height}")
        whole = statistics.median(times["untiled"])
        for what, values in times.items():
            middle = statistics.median(values)
            spread = f"({min(values):.2f} to {max(values):.2f})"
            print(f"  {what:<14} {middle:7.2f} s  {spread}  {middle / whole:5.2f} x untiled")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
