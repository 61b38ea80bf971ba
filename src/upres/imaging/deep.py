"""Pixels that Pillow reduces to 8 bits or does not know, by libvips, and where that does not read
them either, by tifffile."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upres.errors import InputError
from upres.imaging.modes import by_formula
from upres.imaging.picture import Extra, Kind, stretched
from upres.imaging.sources import damaged
from upres.imaging.tiff_rare import libvips_reads, read_rare
from upres.imaging.tiff_tags import left_out_channels
from upres.imaging.vips import opened, reason, unlimited, vips

_OTHER: dict[str, Kind] = {"cmyk": "CMYK", "lab": "Lab", "labs": "Lab", "labq": "Lab"}


@dataclass(frozen=True)
class Decoded:
    """Pixels as they lie in a file, or as RGB.

    Attributes:
        pixels: H x W x C, uint8, uint16 or float32.
        kind: how the file stores them.
        note: what they were converted from, for people, or None.
        profile: which one they have now: the file's own, sRGB, or none that anybody knows.
    """

    pixels: NDArray[Any]
    kind: Kind
    note: str | None = None
    profile: Literal["own", "srgb", "none"] = "own"


def read_deep(
    source: Path | bytes,
    name: str,
    *,
    page: int | None = None,
    count: int = 1,
    tags: Mapping[int, Any] | None = None,
    extra: tuple[Extra, ...] = (),
    stacked: bool = False,
) -> Decoded:
    """Decode a picture as it lies in the file; libvips divides colours that were multiplied by
    alpha.

    Args:
        page, tags: of a TIFF file.
        count: how many pages from this one on, all alike and such as libvips reads; they come one
            below the other. Opening a file anew for each would take the square of their number.
        extra: what its channels beyond colours are, if bands are wanted; see ``Picture``.
        stacked: the pages share one directory.

    Raises:
        InputError: pixels of another kind, or damaged.
    """
    left_out = left_out_channels(tags or {}, extra)
    if tags is not None and (stacked or not libvips_reads(tags)):
        rare = read_rare(source, name, page or 0, left_out, stacked=count if stacked else 0)
        return _finished(rare, name, len(extra))
    pyvips = vips()

    options: dict[str, Any] = {"access": "sequential", "fail_on": "error"}
    if page is not None:
        options |= {"page": page, "n": count}
    try:
        if isinstance(source, bytes):
            image = pyvips.Image.new_from_buffer(source, "", **unlimited(), **options)
        else:
            image = opened(source, **options)
        if 0 < left_out < image.bands:
            image = image.extract_band(0, n=image.bands - left_out)
        kind = _OTHER.get(image.interpretation)
        known = kind == "Lab" or image.get_typeof("icc-profile-data")
        if kind == "CMYK" and known:
            # The intent that 8 bits are converted with, by Pillow.
            depth = 8 if image.format == "uchar" else 16
            image = image.icc_transform("srgb", depth=depth, embedded=True, intent="perceptual")
        elif kind == "Lab":
            image = image.colourspace("rgb16")
        pixels = image.numpy()
        if kind == "CMYK" and not known:
            pixels = _without_inks(pixels)
        if image.get("vips-loader").startswith("heif"):
            # libvips puts 10 or 12 bits into the upper ones of 16.
            bits = image.get("bits-per-sample")
            pixels = stretched(pixels >> (16 - bits), bits)
    except pyvips.Error as error:
        raise damaged(name, reason(error)) from error
    made = _finished(pixels.reshape(*pixels.shape[:2], -1), name, len(extra))
    if kind is None:
        return made
    if not known:
        return Decoded(made.pixels, kind, by_formula(kind), "none")
    return Decoded(made.pixels, kind, f"{kind} becomes RGB in the sRGB profile", "srgb")


def _without_inks(pixels: NDArray[Any]) -> NDArray[Any]:
    """CMYK, and what stands beside it, as RGB by the formula that Pillow has for 8 bits."""
    top = np.iinfo(pixels.dtype).max
    ink, black = pixels[..., :3].astype(np.uint64), pixels[..., 3:4].astype(np.uint64)
    light = ((top - ink) * (top - black) + top // 2) // top
    return np.concatenate([light.astype(pixels.dtype), pixels[..., 4:]], axis=2)


def _finished(pixels: NDArray[Any], name: str, extra: int) -> Decoded:
    """In one of the types that networks are for, with a note if it was another.

    Args:
        extra: how many channels are known to be no colours.
    """
    channels, note = pixels.shape[2], None
    if pixels.dtype.kind not in "iuf" or channels - extra > 4:
        raise InputError(
            f"{name} has {channels} channels of the type {pixels.dtype}, which are not read",
            "convert it to whole numbers or floats, gray or RGB",
        )
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        note = f"pixels of the type {pixels.dtype} become {np.dtype(np.float32)}"
        with np.errstate(over="ignore"):  # infinite then, and left where it was
            pixels = pixels.astype(np.float32)
    return Decoded(pixels, "gray" if channels - extra <= 2 else "RGB", note)
