"""What Pillow's encoders are given."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from upres.imaging import avif, jpeg
from upres.imaging.fit import NO_GRAY
from upres.imaging.holding import holds
from upres.imaging.picture import Picture

_DEFAULT_QUALITY = 95


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


def used_quality(quality: int | None) -> int:
    """The quality that lossy formats are written with."""
    return _DEFAULT_QUALITY if quality is None else quality


def pillow_image(pixels: NDArray[Any], file_format: str) -> Image.Image:
    """In a mode that the format's encoder takes."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if file_format == "GIF" and image.mode != "L":
        image = image.convert("RGBA" if image.mode in ("LA", "RGBA") else "RGB")
        if image.mode == "RGBA":  # Pillow keeps what is fully transparent, so all or nothing
            image.putalpha(image.getchannel("A").point([0] * 128 + [255] * 128))
        else:
            image = image.quantize(256, Image.Quantize.MEDIANCUT)
    if file_format in (*NO_GRAY, "JPEG2000") and image.mode == "LA":
        image = image.convert("RGBA")
    return image


def save_options(
    about: Picture, file_format: str, exif: bytes | None, xmp: bytes | None, quality: int | None
) -> dict[str, Any]:
    """What Pillow's encoders are given."""
    best = used_quality(quality)
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
    if file_format == "BMP":
        parameters.setdefault("dpi", (0, 0))  # which states none; Pillow would state 96
    if file_format == "JPEG":
        extra = [jpeg.segment(0xE1, part) for part in about.xmp_more]
        if holds(about, file_format, "the comment"):
            extra += [jpeg.segment(0xFE, comment) for comment in about.comments]
        if about.iptc and holds(about, file_format, "IPTC"):
            extra.append(jpeg.photoshop_segment(about.iptc))
        parameters["extra"] = b"".join(extra)
    return parameters
