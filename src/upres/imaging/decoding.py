"""Open files, but for TIFF, to pictures: all frames, orientation applied."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.ExifTags import Base as Tag

from upres.errors import InputError
from upres.imaging import boxes, filefacts, gif, jpeg, jpeg2000, photoshop, png_chunks
from upres.imaging.containers import bit_depth, is_lossless_webp, webp_left_out
from upres.imaging.deep import read_deep
from upres.imaging.formats import TIMED
from upres.imaging.metadata import orientation
from upres.imaging.modes import COLOURLESS, READ_AS_8, array_of, kind_of, made_plain
from upres.imaging.picture import Frame, Kind, Picture, alike, stretched
from upres.imaging.profiles import NOT_FITTING, fits
from upres.imaging.turning import upright

_PADDING = 64  # bytes
_DEEP = ("PNG", "AVIF", "JPEG2000")
# What Pillow says of a PNG in numbers and bytes.
_FACTS = (
    *("aspect", "blend", "chromaticity", "default_image", "disposal", "dpi", "duration", "exif"),
    *("gamma", "icc_profile", "loop", "srgb", "transparency"),
)


def frames_of(image: Image.Image) -> range:
    """Numbers of the pictures in a file that are read: an animation's frames, not what cameras add
    to a JPEG."""
    # No list: a small file may claim more than memory holds.
    return range(getattr(image, "n_frames", 1) if image.format in TIMED else 1)


def decode(
    image: Image.Image, name: str, source: Path | bytes, frames: range, *, pixels: bool = True
) -> Picture:
    """A picture from a file that is open in Pillow, and no TIFF.

    Args:
        name: of the file, for people.
        source: the file, for decoders other than Pillow's.
        frames: numbers of those to read.
        pixels: False leaves them out; only their number of channels and type are right then.

    Raises:
        InputError: its kind of pixels is not read.
    """
    _forget_texts(image)
    form = "JPEG" if image.format == "MPO" else str(image.format)
    there = len(frames_of(image))
    chunks = png_chunks.read_chunks(source) if form == "PNG" else []
    of_gif = gif.extensions(source) if form == "GIF" else None
    notes = _left_out(image, source, chunks, of_gif, len(frames))
    bits, loop = bit_depth(image), image.info.get("loop")
    if form == "GIF" and loop:
        loop += 1  # a GIF says how often it is repeated, the others how often it is played
    icc, packet = image.info.get("icc_profile"), None
    if form == "JPEG2000":
        icc, packet = icc or boxes.jp2_profile(image), boxes.jp2_xmp(image)
    elif of_gif:
        icc, packet = of_gif.profile or icc, of_gif.xmp
    if icc is None and _has_profile(image, chunks):
        notes.append("the colour profile is damaged and is left out")
    if form == "AVIF" and there > 1:
        loop = 0  # Pillow does not tell, and those that it writes are played for ever
    lossless = form == "WEBP" and is_lossless_webp(image)
    kind = kind_of(image)
    cicp = filefacts.cicp(image, chunks)
    deep = bits > 8 and form in _DEEP and not image.mode.startswith("I;16")
    deep &= len(frames) == 1  # libvips has no frames of an animation
    still: list[Frame] = []
    if not pixels:
        empty = np.empty((0, 0, _channels(image)), np.uint16 if deep else np.uint8)
        still = [Frame(empty, _duration(image, i), _disposal(image)) for i in frames]
    elif deep:
        still, kind = _deep(image, source, name, bits)
    already = form == "AVIF" and bool(still)  # libheif has turned it
    if not still:
        if bits > 8 and not image.mode.startswith("I;16"):
            notes.append(READ_AS_8)
        still, icc = _frames(image, name, frames, icc, notes, bits)
    words = png_chunks.without_pixels(chunks) if form == "PNG" else image
    exif, xmp = filefacts.exif(words), packet or filefacts.xmp(words)
    if pixels and icc and not fits(icc, still[0].pixels.shape[2]):
        notes.append(NOT_FITTING)
        icc = None
    # As every program shows it.
    turned = 1 if form in ("GIF", "JPEG2000") else orientation(exif, xmp)
    if pixels and turned > 1 and not already:
        still = [replace(f, pixels=upright(f.pixels, turned)) for f in still]
    return Picture(
        pixels=still[0].pixels,
        format=form,
        kind=kind,
        bits=1 if kind == "bilevel" else 8 if kind == "palette" else bits,
        turned=turned,
        icc=icc,
        exif=exif,
        xmp=xmp,
        xmp_more=jpeg.extended_xmp(image),
        iptc=filefacts.iptc(words),
        texts=png_chunks.texts(chunks),
        comments=of_gif.comments if of_gif else filefacts.comments(image),
        gamma=image.info.get("gamma") if form == "PNG" else None,
        intent=image.info.get("srgb") if form == "PNG" else None,
        chromaticities=image.info.get("chromaticity") if form == "PNG" else None,
        cicp=cicp,
        dpi=filefacts.stated_resolution(image, turned=turned >= 5),
        lossless=lossless,
        jpeg_quality=jpeg.quality_of(image),
        frames=tuple(still) if len(still) > 1 else (),
        loop=loop if isinstance(loop, int) else None,
        notes=tuple(dict.fromkeys(notes)),
    )


def _left_out(
    image: Image.Image,
    source: Path | bytes,
    chunks: list[tuple[bytes, bytes]],
    of_gif: gif.Extensions | None,
    wanted: int,
) -> list[str]:
    """Notes on what of a file is not read.

    Args:
        chunks: a PNG's.
        of_gif: a GIF's extensions.
        wanted: how many frames are read.
    """
    notes, there = [], len(frames_of(image))
    resources = image.info.get("photoshop")  # in a PNG a text may be called so
    if wanted < there:
        notes.append(f"only the first of {there} frames is kept")
    if image.format == "MPO" and (several := getattr(image, "n_frames", 1)) > 1:
        notes.append(f"only the first of {several} pictures is read")
    if image.format == "JPEG" and (rest := jpeg.bytes_behind(source)) > _PADDING:
        notes.append(f"{rest:,} bytes behind the picture, such as a phone's video, are left out")
    said = (
        png_chunks.left_out(chunks),
        jpeg.left_out(image),
        gif.left_out(of_gif) if of_gif else None,
        webp_left_out(image) if image.format == "WEBP" else None,
        boxes.left_out(image),
        photoshop.left_out(resources.items() if isinstance(resources, dict) else ()),
        filefacts.oblong(image),
    )
    return notes + [note for note in said if note]


def from_pil(image: Image.Image) -> Picture:
    """A picture from an image that is open in Pillow, upright.

    Raises:
        InputError: its mode is not read.
    """
    notes: list[str] = []
    bits = bit_depth(image)
    upright = ImageOps.exif_transpose(image)  # a copy
    _stretch_transparency(upright, bits)
    plain, icc = made_plain(upright, image.info.get("icc_profile"), "the image", notes)
    pixels, form = _with_transparency(array_of(plain), image), image.format or "PNG"
    sideways = image.getexif().get(Tag.Orientation) in (5, 6, 7, 8)
    return Picture(
        pixels,
        form,
        kind_of(image),
        icc=icc,
        dpi=filefacts.stated_resolution(image, turned=sideways),
        notes=tuple(notes),
    )


def _has_profile(image: Image.Image, chunks: list[tuple[bytes, bytes]]) -> bool:
    """Whether there is something that Pillow cannot put together."""
    segments = getattr(image, "applist", [])
    return any(kind == b"iCCP" for kind, _ in chunks) or any(
        name == "APP2" and data.startswith(b"ICC_PROFILE\0") for name, data in segments
    )


def _forget_texts(image: Image.Image) -> None:
    """Pillow puts a PNG's texts among its facts, where one named "dpi" would be taken for one."""
    if image.format == "PNG":
        for fact in _FACTS:
            if isinstance(image.info.get(fact), str):
                del image.info[fact]


def _stretch_transparency(image: Image.Image, bits: int) -> None:
    """Pillow stretches pixels of a PNG to 8 bits, but not the value that is transparent."""
    clear = image.info.get("transparency")
    few = bits in (2, 4) and image.mode == "L"
    if few and isinstance(clear, int) and clear < 2**bits:
        image.info["transparency"] = clear * 255 // (2**bits - 1)


def _frames(
    image: Image.Image,
    name: str,
    frames: range,
    icc: bytes | None,
    notes: list[str],
    bits: int,
) -> tuple[list[Frame], bytes | None]:
    """All frames of 8 bits, and of 16 in gray; those of an animation alike."""
    found, profile = [], icc
    _stretch_transparency(image, bits)
    height, width = image.height, image.width  # later frames of a GIF may stand out of it
    # An APNG may begin with a picture for programs that know no animations.
    first = 1 if len(frames) > 1 and image.info.get("default_image") else 0
    if first:
        notes.append("the still picture beside the animation is left out")
    for index in frames[first:]:
        if index != image.tell():
            image.seek(index)
        image.load()
        _forget_texts(image)
        plain, profile = made_plain(image, icc, name, notes)
        pixels = array_of(plain)
        if image.format == "JPEG2000" and image.mode.startswith("I;16") and 8 < bits < 16:
            # Pillow moved them to the top, and left a gap.
            pixels = stretched(pixels >> (16 - bits), bits)
        pixels = _with_transparency(pixels, image)
        if image.format == "GIF":
            pixels = pixels[:height, :width].copy()  # without what lies beyond
        found.append(Frame(pixels, _duration(image, index), _disposal(image)))
    if image.format in TIMED:
        found = alike(found)
    return found, profile


def _with_transparency(pixels: NDArray[Any], image: Image.Image) -> NDArray[Any]:
    """Gray of 1 or 16 bits, which Pillow leaves as it is, with the alpha that a PNG gives one of
    its values (tRNS); any other picture as it is."""
    clear = image.info.get("transparency")
    asks = image.format in ("PNG", None) and image.mode in ("1", "I;16")
    if not asks or not isinstance(clear, int) or pixels.shape[2] != 1:
        return pixels
    top = np.iinfo(pixels.dtype).max
    value = clear if image.mode != "1" else top * bool(clear)
    return np.concatenate([pixels, np.where(pixels == value, 0, top).astype(pixels.dtype)], axis=2)


def _deep(
    image: Image.Image, source: Path | bytes, name: str, bits: int
) -> tuple[list[Frame], Kind]:
    """A picture of more than 8 bits; none if it is of a rare kind, which Pillow reduces to 8."""
    if image.format == "JPEG2000":
        made = jpeg2000.decode_deep(source, name, bits)
        return [Frame(made)], "gray" if made.shape[2] <= 2 else "RGB"
    try:
        decoded = read_deep(source, name)
    except InputError:
        if image.mode in ("RGB", "RGBA"):
            return [], "RGB"
        raise
    return [Frame(decoded.pixels)], decoded.kind


def _channels(image: Image.Image) -> int:
    """How many there will be once it is decoded."""
    transparent = image.has_transparency_data
    return (1 if kind_of(image) in COLOURLESS else 3) + transparent


def _duration(image: Image.Image, index: int) -> float | None:
    """Milliseconds that a frame is shown."""
    if image.format not in TIMED or getattr(image, "n_frames", 1) == 1:
        return None
    if image.tell() != index:
        image.seek(index)
    if image.format in ("WEBP", "AVIF"):
        image.load()  # it says so only then
    return float(image.info.get("duration", 0))


def _disposal(image: Image.Image) -> int | None:
    found = getattr(image, "disposal_method", None) if image.format == "GIF" else None
    if image.format == "PNG":
        # Keep, clear and restore are 0, 1, 2 in APNG, and 1, 2, 3 in GIF.
        found = {0: 1, 1: 2, 2: 3}.get(int(image.info.get("disposal", 0)))
    return found
