"""Colour profiles applied to pixels, in 8 and 16 bits."""

import struct
from dataclasses import replace

import numpy as np
from PIL import ImageCms

from upres.errors import InputError
from upres.imaging.metadata import exif_of_srgb, xmp_of_srgb
from upres.imaging.picture import Picture, extras_of
from upres.imaging.vips import reason, vips

NOT_FITTING = "the colour profile is for another kind of picture and is left out"


# Year, month, day, hour, minute and second in a profile's header (ICC.1, 7.2.8). LittleCMS puts the
# present ones there, by which the same command would make another file a second later.
_DATE, _ANY_DATE = slice(24, 36), struct.pack(">6H", 2000, 1, 1, 0, 0, 0)


# White, red, green and blue, x and y of each (IEC 61966-2-1).
_SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)


def srgb_profile() -> bytes:
    """LittleCMS's sRGB, as bytes for a file; always the same ones."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    made[_DATE] = _ANY_DATE
    return bytes(made)


def fits(icc: bytes, channels: int) -> bool:
    """Whether a profile is for pictures of 1 to 4 channels (ICC.1: bytes 16 to 19 say for what)."""
    return icc[16:20] == (b"GRAY" if channels <= 2 else b"RGB ")


def _other_than_srgb(picture: Picture) -> bool:
    """Whether a PNG's gamma or chromaticities (gAMA, cHRM) are not those of sRGB."""
    gamma, colours = picture.gamma or 1 / 2.2, picture.chromaticities or _SRGB
    return abs(gamma - 1 / 2.2) > 0.01 or not np.allclose(colours, _SRGB, atol=0.005)


def said_to_be_srgb(picture: Picture) -> Picture:
    """With EXIF and XMP that call colours sRGB, which they became."""
    return replace(picture, exif=exif_of_srgb(picture.exif), xmp=xmp_of_srgb(picture.xmp))


def to_srgb(picture: Picture) -> Picture:
    """The same colours in the sRGB profile, relative colorimetric; gray becomes colour.

    Without a profile the pixels are taken to be sRGB already; floats, and colours that cICP or
    a PNG's gamma and chromaticities tell, are left as they are. All of it is said.

    Raises:
        InputError: the profile cannot be used.
    """
    if picture.icc is None:
        note = "no profile: colours are taken as sRGB"
        if picture.cicp is not None:
            note = "colours are told by cICP, which is not converted"
        elif picture.intent is None and _other_than_srgb(picture):
            note = "colours are told by gamma and chromaticities, which are not converted"
        return replace(picture, notes=(*picture.notes, note))
    if any(p.dtype == np.float32 for p in (picture.pixels, *(f.pixels for f in picture.frames))):
        return replace(picture, notes=(*picture.notes, "floats are not converted to sRGB"))
    icc, picture = picture.icc, picture.without_no_data()

    def converted(pixels: np.ndarray) -> np.ndarray:
        pyvips = vips()

        count = pixels.shape[2] - len(extras_of(pixels.shape[2], picture.extra))
        colours = np.ascontiguousarray(pixels[..., :count])
        image = pyvips.Image.new_from_array(colours)
        gray = colours.shape[2] == 1
        deep = pixels.dtype == np.uint16
        kind = ("grey16" if deep else "b-w") if gray else ("rgb16" if deep else "srgb")
        image = image.copy(interpretation=kind)
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
        try:
            done = image.icc_transform("srgb", intent="relative", depth=16 if deep else 8).numpy()
        except pyvips.Error as error:
            raise InputError(
                f"the colour profile cannot be used ({reason(error)})",
                "leave out --convert-profile",
            ) from error
        return np.concatenate([done, pixels[..., count:]], axis=2)

    done = replace(
        picture,
        pixels=converted(picture.pixels),
        frames=tuple(replace(f, pixels=converted(f.pixels)) for f in picture.frames),
        icc=srgb_profile(),
        cicp=None,
        notes=(*picture.notes, "colours are converted to sRGB"),
    )
    return said_to_be_srgb(done)
