"""PSNR and SSIM of models on folders of high-resolution pictures.

    python benchmarks/quality.py --data DIR [--sets Set5 Set14] [--scale 2 3 4] [--models ...]
        [--jpeg 75]

DIR holds a folder for each set, with the pictures in it or in HR/. Protocol: pictures cropped to a
multiple of the scale, shrunk by MATLAB's imresize (bit-exact), upscaled to 8 bits, compared on the
Y channel with ``scale`` pixels shaved. Gray pictures are expanded to RGB first. With --jpeg, the
shrunk picture goes through JPEG (4:2:0) of that quality before it is upscaled.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import upres
from upres.imaging.degrade import through_jpeg
from upres.imaging.metrics import Protocol, mod_crop, psnr, ssim
from upres.imaging.resize import imresize


def pictures(folder: Path) -> list[np.ndarray]:
    files = sorted([*folder.glob("*.png"), *folder.glob("HR/*.png")])
    if not files:
        raise SystemExit(f"no PNG files in {folder}")
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


def measure(
    upscaler: upres.Upscaler, originals: list[np.ndarray], scale: int, jpeg: int | None = None
) -> list[tuple[float, float]]:
    """PSNR and SSIM of each picture."""
    protocol = Protocol("y", scale)
    found = []
    for original in originals:
        whole = mod_crop(original, scale)
        small = imresize(whole, 1 / scale)
        if jpeg is not None:
            small = through_jpeg(small, jpeg)
        result = upscaler.upscale(small)
        found.append((psnr(whole, result, protocol), ssim(whole, result, protocol)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", default=["Set5", "Set14"])
    parser.add_argument("--scale", type=int, nargs="*", default=[2, 3, 4])
    parser.add_argument("--models", nargs="*", default=["bicubic", "edsr-light"])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--ensemble", action="store_true")
    parser.add_argument("--jpeg", type=int)
    options = parser.parse_args()
    for name in options.sets:
        originals = pictures(options.data / name)
        for scale in options.scale:
            for model in options.models:
                upscaler = upres.load(
                    model, scale=scale, precision=options.precision, ensemble=options.ensemble
                )
                mean = np.mean(measure(upscaler, originals, scale, options.jpeg), axis=0)
                print(
                    f"{name:<8} x{scale}  {model:<14} {mean[0]:7.3f} dB  {mean[1]:.4f}", flush=True
                )


if __name__ == "__main__":
    main()
