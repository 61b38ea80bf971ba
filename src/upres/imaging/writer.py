"""Pictures to files: the right parameters for each format, and never a half file."""

import errno
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from upres.errors import OutputError, ResourceError
from upres.imaging.metadata import updated_exif, updated_xmp
from upres.imaging.picture import Picture

DEFAULT_QUALITY = 95
_TIFF_XMP = 700
_SEGMENT = 65_000  # what a JPEG's segments hold, less their headers


@dataclass(frozen=True)
class Format:
    """What a file format can hold.

    Attributes:
        suffixes: the first is used for new names.
        limit: largest side in pixels.
        alpha, deep: whether it holds transparency, and 16-bit gray.
        lossy: whether ``--quality`` means anything.
    """

    suffixes: tuple[str, ...]
    limit: int
    alpha: bool
    deep: bool
    lossy: bool


FORMATS: dict[str, Format] = {
    "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif"), 65500, alpha=False, deep=False, lossy=True),
    "PNG": Format((".png", ".apng"), 2**31 - 1, alpha=True, deep=True, lossy=False),
    "WEBP": Format((".webp",), 16383, alpha=True, deep=False, lossy=True),
    "TIFF": Format((".tif", ".tiff"), 2**31 - 1, alpha=True, deep=True, lossy=False),
    "BMP": Format((".bmp", ".dib"), 2**31 - 1, alpha=False, deep=False, lossy=False),
    "AVIF": Format((".avif",), 65536, alpha=True, deep=False, lossy=True),
    "GIF": Format((".gif",), 65535, alpha=True, deep=False, lossy=False),
    "JPEG2000": Format((".jp2", ".j2k", ".jpx"), 2**31 - 1, alpha=True, deep=True, lossy=False),
}


def format_of(path: Path) -> str:
    """The format that a file name asks for.

    Raises:
        OutputError: no format has this suffix.
    """
    suffix = path.suffix.lower()
    for name, kind in FORMATS.items():
        if suffix in kind.suffixes:
            return name
    known = ", ".join(kind.suffixes[0] for kind in FORMATS.values())
    raise OutputError(f"{path} ends in {suffix!r}, which is no known format", f"use one of {known}")


def check_size(kind: str, width: int, height: int) -> None:
    """Refuse, before anything is computed, what the format cannot hold.

    Raises:
        OutputError: a side is too long.
    """
    limit = FORMATS[kind].limit
    if max(width, height) > limit:
        raise OutputError(
            f"{kind} holds at most {limit} pixels a side, the result would be {width} x {height}",
            "write .png or .tif instead",
        )


def encode(picture: Picture, kind: str, quality: int | None = None) -> tuple[bytes, list[str]]:
    """The bytes of a file, and notes on what the format cannot hold.

    Args:
        kind: a key of ``FORMATS``.
        quality: 1 to 100 for JPEG, WebP and AVIF; 100 is lossless WebP. None means 95, or
            lossless for a WebP that came from a lossless file.

    Raises:
        OutputError: the encoder refuses.
    """
    check_size(kind, picture.width, picture.height)
    notes: list[str] = []
    buffer = io.BytesIO()
    try:
        image = _image(picture, kind, notes)
        parameters = _parameters(picture, kind, quality)
        notes += _lost(picture, kind, parameters, quality)
        image.save(buffer, kind, **parameters)
    except MemoryError as error:
        raise ResourceError("the encoder ran out of memory", "write a smaller picture") from error
    except Exception as error:
        # Encoders raise whatever they stumble over: ValueError, struct.error, SystemError, ...
        raise OutputError(f"{kind} cannot hold this picture ({error})", "write .png") from error
    return buffer.getvalue(), notes


def _lost(
    picture: Picture, kind: str, parameters: dict[str, Any], quality: int | None
) -> list[str]:
    """What the picture has, or the user asked for, and the file will not hold."""
    has = {
        "the colour profile": (picture.icc, "icc_profile"),
        "EXIF": (picture.exif, "exif"),
        "XMP": (picture.xmp, "_xmp"),
        "the resolution": (picture.dpi, "dpi"),
    }
    carried = set(parameters) | ({"_xmp"} if parameters.keys() & {"xmp", "pnginfo"} else set())
    if kind == "TIFF":
        carried.add("_xmp")
    lost = [name for name, (value, key) in has.items() if value and key not in carried]
    notes = [f"{' and '.join(lost)} cannot be kept in this {kind}"] if lost else []
    if quality is not None and not FORMATS[kind].lossy:
        notes.append(f"{kind} is lossless: the quality of {quality} means nothing")
    return notes


def _image(picture: Picture, kind: str, notes: list[str]) -> Image.Image:
    pixels, holds = picture.pixels, FORMATS[kind]
    if pixels.dtype == np.uint16 and (not holds.deep or pixels.shape[2] != 1):
        notes.append(f"16 bits become 8, which is what {kind} holds")
        pixels = (pixels.astype(np.uint32) * 255 + 32767) // 65535
        pixels = pixels.astype(np.uint8)
    if pixels.shape[2] in (2, 4) and not holds.alpha:
        notes.append(f"{kind} holds no transparency: the picture is laid on white")
        alpha = pixels[..., -1:].astype(np.float32) / 255
        pixels = np.rint(pixels[..., :-1] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if kind == "GIF" and image.mode != "L":
        notes.append("GIF holds 256 colours and no partial transparency")
        image = image.convert("RGBA" if image.mode in ("LA", "RGBA") else "RGB")
        if image.mode == "RGBA":  # Pillow keeps what is fully transparent, so all or nothing
            image.putalpha(image.getchannel("A").point([0] * 128 + [255] * 128))
        else:
            image = image.quantize(256, Image.Quantize.MEDIANCUT)
    if kind in ("WEBP", "AVIF", "JPEG2000") and image.mode == "LA":
        image = image.convert("RGBA")
    return image


def _parameters(picture: Picture, kind: str, quality: int | None) -> dict[str, Any]:
    exif = updated_exif(picture.exif, picture.width, picture.height)
    xmp = updated_xmp(picture.xmp)
    best = DEFAULT_QUALITY if quality is None else quality
    chosen: dict[str, dict[str, Any]] = {
        # 4:4:4: halved colour would undo what the network did for edges.
        "JPEG": {"quality": best, "subsampling": 0},
        "PNG": {"compress_level": 6},
        "WEBP": {
            "quality": best,
            "lossless": best == 100 or (quality is None and picture.lossless),
            "method": 4,
        },
        "TIFF": {"compression": "tiff_deflate"},
        "AVIF": {"quality": best, "subsampling": "4:4:4"},
    }
    parameters = dict(chosen.get(kind, {}))
    if kind == "TIFF" and picture.pixels.nbytes > 3 * 10**9:
        parameters["big_tiff"] = True
    # WebP and AVIF store gray as colour, where a profile for gray would be wrong.
    gray_as_colour = picture.channels <= 2 and kind in ("WEBP", "AVIF")
    fits = kind not in ("BMP", "GIF", "JPEG2000") and not gray_as_colour
    if picture.icc and (fits or (gray_as_colour and picture.icc[16:20] == b"RGB ")):
        parameters["icc_profile"] = picture.icc
    if kind == "TIFF" and (exif or xmp):
        tags = Image.Exif()
        tags.load(exif or b"")
        if xmp:
            tags[_TIFF_XMP] = xmp
        parameters["exif"] = tags
        if exif:
            # Pillow's compressing TIFF writer cannot write the directories that EXIF consists of.
            del parameters["compression"]
    elif exif and (kind in ("PNG", "WEBP", "AVIF") or (kind == "JPEG" and len(exif) < _SEGMENT)):
        parameters["exif"] = exif
    if picture.dpi and kind in ("JPEG", "PNG", "TIFF", "BMP"):
        # JPEG and BMP hold whole numbers.
        parameters["dpi"] = picture.dpi if kind in ("PNG", "TIFF") else _whole(picture.dpi)
    if xmp:
        if kind == "PNG":
            text = PngImagePlugin.PngInfo()
            text.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
            parameters["pnginfo"] = text
        elif kind in ("WEBP", "AVIF") or (kind == "JPEG" and len(xmp) < _SEGMENT):
            parameters["xmp"] = xmp
    return parameters


def _whole(dpi: tuple[float, float]) -> tuple[int, int]:
    return round(dpi[0]), round(dpi[1])


def check_target(
    path: Path, *, overwrite: bool, source: Path | None = None, folder_comes: bool = False
) -> None:
    """Find out before the work what would prevent writing after it.

    Args:
        source: the picture itself, which is never replaced.
        folder_comes: the folder will be made before anything is written.

    Raises:
        OutputError: exists already, no such folder, not writable, or an impossible name.
    """
    # os.path, since pathlib's exists() raises on names that are too long.
    if source and os.path.exists(path) and os.path.samefile(path, source):  # noqa: PTH110, PTH121
        raise OutputError(f"{path} is the picture itself", "choose another name with -o")
    try:
        os.lstat(path)
        exists = True
    except FileNotFoundError:
        exists = False
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"{path} cannot be written ({reason})", "choose another name") from None
    if exists and path.is_dir():
        raise OutputError(f"{path} is a folder", "name a file in it")
    if exists and not overwrite:
        raise OutputError(f"{path} exists", "choose another name with -o, or --overwrite it")
    if folder_comes and not path.parent.exists():
        return
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} is not a folder", "create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path.parent} is not writable", "write elsewhere with -o")


def write_file(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write beside the place and rename: afterwards there is the old file or the new one.

    Raises:
        OutputError: it cannot be written, or exists by now without ``overwrite``.
        ResourceError: the disk is full.
    """
    with _beside(path) as (file, part):
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        if overwrite:
            part.replace(path)
            return
        try:
            path.hardlink_to(part)  # unlike a rename, fails if the name was taken meanwhile
        except FileExistsError:
            raise OutputError(f"{path} exists by now", "use --overwrite") from None
        except OSError:  # a file system without hard links
            if os.path.lexists(path):
                raise OutputError(f"{path} exists by now", "use --overwrite") from None
            part.replace(path)


@contextmanager
def _beside(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in the same folder, with the permissions of any new file, removed in the end."""
    part = path.parent / f".upres-{secrets.token_hex(8)}.part"
    try:
        with part.open("xb") as file:
            yield file, part
    except OSError as error:
        raise _os_error(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def _os_error(path: Path, error: OSError) -> OutputError | ResourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(f"{path} does not fit on the disk ({error.strerror})", "free some")
    return OutputError(f"{path} cannot be written ({error.strerror})", "write elsewhere with -o")
