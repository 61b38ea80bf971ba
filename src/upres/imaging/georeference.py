"""Where on the Earth a picture lies: GeoTIFF's tags, adapted to an enlarged picture.

OGC GeoTIFF 1.1 (OGC 19-008r4), annex B for the tags, and requirement 9 for what a raster's
coordinates mean.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_SCALE, _TIEPOINTS, _TRANSFORMATION = 33550, 33922, 34264
_KEYS, _DOUBLES, _TEXTS, NO_DATA = 34735, 34736, 34737, 42113
# The types of TIFF: text, 16-bit numbers, doubles.
_TYPES = {
    _SCALE: 12,
    _TIEPOINTS: 12,
    _TRANSFORMATION: 12,
    _KEYS: 3,
    _DOUBLES: 12,
    _TEXTS: 2,
    NO_DATA: 2,
}
TAGS = frozenset(_TYPES)
_RASTER_TYPE, _POINT = 1025, 2


@dataclass(frozen=True)
class GeoReference:
    """Attributes:
    tags: codes and values, as they stand in the file.
    width, height: of the picture that they are about.
    """

    tags: Mapping[int, Any]
    width: int
    height: int

    def without_no_data(self) -> "GeoReference":
        """The same place, of numbers that the value for missing ones is none of."""
        tags = {code: value for code, value in self.tags.items() if code != NO_DATA}
        return replace(self, tags=tags)

    @property
    def is_somewhere(self) -> bool:
        """Whether it tells a place, and not only which value stands for missing ones."""
        return bool(set(self.tags) - {NO_DATA})

    @property
    def _to_corner(self) -> float:
        """From the place that a pixel's coordinates mean to its corner: 0, or half a pixel."""
        keys = self.tags.get(_KEYS, ())
        entries = (keys[i : i + 4] for i in range(4, len(keys) - 3, 4))
        point = any(e[0] == _RASTER_TYPE and e[3] == _POINT for e in entries)
        return 0.5 if point else 0.0

    def enlarged(self, width: int, height: int) -> dict[int, Any]:
        """The tags for the same area in another number of pixels.

        A coordinate x of the old picture is (x + d) f - d in the new one, where f is the factor
        and d is half a pixel if coordinates mean centres, and nothing if they mean corners.
        """
        across, down = width / self.width, height / self.height
        shift = self._to_corner
        changed = dict(self.tags)
        if _SCALE in changed:
            x, y, z = changed[_SCALE][:3]
            changed[_SCALE] = (x / across, y / down, z)
        if _TIEPOINTS in changed:
            points = list(changed[_TIEPOINTS])
            for i in range(0, len(points) - 5, 6):
                points[i] = (points[i] + shift) * across - shift
                points[i + 1] = (points[i + 1] + shift) * down - shift
            changed[_TIEPOINTS] = tuple(points)
        if _TRANSFORMATION in changed:
            rows = []
            for i in range(0, 16, 4):
                a, b, c, d = changed[_TRANSFORMATION][i : i + 4]
                a, b = a / across, b / down
                rows += [a, b, c, d + (a * (1 - across) + b * (1 - down)) * shift]
            changed[_TRANSFORMATION] = tuple(rows)
        return changed


# How files end that say more about a picture beside them: its place on the Earth (world files),
# GDAL's statistics and smaller copies, metadata of photographers' programs.
_WORLD = (
    *(".tfw", ".tifw", ".jgw", ".jpgw", ".jpegw", ".pgw", ".pngw", ".gfw", ".gifw", ".j2w"),
    *(".bpw", ".wld"),
)
_APPENDED = (".aux.xml", ".ovr", ".xmp")


def files_beside(path: Path) -> list[str]:
    """Names of files beside a picture that belong to it, and are neither read nor written here."""
    names = [[path.with_suffix(s), path.with_suffix(s.upper())] for s in (*_WORLD, ".xmp")]
    names += [[path.with_name(path.name + suffix)] for suffix in _APPENDED]
    # Unlike Path's, os.path's never raises. Where case means nothing, both spellings are one file.
    there = (next(filter(os.path.isfile, spellings), None) for spellings in names)
    return [other.name for other in there if other]


def no_data_of(tags: Mapping[int, Any]) -> float | None:
    """The value that stands for missing ones, if a TIFF states one (GDAL's tag)."""
    try:
        return float(str(tags[NO_DATA]).strip("\0 "))
    except (KeyError, ValueError):
        return None


def read_georeference(tags: Mapping[int, Any], width: int, height: int) -> GeoReference | None:
    """What a TIFF's tags say, if they make sense."""
    found: dict[int, Any] = {}
    for code, kind in _TYPES.items():
        if code not in tags:
            continue
        value = tags[code]
        if kind == 2:
            sound = isinstance(value, str)
        else:
            value = value if isinstance(value, tuple) else (value,)
            sound = all(isinstance(x, int | float) for x in value)
        if not sound:
            return None
        found[code] = value
    lengths = {_SCALE: 3, _TIEPOINTS: 6, _TRANSFORMATION: 16, _KEYS: 4}
    if any(len(found[code]) < least for code, least in lengths.items() if code in found):
        return None
    # GDAL states missing numbers, and coordinates of an unknown system, without keys too.
    tells = {_KEYS, _SCALE, _TRANSFORMATION, NO_DATA} & set(found)
    return GeoReference(found, width, height) if tells else None


def extra_tags(reference: GeoReference, width: int, height: int) -> list[tuple[Any, ...]]:
    """The enlarged picture's, as tifffile takes them."""
    return [
        # Texts as bytes: tifffile takes no letters beyond ASCII, which Pillow reads as Latin-1.
        (code, _TYPES[code], 0, value.encode("latin-1", "replace"), True)
        if isinstance(value, str)
        else (code, _TYPES[code], len(value), value, True)
        for code, value in sorted(reference.enlarged(width, height).items())
    ]
