"""Raw files of cameras: what the sensor counted, of which a picture is yet to be made."""

from collections.abc import Mapping
from typing import Any

from PIL.ExifTags import Base as Tag

from upres.errors import InputError

# How those begin that are no TIFF, or one with a head of its own: Canon (CRW, CR2), Fujifilm,
# Minolta, Olympus, Panasonic, Sigma.
_HEADS = (
    b"II\x1a\0\0\0HEAPCCDR",
    b"II*\0\x10\0\0\0CR\x02",
    b"FUJIFILMCCD-RAW",
    b"\0MRM",
    b"IIRO",
    b"IIRS",
    b"MMOR",
    b"IIU\0",
    b"FOVb",
)
_CANON = b"ftypcrx "  # CR3, behind the length of its first box
# PhotometricInterpretation of a mosaic of colours and of a sensor's own colours (DNG 1.7).
_COLOURS = (32803, 34892)
HEAD = 16  # bytes that tell


def refuse_raw_head(head: bytes, name: str) -> None:
    """Look at the first bytes of a file.

    Raises:
        InputError: it is a raw file.
    """
    if head.startswith(_HEADS) or head[4:].startswith(_CANON):
        raise _refusal(name)


def refuse_raw_tags(tags: Mapping[int, Any], name: str) -> None:
    """Look at a directory of a TIFF, which most cameras' raw files are.

    Raises:
        InputError: it holds what a sensor counted.
    """
    if tags.get(Tag.PhotometricInterpretation) in _COLOURS:
        raise _refusal(name)


def _refusal(name: str) -> InputError:
    return InputError(
        f"{name} is a camera's raw file, whose picture is yet to be developed",
        "make a 16-bit TIFF of it, for example with darktable or RawTherapee, and upscale that",
    )
