"""Upscale photographs with residual super-resolution networks.

    import upres

    large = upres.load("edsr-light", scale=4).upscale(small)

Nothing heavy is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from upres.errors import (
    BatchError,
    InputError,
    OutputError,
    ResourceError,
    UpresError,
    UsageError,
    VerificationError,
    WeightsError,
)
from upres.version import __version__

if TYPE_CHECKING:
    from upres.api import Goal, Upscaler, load, upscale_file

_LAZY = ("Goal", "Upscaler", "load", "upscale_file")

__all__ = [
    "BatchError",
    "Goal",
    "InputError",
    "OutputError",
    "ResourceError",
    "UpresError",
    "Upscaler",
    "UsageError",
    "VerificationError",
    "WeightsError",
    "__version__",
    "load",
    "upscale_file",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module("upres.api"), name)
    raise AttributeError(f"module 'upres' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
