"""A picture in memory, with everything in its file that is not pixels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upres.imaging.calibration import Calibration
from upres.imaging.georeference import GeoReference

NO_DATA_LEFT_OUT = "the no-data value is of the numbers in the file and is left out"

# How a file stores its pixels, whatever they are computed in.
Kind = Literal["bilevel", "palette", "gray", "RGB", "CMYK", "Lab", "YCbCr"]
# What a channel beyond colours is: transparency, or a measurement of its own, infrared for example.
Extra = Literal["alpha", "band"]


def extras_of(channels: int, extra: tuple[Extra, ...] = ()) -> tuple[Extra, ...]:
    """What the channels beyond colours are.

    Args:
        extra: where any is a band, all of them in their order; otherwise of two and four channels
            the last is alpha.
    """
    return extra or (("alpha",) if channels in (2, 4) else ())


def collect(strips: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Strips, one under the other, as one array.

    Args:
        shape: H x W x C of all together.
    """
    result = np.empty(shape, dtype)
    top = 0
    for strip in strips:
        result[top : top + len(strip)] = strip
        top += len(strip)
    return result


def stretched(values: NDArray[Any], bits: int, dtype: Any = np.uint16) -> NDArray[Any]:
    """Numbers of some bits over the whole range of a type that has more, so that white is at the
    very top.

    Args:
        dtype: uint8 or uint16.
    """
    top, most = 2**bits - 1, np.iinfo(dtype).max
    wide: NDArray[Any] = (values.astype(np.uint32) * most + top // 2) // top
    return wide.astype(dtype)


def divided(pixels: NDArray[Any], colours: int, transparency: int) -> NDArray[Any]:
    """Colours that were multiplied by alpha as they are where nothing is transparent.

    Args:
        pixels: H x W x C.
        colours: how many of the first channels they are.
        transparency: the channel that they were multiplied by.
    """
    whole = pixels.dtype.kind in "iu"
    top = np.iinfo(pixels.dtype).max if whole else 1
    alpha = pixels[..., transparency : transparency + 1].astype(np.float64)
    plain = np.divide(
        pixels[..., :colours] * float(top),
        alpha,
        where=alpha > 0,
        out=np.zeros((*pixels.shape[:2], colours)),
    )
    plain = np.rint(plain).clip(0, top) if whole else plain
    return np.concatenate([plain.astype(pixels.dtype), pixels[..., colours:]], axis=2)


def in_8_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """uint16 of any shape as the nearest uint8: 257 levels become one."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


@dataclass(frozen=True)
class Frame:
    """One of several pictures in a file.

    Attributes:
        pixels: H x W x C; all of an animation's frames are whole and alike, pages are not.
        duration: milliseconds, or None for pages.
        disposal: what becomes of it before the next (GIF89a: 0 to 3), or None where that is not
            said.
    """

    pixels: NDArray[Any]
    duration: float | None = None
    disposal: int | None = None


def alike(frames: Sequence[Frame]) -> list[Frame]:
    """The same frames, all with the channels that the most colourful and transparent ones have."""
    counts = {frame.pixels.shape[2] for frame in frames}
    most = 4 if counts >= {2, 3} else max(counts)
    return [replace(frame, pixels=_with_channels(frame.pixels, most)) for frame in frames]


def _with_channels(pixels: NDArray[Any], channels: int) -> NDArray[Any]:
    """The same picture with more channels: gray as colour, opaque."""
    have = pixels.shape[2]
    if have == channels:
        return pixels
    top = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    colours, opaque = pixels[..., : 1 if have <= 2 else 3], np.full_like(pixels[..., :1], top)
    if channels >= 3 and have <= 2:
        colours = np.repeat(colours, 3, axis=2)
    alpha = [pixels[..., -1:] if have in (2, 4) else opaque] if channels in (2, 4) else []
    return np.concatenate([colours, *alpha], axis=2)


@dataclass(frozen=True)
class Picture:
    """Pixels, upright, and what came with them.

    Attributes:
        pixels: H x W x C, uint8, uint16, or float32 in any range; C is 1 (gray), 2 (gray, alpha),
            3 (RGB), 4 (RGBA), or any with ``extra``. Of the first frame, if there are several. Of
            large pictures, an object with shape and dtype that reads rows as they are needed.
        format: what the file is by its content, in Pillow's words ("JPEG").
        kind: how the file stores its pixels.
        extra: what the channels beyond colours are, if one of them is no transparency; all frames
            have the same.
        bits: of a channel in the file, before anything became floats.
        turned: the orientation (1 to 8) that was undone.
        icc: colour profile of the pixels, or None.
        exif: the EXIF block with its original orientation and dimensions, or None.
        xmp: the XMP packet, or None.
        iptc: IPTC-IIM records, or None.
        xmp_more: a JPEG's segments of XMP beyond its first 64 kB, as they stand in the file.
        texts: PNG's chunks of text, types and contents, as they stand in the file.
        comments: of a JPEG or GIF.
        gamma: PNG's, of the file (about 1/2.2), or None.
        intent: PNG's word that colours are sRGB, with a rendering intent of 0 to 3, or None.
        chromaticities: PNG's x and y of white, red, green and blue, or None.
        cicp: what colours mean as ITU-T H.273 numbers it (primaries, transfer, matrix, full range),
            where PNG's chunk cICP or the nclx of an AVIF or HEIC says so; of RGB, so the matrix is
            0. None also for those in sRGB or with a profile.
        dpi: horizontal and vertical resolution, or None.
        calibration: how large a pixel is in a unit that other words in a TIFF name, or None.
        place: where on the Earth a GeoTIFF lies, or None.
        no_data: the value that stands for missing ones, or None.
        jpeg_quality: about which quality (1 to 100) a JPEG was saved at, else None.
        lossless: whether a WebP file was compressed without loss.
        frames: all of them, if there is more than one.
        loop: how often an animation is played, 0 for ever; None where it is not said.
        notes: what reading changed, for people.
    """

    pixels: Any
    format: str
    kind: Kind = "RGB"
    extra: tuple[Extra, ...] = ()
    bits: int = 8
    turned: int = 1
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    xmp_more: tuple[bytes, ...] = ()
    texts: tuple[tuple[bytes, bytes], ...] = ()
    comments: tuple[bytes, ...] = ()
    gamma: float | None = None
    intent: int | None = None
    chromaticities: tuple[float, ...] | None = None
    cicp: tuple[int, ...] | None = None
    dpi: tuple[float, float] | None = None
    calibration: Calibration | None = None
    place: GeoReference | None = None
    no_data: float | None = None
    jpeg_quality: int | None = None
    lossless: bool = False
    frames: tuple[Frame, ...] = ()
    loop: int | None = None
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
        """Those of colours and transparency, 1 to 4."""
        return int(self.pixels.shape[2]) - self.bands

    @property
    def alpha(self) -> bool:
        """Whether a channel is transparency."""
        return self.channels in (2, 4)

    @property
    def bands(self) -> int:
        """How many channels are neither colour nor transparency."""
        return self.extra.count("band")

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of each frame or page, or of the one picture."""
        return [f.pixels.shape[1::-1] for f in self.frames] or [(self.width, self.height)]

    @property
    def animated(self) -> bool:
        """Whether the frames follow one another in time."""
        return any(frame.duration is not None for frame in self.frames)

    def with_own_numbers(self, *, inverted: bool) -> "Picture":
        """Without the value that stands for missing numbers, if the pixels are other numbers than
        those in the file, which it is one of: colours for a palette's, or stretched ones.

        Args:
            inverted: white was zero in the file.
        """
        same = self.kind in ("gray", "RGB", "YCbCr") and self.bits in (8, 16, 32, 64)
        # Floats of 64 bits become ones of 32, which such a value is beyond.
        # Some write the least of them with too few digits, and mean it.
        with np.errstate(over="ignore"):
            beyond = self.no_data is not None and bool(
                np.isinf(np.float32(self.no_data)) and np.isfinite(self.no_data)
            )
        return self if same and not inverted and not beyond else self.without_no_data()

    def without_no_data(self) -> "Picture":
        """The same of other numbers, none of which stands for missing ones."""
        if self.no_data is None:
            return self
        place = None if self.place is None else self.place.without_no_data()
        notes = (*self.notes, NO_DATA_LEFT_OUT)
        return replace(self, place=place, no_data=None, notes=notes)

    def without_bands(self) -> "Picture":
        """Colours and transparency alone, which is what most formats hold."""
        if not self.bands:
            return self
        colours = int(self.pixels.shape[2]) - len(self.extra)
        kept = list(range(colours))
        if "alpha" in self.extra:
            kept.append(colours + self.extra.index("alpha"))
        return replace(
            self,
            pixels=self.pixels[..., kept],
            frames=tuple(replace(f, pixels=f.pixels[..., kept]) for f in self.frames),
            extra=(),
        )

    def stripped(self) -> "Picture":
        """Without what tells of people, places and programs; colours and size keep their meaning.

        An orientation that was already applied needs no tag.
        """
        return replace(
            self, exif=None, xmp=None, xmp_more=(), iptc=None, texts=(), comments=(), place=None
        )
