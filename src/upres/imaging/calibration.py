"""How large a pixel is, where a TIFF says so in its own words: ImageJ's and microscopes' files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL.ExifTags import Base as Tag

_NO_UNIT = 1
_LARGEST_FACTOR = 8  # that pictures are enlarged by
_IMAGEJ = "ImageJ="
# OME-XML 2016-06: size of a picture in pixels, and of a pixel.
_OME = "<OME"
_OME_SIZE = re.compile(r'\b(Size[XY])\s*=\s*"(\d+)"')
_OME_PIXEL = re.compile(r'\b(PhysicalSize[XY])\s*=\s*"([^"]+)"')
_OME_TYPE = re.compile(r'(<Pixels\b[^<>]*?\bType\s*=\s*")[^"]*')
_OME_TYPES = {"uint8": "uint8", "uint16": "uint16", "float32": "float"}
_ORIGIN = re.compile(r"^([xy])origin=(-?[0-9.]{1,30})$", re.MULTILINE)
# What tifffile tells itself about the shape of an array.
_SHAPED = '{"shape":'


@dataclass(frozen=True)
class Calibration:
    """A TIFF's resolution that means the size of what is seen, not of a print: one without a unit
    (TIFF 6.0, ResolutionUnit 1), or any in a file whose words are ImageJ's or OME's.

    Attributes:
        per_unit: pixels for one unit across and down.
        width, height: of the picture that they are about.
        unit: 1 where other words name it, 2 an inch, 3 a centimetre.
    """

    per_unit: tuple[float, float]
    width: int
    height: int
    unit: int = _NO_UNIT

    @property
    def can_be_written(self) -> bool:
        """Whether the resolution of any result is a fraction of two numbers of 32 bits."""
        return max(self.per_unit) * _LARGEST_FACTOR < 2**32

    def enlarged(self, width: int, height: int) -> tuple[float, float]:
        """Pixels for one unit in another number of pixels for the same picture."""
        x, y = self.per_unit
        return x * width / self.width, y * height / self.height


def read_calibration(tags: Mapping[int, Any], *, turned: bool) -> Calibration | None:
    """What a page's tags say.

    Args:
        turned: by a quarter, so that across becomes down.
    """
    unit, text = tags.get(Tag.ResolutionUnit), str(tags.get(Tag.ImageDescription, ""))
    if unit != _NO_UNIT and not is_of_the_stack(text):
        return None
    try:
        x, y = float(tags[Tag.XResolution]), float(tags[Tag.YResolution])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    # One pixel for nothing is what writers put who know of no resolution.
    if not (0 < x < 1e12 and 0 < y < 1e12) or (x, y) == (1, 1):
        return None
    width, height = int(tags[Tag.ImageWidth]), int(tags[Tag.ImageLength])
    unit = unit if unit in (_NO_UNIT, 3) else 2  # an inch where nothing is said
    if turned:
        return Calibration((y, x), height, width, unit)
    return Calibration((x, y), width, height, unit)


def stacked(tags: Mapping[int, Any]) -> int:
    """How many images ImageJ says there are, which need no directories of their own; 0 where it
    does not."""
    text = str(tags.get(Tag.ImageDescription, ""))
    found = re.search(r"^images=(\d{1,9})$", text, re.MULTILINE)
    return int(found[1]) if found and text.startswith(_IMAGEJ) else 0


def is_of_the_stack(text: str) -> bool:
    """Whether a description is ImageJ's or OME's, which the first page has for all of them."""
    return text.startswith(_IMAGEJ) or _OME in text[:1000]


def updated_description(
    text: str, width: int, height: int, dtype: str, old: Calibration | None = None
) -> str:
    """A TIFF's description for other pixels.

    OME-XML names the numbers of pixels and their type, which become the new ones, and the size of
    one, which becomes smaller; ImageJ the place where its units begin, in pixels; tifffile's note
    of an array's shape goes; anything else stays.

    Args:
        dtype: numpy's name of what is written.
        old: what tells how large the picture was.
    """
    if text.startswith(_SHAPED):
        return ""
    if text.startswith(_IMAGEJ) and old:
        return _ORIGIN.sub(
            partial(_moved, factors={"x": width / old.width, "y": height / old.height}), text
        )
    if _OME not in text[:1000]:
        return text
    stated = {key[-1]: int(value) for key, value in reversed(_OME_SIZE.findall(text))}
    new = {"X": width, "Y": height}
    factors = {axis: new[axis] / old for axis, old in stated.items() if old}

    def size(match: re.Match[str]) -> str:
        axis = match[1][-1]
        return f'{match[1]}="{round(int(match[2]) * factors.get(axis, 1))}"'

    def pixel(match: re.Match[str]) -> str:
        try:
            value = float(match[2]) / factors.get(match[1][-1], 1)
        except ValueError:
            return match[0]
        return f'{match[1]}="{value:.12g}"'

    text = _OME_TYPE.sub(rf"\g<1>{_OME_TYPES[dtype]}", text)
    return _OME_PIXEL.sub(pixel, _OME_SIZE.sub(size, text))


def _moved(match: re.Match[str], factors: Mapping[str, float]) -> str:
    try:
        return f"{match[1]}origin={float(match[2]) * factors[match[1]]:.12g}"
    except ValueError:
        return match[0]
