"""Open files to pictures: all frames, orientation applied."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.ExifTags import Base as Tag

from upres.errors import InputError
from upres.imaging import containers, filefacts, jpeg2000
from upres.imaging.deep import CONVERTED, read_deep
from upres.imaging.georeference import read_georeference
from upres.imaging.metadata import orientation
from upres.imaging.modes import array_of, made_plain
from upres.imaging.picture import Extra, Frame, Kind, Picture, stretched
from upres.imaging.profiles import fits, srgb_profile
from upres.imaging.turning import upright

_TIMED = ("GIF", "PNG", "WEBP", "AVIF")
_ANIMATED = (*_TIMED, "TIFF")
_DEEP = ("PNG", "TIFF", "AVIF", "JPEG2000")
_COLOURLESS = ("bilevel", "gray")
_KINDS: dict[str, Kind] = {
    "1": "bilevel",
    "P": "palette",
    "PA": "palette",
    "L": "gray",
    "LA": "gray",
    "La": "gray",
    "I;16": "gray",
    "I;16B": "gray",
    "I;16L": "gray",
    "I": "gray",
    "F": "gray",
    "CMYK": "CMYK",
    "LAB": "Lab",
    "YCbCr": "YCbCr",
}


def frames_of(image: Image.Image) -> list[int]:
    """Numbers of the pictures in a file that are read: frames and pages.

    Not what cameras add to a JPEG, nor a TIFF's smaller copies and masks of a page, which
    geographic programs and scanners add.
    """
    count = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
    if count == 1 or image.format != "TIFF":
        return list(range(count))
    found = []
    for index in range(count):
        image.seek(index)
        if containers.is_page(image.tag_v2):  # type: ignore[attr-defined]
            found.append(index)
    image.seek(0)
    return found or [0]


def sizes_of(image: Image.Image, frames: list[int]) -> list[tuple[int, int]]:
    """Width and height of each of these frames; a TIFF's pages differ."""
    if image.format != "TIFF" or len(frames) == 1:
        return [image.size] * len(frames)
    sizes = []
    for index in frames:
        image.seek(index)
        sizes.append(image.size)
    image.seek(0)
    return sizes


def decode(
    image: Image.Image, name: str, source: Path | bytes, frames: list[int], *, pixels: bool = True
) -> Picture:
    """A picture from a file that is open in Pillow.

    Args:
        name: of the file, for people.
        source: the file, for decoders other than Pillow's.
        frames: numbers of those to read.
        pixels: False leaves them out; only their number of channels and type are right then.

    Raises:
        InputError: its kind of pixels is not read.
    """
    notes: list[str] = []
    form = "JPEG" if image.format == "MPO" else str(image.format)
    there = len(frames_of(image))
    if len(frames) < there:
        what = "pages" if image.format == "TIFF" else "frames"
        notes.append(f"only the first of {there} {what} is kept")
    if image.format == "MPO" and getattr(image, "n_frames", 1) > 1:
        notes.append(f"only the first of {image.n_frames} pictures is read")  # type: ignore[attr-defined]
    bits, loop = containers.bit_depth(image), image.info.get("loop")
    icc, dpi = image.info.get("icc_profile"), image.info.get("dpi")
    if form == "TIFF" and Tag.XResolution not in getattr(image, "tag_v2", {}):
        dpi = None  # Pillow makes one up where the file says nothing
    lossless = form == "WEBP" and containers.is_lossless_webp(image)
    # Pillow's TIFF reader turns the pixels itself when it loads them, and takes the tag away; a
    # PNG may carry EXIF and XMP after the pixels. So look on both sides of loading.
    exif = filefacts.exif(image)
    kind = _KINDS.get(image.mode, "RGB")
    if form == "TIFF" and there < getattr(image, "n_frames", 1):
        notes.append("smaller copies and masks of pages are left out")
    tags = getattr(image, "tag_v2", {})
    turned = orientation(exif, filefacts.xmp(image))
    # Of several pages only the first one's would be known, and no axis may have been turned.
    place = None
    if len(frames) == 1 and turned == 1:
        place = read_georeference(tags, image.width, image.height)
    if note := filefacts.left_out(tags, georeferenced=place is not None):
        notes.append(note)
    chunks = containers.png_chunks(source) if form == "PNG" else []
    cicp = filefacts.cicp(image, chunks)
    if note := filefacts.left_out_parts(image, chunks):
        notes.append(note)
    extra, left_out = _extra(image, frames)
    if left_out:
        notes.append(filefacts.EXTRA)
    signed = containers.is_signed(tags)
    deep = (bits > 8 or signed) and form in _DEEP and not image.mode.startswith("I;16")
    deep |= bool(extra)
    # Pillow takes channels that lie apart for rows of one, unless they are plain colours.
    plain = _KINDS.get(image.mode) not in _COLOURLESS and not containers.is_multiplied(tags)
    deep |= containers.is_planar(tags) and not plain
    deep &= form == "TIFF" or len(frames) == 1  # libvips has no frames of an animation
    still: list[Frame] = []
    if not pixels:
        dtype = np.float32 if bits >= 32 or signed else np.uint8
        channels = _channels(image) if not extra else len(extra) + (1 if kind == "gray" else 3)
        empty = np.empty((0, 0, channels), dtype)
        still = [Frame(empty, _duration(image, i), _disposal(image)) for i in frames]
    elif deep:
        still, kind, icc = _deep_frames(image, source, name, frames, icc, notes, bits, extra)
    if not still:
        if bits > 8 and not image.mode.startswith("I;16"):
            notes.append("more than 8 bits a channel are read as 8")
        still, icc = _frames(image, name, frames, icc, notes, bits)
    words = containers.png_without_pixels(chunks) if form == "PNG" and not pixels else image
    exif, xmp = exif or filefacts.exif(words), filefacts.xmp(words)
    if pixels and icc and not fits(icc, still[0].pixels.shape[2] - extra.count("band")):
        notes.append("the colour profile is for another kind of picture and is left out")
        icc = None
    turned = orientation(exif, xmp)
    # Pages of a TIFF are upright, each by its own word; libheif has turned deep AVIF.
    already = form == "TIFF" or (form == "AVIF" and deep)
    if pixels and turned > 1 and not already:
        still = [replace(f, pixels=upright(f.pixels, turned)) for f in still]
    return Picture(
        pixels=still[0].pixels,
        format=form,
        kind=kind,
        extra=extra,
        bits=1 if kind == "bilevel" else 8 if kind == "palette" else bits,
        turned=turned,
        icc=icc,
        exif=exif,
        xmp=xmp,
        xmp_more=filefacts.extended_xmp(image),
        iptc=filefacts.iptc(words),
        texts=filefacts.texts(chunks),
        comment=filefacts.comment(image),
        gamma=image.info.get("gamma") if form == "PNG" else None,
        intent=image.info.get("srgb") if form == "PNG" else None,
        chromaticities=image.info.get("chromaticity") if form == "PNG" else None,
        cicp=cicp,
        dpi=filefacts.resolution(dpi, turned=turned >= 5),
        place=place,
        lossless=lossless,
        jpeg_quality=filefacts.jpeg_quality(image),
        frames=tuple(still) if len(still) > 1 else (),
        loop=loop if isinstance(loop, int) else None,
        notes=tuple(dict.fromkeys(notes)),
    ).with_own_numbers()


def _extra(image: Image.Image, frames: list[int]) -> tuple[tuple[Extra, ...], bool]:
    """What a TIFF's channels beyond colours are, where all pages have the same; and whether some
    of them are left out."""
    if image.format != "TIFF":
        return (), False
    kinds, left_out = set(), 0
    for index in frames:
        image.seek(index)
        tags = image.tag_v2  # type: ignore[attr-defined]
        kinds.add(filefacts.beyond_colours(tags))
        left_out += filefacts.left_out_channels(tags, ())
    image.seek(frames[0])
    extra = kinds.pop() if len(kinds) == 1 else ()
    return extra, not extra and left_out > 0


def from_pil(image: Image.Image) -> Picture:
    """A picture from an image that is open in Pillow, upright.

    Raises:
        InputError: its mode is not read.
    """
    notes: list[str] = []
    upright = ImageOps.exif_transpose(image)
    plain, icc = made_plain(upright, image.info.get("icc_profile"), "the image", notes)
    kind = _KINDS.get(image.mode, "RGB")
    return Picture(array_of(plain), image.format or "PNG", kind, icc=icc, notes=tuple(notes))


def _frames(
    image: Image.Image,
    name: str,
    frames: list[int],
    icc: bytes | None,
    notes: list[str],
    bits: int,
) -> tuple[list[Frame], bytes | None]:
    """All frames of 8 bits, and of 16 in gray; those of an animation alike."""
    found, profile = [], icc
    clear = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and bits in (2, 4) and isinstance(clear, int):
        # Pillow stretches the pixels to 8 bits, but not the value that is transparent.
        image.info["transparency"] = clear * 255 // (2**bits - 1)
    # An APNG may begin with a picture for programs that know no animations.
    first = 1 if len(frames) > 1 and image.info.get("default_image") else 0
    if first:
        notes.append("the still picture beside the animation is left out")
    for index in frames[first:]:
        if index != image.tell():
            image.seek(index)
        # Pillow's TIFF reader turns a page itself when it loads it, and takes the tag away.
        asked = Tag.Orientation in image.getexif() if image.format == "TIFF" else False
        turned = orientation(filefacts.exif(image), filefacts.xmp(image))
        image.load()
        plain, profile = made_plain(image, icc, name, notes)
        pixels = array_of(plain)
        if image.mode.startswith("I;16"):
            pixels = _to_16(pixels, image, bits)
        elif image.format == "TIFF" and containers.bit_depth(image) > 8:
            notes.append("more than 8 bits a channel are read as 8")
        if image.format == "PNG" and image.mode in ("1", "I;16"):
            pixels = _with_transparency(pixels, image)
        if image.format == "TIFF" and not (asked and Tag.Orientation not in image.getexif()):
            pixels = upright(pixels, turned)
        found.append(Frame(pixels, _duration(image, index), _disposal(image)))
    if image.format in _TIMED:
        most = max(frame.pixels.shape[2] for frame in found)
        deepest = 4 if any(f.pixels.shape[2] == 2 for f in found) and most == 3 else most
        found = [replace(f, pixels=_with_channels(f.pixels, deepest)) for f in found]
    return found, profile


def _to_16(pixels: NDArray[Any], image: Image.Image, bits: int) -> NDArray[Any]:
    """Gray of 9 to 16 bits with white at the very top."""
    if image.format == "JPEG2000" and bits < 16:
        pixels = pixels >> (16 - bits)  # Pillow moved them to the top, and left a gap
    if image.format in ("JPEG2000", "TIFF") and 8 < bits < 16:
        pixels = stretched(pixels, bits)
    if image.format == "TIFF" and image.mode != "I;16B":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        if tags.get(Tag.PhotometricInterpretation) == 0:  # white is zero
            pixels = 65535 - pixels
    return pixels


def _with_transparency(pixels: NDArray[Any], image: Image.Image) -> NDArray[Any]:
    """Gray with the alpha that the file gives one of its values (PNG, tRNS)."""
    clear = image.info.get("transparency")
    if not isinstance(clear, int) or pixels.shape[2] != 1:
        return pixels
    top = np.iinfo(pixels.dtype).max
    value = clear if image.mode != "1" else top * bool(clear)
    return np.concatenate([pixels, np.where(pixels == value, 0, top).astype(pixels.dtype)], axis=2)


def _deep_frames(
    image: Image.Image,
    source: Path | bytes,
    name: str,
    frames: list[int],
    icc: bytes | None,
    notes: list[str],
    bits: int,
    extra: tuple[Extra, ...],
) -> tuple[list[Frame], Kind, bytes | None]:
    """Pages of more than 8 bits; none if they are of a rare kind, which Pillow reduces to 8."""
    if image.format == "JPEG2000":
        made = jpeg2000.decode_deep(source, name, bits)
        return [Frame(made)], "gray" if made.shape[2] <= 2 else "RGB", icc
    tiff = image.format == "TIFF"
    found: list[Frame] = []
    kind: Kind = "RGB"
    for index in frames:
        page, tags, turned = None, None, 1
        if tiff:
            image.seek(index)
            page, turned = index, orientation(filefacts.exif(image), filefacts.xmp(image))
            tags = image.tag_v2  # type: ignore[attr-defined]
        try:
            pixels, kind, note = read_deep(source, name, page=page, tags=tags, extra=extra)
        except InputError:
            if image.mode in ("RGB", "RGBA", "CMYK", "LAB"):
                return [], kind, icc
            raise
        if note:
            notes.append(note)
        if kind in CONVERTED:
            icc = srgb_profile()
        found.append(Frame(upright(pixels, turned)))
    return found, kind, icc


def _channels(image: Image.Image) -> int:
    """How many there will be once it is decoded."""
    transparent = image.has_transparency_data
    return (2 if transparent else 1) if _KINDS.get(image.mode) in _COLOURLESS else 3 + transparent


def _duration(image: Image.Image, index: int) -> float | None:
    """Milliseconds that a frame is shown."""
    if image.format not in _TIMED or getattr(image, "n_frames", 1) == 1:
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


def _with_channels(pixels: NDArray[Any], channels: int) -> NDArray[Any]:
    """The same picture with more channels: gray as colour, opaque."""
    have = pixels.shape[2]
    if have == channels:
        return pixels
    colours, opaque = pixels[..., : 1 if have <= 2 else 3], np.full_like(pixels[..., :1], 255)
    if channels >= 3 and have <= 2:
        colours = np.repeat(colours, 3, axis=2)
    alpha = [pixels[..., -1:] if have in (2, 4) else opaque] if channels in (2, 4) else []
    return np.concatenate([colours, *alpha], axis=2)
