"""Files to pictures: formats by content, limits before any memory is taken, errors explained."""

import io
import logging
import math
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from upres.errors import InputError, ResourceError, UpresError
from upres.imaging import filefacts
from upres.imaging.decoding import decode, frames_of
from upres.imaging.heic import decode_heic, is_heic, open_heic
from upres.imaging.limits import limit_lifted
from upres.imaging.metadata import orientation
from upres.imaging.picture import Picture
from upres.imaging.png_chunks import read_chunks, without_pixels
from upres.imaging.profiles import said_to_be_srgb
from upres.imaging.raw import HEAD, refuse_raw_head
from upres.imaging.sources import damaged, reopened
from upres.imaging.tiff_layout import first_page, pages_of
from upres.imaging.tiff_pages import decode_tiff
from upres.memory import PROCESS, free_main_memory

# Content decides, not the suffix, and Pillow's dozens of rarer decoders stay out of reach. A JPEG
# that holds several pictures opens as "MPO" by itself.
_FORMATS = (
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
# Pixels for a byte in honest files: deflate reaches 1032 bytes for one, eight 1-bit pixels each.
_DENSEST = 20_000
_HARMLESS = 50 * 10**6
# Profiles of printers and IPTC take more than Pillow's 1 MB; all texts of a file together may
# still take 64, by another limit of its.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 2**26)
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0")
# Pillow logs what it cannot read, and a log without a handler is stderr; others read it then.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def read_picture(
    source: Path | bytes,
    *,
    max_pixels: int | None = None,
    max_memory: int | None = None,
    frames: bool = True,
) -> Picture:
    """Read and decode a whole picture.

    Args:
        source: a path, or the bytes of a file.
        max_pixels: larger pictures are refused before any memory is taken for them; all frames
            together count. None means ``DEFAULT_MAX_PIXELS``, and a look at how many there can
            honestly be in so many bytes.
        max_memory: bytes that this process may take; None is what is free.
        frames: whether to read all frames of an animation and pages of a TIFF, or the first.

    Raises:
        InputError: missing, not a picture, damaged, too large, or of a kind that is not read.
        ResourceError: it takes more memory than is free, or may be taken.
    """
    with explained(source) as name:
        data = _check(source, name)
        if is_heic(source):
            heic = open_heic(source, name)
            _limit(source, name, [heic.size], max_pixels)
            _check_memory(name, math.prod(heic.size) * heic.pixel_bytes, max_memory)
            return decode_heic(heic)
        image = _open(data, name)
        if image is None or image.format == "TIFF":
            tiff = _read_tiff(
                image, source, name, max_pixels, max_memory=max_memory, only_first=not frames
            )
            return _plain(tiff)
        with image:
            wanted = frames_of(image)[: None if frames else 1]
            _limit(source, name, [image.size], max_pixels, times=len(wanted))
            # Of an animation's frames Pillow holds one.
            arrays = (len(wanted) - 1) * 4 * math.prod(image.size)
            needed = math.prod(image.size) * _pixel_bytes(image.mode) + arrays
            _check_memory(name, needed, max_memory)
            return _plain(decode(image, name, source, wanted))


def _plain(picture: Picture) -> Picture:
    """With words that are true of its colours: CMYK and Lab became sRGB."""
    return said_to_be_srgb(picture) if picture.kind in ("CMYK", "Lab") else picture


def read_metadata(source: Path | bytes) -> Picture:
    """All but the pixels, of which there are none; the frames' are empty too.

    Raises:
        InputError: as ``read_picture``, as far as no pixels are decoded.
    """
    with explained(source) as name:
        data = _check(source, name)
        if is_heic(source):
            return decode_heic(open_heic(source, name), pixels=False)
        image = _open(data, name)
        if image is None or image.format == "TIFF":
            return _read_tiff(image, source, name, None, pixels=False)
        with image:
            return decode(image, name, source, frames_of(image), pixels=False)


def read_size(source: Path | bytes, *, max_pixels: int | None = None) -> tuple[int, int]:
    """Width and height after orientation, from the header alone.

    Raises:
        InputError: as ``read_picture``, as far as the header tells.
    """
    with explained(source) as name:
        data = _check(source, name)
        if is_heic(source):
            size, turned = open_heic(source, name).size, 1
        else:
            size, turned = _stored_size(source, data, name)
        _limit(source, name, [size], max_pixels)
        return size[::-1] if turned >= 5 else size


def _stored_size(
    source: Path | bytes, data: Path | io.BytesIO, name: str
) -> tuple[tuple[int, int], int]:
    """Width and height as they lie in the file, and its orientation."""
    image = _open(data, name)
    with image or nullcontext():
        if image is None or image.format == "TIFF":
            first = first_page(source, name)
            return first.size, first.turned
        words = image
        if image.format == "PNG":
            words = without_pixels(read_chunks(source))
        return image.size, orientation(filefacts.exif(words), filefacts.xmp(words))


def _read_tiff(
    image: Image.Image | None,
    source: Path | bytes,
    name: str,
    max_pixels: int | None,
    *,
    max_memory: int | None = None,
    only_first: bool = False,
    pixels: bool = True,
) -> Picture:
    with image or nullcontext():
        found = pages_of(source, name)
        wanted = found.first_alone() if only_first else found
        if pixels:
            sizes = [page.size for page in wanted.pages]
            _limit(source, name, sizes, max_pixels, times=wanted.images)
            # Beyond colour and transparency, a channel counts as a quarter of a pixel.
            values = wanted.images * sum(page.values for page in wanted.pages)
            _check_claim(source, name, f"{values:,} numbers", values // 4, max_pixels)
            # 8 bits are decoded page by page.
            kept = [page.nbytes if page.bits > 8 else page.values for page in wanted.pages]
            most = max(page.nbytes for page in wanted.pages)
            needed = wanted.images * sum(kept) - kept[-1] + max(most, kept[-1])
            _check_memory(name, needed, max_memory)
        return decode_tiff(image, source, name, wanted, pixels=pixels)


@contextmanager
def explained(source: Path | bytes) -> Iterator[str]:
    """The name of the source; whatever is raised in the block becomes one of our errors."""
    name = str(source) if isinstance(source, Path) else "standard input"
    try:
        yield name
    except UpresError:
        raise
    except MemoryError as error:
        raise ResourceError(f"{name} does not fit into memory", "free memory") from error
    except Exception as error:
        # Decoders raise whatever they stumble over: SyntaxError, struct.error, IndexError, ...
        detail = " ".join(str(error).split()) or type(error).__name__
        raise damaged(name, detail) from error


def _open(data: Path | io.BytesIO, name: str) -> Image.Image | None:
    """The picture, not decoded; None for a TIFF whose kind of pixels Pillow does not know."""
    try:
        with limit_lifted():
            return Image.open(data, formats=_FORMATS)
    except UnidentifiedImageError as error:
        with reopened(data) as file:
            if file.read(4) in _TIFF_HEADS:
                return None
        raise InputError(
            f"{name} is not a picture that can be read",
            "JPEG, PNG, WebP, TIFF, BMP, AVIF, GIF, JPEG 2000 and HEIC can",
        ) from error


def _limit(
    source: Path | bytes,
    name: str,
    sizes: list[tuple[int, int]],
    max_pixels: int | None,
    *,
    times: int = 1,
) -> None:
    """Raises:
    InputError: so many pictures of these widths and heights have more pixels than are allowed.
    """
    pixels = times * sum(width * height for width, height in sizes)
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    limit = DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels
    if pixels > limit:
        count = times * len(sizes)
        each = f" in one of {count} frames" if count > 1 else ""
        raise InputError(
            f"{name} has {width} x {height} pixels{each}, over the limit of {limit:,}",
            f"give --max-pixels {pixels} if the file can be trusted",
        )
    _check_claim(source, name, f"{width} x {height} pixels", pixels, max_pixels)


def _check_claim(
    source: Path | bytes, name: str, claim: str, pixels: int, max_pixels: int | None
) -> None:
    """Raises:
    InputError: no file of its size holds so many pixels, and nobody said that it does.
    """
    size = source.stat().st_size if isinstance(source, Path) else len(source)
    if max_pixels is None and pixels > max(_HARMLESS, _DENSEST * size):
        raise InputError(
            f"{name} claims {claim} in {size:,} bytes, as files do that are made to fill memory",
            f"give --max-pixels {pixels} if it can be trusted",
        )


def _pixel_bytes(mode: str) -> int:
    """Of a decoded pixel, as Pillow holds it and as an array, with what is between."""
    known = {"1": 2, "L": 2, "P": 10, "RGB": 7, "RGBA": 8, "CMYK": 11}
    return 4 if mode.startswith("I;16") else known.get(mode, 8)


def _check_memory(name: str, needed: int, most: int | None) -> None:
    """Systems hand out memory that they do not have and then kill; so count first.

    Args:
        needed: bytes that the decoded picture takes at least.
        most: that this process may take.

    Raises:
        ResourceError: they are not free, or may not be taken.
    """
    if most is not None and PROCESS + needed > most:
        raise ResourceError(
            f"{name}, which cannot be read row by row, needs {(PROCESS + needed) / 2**30:.1f} GiB "
            f"of memory, more than --max-memory {most / 2**30:.2g} GiB",
            "allow more",
        )
    if needed > (free := free_main_memory()):
        raise ResourceError(
            f"{name} takes {needed / 2**30:.1f} GiB of memory decoded, {free / 2**30:.1f} GiB are "
            "free",
            "end other programs, or give the command --max-memory 1G: then it is read row by row, "
            "if it is an upright JPEG, PNG or TIFF",
        )


def _check(source: Path | bytes, name: str) -> Path | io.BytesIO:
    if isinstance(source, bytes):
        if not source:
            raise InputError(f"{name} is empty", "pipe a picture into it")
        _check_head(source[:HEAD], name)
        return io.BytesIO(source)
    try:
        mode = source.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{name} is a folder", f"use 'upres batch {name}'")
        if not stat.S_ISREG(mode):  # opening a pipe could wait for ever
            raise InputError(f"{name} is neither a file nor a folder", "give it alone, or as -")
        with source.open("rb") as file:
            head = file.read(HEAD)
        if not head:
            raise InputError(f"{name} is empty", "get it again from its source")
        _check_head(head, name)
    except FileNotFoundError:
        raise InputError(f"{name} does not exist", "check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{name!r} cannot be opened ({reason})", "check the path") from error
    return source


def _check_head(head: bytes, name: str) -> None:
    refuse_raw_head(head, name)
    if head.startswith(b"MM\0+"):
        raise InputError(
            f"{name} is a BigTIFF with the highest byte first, which is not read",
            "convert it, for example with tiffcp -8 -L",
        )
