"""Pillow's limit on pixels, a global, which gives way to our own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

_LIFTED = threading.Lock()


@contextmanager
def limit_lifted() -> Iterator[None]:
    """Pillow takes files of any size meanwhile. Whoever uses this has compared them with
    ``max_pixels``, or is about to, before memory is taken."""
    with _LIFTED:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def load(image: Image.Image) -> None:
    """Decode a picture that our limit allows."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or image.width * image.height <= limit:
        image.load()
        return
    with limit_lifted():
        image.load()
