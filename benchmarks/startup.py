"""Process times of the commands that should feel immediate.

    python benchmarks/startup.py [--runs 9]

Medians of wall time over whole processes, after one that warms the disk cache. The last line is the
time that ``upres small.png`` takes beyond importing torch and running the network.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def seconds(command: list[str], runs: int, cwd: str) -> float:
    times = []
    for index in range(runs + 1):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=cwd)
        if index:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


NETWORK = """
import time, numpy as np, upres
u = upres.load(scale=4)
x = np.zeros((64, 64, 3), np.uint8)
u.upscale(x)
began = time.perf_counter()
u.upscale(x)
print(time.perf_counter() - began)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    upres = [sys.executable, "-m", "upres"]
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(Path(folder, "small.png"))
        times = {
            "upres --help": seconds([*upres, "--help"], runs, folder),
            "upres upscale --help": seconds([*upres, "upscale", "--help"], runs, folder),
            "upres models": seconds([*upres, "models"], runs, folder),
            "upres small.png": seconds([*upres, "small.png", "--overwrite"], runs, folder),
            "import torch": seconds([sys.executable, "-c", "import torch"], runs, folder),
        }
        code = [sys.executable, "-c", NETWORK]
        network = float(subprocess.run(code, check=True, capture_output=True, text=True).stdout)
    for name, value in times.items():
        print(f"{name:<24}{value:6.3f} s")
    print(f"{'the network alone':<24}{network:6.3f} s  (64 x 64 pixels, x4)")
    rest = times["upres small.png"] - times["import torch"] - network
    print(f"{'upres small.png beyond':<24}{rest:6.3f} s")


if __name__ == "__main__":
    main()
