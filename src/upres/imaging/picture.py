"""A picture in memory, with everything in its file that is not pixels."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Picture:
    """Pixels, upright, and what came with them.

    Attributes:
        pixels: H x W x C, uint8 or uint16; C is 1 (gray), 2 (gray, alpha), 3 (RGB), 4 (RGBA).
        format: what the file is by its content, in Pillow's words ("JPEG").
        icc: colour profile of the pixels, or None.
        exif: the EXIF block with its original orientation and dimensions, or None.
        xmp: the XMP packet, or None.
        dpi: horizontal and vertical resolution, or None.
        jpeg_quality: about which quality (1 to 100) a JPEG was saved at, else None.
        lossless: whether a WebP file was compressed without loss.
        notes: what reading changed, for people.
    """

    pixels: NDArray[Any]
    format: str
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    jpeg_quality: int | None = None
    lossless: bool = False
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Pixels across."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Pixels down."""
        return int(self.pixels.shape[0])

    @property
    def channels(self) -> int:
        """1 to 4."""
        return int(self.pixels.shape[2])

    @property
    def bits(self) -> int:
        """8 or 16, for each channel."""
        return int(self.pixels.dtype.itemsize) * 8
