"""Peak memory of upscaling a large photograph, measured from outside the process.

    python benchmarks/memory.py [--megapixels 24] [--scale 2] [--model edsr-light]

The picture is noise over a gradient, written as JPEG. "Beyond the pictures" is the peak less the
decoded input and output, in bytes as 8-bit RGB.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def write(path: Path, width: int, height: int) -> None:
    """A picture of this size."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, width)[None, :, None] + rng.integers(0, 40, (height, width, 3))
    Image.fromarray(ramp.astype(np.uint8)).save(path, quality=92)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--model", default="edsr-light")
    options = parser.parse_args()
    height = round((options.megapixels * 1e6 * 2 / 3) ** 0.5)
    width = round(options.megapixels * 1e6 / height)
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: what is forked counts from its parent's memory on.
        context = multiprocessing.get_context("spawn")
        maker = context.Process(target=write, args=(Path(folder, "large.jpg"), width, height))
        maker.start()
        maker.join()
        arguments = ["large.jpg", "-s", str(options.scale), "-m", options.model]
        began = time.perf_counter()
        child = os.fork()
        if child == 0:
            os.chdir(folder)
            os.execv(sys.executable, [sys.executable, "-m", "upres", *arguments])
        _, status, usage = os.wait4(child, 0)
        seconds = time.perf_counter() - began
    if status:
        sys.exit("upres failed")
    peak = usage.ru_maxrss * 1024
    pictures = 3 * width * height * (1 + options.scale**2)
    print(f"{width} x {height}, x{options.scale}, {options.model}: {seconds:.1f} s")
    print(f"peak {peak / 1e9:.2f} GB, beyond the pictures {(peak - pictures) / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
