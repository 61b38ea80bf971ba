"""A TIFF's directories, whatever its pixels are (TIFF 6.0, section 2; BigTIFF)."""

import struct
import warnings
from collections.abc import Collection, Iterator
from typing import BinaryIO

from PIL import TiffImagePlugin
from PIL.ExifTags import Base as Tag

BIG_TIFF = 43  # in the header, where others have 42
Tags = TiffImagePlugin.ImageFileDirectory_v2
_MOST_DIRECTORIES = 2**18  # of pages; a hostile file could name one at every 30 of its bytes
_MOST_BELOW = 100  # pyramids have a dozen; a hostile file could name one at each of its bytes
_KIND_AND_SIZE = (
    Tag.NewSubfileType,
    Tag.ImageWidth,
    Tag.ImageLength,
    Tag.PhotometricInterpretation,
)
# Types of fields: SHORT, LONG, IFD, and BigTIFF's LONG8 and IFD8.
_WHOLE = {3: "H", 4: "L", 13: "L", 16: "Q", 18: "Q"}


def directories(file: BinaryIO) -> Iterator[tuple[int, Tags]]:
    """Places and tags of a TIFF's directories, one after the other, whatever their pixels are.

    Some programs leave a pointer to nothing behind the last: a list ends where no picture follows.

    Raises:
        SyntaxError, struct.error, OSError: the first is damaged, or there are too many.
    """
    head = _head(file)
    offset, seen = Tags(ifh=head).next, {0}
    left = file.seek(0, 2)  # bytes that all directories together may name
    while offset not in seen:
        if len(seen) > _MOST_DIRECTORIES:
            raise SyntaxError(f"it names more than {_MOST_DIRECTORIES:,} pages")
        try:
            with warnings.catch_warnings():
                if len(seen) > 1:
                    warnings.simplefilter("ignore")
                tags, size = _directory(file, head, offset, left)
            left -= size
            sized = Tag.ImageWidth in tags and Tag.ImageLength in tags
        except (SyntaxError, struct.error, OSError, ValueError):
            if len(seen) == 1:
                raise
            return
        if not sized and len(seen) > 1:
            return
        seen.add(offset)
        yield offset, tags
        offset = tags.next


def directories_below(file: BinaryIO, offset: int) -> list[dict[int, int]]:
    """What the directories below another one say about their kind and size (Adobe PageMaker 6.0
    TIFF Technical Notes, SubIFDs): smaller copies of a page, or what a camera's file is for.

    Nothing else of them is read: a file made for it could name as many as it has bytes, of any
    length. Those that state no size are none; where the file ends, they end.

    Args:
        offset: of the other one.
    """
    head = _head(file)
    order, big = "<" if head[:2] == b"II" else ">", head[2] == BIG_TIFF
    found: list[dict[int, int]] = []
    try:
        below = _fields(file, offset, order, big=big, wanted=(Tag.SubIFDs,))
        for place in dict.fromkeys(below.get(Tag.SubIFDs, ())):
            fields = _fields(file, place, order, big=big, wanted=_KIND_AND_SIZE)
            first = {tag: values[0] for tag, values in fields.items() if values}
            if Tag.ImageWidth in first and Tag.ImageLength in first:
                found.append(first)
    except (struct.error, OSError, ValueError, OverflowError):
        pass
    return found


def _fields(
    file: BinaryIO, offset: int, order: str, *, big: bool, wanted: Collection[int]
) -> dict[int, tuple[int, ...]]:
    """Some fields of a directory, if they are whole numbers (TIFF 6.0, section 2; BigTIFF)."""
    count_form, entry_form = ("Q", "HHQ8s") if big else ("H", "HHL4s")
    count_form, entry_form = order + count_form, order + entry_form
    file.seek(offset)
    (count,) = struct.unpack(count_form, file.read(struct.calcsize(count_form)))
    each = struct.calcsize(entry_form)
    data = file.read(min(count, 0xFFFF) * each)
    found = {}
    for entry in struct.iter_unpack(entry_form, data[: len(data) // each * each]):
        tag, kind, number, inside = entry
        if tag not in wanted or kind not in _WHOLE:
            continue
        form = f"{order}{min(number, _MOST_BELOW)}{_WHOLE[kind]}"
        size = struct.calcsize(form)
        if number * struct.calcsize(order + _WHOLE[kind]) > len(inside):
            (place,) = struct.unpack(order + ("Q" if big else "L"), inside)
            file.seek(place)
            inside = file.read(size)
        found[tag] = struct.unpack(form, inside[:size])
    return found


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    head = file.read(8)
    return head + file.read(8) if head[2] == BIG_TIFF else head


def _directory(file: BinaryIO, head: bytes, offset: int, most: int) -> tuple[Tags, int]:
    """A directory, and how many bytes its tags name. Those that would be more than ``most`` are
    left out: else a small file whose directories all name the same bytes would fill memory."""
    tags = Tags(ifh=head)
    # Pillow's own guard, where its version has one; it sets the limit for files that it opens.
    vars(tags)["_tag_data_limit"] = most
    file.seek(offset)
    tags.load(file)
    return tags, vars(tags).get("_tag_data_size", 0)
