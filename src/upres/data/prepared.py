"""What a prepared folder holds.

index.json              what is in it
high.u8                 every picture's H x W x 3 bytes, one after the other
detail.f32              how much there is to see around each cell of 16 x 16 pixels
low-x2-bicubic.u8 ...   every picture's (H // 2) x (W // 2) x 3 bytes, or its degraded versions;
                        low-x2-HASH.u8 where low-resolution files were given
taught-x2-...           what a teacher made of those, laid out as high.u8
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from upres.data.detail import CELL


@dataclass(frozen=True)
class Entry:
    """One picture at one size.

    Attributes:
        sha256: of its file.
        size: factor by which the file's picture was shrunk; 1 is as it is.
        height, width: in high-resolution pixels.
        start: index of its first pixel in high.u8.
        detail_start: index of its first cell in detail.f32.
    """

    sha256: str
    size: float
    height: int
    width: int
    start: int
    detail_start: int

    @property
    def pixels(self) -> int:
        """High-resolution pixels."""
        return self.height * self.width

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of its detail map."""
        return -(-self.height // CELL), -(-self.width // CELL)

    def low(self, scale: int) -> tuple[int, int]:
        """Height and width of its low-resolution partner."""
        return self.height // scale, self.width // scale


@dataclass(frozen=True)
class Prepared:
    """A prepared folder.

    Attributes:
        folder: where it is.
        entries: its pictures, in the order of the file.
        skipped: files that could not be decoded, and why.
        partners: for each scale the file with the clean low-resolution pixels.
    """

    folder: Path
    entries: tuple[Entry, ...]
    skipped: tuple[str, ...]
    partners: Mapping[int, str] = field(default_factory=dict)

    def high(self) -> NDArray[np.uint8]:
        """P x 3: all pictures' pixels, mapped."""
        return np.memmap(self.folder / "high.u8", np.uint8, "c").reshape(-1, 3)

    def low(self, scale: int) -> NDArray[np.uint8]:
        """P x 3: the clean low-resolution pixels."""
        return self._mapped(self.partners[scale])

    def given(self, scale: int) -> str:
        """What tells the low-resolution files that came with the pictures; "" if none did."""
        told = self.partners[scale].removeprefix(f"low-x{scale}-").removesuffix(".u8")
        return "" if told == "bicubic" else told

    def degraded(self, scale: int, versions: int) -> NDArray[np.uint8]:
        """P x 3: the degraded low-resolution pixels; versions of one picture follow each other."""
        return self._mapped(degraded_name(scale, versions))

    def taught(self, scale: int, teacher: str) -> Path:
        """Where it is kept what a teacher makes of the clean low-resolution pixels."""
        # Pictures that can be decoded another time move the others.
        places = [(entry.sha256, entry.start) for entry in self.entries]
        told = repr((self.partners[scale], places, teacher))
        return self.folder / f"taught-x{scale}-{hashlib.sha256(told.encode()).hexdigest()[:16]}.u8"

    def _mapped(self, name: str) -> NDArray[np.uint8]:
        return np.memmap(self.folder / name, np.uint8, "c").reshape(-1, 3)

    def detail(self) -> NDArray[np.float32]:
        """The detail maps, one after the other."""
        return np.fromfile(self.folder / "detail.f32", np.float32)


def degraded_name(scale: int, versions: int) -> str:
    """Of the file that holds so many degraded versions of each picture."""
    return f"low-x{scale}-photo{versions}.u8"


def low_starts(
    entries: Sequence[Entry], scale: int, versions: int
) -> tuple[NDArray[np.int64], int]:
    """Index of each picture's first low-resolution pixel, and how many pixels there are."""
    counts = [versions * entry.low(scale)[0] * entry.low(scale)[1] for entry in entries]
    ends = np.cumsum(counts, dtype=np.int64)
    return ends - np.asarray(counts, np.int64), int(ends[-1])
