"""Written files, read again before they take their names."""

import zlib
from pathlib import Path
from typing import Any

from upres.errors import OutputError, UpresError
from upres.imaging.reader import read_size

_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}


def check_written(written: Path | bytes, file_format: str, width: int, height: int) -> None:
    """Find out whether a file opens, has its size, and holds its last row.

    Raises:
        OutputError: it does not.
    """
    try:
        size = read_size(written, max_pixels=2**62)
    except UpresError as error:
        raise OutputError(f"the {file_format} that was written cannot be read ({error})") from error
    if size != (width, height):
        raise OutputError(
            f"the {file_format} that was written has {size[0]} x {size[1]} pixels, "
            f"not {width} x {height}"
        )
    if file_format in _ENDS and not _tail(written, len(_ENDS[file_format])) == _ENDS[file_format]:
        raise OutputError(f"the {file_format} that was written has no end")
    if file_format == "TIFF" and isinstance(written, Path):
        _check_last_strip(written, height)


def _tail(written: Path | bytes, count: int) -> bytes:
    if isinstance(written, bytes):
        return written[-count:]
    with written.open("rb") as file:
        file.seek(-count, 2)
        return file.read()


def _check_last_strip(path: Path, height: int) -> None:
    """Of a TIFF that ``TiffPages`` wrote. To decode a row, libvips would unpack all above it."""
    import tifffile

    with tifffile.TiffFile(path, _multifile=False) as tiff:
        page: Any = tiff.pages[0]
        begins, sizes = page.dataoffsets, page.databytecounts
        rows = height - (len(begins) - 1) * page.rowsperstrip
        wanted = rows * page.imagewidth * page.samplesperpixel * page.bitspersample // 8
        with path.open("rb") as file:
            file.seek(begins[-1])
            data = file.read(sizes[-1])
    try:
        whole = len(zlib.decompress(data)) == wanted
    except zlib.error:
        whole = False
    if not whole:
        raise OutputError("the TIFF that was written lacks its last row")
