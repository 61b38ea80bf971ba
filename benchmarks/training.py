"""How fast training is, as a ratio within one run against the usual loop: float32, NCHW, eager,
and a DataLoader that decodes PNG files.

    python benchmarks/training.py [--data DIR] [--scale 2] [--device cpu] [--rounds 5] [--steps 5]
                                  [--json FILE]

Both train the same network on the same pictures (by default the photographs that come with
scikit-image) with the same batch and patch. Each round runs both, in turn; medians over the rounds
are printed. The usual loop's workers stand still while it is not its turn, and what they had
decoded before is used up before its time begins. On CUDA the time of a step is also given as a
fraction of what the measured speed of a large bfloat16 matrix product would take.
"""

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from upres.benchmark.speed import matrix_ceiling
from upres.data.folders import find_pictures
from upres.data.gather import gather
from upres.data.patches import Sampler
from upres.data.prepare import prepare
from upres.data.prepared import Prepared
from upres.networks import EDSR
from upres.training.learner import Learner
from upres.training.patches import PatchStore
from upres.training.recipe import load_recipe
from upres.training.steps import steps_for

Loop = Callable[[int], None]


class Files(Dataset):
    """Pairs of PNG files, decoded whole for every patch, as most training code does."""

    def __init__(
        self, prepared: Prepared, folder: Path, scale: int, patch: int, count: int
    ) -> None:
        self.pairs, self.scale, self.patch, self.count = [], scale, patch, count
        high, low, start = prepared.high(), prepared.low(scale), 0
        for i, entry in enumerate(prepared.entries):
            h, w = entry.low(scale)
            whole = high[entry.start : entry.start + entry.pixels]
            names = folder / f"{i}.png", folder / f"{i}-low.png"
            Image.fromarray(whole.reshape(entry.height, entry.width, 3)).save(names[0])
            Image.fromarray(low[start : start + h * w].reshape(h, w, 3)).save(names[1])
            start += h * w
            if min(h, w) >= patch:  # as upres leaves out what holds no patch
                self.pairs.append(names)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        random = np.random.default_rng(index)
        files = self.pairs[random.integers(len(self.pairs))]
        high, low = (np.asarray(Image.open(file).convert("RGB")) for file in files)
        p, s = self.patch, self.scale
        top, left = (int(random.integers(side - p + 1)) for side in low.shape[:2])
        pair = low[top : top + p, left : left + p], high[s * top :, s * left :][: s * p, : s * p]
        if random.random() < 0.5:
            pair = tuple(x[:, ::-1] for x in pair)
        if random.random() < 0.5:
            pair = tuple(x[::-1] for x in pair)
        if random.random() < 0.5:
            pair = tuple(x.transpose(1, 0, 2) for x in pair)
        a, b = (torch.from_numpy(x.transpose(2, 0, 1).copy()).float() / 255 for x in pair)
        return a, b


def usual(
    prepared: Prepared,
    folder: Path,
    scale: int,
    numbers: dict,
    batch: int,
    patch: int,
    device: torch.device,
) -> Loop:
    network = EDSR(scale, **numbers).to(device)
    optimiser = torch.optim.Adam(network.parameters(), 1e-4)
    files = Files(prepared, folder, scale, patch, 10**7)
    batches = iter(DataLoader(files, batch, num_workers=torch.get_num_threads()))

    def run(steps: int) -> None:
        for _ in range(steps):
            low, high = (x.to(device) for x in next(batches))
            loss = torch.nn.functional.l1_loss(network(low, scale), high)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        _wait(device)

    return run


def ours(
    prepared: Prepared, scale: int, numbers: dict, batch: int, patch: int, device: torch.device
) -> Loop:
    changes = {"data.batch": batch, "data.patch": patch, "network.numbers": numbers}
    recipe = load_recipe("edsr-baseline", scale=scale, changes=changes)
    learner = Learner(EDSR(scale, **numbers), recipe, device)
    sampler = Sampler(
        prepared.entries, prepared.detail(), patch=patch, scales=(scale,), focus=recipe.data.focus
    )
    store = PatchStore(
        prepared, scales=(scale,), versions=0, patch=patch, colour="rgb", device=device
    )
    making = steps_for(learner, store, single_process=True)
    done = 0

    def run(steps: int) -> None:
        nonlocal done
        for _ in range(steps):
            learner.prepare(1e-4, done)
            making.make(store.places(sampler.batch(done, batch)), scale)
            done += 1
        _wait(device)

    return run


PREFETCHED = 2  # batches that each worker of a DataLoader holds ready, unless it is told otherwise


@contextmanager
def workers_still() -> Iterator[None]:
    """This program's workers stand still meanwhile."""
    workers = [process.pid for process in multiprocessing.active_children()]
    try:
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        yield
    finally:
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--scale", type=int, choices=(2, 3, 4), default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    # On a GPU few steps would be over before a clock could tell.
    parser.add_argument("--steps", type=int, help="of each contender in a round; 5, or 200 on CUDA")
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    steps = options.steps or (200 if device.type == "cuda" else 5)
    data = options.data
    if data is None:
        import skimage

        data = Path(skimage.__file__).parent / "data"
    numbers = {"blocks": options.blocks, "channels": options.channels}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "png").mkdir()
        prepared = prepare(
            gather([find_pictures(data)], 0),
            folder,
            sizes=[1.0],
            scales=[options.scale],
            versions=0,
            progress=lambda *_: None,
            note=print,
            threads=torch.get_num_threads(),
        )
        common = (options.scale, numbers, options.batch, options.patch, device)
        contenders = {
            "upres": ours(prepared, *common),
            "usual": usual(prepared, folder / "png", *common),
        }
        stock = PREFETCHED * torch.get_num_threads()
        flops = {}
        for name, run in contenders.items():
            with FlopCounterMode(display=False) as counter:
                run(1)
            flops[name] = counter.get_total_flops()
            run(4)
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, run in contenders.items():
                with workers_still() if name == "upres" else nullcontext():
                    run(stock if name == "usual" else 1)
                    begun = time.perf_counter()
                    run(steps)
                    seconds[name].append((time.perf_counter() - begun) / steps)
    result: dict[str, object] = {"network": numbers, "batch": options.batch, "patch": options.patch}
    ceiling = matrix_ceiling(device, torch.bfloat16) if device.type == "cuda" else None
    for name, times in seconds.items():
        middle = statistics.median(times)
        result[name] = {"ms_per_step": 1e3 * middle, "flop": flops[name], "all": times}
        speed = flops[name] / middle
        print(f"{name:<6} {1e3 * middle:8.2f} ms a step  {speed / 1e9:7.0f} GFLOP/s")
        if ceiling is not None:
            share = speed / ceiling
            print(f"       {100 * share:.1f} % of a large bfloat16 matrix product's speed")
    ratio = statistics.median(seconds["usual"]) / statistics.median(seconds["upres"])
    result["ratio"] = ratio
    print(f"upres makes {ratio:.2f} times the steps of the usual loop")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
