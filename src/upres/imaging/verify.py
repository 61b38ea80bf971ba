"""Written files, read again before they take their names."""

from pathlib import Path

from upres.errors import OutputError, UpresError
from upres.imaging.reader import read_size
from upres.imaging.vips import reason, unlimited, vips

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
        _decode_last_row(written, width, height)


def _tail(written: Path | bytes, count: int) -> bytes:
    if isinstance(written, bytes):
        return written[-count:]
    with written.open("rb") as file:
        file.seek(-count, 2)
        return file.read()


def _decode_last_row(path: Path, width: int, height: int) -> None:
    pyvips = vips()

    try:
        image = pyvips.Image.new_from_file(  # at random
            str(path), fail_on="error", **unlimited()
        )
        image.crop(0, height - 1, width, 1).write_to_memory()
    except pyvips.Error as error:
        raise OutputError(
            f"the TIFF that was written lacks its last row ({reason(error)})"
        ) from error
