"""File formats by name and suffix: their sizes, depths and channels."""

from dataclasses import dataclass
from pathlib import Path

from upres.errors import OutputError
from upres.imaging import jpeg2000

_LONG = 2**31 - 1
_LARGEST_AVIF = 2**28  # pixels that libavif decodes, which programs have it from; 32768 a side
_LARGEST_BMP = 2**32 - 54 - 1024  # bytes of pixels, beside header and palette


@dataclass(frozen=True)
class Format:
    """What a file format can hold.

    Attributes:
        suffixes: the first is used for new names.
        limit: largest side in pixels.
        alpha, deep: whether it holds transparency, and gray of more than 8 bits.
        deep_colour: whether it holds more than 8 bits with colour and transparency.
        lossy: whether ``--quality`` means anything.
        bands: whether it holds channels that are neither colour nor transparency.
        timed: whether it holds animations.
    """

    suffixes: tuple[str, ...]
    limit: int
    alpha: bool
    deep: bool
    lossy: bool
    deep_colour: bool = False
    bands: bool = False
    timed: bool = False


FORMATS: dict[str, Format] = {
    "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif"), 65500, alpha=False, deep=False, lossy=True),
    "PNG": Format(
        (".png", ".apng"),
        _LONG,
        alpha=True,
        deep=True,
        lossy=False,
        deep_colour=True,
        timed=True,
    ),
    "WEBP": Format((".webp",), 16383, alpha=True, deep=False, lossy=True, timed=True),
    "TIFF": Format(
        (".tif", ".tiff"),
        _LONG,
        alpha=True,
        deep=True,
        lossy=False,
        deep_colour=True,
        bands=True,
    ),
    "BMP": Format((".bmp", ".dib"), _LONG, alpha=False, deep=False, lossy=False),
    "AVIF": Format(
        (".avif",), 32768, alpha=True, deep=True, lossy=True, deep_colour=True, timed=True
    ),
    "GIF": Format((".gif",), 65535, alpha=True, deep=False, lossy=False, timed=True),
    "JPEG2000": Format(
        (".jp2", ".jpx", ".jpf"),
        _LONG,
        alpha=True,
        deep=True,
        lossy=False,
        deep_colour=jpeg2000.available(),
    ),
}


_HEIC = (".heic", ".heif", ".hif")
# HEIC, and JPEG 2000 without a container: what they hold, PNG holds without loss.
_READ_ONLY = (*_HEIC, ".j2k", ".j2c", ".jpc")
_INSTEAD = "PNG"
_READABLE = frozenset(_READ_ONLY).union(*(known.suffixes for known in FORMATS.values()))
# Formats that hold animations.
TIMED = frozenset(name for name, known in FORMATS.items() if known.timed)


def is_readable(name: str) -> bool:
    """Whether a file's name says that it is a picture that can be read."""
    return Path(name).suffix.lower() in _READABLE


def written_as(form: str, source: Path | None, target: Path | None) -> str:
    """The format of a result for which none was chosen.

    Args:
        form: the source's.
        source: its name; None for standard input.
        target: where the result goes, by a name as ``written_to`` gives it; None for standard
            output.

    Raises:
        OutputError: a format that is not written, in a name that says none.
    """
    renamed = source is not None and is_read_only(source)
    if form in FORMATS and (target is None or not renamed):
        return form
    return _INSTEAD if target is None else format_of(target)


def is_read_only(path: Path) -> bool:
    """Whether a name says a format that is read and not written."""
    return path.suffix.lower() in _READ_ONLY


def is_heic(path: Path) -> bool:
    """Whether a name says HEIC, which is read where pillow-heif is installed."""
    return path.suffix.lower() in _HEIC


def written_to(path: Path) -> Path:
    """A result's name after its source's, with another suffix where the format is not written."""
    if is_read_only(path):
        return path.with_suffix(FORMATS[_INSTEAD].suffixes[0])
    return path


def format_of(path: Path) -> str:
    """The format that a file name asks for.

    Raises:
        OutputError: no format has this suffix, or it is not written.
    """
    suffix = path.suffix.lower()
    for name, known in FORMATS.items():
        if suffix in known.suffixes:
            return name
    if is_read_only(path):
        what = "HEIC" if is_heic(path) else "JPEG 2000 without a container"
        raise OutputError(f"{path} would be {what}, which is read and not written", "use .png")
    if not suffix:
        raise OutputError(
            f"{path} is no folder, and no name that says a format",
            "create the folder, or name a file such as out.png",
        )
    names = ", ".join(known.suffixes[0] for known in FORMATS.values())
    raise OutputError(f"{path} ends in {suffix!r}, which is no known format", f"use one of {names}")


def check_size(file_format: str, width: int, height: int, channels: int = 3) -> None:
    """Refuse, before anything is computed, what the format cannot hold.

    Raises:
        OutputError: a side is too long, or the whole too large.
    """
    limit = FORMATS[file_format].limit
    if max(width, height) > limit:
        raise OutputError(
            f"{file_format} holds at most {limit} pixels a side, "
            f"the result would be {width} x {height}",
            "write .png or .tif instead",
        )
    if file_format == "AVIF" and width * height > _LARGEST_AVIF:
        raise OutputError(
            f"programs read AVIF of up to {_LARGEST_AVIF / 1e6:.0f} megapixels, "
            f"the result would be {width} x {height}",
            "write .png or .tif instead",
        )
    row = (width * (1 if channels == 1 else 3) + 3) // 4 * 4
    if file_format == "BMP" and row * height > _LARGEST_BMP:
        raise OutputError(
            f"BMP holds at most 4 GB, the result would be {width} x {height}",
            "write .png or .tif instead",
        )
