"""Files to pictures: formats by content, orientation applied, odd pixel modes made plain."""

import io
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageOps,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from upres.errors import InputError, ResourceError, UpresError
from upres.imaging import filefacts
from upres.imaging.metadata import orientation
from upres.imaging.picture import Picture

# Content decides, not the suffix, and Pillow's dozens of rarer decoders stay out of reach. A JPEG
# that holds several pictures opens as "MPO" by itself.
FORMATS = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    TiffImagePlugin.TiffImageFile.format,
    BmpImagePlugin.BmpImageFile.format,
    AvifImagePlugin.AvifImageFile.format,
    GifImagePlugin.GifImageFile.format,
    Jpeg2KImagePlugin.Jpeg2KImageFile.format,
)
DEFAULT_MAX_PIXELS = 10**9
_LIMIT_LIFTED = threading.Lock()

# How each of EXIF's orientations is undone (Exif 2.32, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(source: Path | bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
    """Read and decode a whole picture.

    Args:
        source: a path, or the bytes of a file.
        max_pixels: larger pictures are refused before any memory is taken for them.

    Raises:
        InputError: missing, not a picture, damaged, too large, or of a kind that is not read.
    """
    with _opened(source, max_pixels) as (image, name):
        return _decode(image, name)


def read_size(source: Path | bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, int]:
    """Width and height after orientation, from the header alone.

    Raises:
        InputError: as ``read_picture``, as far as the header tells.
    """
    with _opened(source, max_pixels) as (image, _):
        # Pillow's TIFF reader says the upright size from the start.
        turned = (
            image.format != "TIFF" and orientation(filefacts.exif(image), filefacts.xmp(image)) >= 5
        )
        return (image.height, image.width) if turned else (image.width, image.height)


@contextmanager
def _opened(source: Path | bytes, max_pixels: int) -> Iterator[tuple[Image.Image, str]]:
    name = str(source) if isinstance(source, Path) else "standard input"
    data = _check(source, name)
    try:
        # Pillow's own limit on pixels, a global, is lifted for a moment: ours is checked instead.
        with _LIMIT_LIFTED:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(data, formats=FORMATS)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
        with image:
            if image.width * image.height > max_pixels:
                raise InputError(
                    f"{name} has {image.width} x {image.height} pixels, over the limit of "
                    f"{max_pixels:,}",
                    "raise it with --max-pixels if the file can be trusted",
                )
            yield image, name
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name} is not a picture that can be read",
            "JPEG, PNG, WebP, TIFF, BMP, AVIF, GIF and JPEG 2000 can",
        ) from error
    except UpresError:
        raise
    except MemoryError as error:
        raise ResourceError(f"{name} does not fit into memory", "free some") from error
    except Exception as error:
        # Decoders raise whatever they stumble over: SyntaxError, struct.error, IndexError, ...
        detail = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{name} is damaged and cannot be decoded ({detail})", "get it again from its source"
        ) from error


def _check(source: Path | bytes, name: str) -> Path | io.BytesIO:
    if isinstance(source, bytes):
        if not source:
            raise InputError(f"{name} is empty", "pipe a picture into it")
        return io.BytesIO(source)
    try:
        mode = source.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{name} is a folder", f"use 'upres batch {name}'")
        if not stat.S_ISREG(mode):  # opening a pipe could wait for ever
            raise InputError(f"{name} is neither a file nor a folder", "give it alone, or as -")
        with source.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{name} is empty", "get it again from its source")
    except FileNotFoundError:
        raise InputError(f"{name} does not exist", "check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{name!r} cannot be opened ({reason})", "check the path") from None
    return source


def _decode(image: Image.Image, name: str) -> Picture:
    notes: list[str] = []
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(f"only the first of {frames} frames is read")
    if filefacts.bit_depth(image) > 8 and image.mode not in ("I;16", "I;16B", "I;16L"):
        notes.append("more than 8 bits a channel are read as 8")
    icc, dpi = image.info.get("icc_profile"), image.info.get("dpi")
    if kind == "TIFF" and 282 not in getattr(image, "tag_v2", {}):
        dpi = None  # Pillow makes one up where the file says nothing
    lossless = kind == "WEBP" and filefacts.is_lossless_webp(image)
    # Pillow's TIFF reader turns the pixels itself when it loads them, and takes the tag away; a
    # PNG may carry EXIF and XMP after the pixels. So look on both sides of loading.
    before = filefacts.exif(image)
    image.load()
    exif, xmp = before or filefacts.exif(image), filefacts.xmp(image)
    turn = _UPRIGHT.get(orientation(exif, xmp))
    already = image.format == "TIFF" and 0x0112 not in image.getexif()
    if left_out := filefacts.left_out(image):
        notes.append(f"not carried over: {', '.join(left_out)}")
    plain, icc = _plain(image, icc, name, notes)
    if icc and icc[16:20] != _SPACES[len(plain.getbands())]:
        notes.append("the colour profile is for another kind of picture and is left out")
        icc = None
    if turn is not None and not already:
        plain = plain.transpose(turn)
    return Picture(
        pixels=_array(plain),
        format=kind,
        icc=icc,
        exif=exif,
        xmp=xmp,
        dpi=filefacts.resolution(dpi, turned=orientation(exif, xmp) >= 5),
        lossless=lossless,
        jpeg_quality=filefacts.jpeg_quality(image),
        notes=tuple(notes),
    )


def _plain(
    image: Image.Image, icc: bytes | None, name: str, notes: list[str]
) -> tuple[Image.Image, bytes | None]:
    """The image in one of L, LA, RGB, RGBA, I;16, and the profile that fits it."""
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
        return plain if icc and icc[16:20] == b"RGB " else _unpalette(plain), icc
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


# What a profile says it is for (ICC.1, bytes 16 to 19 of the header), by number of channels.
_SPACES = {1: b"GRAY", 2: b"GRAY", 3: b"RGB ", 4: b"RGB "}


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
    profile_bytes = ImageCms.ImageCmsProfile(srgb).tobytes()
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
                return turned, profile_bytes
    if image.mode != "YCbCr":
        notes.append(f"{image.mode} without a usable profile becomes RGB by formula")
        icc = None
    return image.convert("RGB"), icc


def _array(image: Image.Image) -> NDArray[Any]:
    pixels = np.asarray(image)
    if image.mode.startswith("I;16"):
        pixels = pixels.astype(np.uint16)
    return np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[..., None])


def from_pil(image: Image.Image) -> Picture:
    """A picture from an image that is open in Pillow, upright.

    Raises:
        InputError: its mode is not read.
    """
    notes: list[str] = []
    upright = ImageOps.exif_transpose(image)
    plain, icc = _plain(upright, image.info.get("icc_profile"), "the image", notes)
    return Picture(_array(plain), image.format or "PNG", icc=icc, notes=tuple(notes))
