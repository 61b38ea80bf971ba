"""JPEG 2000 of more than 8 bits, by imagecodecs: of its colours Pillow keeps 8, and white wraps
around to black.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upres.errors import InputError
from upres.imaging.picture import stretched

# In the box "colr": method 1, and the number of the colour space sYCC (ISO/IEC 15444-1, I.5.3.3).
_SYCC = b"colr\x01\x00\x00\x00\x00\x00\x12"


def available() -> bool:
    """Whether the extra "codecs" is installed."""
    return importlib.util.find_spec("imagecodecs") is not None


def decode_deep(source: Path | bytes, name: str, bits: int) -> NDArray[np.uint16]:
    """All components of a file in 16 bits, white at the very top.

    Args:
        name: of the file, for people.
        bits: of a component in the file, 9 to 16.

    Returns:
        H x W x C.

    Raises:
        InputError: imagecodecs is missing, or it is neither RGB nor gray.
        RuntimeError: it is damaged.
    """
    if not available():
        raise InputError(
            f"{name} is a JPEG 2000 of {bits} bits a channel, which needs imagecodecs",
            "install imagecodecs in upres's environment",
        )
    import imagecodecs

    data = source if isinstance(source, bytes) else source.read_bytes()
    found = imagecodecs.jpeg2k_decode(data)
    pixels = found[..., None] if found.ndim == 2 else found
    plain = pixels.dtype == np.uint16 and pixels.ndim == 3 and pixels.shape[2] <= 4
    if _SYCC in data.partition(b"jp2c")[0] or not plain:
        raise InputError(
            f"{name} is a JPEG 2000 of {bits} bits that is neither RGB nor gray", "convert it"
        )
    return stretched(pixels, bits)


def encode_deep(pixels: NDArray[np.uint16], bits: int) -> bytes:
    """A file without loss.

    Args:
        pixels: H x W x C.
        bits: of a component in the file, 9 to 16.
    """
    import imagecodecs

    top = 2**bits - 1
    values = ((pixels.astype(np.uint32) * top + 32767) // 65535).astype(np.uint16)
    data: Any = imagecodecs.jpeg2k_encode(
        values[..., 0] if values.shape[2] == 1 else values,
        level=0,
        reversible=True,
        codecformat="jp2",
        bitspersample=bits,
    )
    return bytes(data)
