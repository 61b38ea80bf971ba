"""Pillow's modes of pixels, made plain: gray or RGB, with or without alpha, as arrays."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from upres.errors import InputError
from upres.imaging.picture import Kind
from upres.imaging.profiles import fits, srgb_profile

COLOURLESS = ("bilevel", "gray")
_KINDS: dict[str, Kind] = {
    "1": "bilevel",
    "P": "palette",
    "PA": "palette",
    "L": "gray",
    "LA": "gray",
    "La": "gray",
    "I;16": "gray",
    "I;16B": "gray",
    "I;16L": "gray",
    "I": "gray",
    "F": "gray",
    "CMYK": "CMYK",
    "LAB": "Lab",
    "YCbCr": "YCbCr",
}

READ_AS_8 = "more than 8 bits a channel are read as 8"


def kind_of(image: Image.Image) -> Kind:
    """How its file stores its pixels."""
    return _KINDS.get(image.mode, "RGB")


def made_plain(
    image: Image.Image, icc: bytes | None, name: str, notes: list[str]
) -> tuple[Image.Image, bytes | None]:
    """The image in one of L, LA, RGB, RGBA, I;16, and the profile that fits it.

    Args:
        icc: the profile of the image.
        name: of the file, for people.
        notes: what changes is added to them.

    Raises:
        InputError: its mode is not read.
    """
    mode = image.mode
    if mode in ("L", "RGB") and "transparency" in image.info:
        return image.convert("LA" if mode == "L" else "RGBA"), icc
    if mode in ("L", "LA", "RGB", "RGBA"):
        return image, icc
    if mode in ("I;16", "I;16B", "I;16L"):
        return image, icc
    if mode == "1":
        return image.convert("L"), icc
    if mode in ("P", "PA"):
        transparent = mode == "PA" or "transparency" in image.info
        plain = image.convert("RGBA" if transparent else "RGB")
        return plain if icc and fits(icc, 3) else _unpalette(plain), icc
    if mode in ("La", "RGBa"):
        return image.convert("LA" if mode == "La" else "RGBA"), icc
    if mode == "RGBX":
        return image.convert("RGB"), icc
    if mode in ("CMYK", "YCbCr", "LAB"):
        return _to_srgb(image, icc, notes)
    raise InputError(
        f"{name} has pixels of the kind {mode!r}, which are not read yet",
        "convert it to 8 or 16 bits a channel",
    )


def _unpalette(image: Image.Image) -> Image.Image:
    """Gray where the palette had only grays."""
    bands = image.split()
    if bands[0].tobytes() == bands[1].tobytes() == bands[2].tobytes():
        return bands[0] if len(bands) == 3 else Image.merge("LA", (bands[0], bands[3]))
    return image


def _to_srgb(
    image: Image.Image, icc: bytes | None, notes: list[str]
) -> tuple[Image.Image, bytes | None]:
    """CMYK and Lab through their profile; without one, by Pillow's formula."""
    srgb = ImageCms.createProfile("sRGB")
    source: Any = None
    if image.mode == "LAB":
        source = ImageCms.createProfile("LAB")
    elif icc and image.mode == "CMYK":
        source = io.BytesIO(icc)
    if source is not None:
        try:
            turned = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
        except ImageCms.PyCMSError:
            notes.append(f"the {image.mode} profile cannot be used")
        else:
            if turned is not None:
                notes.append(f"{image.mode} becomes RGB in the sRGB profile")
                return turned, srgb_profile()
    if image.mode != "YCbCr":
        notes.append(by_formula(image.mode))
        icc = None
    return image.convert("RGB"), icc


def by_formula(kind: str) -> str:
    """The note on colours that nobody knows the profile of."""
    return f"{kind} without a usable profile becomes RGB by formula"


def array_of(image: Image.Image) -> NDArray[Any]:
    """A plain image as H x W x C, uint8 or uint16."""
    pixels = np.asarray(image)
    if image.mode.startswith("I;16"):
        pixels = pixels.astype(np.uint16)
    return np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[..., None])
