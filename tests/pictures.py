"""Small things that tests of pictures share."""

from PIL import Image


def silent(*_):
    """Progress that nobody watches."""


def save(path, pixels):
    """Write a picture and the folders above it; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
