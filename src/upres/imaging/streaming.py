"""Large pictures read row by row, by libvips, so that they need not fit into memory."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import EllipsisType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upres.errors import InputError, ResourceError
from upres.imaging import jpeg
from upres.imaging.picture import Picture
from upres.imaging.png import SIGNATURE
from upres.imaging.png_chunks import has_end, read_chunks
from upres.imaging.profiles import fits
from upres.imaging.reader import explained, read_metadata, read_size
from upres.imaging.sources import damaged
from upres.imaging.tiff_layout import first_page
from upres.imaging.tiff_rare import libvips_reads
from upres.imaging.vips import opened, reason, vips
from upres.memory import free_main_memory

_BLOCK = 256  # rows
_ABOVE = 2560  # rows; bands have 2048 and their halos at most


class StreamedPixels:
    """A picture's pixels, decoded as far as they are asked for, and forgotten when all readers are
    past them.

    Attributes:
        shape: H x W x C.
        dtype: uint8 or uint16.

    Args:
        stored: H x W x C in the file.
        chosen: which channels are wanted; None is all.
    """

    def __init__(
        self,
        path: Path,
        stored: tuple[int, int, int],
        dtype: np.dtype[Any],
        chosen: list[int] | None = None,
    ) -> None:
        self.path, self.dtype = path, dtype
        self._stored, self._chosen = stored, list(range(stored[2])) if chosen is None else chosen
        self.shape = (*stored[:2], len(self._chosen))
        self._cursors: list[int | None] = []  # None until a reader has begun
        self._held = np.empty((0, *self.shape[1:]), dtype)
        self._top = 0  # the first row that is held
        self._region: Any = None

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels, which are never in memory together."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __getitem__(self, key: tuple[EllipsisType, list[int]]) -> "StreamedPixels":
        """Some channels, as of an array; before any reader."""
        chosen = [self._chosen[index] for index in key[1]]
        return StreamedPixels(self.path, self._stored, self.dtype, chosen)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """All rows from the top down, some at a time, decoded beside what readers do."""
        beside = StreamedPixels(self.path, self._stored, self.dtype, self._chosen).reader()
        for top in range(0, beside.height, _BLOCK):
            yield beside.read(top, min(beside.height, top + _BLOCK))

    def reader(self) -> "Reader":
        """Rows from the top down; readers go on independently, and none begins late."""
        self._cursors.append(None)
        return Reader(self, len(self._cursors) - 1)

    def read(self, index: int, top: int, bottom: int) -> NDArray[Any]:
        """Rows ``top``..``bottom`` for one reader, whose tops never decrease."""
        # Where a run goes on, no reader needs what was long before; but one may begin a little
        # above the first one, by what a band of another network holds.
        above = max(0, top - max(_ABOVE, bottom - top))
        self._cursors = [above if c is None else c for c in self._cursors]
        self._cursors[index] = top
        first, last = min(c for c in self._cursors if c is not None), self._top + len(self._held)
        assert first >= self._top
        parts = [self._held[first - self._top :]] if first < last else []
        if bottom > last:
            parts.append(self._decoded(max(first, last), bottom))
        self._held = np.concatenate(parts) if len(parts) > 1 else parts[0]
        self._top = first
        return self._held[top - first : bottom - first]

    def _decoded(self, top: int, bottom: int) -> NDArray[Any]:
        pyvips = vips()

        width, channels = self._stored[1:]
        try:
            if self._region is None:
                image = opened(self.path, access="sequential", fail_on="error")
                if (image.height, image.width, image.bands) != self._stored:
                    raise InputError(f"{self.path} was changed meanwhile", "begin again")
                self._region = pyvips.Region.new(image)
            data = self._region.fetch(0, top, width, bottom - top)
            rows = np.frombuffer(data, self.dtype).reshape(bottom - top, width, channels)
        except (pyvips.Error, ValueError) as error:  # another type: it was changed
            why = reason(error) if isinstance(error, pyvips.Error) else str(error)
            raise damaged(str(self.path), why) from error
        except OSError as error:
            raise InputError(f"{self.path} cannot be read any more ({error.strerror})") from error
        return rows if len(self._chosen) == channels else rows[..., self._chosen]


def _begins_as(path: Path) -> Literal["PNG", "JPEG", "TIFF"] | None:
    """Of which of these formats, which are decoded from the top down, it says to be. None is an
    animation too: to learn more of one, all of it is decoded."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
        if head == SIGNATURE:
            return None if any(kind == b"acTL" for kind, _ in read_chunks(path)) else "PNG"
    except OSError:
        return None  # the usual reader says what is wrong
    if head[:2] == b"\xff\xd8":
        return "JPEG"
    return "TIFF" if head[:2] in (b"II", b"MM") else None


def _check_end(path: Path, form: str) -> None:
    """What is cut off would only be found when its last row is reached, hours later it may be.

    Raises:
        InputError: the file has no end.
    """
    if form == "JPEG":
        whole = jpeg.has_end(path)
    elif form == "PNG":
        whole = has_end(path)
    else:
        whole = path.stat().st_size >= first_page(path, str(path)).end
    if not whole:
        raise InputError(f"{path} is cut off: it has no end", "get it again from its source")


class Reader:
    """See ``inference.rows.Rows``."""

    def __init__(self, source: StreamedPixels, index: int) -> None:
        self.height, self.width, self.channels = source.shape
        self._source, self._index = source, index

    def read(self, top: int, bottom: int) -> NDArray[Any]:
        """Rows x width x channels."""
        return self._source.read(self._index, top, bottom)


def _held(image: Any, nbytes: int) -> int:
    """Bytes that a decoder holds where rows do not come one after the other: an interlaced PNG as a
    whole, of a progressive JPEG all coefficients, of two bytes."""
    if not image.get_typeof("jpeg-chroma-subsample"):
        return nbytes
    halved = image.bands == 3 and image.get("jpeg-chroma-subsample") == "4:2:0"
    return nbytes if halved else 2 * nbytes


def open_streamed(
    path: Path, *, at_least: int, most: int | None = None, max_pixels: int | None = None
) -> Picture | None:
    """A picture whose pixels are read as they are needed; None where it is small, or of a kind that
    has to be read whole: turned, animated, of several pages, floats, palettes, CMYK, Lab.

    Args:
        at_least: bytes of all pixels.
        most: bytes that may be taken where rows do not come one after the other; None is what is
            free.
        max_pixels: see ``read_picture``.

    Raises:
        InputError: it is no picture that can be read, too large, or cut off.
        ResourceError: it would take more memory than that.
    """
    with explained(path):
        return _open_streamed(path, at_least, most, max_pixels)


def _open_streamed(
    path: Path, at_least: int, most: int | None, max_pixels: int | None
) -> Picture | None:
    form = _begins_as(path)
    if form is None:
        return None
    size = read_size(path, max_pixels=max_pixels)
    # Others have at most colour and transparency in 16 bits.
    most_bytes = first_page(path, str(path)).nbytes if form == "TIFF" else 8 * math.prod(size)
    if most_bytes < at_least:
        return None
    facts = read_metadata(path)
    if math.prod(size) * (facts.channels + facts.bands) * facts.bits // 8 < at_least:
        return None
    plain = facts.kind in ("gray", "RGB") and facts.bits in (8, 16)
    if facts.format != form or not plain or facts.turned != 1 or facts.frames:
        return None
    if facts.format == "TIFF":
        first = first_page(path, str(path))
        # libvips reads the directory that stands first, be it a smaller copy.
        if first.index or not libvips_reads(first.tags):
            return None
    pyvips = vips()
    try:
        image = opened(path, access="sequential")
    except (pyvips.Error, OSError):
        return None  # the usual reader says what is wrong
    dtype = {"uchar": np.uint8, "ushort": np.uint16}.get(image.format)
    shape = (image.height, image.width, image.bands)
    if (
        dtype is None
        or image.bands != facts.channels + facts.bands
        or 8 * np.dtype(dtype).itemsize != facts.bits
    ):
        return None
    pixels = StreamedPixels(path, shape, np.dtype(dtype))
    if facts.icc and not fits(facts.icc, facts.channels):
        return None
    _check_end(path, form)
    held = _held(image, pixels.nbytes) if image.get_typeof("interlaced") else 0
    most = free_main_memory() if most is None else most
    if held > most:
        what, remedy = "progressive", "save it as baseline JPEG (jpegtran does so without loss)"
        if facts.format == "PNG":
            what, remedy = "interlaced", "save it without interlacing"
        raise ResourceError(
            f"{path} is {what}: to read it takes {held / 2**30:.1f} GiB of memory, "
            f"{most / 2**30:.1f} GiB may be taken",
            remedy,
        )
    return replace(facts, pixels=pixels)
