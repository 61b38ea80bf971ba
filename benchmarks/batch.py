"""How much of the network's speed ``upres batch`` keeps, and whether its memory grows.

    python benchmarks/batch.py [--count 200] [--megapixels 1] [--small 2000] [--model edsr-light]
        [--alone 200]

Makes a folder of JPEG pictures (a photograph that comes with scikit-image, with noise, so that none
equals another), runs the network alone over decoded pixels in this process (as often, or --alone
times), then `batch` over the folder from outside; then one process a file over a few of them. For
memory, a folder of many small pictures is run with bicubic, and the resident memory of the process
and its decoder is read every tenth of the way.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from upres.api import Upscaler
from upres.inference.sizes import Goal

SCALE = 2


def folder(place: Path, count: int, megapixels: float) -> Path:
    place.mkdir()
    side = round((megapixels * 1e6) ** 0.5)
    source = data.astronaut()
    times = -(-side // min(source.shape[:2]))
    whole = np.tile(source, (times, times, 1))[:side, :side].astype(np.int16)
    rng = np.random.default_rng(0)
    for index in range(count):
        noise = rng.integers(-6, 7, whole.shape, np.int16)
        Image.fromarray((whole + noise).clip(0, 255).astype(np.uint8)).save(
            place / f"{index:04}.jpg", quality=95
        )
    return place


def resident(pid: int) -> int:
    """Bytes of a process and its children."""
    pids, total = [pid], 0
    with suppress(OSError):  # it may end meanwhile
        # Each thread has children of its own, and the decoder is not the first one's.
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            pids += map(int, children.read_text().split())
    for one in pids:
        try:
            text = Path(f"/proc/{one}/status").read_text()
        except OSError:
            continue
        total += 1024 * int(text.partition("VmRSS:")[2].split()[0])
    return total


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "upres", *map(str, words), "--quiet"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--megapixels", type=float, default=1.0)
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--model", default="edsr-light")
    parser.add_argument("--alone", type=int, help="pictures for the network alone [--count]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        if options.count:
            throughput(root, options)
        if options.small:
            memory(root, options.small)


def throughput(root: Path, options: argparse.Namespace) -> None:
    pictures = folder(root / "in", options.count, options.megapixels)
    upscaler = Upscaler(options.model, Goal(scale=SCALE))
    loaded = [np.asarray(Image.open(p)) for p in sorted(pictures.iterdir())[:10]]
    upscaler.upscale(loaded[0])
    times = options.alone or options.count
    begun = time.perf_counter()
    for index in range(times):
        upscaler.upscale(loaded[index % len(loaded)])
    alone = (time.perf_counter() - begun) / times
    del upscaler
    begun = time.perf_counter()
    out = root / "out"
    subprocess.run(
        command("batch", pictures, "-o", out, "-s", SCALE, "-m", options.model),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    batch = (time.perf_counter() - begun) / options.count
    singles = []
    for path in sorted(pictures.iterdir())[:5]:
        begun = time.perf_counter()
        subprocess.run(
            command(path, "-o", root / "one.jpg", "--overwrite", "-s", SCALE, "-m", options.model),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        singles.append(time.perf_counter() - begun)
    print(f"{options.count} JPEG pictures of {options.megapixels:g} megapixels, {options.model} x2")
    print(f"  network alone       {alone:.3f} s each")
    print(
        f"  upres batch         {batch:.3f} s each, start-up and all: "
        f"{alone / batch:.2f} of the network's throughput"
    )
    print(f"  a process for each  {statistics.median(singles):.3f} s each")


def memory(root: Path, count: int) -> None:
    pictures = folder(root / "small", count, 0.02)
    process = subprocess.Popen(
        command(
            "batch", pictures, "-o", root / "small-out", "-s", SCALE, "-m", "bicubic", "--json"
        ),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    print(f"{count} JPEG pictures of 0.02 megapixels, bicubic x2: memory after so many")
    for index, _ in enumerate(process.stdout, 1):
        if index % (count // 10) == 0:
            print(f"  {index:6}  {resident(process.pid) / 2**20:7.1f} MiB")
    if process.wait():
        sys.exit("batch failed")


if __name__ == "__main__":
    main()
