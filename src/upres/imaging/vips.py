"""libvips, imported when first needed."""

from functools import cache
from pathlib import Path
from typing import Any


def reason(error: Any) -> str:
    """What a pyvips.Error says, in one line."""
    return " ".join(str(error.detail).split())


@cache
def unlimited() -> dict[str, bool]:
    """Options for opening a file however large its parts are: what libvips 8.17 and newer refuse
    (50 MB in a TIFF's layers, say) is in files that people have; our own limits are on pixels."""
    return {"unlimited": True} if vips().at_least_libvips(8, 17) else {}


def opened(path: Path, **options: Any) -> Any:
    """A picture that libvips decodes as it is needed.

    By a descriptor: libvips takes names in UTF-8 only, and an end in brackets for options.

    Raises:
        pyvips.Error: it cannot be decoded.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        source = vips().Source.new_from_descriptor(file.fileno())
    return vips().Image.new_from_source(source, "", **unlimited(), **options)


@cache
def vips() -> Any:
    """The module pyvips, which remembers no files: it would take one that changed for the old."""
    import pyvips

    pyvips.cache_set_max(0)
    return pyvips
