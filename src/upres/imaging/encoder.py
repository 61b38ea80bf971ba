"""Pictures to the bytes of files: the right parameters for each format, rows as they arrive."""

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from upres.errors import OutputError, ResourceError, UpresError
from upres.imaging import avif, jpeg2000
from upres.imaging.formats import FORMATS, check_size
from upres.imaging.holding import check_frames, held_channels, held_exif, holds, holds_frames, lost
from upres.imaging.metadata import updated_exif, updated_xmp
from upres.imaging.picture import Picture, alike, collect, in_8_bits
from upres.imaging.png import with_chunks, write_png
from upres.imaging.profiles import fits
from upres.imaging.tiff import TiffPages

DEFAULT_QUALITY = 95
_NO_GRAY = ("WEBP", "AVIF")
_LONGEST = 655_350  # milliseconds that a frame of a GIF lasts


@dataclass(frozen=True)
class Encoding:
    """How pictures are written.

    Attributes:
        quality: 1 to 100 for JPEG, WebP and AVIF; 100 is lossless WebP. None means 95, or
            lossless for a WebP that came from a lossless file.
        background: red, green, blue, of 255, behind what is transparent where a format holds no
            transparency.
    """

    quality: int | None = None
    background: tuple[int, int, int] = (255, 255, 255)


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
    if picture.frames and holds_frames(file_format):
        notes = save_frames(buffer, picture, file_format, chosen)
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
        fit = _Fit(file_format, dtype, channels, encoding.background, still=True)
        fitted = (fit(strip) for strip in strips)
        exif = updated_exif(held_exif(about, file_format), width, height)
        xmp = updated_xmp(about.xmp, width, height)
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
                if about.bits > 12:
                    notes.append(f"{about.bits} bits become 12, which is what AVIF holds")
                file.write(avif.encode_deep(whole, about, _best(encoding.quality), exif, xmp))
            elif deep and file_format == "JPEG2000" and jpeg2000.available():
                file.write(jpeg2000.encode_deep(whole, about.bits if 8 < about.bits < 16 else 16))
            else:
                parameters = _parameters(about, file_format, exif, xmp, encoding.quality)
                _image(whole, file_format).save(file, file_format, **parameters)
                _mend_avif(file, about, file_format, exif)
    return [*notes, *fit.notes]


def save_frames(
    file: BinaryIO, picture: Picture, file_format: str, encoding: Encoding
) -> list[str]:
    """Write an animation, or a TIFF of several pages.

    Raises:
        OutputError: the encoder refuses.
        ResourceError: memory is full.
    """
    height, width = picture.frames[0].pixels.shape[:2]
    check_size(file_format, width, height)
    check_frames(picture, file_format)
    with _explained(file_format):
        # An animation's frames are alike; a TIFF's pages need not be.
        frames = list(picture.frames) if file_format == "TIFF" else alike(picture.frames)
        channels = frames[0].pixels.shape[2]
        by_type = {
            dtype: _Fit(file_format, dtype, channels, encoding.background, still=False)
            for dtype in dict.fromkeys(frame.pixels.dtype for frame in frames)
        }
        gray_as_colour = any(fit.gray_as_colour for fit in by_type.values())
        notes = lost(picture, file_format, encoding.quality, gray_as_colour=gray_as_colour)
        if file_format == "TIFF":
            if picture.animated:
                notes.append("TIFF holds pages: the timing cannot be kept")
            with TiffPages(file, sum(frame.pixels.nbytes for frame in frames)) as pages:
                kept = held_exif(picture, file_format)
                for frame in frames:
                    pixels, size = frame.pixels, frame.pixels.shape
                    exif = updated_exif(kept, size[1], size[0])
                    xmp = updated_xmp(picture.xmp, size[1], size[0])
                    pages.add(picture, size, pixels.dtype, iter([pixels]), exif, xmp)
            return notes
        timing = _timing(picture, file_format)
        durations = [frame.duration or 0 for frame in picture.frames]
        if file_format == "GIF" and timing["duration"] != durations:
            notes.append("frames last whole hundredths of a second, as a GIF holds them")
        if file_format == "AVIF" and picture.loop != 0:
            notes.append("an animation in AVIF is played for ever")
        images = [
            _image(by_type[frame.pixels.dtype](frame.pixels), file_format) for frame in frames
        ]
        exif = updated_exif(held_exif(picture, file_format), width, height)
        xmp = updated_xmp(picture.xmp, width, height)
        parameters = _parameters(picture, file_format, exif, xmp, encoding.quality)
        images[0].save(
            file,
            file_format,
            save_all=True,
            append_images=images[1:],
            **timing,
            **parameters,
        )
        _mend_avif(file, picture, file_format, exif)
        if file_format == "PNG":
            assert isinstance(file, io.BytesIO)
            data = with_chunks(file.getvalue(), picture, exif, xmp)
            file.seek(0)
            file.truncate()
            file.write(data)
    said = (note for fit in by_type.values() for note in fit.notes)
    return list(dict.fromkeys([*notes, *said]))


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


def _timing(picture: Picture, file_format: str) -> dict[str, Any]:
    timing: dict[str, Any] = {
        "duration": [frame.duration or 0 for frame in picture.frames],
    }
    if file_format == "GIF":
        timing["duration"] = in_hundredths(timing["duration"])
    if file_format == "AVIF":  # Pillow's encoder takes whole milliseconds only
        timing["duration"] = [round(duration) for duration in timing["duration"]]
    if picture.loop is not None:
        timing["loop"] = picture.loop
    elif file_format in ("PNG", "WEBP"):
        timing["loop"] = 1  # 0 would be for ever
    disposals = [frame.disposal for frame in picture.frames]
    if file_format == "GIF":
        # What is transparent must be cleared before the next frame where nothing else is said.
        usual = 2 if picture.alpha else 0
        # Frames are whole pictures, so none needs what was there before it (3), and Pillow, which
        # writes differences, would take them from another picture than viewers do.
        back = 2 if picture.alpha else 1
        timing["disposal"] = [{None: usual, 3: back}.get(d, d) for d in disposals]
    elif file_format == "PNG":
        # Frames are whole pictures, put in place of the one before.
        timing |= {"disposal": [max(0, (d or 1) - 1) for d in disposals], "blend": 0}
    return timing


def in_hundredths(durations: Sequence[float]) -> list[float]:
    """Milliseconds as a GIF holds them: tens, up to 65,535 of them.

    What is rounded off one frame goes to the next, so that the animation lasts as long, but for
    those under 20 ms: shorter ones are played for 100 ms by most programs. What is in tens already
    stays.
    """
    if all(duration % 10 == 0 and duration <= _LONGEST for duration in durations):
        return list(durations)
    made: list[float] = []
    due = 0.0
    for duration in durations:
        due += duration
        made.append(max(20, min(_LONGEST, 10 * round(due / 10))))
        due -= made[-1]
    return made


class _Fit:
    """Rows in what a format holds: its depth, with transparency or on a background.

    Attributes:
        dtype, channels: of what it returns.
        gray_as_colour: whether the format will store three channels for one.
        notes: what is changed.
    """

    def __init__(
        self,
        file_format: str,
        dtype: np.dtype[Any],
        channels: int,
        background: tuple[int, int, int],
        *,
        still: bool,
    ) -> None:
        holds = FORMATS[file_format]
        self.notes: list[str] = []
        self.background = background
        depth: type[Any] = np.uint8
        if dtype == np.float32 and file_format == "TIFF":
            depth = np.float32
        elif dtype != np.uint8 and (holds.deep_colour or (holds.deep and channels == 1)):
            # Animations are Pillow's work, in 8 bits.
            depth = np.uint16 if still or file_format == "TIFF" else np.uint8
        if dtype == np.float32 and depth != np.float32:
            bits = 8 * np.dtype(depth).itemsize
            self.notes.append(f"floats become {bits} bits, and what is outside 0 to 1 is clipped")
        elif dtype == np.uint16 and depth == np.uint8:
            self.notes.append(f"16 bits become 8, which is what {file_format} holds")
        self.dtype, self.channels = np.dtype(depth), channels
        self.flatten = channels in (2, 4) and not holds.alpha
        if self.flatten:
            red, green, blue = background
            named = {(255, 255, 255): "white", (0, 0, 0): "black"}.get(
                background, f"#{red:02x}{green:02x}{blue:02x}"
            )
            self.notes.append(
                f"{file_format} holds no transparency: the picture is laid on {named}"
            )
            self.gray = channels == 2 and red == green == blue
            self.channels = 1 if self.gray else 3
        self.gray_as_colour = (file_format in _NO_GRAY and channels <= 2) or (
            file_format == "JPEG2000" and channels == 2 and depth == np.uint8
        )
        if file_format == "GIF" and channels > 1:
            self.notes.append("GIF holds 256 colours and no partial transparency")

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows x W x C."""
        if rows.dtype == np.float32 and self.dtype != np.float32:
            rows = np.rint(np.nan_to_num(rows, posinf=1).clip(0, 1) * np.iinfo(self.dtype).max)
        elif rows.dtype == np.uint16 and self.dtype == np.uint8:
            rows = in_8_bits(rows)
        rows = rows.astype(self.dtype, copy=False)
        if not self.flatten:
            return rows
        return flattened(rows, self.background[:1] if self.gray else self.background)


def flattened(rows: NDArray[Any], background: tuple[int, ...]) -> NDArray[Any]:
    """Colours on a background instead of with alpha, which is the last channel.

    Args:
        rows: h x W x 2 or 4, uint8 or uint16.
        background: one number for all colours or one for each, 0 to 255.
    """
    top = np.iinfo(rows.dtype).max
    alpha = rows[..., -1:].astype(np.float32) / top
    behind = np.array(background, np.float32) * (top / 255)
    mixed = rows[..., :-1] * alpha + behind * (1 - alpha)
    return np.rint(mixed).astype(rows.dtype)


def _image(pixels: NDArray[Any], file_format: str) -> Image.Image:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if file_format == "GIF" and image.mode != "L":
        image = image.convert("RGBA" if image.mode in ("LA", "RGBA") else "RGB")
        if image.mode == "RGBA":  # Pillow keeps what is fully transparent, so all or nothing
            image.putalpha(image.getchannel("A").point([0] * 128 + [255] * 128))
        else:
            image = image.quantize(256, Image.Quantize.MEDIANCUT)
    if file_format in (*_NO_GRAY, "JPEG2000") and image.mode == "LA":
        image = image.convert("RGBA")
    return image


def _best(quality: int | None) -> int:
    return DEFAULT_QUALITY if quality is None else quality


def _parameters(
    about: Picture, file_format: str, exif: bytes | None, xmp: bytes | None, quality: int | None
) -> dict[str, Any]:
    """What Pillow's encoders are given."""
    best = _best(quality)
    chosen: dict[str, dict[str, Any]] = {
        # 4:4:4: halved colour would undo what the network did for edges.
        "JPEG": {"quality": best, "subsampling": 0},
        "PNG": {"compress_level": 6},  # an animation
        "WEBP": {
            "quality": best,
            "lossless": best == 100 or (quality is None and about.lossless),
            "method": 4,
        },
        "AVIF": {"quality": best, "subsampling": "4:4:4"},
    }
    parameters = dict(chosen.get(file_format, {}))
    if file_format == "PNG":
        return parameters  # the rest is put into chunks by ourselves
    values = {
        "the colour profile": ("icc_profile", about.icc),
        "EXIF": ("exif", avif.room(exif) if exif and file_format == "AVIF" else exif),
        "XMP": ("xmp", xmp),
        # A GIF's; a JPEG's are segments of their own.
        "the comment": ("comment", b"\n".join(about.comments) if file_format == "GIF" else b""),
        # JPEG and BMP hold whole numbers.
        "the resolution": ("dpi", about.dpi and (round(about.dpi[0]), round(about.dpi[1]))),
    }
    for name, (key, value) in values.items():
        if value and holds(about, file_format, name):
            parameters[key] = value
    if file_format == "JPEG":
        extra = [_segment(0xE1, part) for part in about.xmp_more]
        if holds(about, file_format, "the comment"):
            extra += [_segment(0xFE, comment) for comment in about.comments]
        if about.iptc and holds(about, file_format, "IPTC"):
            extra.append(_photoshop_segment(about.iptc))
        parameters["extra"] = b"".join(extra)
    return parameters


def _mend_avif(file: BinaryIO, about: Picture, file_format: str, exif: bytes | None) -> None:
    """What Pillow's writer of AVIF does not write as it is told."""
    if file_format != "AVIF":
        return
    if about.cicp:
        avif.put_code_points(file, about.cicp)
    if exif:
        avif.put_exif(file, exif)


def _photoshop_segment(iptc: bytes) -> bytes:
    """A JPEG's segment APP13 with one resource, number 0x0404 (Adobe Photoshop's file format)."""
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    return _segment(0xED, b"Photoshop 3.0\0" + resource)


def _segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body
