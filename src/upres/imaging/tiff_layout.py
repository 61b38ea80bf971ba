"""Which pages a TIFF holds, and what else: nothing is decoded."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from PIL.ExifTags import Base as Tag

from upres.imaging import tiff_tags
from upres.imaging.calibration import stacked
from upres.imaging.metadata import orientation
from upres.imaging.raw import refuse_raw_tags
from upres.imaging.sources import reopened
from upres.imaging.tiff_directories import Tags, directories, directories_below


def _size(tags: Mapping[int, Any]) -> tuple[int, int]:
    return int(tags[Tag.ImageWidth]), int(tags[Tag.ImageLength])


@dataclass(frozen=True)
class Page:
    """A page of a TIFF, not decoded.

    Attributes:
        index: its place among all directories of the file.
        offset: of its directory, in bytes.
    """

    index: int
    offset: int
    tags: Tags

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as they lie in the file."""
        return _size(self.tags)

    @property
    def bits(self) -> int:
        """Of a channel."""
        return tiff_tags.bits_of(self.tags)

    @property
    def values(self) -> int:
        """Numbers of all its pixels."""
        return math.prod(self.size) * int(self.tags.get(Tag.SamplesPerPixel, 1))

    @property
    def nbytes(self) -> int:
        """Of its pixels, decoded, with what is held on the way."""
        if self.tags.get(Tag.PhotometricInterpretation) == tiff_tags.PALETTE:
            return 10 * math.prod(self.size)
        deep = -(-self.bits // 8)
        return self.values * deep * (3 if deep >= 4 else 2)

    @property
    def end(self) -> int:
        """Of its last strip or tile, as bytes from the beginning of the file; 0 if it does not say
        where they lie."""
        tiled = Tag.TileOffsets in self.tags
        names = (Tag.TileOffsets, Tag.TileByteCounts)
        if not tiled:
            names = (Tag.StripOffsets, Tag.StripByteCounts)
        places, sizes = (self.tags.get(name, ()) for name in names)
        both = zip(places, sizes, strict=False) if isinstance(places, tuple) else ()
        return max((int(place) + int(size) for place, size in both), default=0)

    @property
    def is_page(self) -> bool:
        """Whether it is neither a smaller copy nor a mask."""
        return tiff_tags.is_page(self.tags)

    @property
    def turned(self) -> int:
        """The orientation, 1 to 8."""
        stated = self.tags.get(Tag.Orientation)
        if isinstance(stated, int) and 1 <= stated <= 8:
            return stated
        return orientation(None, tiff_tags.xmp_of(self.tags))


@dataclass(frozen=True)
class Pages:
    """What a file holds, not decoded.

    Attributes:
        pages: those to read, at least one.
        copies: other directories: pages' smaller copies and masks, which cameras, scanners and
            geographic programs add.
        below: what directories below others say, as microscopes' programs and cameras add them.
        others: how many more pages there are.
        images: in the one page's directory, one behind the other, as ImageJ writes large stacks.
    """

    pages: list[Page]
    copies: list[Page]
    below: list[dict[int, int]]
    others: int = 0
    images: int = 1

    @property
    def count(self) -> int:
        """Of pictures that are read."""
        return len(self.pages) * self.images

    def first_alone(self) -> "Pages":
        """The same without the other pages."""
        return replace(self, pages=self.pages[:1], others=self.count - 1, images=1)

    @property
    def beside(self) -> list[str]:
        """What is neither read nor counted, in words."""
        width, height = self.pages[0].size
        larger = [
            size
            for size in (_size(one) for one in self.below if tiff_tags.is_page(one))
            if math.prod(size) > width * height
        ]
        notes = []
        if larger:
            wide, high = max(larger, key=math.prod)
            notes.append(f"a larger picture below the first page, {wide} x {high}, is not read")
        if self.copies or len(self.below) > len(larger):
            notes.append("smaller copies and masks of pages are left out")
        return notes


def pages_of(source: Path | bytes, name: str) -> Pages:
    """Look at all directories of a file.

    Args:
        name: of the file, for people.

    Raises:
        InputError: it is a camera's raw file.
        SyntaxError, struct.error, OSError, ValueError: it is damaged.
    """
    with reopened(source) as file:
        both = list(_directories(file, name))
        nbytes = file.seek(0, 2)
    found, below = [page for page, _ in both], [one for _, some in both for one in some]
    if not found:
        raise ValueError("it has no pages")
    pages = [page for page in found if page.is_page]
    if not pages:
        return Pages(found[:1], found[1:], below)
    copies = [page for page in found if not page.is_page]
    images = _images_in(pages[0], nbytes) if len(pages) == 1 else 1
    return Pages(pages, copies, below, images=images)


_MOST_IMAGES = 2**16


def _images_in(page: Page, nbytes: int) -> int:
    """How many images lie one behind the other where one directory is: ImageJ says so, and the file
    has the bytes."""
    stated, tags = stacked(page.tags), page.tags
    begins = tags.get(Tag.StripOffsets, ())
    plain = tags.get(Tag.Compression, 1) == 1 and page.bits in (8, 16, 32)
    plain &= tags.get(Tag.PhotometricInterpretation) in (*tiff_tags.GRAYS, tiff_tags.RGB)
    plain &= not tiff_tags.is_planar(tags)
    if not 1 < stated <= _MOST_IMAGES or not begins or not plain:
        return 1
    each = math.prod(page.size) * int(tags.get(Tag.SamplesPerPixel, 1)) * page.bits // 8
    return stated if each > 0 and begins[0] + stated * each <= nbytes else 1


def first_page(source: Path | bytes, name: str) -> Page:
    """The first of ``pages_of``, without looking at those behind it; arguments and errors are as
    there."""
    with reopened(source) as file:
        copy = None
        for page, _ in _directories(file, name):
            if page.is_page:
                return page
            copy = copy or page
    if copy is None:
        raise ValueError("it has no pages")
    return copy


def _directories(file: BinaryIO, name: str) -> Iterator[tuple[Page, list[dict[int, int]]]]:
    """All of a file, and what those below each say.

    Raises:
        InputError: one holds what a camera's sensor counted.
    """
    for index, (offset, tags) in enumerate(directories(file)):
        below = directories_below(file, offset)
        for one in (tags, *below):
            refuse_raw_tags(one, name)
        yield Page(index, offset, tags), below
