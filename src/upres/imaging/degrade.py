"""What happens to real photographs before they reach us: blur, resampling, noise, JPEG."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from upres.imaging.resize import imresize

_RESAMPLERS = (
    None,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.BILINEAR,
    Image.Resampling.BOX,
)


@dataclass(frozen=True)
class Degradation:
    """One course of events, from a high-resolution picture to a low-resolution one.

    Attributes:
        blur: sigma of a Gaussian, in pixels of the low-resolution picture.
        resampler: a filter of Pillow, or None for MATLAB's imresize.
        noise: sigma of Gaussian noise, in levels of 255.
        gray_noise: whether the three channels share the noise, as film grain does.
        quality: of JPEG, or None for no JPEG.
        subsampled: whether JPEG halves the colours' resolution (4:2:0).
    """

    blur: float = 0.0
    resampler: Image.Resampling | None = None
    noise: float = 0.0
    gray_noise: bool = False
    quality: int | None = None
    subsampled: bool = False

    def apply(
        self, pixels: NDArray[np.uint8], scale: int, random: np.random.Generator
    ) -> NDArray[np.uint8]:
        """Shrink and degrade.

        Args:
            pixels: H x W x 3, both multiples of ``scale``; at scale 1 it is only degraded.
            random: where the noise comes from.
        """
        height, width = (side // scale for side in pixels.shape[:2])
        image = Image.fromarray(pixels)
        if self.blur > 0:
            image = image.filter(ImageFilter.GaussianBlur(self.blur * scale))
        if scale == 1:
            low = np.asarray(image)
        elif self.resampler is None:
            low = imresize(np.asarray(image), 1 / scale)
        else:
            low = np.asarray(image.resize((width, height), self.resampler))
        if self.noise > 0:
            planes = 1 if self.gray_noise else 3
            grain = random.normal(0.0, self.noise, (height, width, planes))
            low = np.clip(np.rint(low + grain), 0, 255).astype(np.uint8)
        return low if self.quality is None else through_jpeg(low, self.quality, self.subsampled)


def through_jpeg(
    pixels: NDArray[np.uint8], quality: int, subsampled: bool = True
) -> NDArray[np.uint8]:
    """H x W x 3 as it looks after being saved as JPEG (4:2:0 if ``subsampled``) and read again."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(
        file, "JPEG", quality=quality, subsampling="4:2:0" if subsampled else "4:4:4"
    )
    return np.asarray(Image.open(file).convert("RGB"))


def light_photo(random: np.random.Generator) -> Degradation:
    """Draw the light degradation that the photo models are trained for.

    Half a pixel of blur at most (of the low-resolution picture), any usual resampler, sensor noise
    up to 6 levels half of the time, JPEG of quality 50 to 95 most of the time.
    """
    return Degradation(
        blur=random.uniform(0.0, 0.5) if random.random() < 0.5 else 0.0,
        resampler=_RESAMPLERS[int(random.integers(len(_RESAMPLERS)))],
        noise=random.uniform(0.0, 6.0) if random.random() < 0.5 else 0.0,
        gray_noise=bool(random.random() < 0.4),
        quality=int(random.integers(50, 96)) if random.random() < 0.9 else None,
        subsampled=bool(random.random() < 0.6),
    )
