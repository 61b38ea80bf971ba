"""libvips, imported when first needed."""

from functools import cache
from typing import Any


@cache
def vips() -> Any:
    """The module pyvips, which remembers no files: it would take one that changed for the old."""
    import pyvips

    pyvips.cache_set_max(0)
    return pyvips
