"""PSNR, SSIM and consistency of models on sets of pictures, by the field's protocol.

Pictures are cropped to a multiple of the scale, shrunk by MATLAB's imresize (or the low-resolution
files that came with the set are taken), upscaled to 8 bits, and compared with some pixels shaved
off every side. Gray pictures are expanded to RGB.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from upres.api import Upscaler
from upres.data.evaluation import Truth
from upres.data.rgb import check_low, read_full_range, read_rgb
from upres.errors import InputError, UpresError
from upres.hashing import seed_of
from upres.imaging.degrade import Degradation
from upres.imaging.metrics import Protocol, mod_crop, psnr, ssim
from upres.imaging.resize import imresize
from upres.inference.engine import memory_errors
from upres.progress import Note

_SMALL = 600_000  # numbers in a picture
_EXACT = 100.0  # dB: a mean over pictures needs a number where the error is none
Rule = Literal["y", "rgb", "div2k"]


@dataclass(frozen=True)
class Settings:
    """How quality is measured.

    Attributes:
        rule: "y" is luma with ``scale`` pixels shaved, as papers have it; "rgb" the same on all
            three channels; "div2k" RGB with scale + 6 shaved, as EDSR's authors have it.
        shave: other than that, in pixels.
        degradation: what happens to low-resolution pictures before they are upscaled; its scale
            is 1.
    """

    rule: Rule = "y"
    shave: int | None = None
    degradation: Degradation = field(default_factory=Degradation)

    def protocol(self, scale: int) -> Protocol:
        """The protocol at this scale."""
        usual = scale + 6 if self.rule == "div2k" else scale
        shave = usual if self.shave is None else self.shave
        return Protocol("y" if self.rule == "y" else "rgb", shave)

    def __str__(self) -> str:
        channel = "Y channel (BT.601)" if self.rule == "y" else "RGB"
        usual = "scale + 6" if self.rule == "div2k" else "scale"
        shave = usual if self.shave is None else str(self.shave)
        degraded = f", LR pictures with {self.degraded}" if self.degraded else ""
        return f"{channel}, {shave} pixels shaved, 8 bit{degraded}"

    def with_jpeg(self, quality: int) -> "Settings":
        """The same, after JPEG (4:2:0) of this quality."""
        degradation = replace(self.degradation, quality=quality, subsampled=True)
        return replace(self, degradation=degradation)

    @property
    def degraded(self) -> str:
        """What is done to low-resolution pictures, in words; "" for nothing."""
        d = self.degradation
        parts = [
            f"blur {d.blur:g}" if d.blur else "",
            f"noise {d.noise:g}" if d.noise else "",
            f"JPEG {d.quality}" if d.quality is not None else "",
        ]
        return ", ".join(part for part in parts if part)

    @property
    def published(self) -> bool:
        """Whether papers' figures were measured in this way."""
        return self.rule == "y" and self.shave is None and not self.degraded


@dataclass(frozen=True)
class Example:
    """A picture of a set at one scale, ready; arrays are H x W x 3 uint8."""

    name: str
    high: NDArray[np.uint8]
    low: NDArray[np.uint8]


@dataclass(frozen=True)
class Measured:
    """One picture through one model.

    Attributes:
        psnr, ssim: against the truth; a picture that is met exactly counts 100 dB.
        consistency: PSNR in dB (RGB, nothing shaved) between the input and the output shrunk
            again: a faithful enlargement gives its input back; exactly counts 100 dB.
        seconds: that upscaling took.
        megapixels: of the input.
    """

    name: str
    psnr: float
    ssim: float
    consistency: float
    seconds: float
    megapixels: float


def example(truth: Truth, scale: int, settings: Settings) -> Example:
    """Read, crop, shrink, degrade.

    Raises:
        InputError: the picture cannot be read, its low-resolution file does not fit, or too
            little is left to be measured.
    """
    high = mod_crop(read_full_range(truth.path), scale)
    left = min(high.shape[:2]) - 2 * settings.protocol(scale).shave
    if left < 11:
        raise InputError(
            f"{truth.path} is too small: {max(0, left)} pixels are left after shaving, "
            "SSIM needs 11",
            "leave it out, or shave less with --shave",
        )
    if truth.low is None:
        low = imresize(high, 1 / scale)
    else:
        low = read_rgb(truth.low)
        check_low(low, truth.low, str(truth.path), high.shape, scale)
    # The picture decides its noise: the same for all models, in every run, and in every copy.
    random = np.random.default_rng(seed_of(low.tobytes()))
    degraded = settings.degradation.apply(low, 1, random)
    return Example(truth.name, high, degraded)


def measure(
    one: Example, upscaler: Upscaler, scale: int, settings: Settings, note: Note = lambda _: None
) -> tuple[Measured, NDArray[np.uint8]]:
    """Upscale and compare; the figures and the picture.

    Args:
        note: told what people should know of how it was upscaled.
    """
    begun = time.perf_counter()
    pipeline = upscaler.pipeline(one.low)
    made = pipeline.run(None, note)
    seconds = time.perf_counter() - begun
    for said in pipeline.notes:
        note(said)
    protocol = settings.protocol(scale)
    whole = Protocol("rgb", 0)
    return (
        Measured(
            one.name,
            min(psnr(one.high, made, protocol), _EXACT),
            ssim(one.high, made, protocol),
            min(psnr(one.low, imresize(made, 1 / scale), whole), _EXACT),
            seconds,
            one.low.shape[0] * one.low.shape[1] / 1e6,
        ),
        made,
    )


@dataclass(frozen=True)
class Row:
    """A model on a set at a scale.

    Attributes:
        parameters: how many numbers it learned; 0 for a kernel.
        images: one for each picture, in the order of the set.
    """

    model: str
    set: str
    scale: int
    parameters: int
    images: tuple[Measured, ...]

    @property
    def psnr(self) -> float:
        """Mean of the pictures' PSNR, in dB."""
        return float(np.mean([image.psnr for image in self.images]))

    @property
    def ssim(self) -> float:
        """Mean of the pictures' SSIM."""
        return float(np.mean([image.ssim for image in self.images]))

    @property
    def consistency(self) -> float:
        """Mean over the pictures, in dB."""
        return float(np.mean([image.consistency for image in self.images]))

    @property
    def seconds_per_megapixel(self) -> float:
        """Of input, over all pictures."""
        total = sum(image.megapixels for image in self.images)
        return sum(image.seconds for image in self.images) / total


# Told of every picture: model, set, scale, which one, the example, what was made of it.
Seen = Callable[[str, str, int, Example, NDArray[np.uint8]], None]


# Told of a model that could not be measured, and why.
Failed = Callable[[str, UpresError], None]


def _says(note: Note, who: str, what: str) -> None:
    note(f"note: {who}: {what}")


def measure_set(
    name: str,
    truths: Sequence[Truth],
    scale: int,
    models: Sequence[tuple[str, Upscaler]],
    settings: Settings,
    *,
    note: Note,
    seen: Seen | None = None,
    failed: Failed | None = None,
) -> Iterator[Row]:
    """All models on one set at one scale; each picture is read once.

    Args:
        note: told what people should know of how a picture was upscaled.
        failed: told of a model that cannot be measured, and is left out; None ends it all.

    Raises:
        InputError: see ``example``.
        UpresError: a model cannot be measured.
    """
    images: dict[str, list[Measured]] = {label: [] for label, _ in models}
    going = dict(models)

    @contextmanager
    def left_out(label: str) -> Iterator[None]:
        try:
            with memory_errors():
                yield
        except UpresError as error:
            if failed is None:
                raise
            del going[label]
            failed(label, error)

    for label, upscaler in models:
        with left_out(label):
            # Weights are loaded before clocks run.
            upscaler.pipeline(np.zeros((16, 16, 3), np.uint8)).run()
    warm: set[tuple[int, ...]] = set()
    for truth in truths:
        one = example(truth, scale, settings)
        # Kernels are made ready for each new size: of a small picture that is much of its time.
        if one.low.shape not in warm and one.low.size < _SMALL:
            warm.add(one.low.shape)
            for label, upscaler in tuple(going.items()):
                with left_out(label):
                    upscaler.pipeline(one.low).run()
        for label, upscaler in tuple(going.items()):
            with left_out(label):
                says = partial(_says, note, f"{label} x{scale}: {one.name}")
                figures, made = measure(one, upscaler, scale, settings, says)
                images[label].append(figures)
                if seen is not None:
                    seen(label, name, scale, one, made)
    for label, upscaler in going.items():
        parameters = sum(m.parameters for m in upscaler.models)
        yield Row(label, name, scale, parameters, tuple(images[label]))
