"""Options that several commands share.

Numbers have parsers of our own, whose messages name the value and the range in one line.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from upres.errors import UsageError


def _tile(text: str) -> int | None:
    if text == "auto":
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither auto nor a number of pixels")


def _colour(text: str | tuple[int, int, int]) -> tuple[int, int, int]:
    if isinstance(text, tuple):
        return text
    from PIL import ImageColor

    try:
        colour = ImageColor.getrgb(text)
        if len(colour) != 3 or max(colour) > 255:
            raise ValueError
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a colour such as white or #ff8800") from None
    return colour


def named(text: str | Path) -> Path:
    """A folder's path. Path("") is the current folder, which nobody means who gives an empty
    variable."""
    if not text:
        raise typer.BadParameter("the folder's name is empty")
    return Path(text)


def refuse_without_network(models: Iterable[str], given: Mapping[str, bool]) -> None:
    """Kernels have no network, and run on the CPU.

    Args:
        models: all that will be used.
        given: options that only a network heeds, and whether each asks for something.

    Raises:
        UsageError: one does, and all models are kernels.
    """
    from upres.weights.manifest import KERNELS

    names = list(models)
    for option, asks in given.items():
        if asks and set(names) <= set(KERNELS):
            raise UsageError(
                f"{option} with --model {','.join(names)}, which has no network", "leave it out"
            )


def words(texts: list[str]) -> tuple[str, ...]:
    """Names; commas separate as spaces do, but in names of what is there. Known sets in lower
    case."""
    from upres.data.evaluation import EVALUATION_SETS

    parts = [[text] if _is_there(text) else text.split(",") for text in texts]
    found = [word.strip() for part in parts for word in part if word.strip()]
    return tuple(w.lower() if w.lower() in EVALUATION_SETS else w for w in found)


def _is_there(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _whole(least: int, most: int) -> Callable[[str | int], int]:
    """A parser of whole numbers."""

    def parse(text: str | int) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            upto = f" from {least} to {most}" if most < 2**62 else f" of at least {least}"
            raise typer.BadParameter(f"{str(text)!r} is not a whole number{upto}")
        return number

    return parse


def _number(text: str | float) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{str(text)!r} is not a number such as 2 or 2.5") from None


# More threads than this no machine has, and their stacks would fill memory.
_MOST_THREADS = 1024


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size such as 2G or 800M")
    size = float(match[1]) * 1024 ** " kmgt".index(match[2] or " ")
    return int(min(size, 2.0**62))


def _pixels(text: str | int) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)", str(text).strip().lower())
    number = float(match[1]) * 1000 ** " kmg".index(match[2] or " ") if match else 0.0
    if not 1 <= number <= 2**62:
        raise typer.BadParameter(f"{str(text)!r} is not a number of pixels such as 3G or 500M")
    return round(number)


def _format(text: str | None) -> str | None:
    from upres.imaging.formats import FORMATS

    if text is None:
        return None
    for name, known in FORMATS.items():
        if text.lower() in (name.lower(), *(suffix[1:] for suffix in known.suffixes)):
            return name
    raise typer.BadParameter(
        f"{text!r} is not a known format; known are {', '.join(FORMATS).lower()}"
    )


def scales(text: str) -> tuple[int, ...]:
    """ "2,3,4" as numbers; "" is none.

    Raises:
        UsageError: something else is among them.
    """
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part in ("2", "3", "4") for part in parts) or len(set(parts)) != len(parts):
        raise UsageError(f"--scale takes 2, 3, 4 or several of them, not {text!r}", "try --scale 2")
    return tuple(int(part) for part in parts)


def _model_names(incomplete: str) -> list[str]:
    from upres.weights.known import known_models
    from upres.weights.manifest import KERNELS

    names = ["auto", *KERNELS, *known_models().names]
    return [name for name in names if name.startswith(incomplete)]


_SIZE, _MODEL, _RUN, _OUT = "Size", "Model", "Execution", "Output"

Scale = Annotated[
    Any,
    typer.Option(
        "--scale",
        "-s",
        parser=_number,
        metavar="FACTOR",
        help="Factor over 1 and up to 8.  [default: 4]",
        rich_help_panel=_SIZE,
    ),
]
_PIXELS: Any = {"parser": _whole(1, 2**62), "metavar": "N", "rich_help_panel": _SIZE}
Width = Annotated[Any, typer.Option(help="Result's width in pixels.", **_PIXELS)]
Height = Annotated[Any, typer.Option(help="Result's height in pixels.", **_PIXELS)]
LongSide = Annotated[Any, typer.Option(help="Result's longer side in pixels.", **_PIXELS)]
Megapixels = Annotated[
    Any,
    typer.Option(
        parser=_number,
        metavar="X",
        help="Result's area in millions of pixels.",
        rich_help_panel=_SIZE,
    ),
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A name from 'upres models', bicubic, lanczos or a .safetensors file; auto: the best "
        "model for the scale, and 'photo' for JPEGs of a quality below 90.",
        rich_help_panel=_MODEL,
        autocompletion=_model_names,
    ),
]
Fast = Annotated[
    bool,
    typer.Option(
        "--fast",
        help="Use the small model: about a third of the time, slightly less sharp.",
        rich_help_panel=_MODEL,
    ),
]
Ensemble = Annotated[
    bool,
    typer.Option(
        "--ensemble",
        help="Average over 8 flips and rotations: 8 times the time, about 0.1 dB better.",
        rich_help_panel=_MODEL,
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option(help="Where networks run.", rich_help_panel=_RUN),
]
PrecisionName = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(help="Number format of the networks.", rich_help_panel=_RUN),
]
Tile = Annotated[
    Any,
    typer.Option(
        parser=_tile,
        metavar="auto|N|0",
        help="Side of a tile in input pixels: smaller tiles take less memory and more time; 0: "
        "the whole picture at once.",
        rich_help_panel=_RUN,
    ),
]
Threads = Annotated[
    Any,
    typer.Option(
        parser=_whole(1, _MOST_THREADS),
        metavar="N",
        help="CPU threads.  [default: all cores]",
        rich_help_panel=_RUN,
    ),
]
MaxPixels = Annotated[
    Any,
    typer.Option(
        parser=_pixels,
        metavar="N",
        help="Refuse inputs with more than N pixels, such as 3G.  [default: 1G]",
        rich_help_panel=_RUN,
    ),
]
MaxMemory = Annotated[
    Any,
    typer.Option(
        parser=_bytes,
        metavar="SIZE",
        help="Limit on the program's memory, such as 2G; at least 1G.  [default: none]",
        rich_help_panel=_RUN,
    ),
]
FormatName = Annotated[
    str | None,
    typer.Option(
        "--format",
        parser=_format,
        metavar="NAME",
        help="Format where -o names no file: jpeg, png, webp, tiff, ...  [default: the input's]",
        rich_help_panel=_OUT,
    ),
]
Quality = Annotated[
    Any,
    typer.Option(
        "--quality",
        "-q",
        parser=_whole(1, 100),
        metavar="1-100",
        help="For JPEG, WebP and AVIF; 100 makes WebP lossless.  [default: 95]",
        rich_help_panel=_OUT,
    ),
]
AlphaBy = Annotated[
    Literal["bicubic", "network"],
    typer.Option("--alpha", help="How transparency is enlarged.", rich_help_panel=_MODEL),
]
Wrap = Annotated[
    bool,
    typer.Option(
        "--wrap",
        help="Treat the picture as a repeating texture, whose opposite edges match; whole factors "
        "only.",
        rich_help_panel=_MODEL,
    ),
]
Background = Annotated[
    Any,
    typer.Option(
        parser=_colour,
        metavar="COLOUR",
        help="Colour behind transparent areas, where the format holds no transparency.",
        rich_help_panel=_OUT,
    ),
]
StripMetadata = Annotated[
    bool,
    typer.Option(
        "--strip-metadata",
        help="Leave out EXIF, XMP, IPTC, text fields, comments and georeferencing; profile and "
        "resolution stay.",
        rich_help_panel=_OUT,
    ),
]
ConvertProfile = Annotated[
    Literal["srgb"] | None,
    typer.Option(help="Convert colours from the picture's profile to sRGB.", rich_help_panel=_OUT),
]
ReportFidelity = Annotated[
    bool,
    typer.Option(
        "--report-fidelity",
        help="Report for everything in the file whether it was kept, changed or lost.",
        rich_help_panel=_OUT,
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing files.", rich_help_panel=_OUT)
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would be done, and stop.", rich_help_panel=_OUT),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="One JSON object per line on stdout.", rich_help_panel=_OUT),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Only errors on stderr.", rich_help_panel=_OUT)
]


Folder = Annotated[Path, typer.Argument(parser=named, metavar="DIR", help="Folder with pictures.")]
