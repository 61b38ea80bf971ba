"""libvips, imported when first needed."""

from functools import cache
from typing import Any


def reason(error: Any) -> str:
    """What a pyvips.Error says, in one line."""
    return " ".join(str(error.detail).split())


@cache
def vips() -> Any:
    """The module pyvips, which remembers no files: it would take one that changed for the old."""
    import pyvips

    pyvips.cache_set_max(0)
    return pyvips
