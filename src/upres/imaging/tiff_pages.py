"""TIFF files to pictures: every page by whichever decoder reads its kind of pixels right."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base as Tag

from upres.errors import InputError
from upres.imaging import photoshop, tiff_tags
from upres.imaging.calibration import Calibration, read_calibration, stacked
from upres.imaging.deep import Decoded, read_deep
from upres.imaging.filefacts import dpi_of, resolution
from upres.imaging.georeference import no_data_of, read_georeference
from upres.imaging.limits import limit_lifted
from upres.imaging.modes import COLOURLESS, READ_AS_8, array_of, kind_of, made_plain
from upres.imaging.picture import Extra, Frame, Kind, Picture, stretched
from upres.imaging.profiles import NOT_FITTING, fits, srgb_profile
from upres.imaging.sources import reopened
from upres.imaging.tiff_directories import BIG_TIFF, Tags
from upres.imaging.tiff_exif import exif_block
from upres.imaging.tiff_layout import Page, Pages
from upres.imaging.tiff_rare import libvips_reads
from upres.imaging.turning import upright

# Modes that Pillow reads in 8 bits where nobody reads all of them.
_REDUCED = ("RGB", "RGBA", "CMYK", "LAB")
# What pages that are read together have in common.
_ALIKE = (
    Tag.ImageWidth,
    Tag.ImageLength,
    Tag.BitsPerSample,
    Tag.SampleFormat,
    Tag.SamplesPerPixel,
    Tag.PhotometricInterpretation,
    Tag.ExtraSamples,
    Tag.PlanarConfiguration,
    Tag.Compression,
)


def decode_tiff(
    image: Image.Image | None,
    source: Path | bytes,
    name: str,
    found: Pages,
    *,
    pixels: bool = True,
) -> Picture:
    """A picture from pages of a TIFF.

    Args:
        image: the file as Pillow opened it, or None where it does not know the first page's pixels.
        name: of the file, for people.
        found: what to read.
        pixels: False leaves them out; only their number of channels and type are right then.

    Raises:
        InputError: its kind of pixels is not read, or it is damaged.
    """
    notes: list[str] = []
    pages, first, tags = found.pages, found.pages[0], found.pages[0].tags
    if found.others:
        notes.append(f"only the first of {found.count + found.others} pages is kept")
    notes += found.beside
    if (unread := stacked(tags) - found.count - found.others) > 0:
        notes.append(f"{unread} images that ImageJ put behind the first are not read")
    place = None
    # Of several pages only the first one's would be known, and no axis may have been turned.
    if len(pages) == 1 and first.turned == 1:
        place = read_georeference(tags, *first.size)
    calibration = _calibration(pages, notes)
    used = {tag for page in pages for tag in page.tags}
    if note := tiff_tags.left_out(used, georeferenced=place is not None):
        notes.append(note)
    words = tiff_tags.words_of(tags)
    if any(words.get(t) != w for page in pages for t, w in tiff_tags.words_of(page.tags).items()):
        notes.append("pages have texts, dates or EXIF of their own: all get the first one's")
    extra = _extra(pages)
    if any(tiff_tags.left_out_channels(page.tags, extra) for page in pages):
        notes.append(tiff_tags.BANDS_LEFT_OUT)
    if len({page.tags.get(Tag.InterColorProfile) for page in pages}) > 1:
        notes.append("pages have colour profiles of their own: all get the first one's")
    reader = _Reader(image, source, name, extra, tags.get(Tag.InterColorProfile), notes)
    kind, icc = reader.kind(first), reader.icc
    frames = [Frame(_empty(first, extra))] * found.count
    if pixels:
        frames, kind, icc = _frames(reader, found, extra)
    bits = first.bits
    # Cameras put a small picture first, and tell everything there.
    told = [first, *(page for page in found.copies if page.index == 0)]
    if note := _paths(tags):
        notes.append(note)
    if not calibration and len({dpi_of(page.tags) for page in pages}) > 1:
        notes.append("pages have resolutions of their own: all get the first one's")
    missing = {repr(no_data_of(page.tags)) for page in pages}  # nan is not equal to itself
    if len(missing) > 1:
        notes.append("the no-data value is left out, since pages have several")
    return Picture(
        pixels=frames[0].pixels,
        format="TIFF",
        kind=kind,
        extra=extra,
        bits=1 if kind == "bilevel" else 8 if kind == "palette" else bits,
        turned=first.turned,
        icc=icc,
        exif=max((_exif_at(source, page.offset, notes) for page in told), key=len) or None,
        xmp=_first(tiff_tags.xmp_of(page.tags) for page in told),
        iptc=_first(photoshop.iptc_bytes(tiff_tags.iptc_of(page.tags)) for page in told),
        dpi=None if calibration else resolution(dpi_of(tags), turned=first.turned >= 5),
        calibration=calibration,
        place=place,
        no_data=no_data_of(tags) if len(missing) == 1 else None,
        frames=tuple(frames) if len(frames) > 1 else (),
        notes=tuple(dict.fromkeys(notes)),
    ).with_own_numbers(inverted=tags.get(Tag.PhotometricInterpretation) == tiff_tags.WHITE_IS_ZERO)


def _paths(tags: Tags) -> str | None:
    resources = photoshop.iptc_bytes(tags.get(Tag.ImageResources))
    return photoshop.left_out(photoshop.resources_in(resources or b""))


def _calibration(pages: list[Page], notes: list[str]) -> Calibration | None:
    """The size of a pixel, where one holds for all pages and can be written."""
    found = read_calibration(pages[0].tags, turned=pages[0].turned >= 5)
    if found and len({(page.size, page.turned) for page in pages}) > 1:
        notes.append("the size of a pixel is left out, since pages are of several sizes")
        return None
    if found and not found.can_be_written:
        notes.append("the size of a pixel is left out: it is too small for TIFF")
        return None
    return found


def _frames(
    reader: "_Reader", found: Pages, extra: tuple[Extra, ...]
) -> tuple[list[Frame], Kind, bytes | None]:
    """All pages decoded, with the kind and the profile of the first."""
    if found.images == 1:
        read = list(reader.read(found.pages))
    else:
        read = list(reader.read_stack(found.pages[0], found.images))
    frames = [Frame(made) for made, _, _ in read]
    _, kind, icc = read[0]
    fitting = [fits(icc, f.pixels.shape[2] - extra.count("band")) for f in frames if icc]
    if icc and not fitting[0]:
        reader.notes.append(NOT_FITTING)
        icc = None
    elif not all(fitting):
        reader.notes.append("the colour profile is left out of pages that it is not for")
    return frames, kind, icc


@dataclass
class _Reader:
    """Reads one page after the other.

    Attributes:
        icc: the first page's profile.
        notes: what changes is added to them.
        unknown: pages whose kind of pixels Pillow does not know.
    """

    image: Image.Image | None
    source: Path | bytes
    name: str
    extra: tuple[Extra, ...]
    icc: bytes | None
    notes: list[str]
    unknown: set[int] = field(default_factory=set)

    def kind(self, page: Page) -> Kind:
        """How the file stores a page that is not decoded."""
        if (image := self._seen(page)) is not None:
            return kind_of(image)
        return "gray" if page.tags.get(Tag.PhotometricInterpretation) in tiff_tags.GRAYS else "RGB"

    def read(self, pages: list[Page]) -> Iterator[tuple[NDArray[Any], Kind, bytes | None]]:
        """Pages' pixels, upright, how they were stored, and their profiles."""
        at = 0
        while at < len(pages):
            page = pages[at]
            image = self._seen(page)
            if image is not None and not self._is_deep(image, page):
                yield self._by_pillow(image, page)
                at += 1
            else:
                run = _run(pages, at)
                yield from self._deep(run)
                at += len(run)

    def read_stack(
        self, page: Page, count: int
    ) -> Iterator[tuple[NDArray[Any], Kind, bytes | None]]:
        """So many images that share a directory."""
        made = read_deep(
            self.source,
            self.name,
            page=page.index,
            count=count,
            tags=page.tags,
            extra=self.extra,
            stacked=True,
        )
        yield from self._apart(made, [page] * count)

    def _deep(self, run: list[Page]) -> Iterator[tuple[NDArray[Any], Kind, bytes | None]]:
        """Pages that are alike, by decoders other than Pillow's."""
        first = run[0]
        try:
            made = read_deep(
                self.source,
                self.name,
                page=first.index,
                count=len(run),
                tags=first.tags,
                extra=self.extra,
            )
        except InputError:
            if len(run) > 1:  # one by one some may be read
                for page in run:
                    yield from self._deep([page])
                return
            image = self._seen(first)
            if image is None or image.mode not in _REDUCED or self.extra:
                raise
            yield self._by_pillow(image, first)
            return
        yield from self._apart(made, run)

    def _apart(
        self, made: Decoded, pages: list[Page]
    ) -> Iterator[tuple[NDArray[Any], Kind, bytes | None]]:
        """Each of the pages that were read together, one below the other."""
        if made.note:
            self.notes.append(made.note)
        icc = {"own": self.icc, "srgb": srgb_profile(), "none": None}[made.profile]
        for page, pixels in zip(pages, np.split(made.pixels, len(pages)), strict=True):
            yield upright(pixels, page.turned), made.kind, icc

    def _seen(self, page: Page) -> Image.Image | None:
        """The page in Pillow, if that knows its kind of pixels."""
        if self.image is None or page.index in self.unknown:
            return None
        try:
            self.image.seek(page.index)
        except Exception:  # noqa: BLE001 - Pillow raises whatever it stumbles over
            self.unknown.add(page.index)  # asked again, it would show the page before
            return None
        return self.image

    def _is_deep(self, image: Image.Image, page: Page) -> bool:
        """Whether Pillow would reduce the pixels, or read them wrong."""
        if tiff_tags.is_sparse(page.tags):  # it would read tiles from the file's beginning
            return True
        numbers = page.bits > 8 or tiff_tags.is_signed(page.tags)
        # It takes channels that lie apart for rows of one, unless they are plain colours.
        plain = kind_of(image) not in COLOURLESS and not tiff_tags.is_multiplied(page.tags)
        apart = tiff_tags.is_planar(page.tags) and not plain
        return (numbers and not image.mode.startswith("I;16")) or apart or bool(self.extra)

    def _by_pillow(self, image: Image.Image, page: Page) -> tuple[NDArray[Any], Kind, bytes | None]:
        """8 bits, and 16 in gray."""
        kind = kind_of(image)
        # Pillow turns a page itself when it loads it, and takes the tag away.
        asked = Tag.Orientation in image.getexif()
        with limit_lifted():
            image.load()
        own = page.tags.get(Tag.InterColorProfile) or self.icc
        if image.mode == "LAB" and tiff_tags.is_planar(page.tags):
            # Where channels lie apart Pillow does not know that two of them have a sign.
            light, *signed = image.split()
            image = Image.merge(
                "LAB", (light, *(c.point([v ^ 128 for v in range(256)]) for c in signed))
            )
        plain, icc = made_plain(image, own, self.name, self.notes)
        made = array_of(plain)
        if image.mode.startswith("I;16"):
            if 8 < page.bits < 16:
                made = stretched(made, page.bits)
            means = page.tags.get(Tag.PhotometricInterpretation)
            white_is_zero = means == tiff_tags.WHITE_IS_ZERO
            if white_is_zero and image.mode != "I;16B":
                made = 65535 - made
        elif page.bits > 8:
            self.notes.append(READ_AS_8)
        if not (asked and Tag.Orientation not in image.getexif()):
            made = upright(made, page.turned)
        return made, kind, icc


def _run(pages: list[Page], at: int) -> list[Page]:
    """The page at this place and those behind it that libvips can read together with it."""
    first = pages[at]
    end = at + 1
    if libvips_reads(first.tags):
        kind = [first.tags.get(tag) for tag in _ALIKE]
        while (
            end < len(pages)
            and pages[end].index == first.index + end - at
            and [pages[end].tags.get(tag) for tag in _ALIKE] == kind
        ):
            end += 1
    return pages[at:end]


def _extra(pages: list[Page]) -> tuple[Extra, ...]:
    """What the channels beyond colours are, where all pages have the same; see ``Picture``."""
    kinds = {tiff_tags.beyond_colours(page.tags) for page in pages}
    return kinds.pop() if len(kinds) == 1 else ()


def _empty(page: Page, extra: tuple[Extra, ...]) -> NDArray[Any]:
    """No pixels, of the type and with the channels that the page's will have."""
    gray = page.tags.get(Tag.PhotometricInterpretation) in tiff_tags.GRAYS
    alpha = extra or ("alpha",) * tiff_tags.is_transparent(page.tags)
    floats = page.bits >= 32 or tiff_tags.is_signed(page.tags)
    dtype = np.float32 if floats else np.uint16 if page.bits > 8 else np.uint8
    return np.empty((0, 0, (1 if gray else 3) + len(alpha)), dtype)


def _first(found: Iterable[bytes | None]) -> bytes | None:
    return next((block for block in found if block), None)


def _exif_at(source: Path | bytes, offset: int, notes: list[str]) -> bytes:
    """What the directory at an offset says, as a block; nothing is an empty one."""
    with reopened(source) as file:
        head, tags = file.read(16), Image.Exif()
        big = head[2] == BIG_TIFF
        tags.bigtiff, tags.endian = big, "<" if head[:2] == b"II" else ">"
        tags.load_from_fp(file, offset)
        block, bad = exif_block(tags)
    if bad:
        notes.append(f"of EXIF {', '.join(bad)} cannot be read and is left out")
    return block or b""
