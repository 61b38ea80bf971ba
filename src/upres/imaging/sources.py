"""The bytes of a picture's file: by its path, in memory, or open in Pillow."""

import io
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from upres.errors import InputError


def reopened(source: Path | bytes | io.BytesIO) -> BinaryIO:
    """The file again, from its beginning."""
    if isinstance(source, Path):
        return source.open("rb")
    return io.BytesIO(source if isinstance(source, bytes) else source.getvalue())


def length(image: Image.Image) -> int:
    """Bytes of the file that an image was opened from; 0 where it is not open."""
    file: Any = getattr(image, "fp", None)
    if file is None:
        return 0
    place = file.tell()
    size: int = file.seek(0, 2)
    file.seek(place)
    return size


def peek(image: Image.Image, count: int, start: int = 0) -> bytes:
    """Bytes of that file, which stays where it is."""
    file: Any = getattr(image, "fp", None)
    if file is None:
        return b""
    place = file.tell()
    file.seek(start)
    data: bytes = file.read(count)
    file.seek(place)
    return data


def damaged(name: str, why: str) -> InputError:
    """The error for a file that no decoder gets through.

    Args:
        why: in the decoder's words.
    """
    return InputError(
        f"{name} is damaged and cannot be decoded ({why})", "get it again from its source"
    )
