"""Pictures to the bytes of files: the right parameters for each format, rows as they arrive."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from upres.errors import OutputError, ResourceError, UpresError
from upres.imaging import avif, gif, jpeg2000
from upres.imaging.animation import encode_animation
from upres.imaging.fit import Fit
from upres.imaging.formats import check_size
from upres.imaging.holding import held_channels, held_exif, holds, holds_frames, lost
from upres.imaging.metadata import updated_exif, updated_xmp
from upres.imaging.parameters import Encoding, pillow_image, save_options, used_quality
from upres.imaging.picture import Picture, collect
from upres.imaging.png import write_png
from upres.imaging.profiles import fits
from upres.imaging.tiff_writer import TiffPages


def encode(
    picture: Picture, file_format: str, encoding: Encoding | None = None
) -> tuple[bytes, list[str]]:
    """The bytes of a file, and notes on what the format cannot hold.

    Args:
        file_format: a key of ``FORMATS``.
        encoding: None means the usual one.

    Raises:
        OutputError: the encoder refuses.
    """
    buffer = io.BytesIO()
    chosen = encoding or Encoding()
    said = len(picture.notes)
    picture = held_channels(picture, file_format)
    if picture.frames and file_format == "TIFF":
        notes = save_pages(buffer, picture, chosen.quality)
    elif picture.frames and holds_frames(file_format):
        with _explained(file_format):
            data, notes = encode_animation(picture, file_format, chosen)
        return data, [*picture.notes[said:], *notes]
    else:
        pixels = picture.pixels
        notes = save_rows(buffer, picture, file_format, pixels.shape, iter([pixels]), chosen)
    return buffer.getvalue(), [*picture.notes[said:], *notes]


def save_rows(
    file: BinaryIO,
    about: Picture,
    file_format: str,
    shape: tuple[int, ...],
    strips: Iterator[NDArray[Any]],
    encoding: Encoding,
) -> list[str]:
    """Write a file as its rows arrive: PNG and TIFF at once, other formats when all are there.

    Args:
        file: writable, readable and seekable.
        about: all but the pixels, which are not looked at.
        file_format: a key of ``FORMATS``.
        shape: H x W x C of the result.
        strips: rows x W x C, from the top down, in the type of ``about.pixels``.

    Returns:
        Notes on what the format cannot hold.

    Raises:
        OutputError: the encoder refuses.
        ResourceError: memory is full.
    """
    height, width, channels = shape
    check_size(file_format, width, height, channels)
    with _explained(file_format):
        dtype = about.pixels.dtype
        fit = Fit(file_format, dtype, channels, encoding.background, still=True)
        fitted = (fit(strip) for strip in strips)
        exif = updated_exif(held_exif(about, file_format), width, height)
        xmp = updated_xmp(about.xmp, width, height, turned=about.turned)
        notes = lost(about, file_format, encoding.quality, gray_as_colour=fit.gray_as_colour)
        held = about.icc and holds(about, file_format, "the colour profile")
        if fit.flatten and held and not fits(about.icc or b"", fit.channels):
            about = replace(about, icc=None)
            notes.append("the profile is for gray, and is left out on a background that is not")
        if file_format == "PNG":
            write_png(file, about, width, height, fitted, exif, xmp)
        elif file_format == "TIFF":
            nbytes = height * width * fit.channels * fit.dtype.itemsize
            with TiffPages(file, nbytes) as pages:
                shape = (height, width, fit.channels)
                pages.add(about, shape, fit.dtype, fitted, exif, xmp)
        else:
            whole = collect(fitted, (height, width, fit.channels), fit.dtype)
            deep = fit.dtype == np.uint16
            if deep and file_format == "AVIF":
                about = about if held else replace(about, icc=None)
                if about.bits > 12:
                    notes.append(f"{about.bits} bits become 12, which is what AVIF holds")
                file.write(
                    avif.encode_deep(whole, about, used_quality(encoding.quality), exif, xmp)
                )
            elif deep and file_format == "JPEG2000" and jpeg2000.available():
                file.write(jpeg2000.encode_deep(whole, about.bits if 8 < about.bits < 16 else 16))
            else:
                options = save_options(about, file_format, exif, xmp, encoding.quality)
                pillow_image(whole, file_format).save(file, file_format, **options)
                if file_format == "AVIF":
                    avif.mend(file, about, exif)
                elif file_format == "GIF" and xmp:
                    gif.add_xmp(file, xmp)
    return [*notes, *fit.notes]


def save_pages(file: BinaryIO, picture: Picture, quality: int | None) -> list[str]:
    """Write a TIFF of several pages, which need not be alike.

    Returns:
        Notes on what it cannot hold.

    Raises:
        OutputError: the encoder refuses.
        ResourceError: memory is full.
    """
    for frame in picture.frames:
        check_size("TIFF", frame.pixels.shape[1], frame.pixels.shape[0])
    with _explained("TIFF"):
        notes = lost(picture, "TIFF", quality, gray_as_colour=False)
        if picture.animated:
            notes.append("TIFF holds pages: the timing cannot be kept")
        nbytes = sum(frame.pixels.nbytes for frame in picture.frames)
        with TiffPages(file, nbytes) as pages:
            kept = held_exif(picture, "TIFF")
            for frame in picture.frames:
                pixels, size = frame.pixels, frame.pixels.shape
                exif = updated_exif(kept, size[1], size[0])
                xmp = updated_xmp(picture.xmp, size[1], size[0], turned=picture.turned)
                pages.add(picture, size, pixels.dtype, iter([pixels]), exif, xmp)
    return notes


_INSTEAD = {"PNG": "write .tif", "TIFF": "try --strip-metadata"}


@contextmanager
def _explained(file_format: str) -> Iterator[None]:
    try:
        yield
    except UpresError:
        raise
    except MemoryError as error:
        raise ResourceError("the encoder ran out of memory", "write a smaller picture") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, not of the encoder
        # Encoders raise whatever they stumble over: ValueError, struct.error, SystemError, ...
        raise OutputError(
            f"{file_format} cannot hold this picture ({error})",
            _INSTEAD.get(file_format, "write .png"),
        ) from error
