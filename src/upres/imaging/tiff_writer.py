"""TIFF files written strip by strip, in 8 or 16 bits or float, with EXIF (TIFF 6.0).

The container is tifffile's. Pillow writes no 16-bit colour, whole pictures only, and compresses
nothing that carries EXIF.
"""

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base as Tag
from zlib_ng import zlib_ng

from upres.imaging.calibration import is_of_the_stack, updated_description
from upres.imaging.filefacts import exif_resolution
from upres.imaging.georeference import NO_DATA, extra_tags
from upres.imaging.metadata import EXIF_IFD, GPS_IFD
from upres.imaging.picture import Picture, extras_of
from upres.imaging.profiles import fits
from upres.imaging.tiff_exif import KEPT, directory_at, kept_as

if TYPE_CHECKING:
    import tifffile

_STRIP = 2**18  # bytes before compression
_LEVEL = 6
_EXTRA = {"alpha": "unassalpha", "band": "unspecified"}
_POINTERS = (EXIF_IFD, GPS_IFD)
# Above this much data, offsets may not fit into 32 bits.
_BIG = 3_900_000_000


class TiffPages:
    """A file with one picture or several. Close it, or use it in a ``with``.

    Args:
        file: readable and seekable.
        nbytes: of all pixels; beyond 4 GB the file becomes a BigTIFF.
    """

    def __init__(self, file: BinaryIO, nbytes: int) -> None:
        import tifffile

        self.file = file
        self.big = nbytes > _BIG
        self.writer = tifffile.TiffWriter(file, bigtiff=self.big, byteorder="<")
        self.exif: list[bytes | None] = []

    def __enter__(self) -> "TiffPages":
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        self.writer.close()
        if kind is None and any(self.exif):
            self._add_directories()

    def add(
        self,
        about: Picture,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        strips: Iterable[NDArray[Any]],
        exif: bytes | None,
        xmp: bytes | None,
    ) -> None:
        """Write one picture as its rows arrive.

        Args:
            about: all but the pixels.
            shape: H x W x C.
            dtype: uint8, uint16 or float32.
            strips: rows x W x C, from the top down.
            exif, xmp: as they shall stand in the file.
        """
        height, width, channels = shape
        extras = extras_of(channels, about.extra)
        colours = channels - len(extras)
        # Pages may be of other kinds than the first, whose profile it is.
        icc = about.icc if about.icc and fits(about.icc, colours) else None
        # WebP, AVIF and HEIC have it in EXIF alone, of which a TIFF keeps what is not said anew.
        dpi = about.dpi
        if dpi is None and about.calibration is None:
            dpi = exif_resolution(exif, turned=about.turned >= 5)
        rows = max(1, min(height, _STRIP // (width * channels * dtype.itemsize)))
        # Differences along the row compress integers well, floats badly.
        predict = np.issubdtype(dtype, np.integer)
        self.writer.write(
            _encoded(strips, rows, predict=predict),
            shape=(height, width) if channels == 1 else shape,
            dtype=dtype,
            photometric="minisblack" if colours == 1 else "rgb",
            planarconfig="contig" if channels > 1 else None,
            extrasamples=[_EXTRA[kind] for kind in extras] or None,
            rowsperstrip=rows,
            compression="adobe_deflate",
            predictor=2 if predict else None,
            resolution=dpi or _density(about, width, height),
            resolutionunit=2 if dpi else about.calibration.unit if about.calibration else 1,
            iccprofile=icc,
            extratags=[
                *_tags(about, exif, xmp, (width, height, dtype.name), self),
                *(extra_tags(about.place, width, height) if about.place else ()),
                *_no_data(about),
            ],
            metadata=None,
            software=False,
            contiguous=False,
        )
        self.exif.append(exif)

    def _add_directories(self) -> None:
        """EXIF and GPS stand in directories of their own, which the pages' tags point to. They are
        put behind everything else, where their offsets are known."""
        import tifffile

        self.file.seek(0)
        with tifffile.TiffFile(self.file, _multifile=False) as written:
            places = [
                {code: tags[code - 1] for code in _POINTERS if code - 1 in tags}
                for tags in (_tags_of(written, i) for i in range(len(written.pages)))
            ]
        # The header of such a file tells Pillow how to lay out a directory.
        head = b"II\x2b\0\x08\0\0\0" + b"\0" * 8 if self.big else b"II\x2a\0\x08\0\0\0"
        end = self.file.seek(0, 2)
        for exif, place in zip(self.exif, places, strict=True):
            for code, tag in place.items():
                end += self.file.write(b"\0" * (end % 2))
                data = directory_at(end, head, _loaded(exif), code)
                self.file.write(data)
                self.file.seek(tag.offset)
                self.file.write(struct.pack("<H", code))
                self.file.seek(tag.valueoffset)
                self.file.write(struct.pack("<Q" if self.big else "<I", end))
                end = self.file.seek(0, 2)


def _no_data(about: Picture) -> list[tuple[Any, ...]]:
    """The value for missing numbers, where the words about a place do not hold it."""
    if about.no_data is None or (about.place and NO_DATA in about.place.tags):
        return []
    return [(NO_DATA, 2, 0, f"{about.no_data:.17g}", False)]


def _tags_of(file: "tifffile.TiffFile", index: int) -> "tifffile.TiffTags":
    page = file.pages.get(index)
    assert hasattr(page, "tags")
    return page.tags


def _loaded(exif: bytes | None) -> Image.Exif:
    tags = Image.Exif()
    tags.load(exif or b"")
    return tags


def _density(about: Picture, width: int, height: int) -> tuple[float, float]:
    """Pixels for a unit that is not stated; one where nothing is known."""
    return about.calibration.enlarged(width, height) if about.calibration else (1, 1)


def _tags(
    about: Picture,
    exif: bytes | None,
    xmp: bytes | None,
    pixels: tuple[int, int, str],
    file: TiffPages,
) -> list[tuple[Any, ...]]:
    """Code, type, count, value, and whether only the first page has it.

    Args:
        pixels: width, height and type of what is written.
        file: what it is for, with the pages before.
    """
    found: list[tuple[Any, ...]] = []
    if xmp:
        found.append((Tag.XMLPacket, 1, len(xmp), xmp, False))
    if about.iptc:
        found.append((Tag.IPTCNAA, 7, len(about.iptc), about.iptc, False))
    tags = _loaded(exif)
    for code, value in tags.items():
        if code in _POINTERS:
            # tifffile refuses tags that point; this one, a number lower, becomes one later.
            found.append((code - 1, 16 if file.big else 13, 1, 0, False))
        elif code in KEPT - {Tag.Orientation} and value not in ("", b""):
            if code == Tag.ImageDescription and isinstance(value, str):
                told = file.exif and is_of_the_stack(value)
                value = "" if told else updated_description(value, *pixels, about.calibration)
            if value != "" and (given := kept_as(value)):
                found.append((code, *given, False))
    if tags and Tag.Orientation in tags:
        found.append((Tag.Orientation, 3, 1, 1, False))
    return found


def _encoded(strips: Iterable[NDArray[Any]], rows: int, *, predict: bool) -> Iterator[bytes]:
    """Compressed strips of ``rows`` rows each, whatever they arrive in."""
    # It lets other threads run, so strips are compressed side by side.
    with ThreadPoolExecutor(2) as pool:
        waiting: deque[Future[bytes]] = deque()
        for strip in _regrouped(strips, rows):
            waiting.append(pool.submit(_compressed, strip, predict=predict))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _regrouped(strips: Iterable[NDArray[Any]], rows: int) -> Iterator[NDArray[Any]]:
    held: list[NDArray[Any]] = []
    count = 0
    for strip in strips:
        top = 0
        while top < len(strip):
            part = strip[top : top + rows - count]
            held.append(part)
            top, count = top + len(part), count + len(part)
            if count == rows:
                yield np.concatenate(held) if len(held) > 1 else held[0]
                held, count = [], 0
    if held:
        yield np.concatenate(held)


def _compressed(strip: NDArray[Any], *, predict: bool) -> bytes:
    if predict:
        changes = strip.copy()
        changes[:, 1:] -= strip[:, :-1]
        strip = changes
    raw = np.ascontiguousarray(strip, strip.dtype.newbyteorder("<")).tobytes()
    return zlib_ng.compress(raw, _LEVEL)
