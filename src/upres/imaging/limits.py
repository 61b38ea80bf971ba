"""Pillow's limit on pixels, a global, which gives way to our own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

_LOCK = threading.Lock()
_lifted = 0  # how many are in the block
_usual: int | None = None


@contextmanager
def limit_lifted() -> Iterator[None]:
    """Pillow takes files of any size meanwhile. Whoever uses this has compared them with
    ``max_pixels``, or is about to, before memory is taken."""
    global _lifted, _usual
    with _LOCK:
        if _lifted == 0:
            _usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _lifted += 1
    try:
        yield
    finally:
        with _LOCK:
            _lifted -= 1
            if _lifted == 0:
                Image.MAX_IMAGE_PIXELS = _usual
