"""What file formats can hold."""

from dataclasses import dataclass
from pathlib import Path

from upres.errors import OutputError
from upres.imaging import jpeg2000

_LONG = 2**31 - 1


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
    """

    suffixes: tuple[str, ...]
    limit: int
    alpha: bool
    deep: bool
    lossy: bool
    deep_colour: bool = False
    bands: bool = False


FORMATS: dict[str, Format] = {
    "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif"), 65500, alpha=False, deep=False, lossy=True),
    "PNG": Format((".png", ".apng"), _LONG, alpha=True, deep=True, lossy=False, deep_colour=True),
    "WEBP": Format((".webp",), 16383, alpha=True, deep=False, lossy=True),
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
    "AVIF": Format((".avif",), 65536, alpha=True, deep=True, lossy=True, deep_colour=True),
    "GIF": Format((".gif",), 65535, alpha=True, deep=False, lossy=False),
    "JPEG2000": Format(
        (".jp2", ".j2k", ".jpx"),
        _LONG,
        alpha=True,
        deep=True,
        lossy=False,
        deep_colour=jpeg2000.available(),
    ),
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
