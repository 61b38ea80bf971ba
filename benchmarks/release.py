"""From a training run's result to a bundled file: measured, stored small, described.

    python benchmarks/release.py RUN/model.safetensors --data DIR [--jpeg 75]

DIR holds Set5 and Set14, as ``upres bench --data-dir`` takes them. The weights are stored in
float16 if that costs less than 0.005 dB on every set, and else in float32; the file that is
measured is the one that is written. What it says about itself comes from the run and, where
weights.toml knows the model already, from there; the table for weights.toml is printed.
tests/golden wants a picture of every bundled file, see tests/test_weights.py.
"""

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import upres
from upres.benchmark.quality import Settings
from upres.benchmark.session import Order, run_order
from upres.model import load
from upres.weights.facts import Measurement
from upres.weights.header import read_training
from upres.weights.manifest import load_manifest
from upres.weights.store import checked_sha256

BUNDLED = Path(upres.__file__).parent / "weights" / "bundled"
ALLOWED = 0.005
# A run's result, by the folder of the run.
RESULT = re.compile(r"[^\s,]*?([^/\s,]+)/model\.safetensors")


def without_paths(told: Any) -> Any:
    """The record of a run, which calls results of others by their run: where they lay on the
    machine that they were made on tells nobody anything."""
    if isinstance(told, dict):
        return {key: without_paths(value) for key, value in told.items()}
    if isinstance(told, list | tuple):
        return [without_paths(value) for value in told]
    return RESULT.sub(r"run \1", told) if isinstance(told, str) else told


def figures(path: Path, data: Path, scale: int, jpeg: int | None) -> list[Measurement]:
    """In float32, so that they hold on every machine."""
    found = []
    for quality in (None, jpeg) if jpeg else (None,):
        order = Order(
            ("set5", "set14"),
            (scale,),
            (str(path),),
            Settings().with_jpeg(quality) if quality else Settings(),
            data_dir=data,
            home=data,
            device="cpu",
            precision="fp32",
        )
        report, _ = run_order(order, note=print, progress=lambda *_: None)
        found += [
            Measurement(
                row.set + (f"-jpeg{quality}" if quality else ""),
                scale,
                round(row.psnr, 3),
                round(row.ssim, 4),
            )
            for row in report.rows
            if row.model != "bicubic"
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--to", type=Path, default=BUNDLED, help="folder for the file")
    parser.add_argument("--jpeg", type=int, help="measure also after JPEG of this quality")
    options = parser.parse_args()
    model, training = load(options.result), without_paths(read_training(options.result))
    for entry in load_manifest().entries:
        if (entry.facts.name, entry.facts.scales) == (model.facts.name, model.facts.scales):
            known = entry.facts
            model = replace(
                model,
                facts=replace(
                    model.facts,
                    numbers=known.numbers,  # with those that are the usual ones, if it has them
                    licence=known.licence,
                    trained_by=known.trained_by,
                    trained_on=known.trained_on,
                ),
            )
            break
    scales = model.facts.scales
    stem = model.facts.file_name
    target = options.to / f"{stem}.safetensors"
    part = target.with_name(f".{stem}.safetensors")
    exact = [m for s in scales for m in figures(options.result, options.data, s, options.jpeg)]
    for dtype in (torch.float16, torch.float32):
        model.save(part, dtype=dtype, training=training)
        kept = [m for s in scales for m in figures(part, options.data, s, options.jpeg)]
        if max(a.psnr - b.psnr for a, b in zip(exact, kept, strict=True)) < ALLOWED:
            break
    described = replace(model, facts=replace(model.facts, measured=tuple(kept)))
    described.save(part, dtype=dtype, training=training)
    part.replace(target)
    print(f"[{model.facts.name}.x{scales[0]}]")
    print(f'file = "{target.name}"')
    print(f'sha256 = "{checked_sha256(target)}"')
    print(f"size = {target.stat().st_size}")
    print("measured = [")
    for m in kept:
        print(f'  {{ set = "{m.set}", psnr = {m.psnr:.3f}, ssim = {m.ssim:.4f} }},')
    print("]")


if __name__ == "__main__":
    main()
