"""Rows of a long run, kept on the disk as they are computed: an interrupted run can go on."""

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from upres.errors import OutputError, os_errors

_RECORD = struct.Struct("<IIQ")  # rows, CRC-32 and length of what follows
_HEAD = 2**16  # bytes of its first line at most
_LEVEL = 1
_LONGEST = 240  # bytes of a name: file systems end them at 255


def spool_path(target: Path) -> Path:
    """Where the rows of a result are kept meanwhile."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return target.with_name(f".{name}.upres-resume")


def rows_are_kept(target: Path | None) -> bool:
    """Whether an interrupted run left some of this result, which may be standard output."""
    return target is not None and spool_path(target).is_file()


def forget(spool: Path) -> None:
    """Remove rows that nobody needs any more, if there are any."""
    with suppress(OSError):
        spool.unlink(missing_ok=True)


class Spool:
    """A file beside the result: what the run was, then blocks of rows.

    Args:
        target: the result's path.
        key: fingerprint of all that the rows depend on.
        width, channels, dtype: of the rows.
        resume: go on with what an earlier run left, if its key is the same.
        overwrite: if not, begin anew.

    Attributes:
        rows: how many are kept.
        dropped: how many another run had left.

    Raises:
        OutputError: an earlier run left rows, and neither was asked for; or to go on, and they
            are another's.
        OutputError, ResourceError: the file cannot be made.
    """

    def __init__(
        self,
        target: Path,
        key: str,
        width: int,
        channels: int,
        dtype: np.dtype[Any],
        *,
        resume: bool,
        overwrite: bool,
    ) -> None:
        self.path = spool_path(target)
        self.shape, self.dtype = (width, channels), dtype
        head = json.dumps({"key": key, "row": [width, channels, dtype.str]}).encode() + b"\n"
        self._begin = len(head)
        # Blocks of another run on the same target, should there be one at the same time, are none.
        self._seed = zlib.crc32(head)
        with os_errors(self.path):
            theirs, rows = _kept(self.path)
            same = theirs == head
            if rows and not overwrite and not (same and resume):
                whose, how = "a run that was interrupted", "--resume goes on after them"
                if not same:
                    whose = "an interrupted run with other settings, or of another picture"
                    how = "the same command with --resume goes on after them"
                raise OutputError(
                    f"{self.path} keeps {rows} rows of {whose}", f"{how}, --overwrite begins anew"
                )
            self.rows, self.dropped = (rows, 0) if same and resume else (0, rows)
            if not (same and resume):
                self.path.write_bytes(head)
            self._file: BinaryIO = self.path.open("r+b")

    def kept(self) -> Iterator[NDArray[Any]]:
        """The blocks that are there, from the top down; then ``add`` goes on after them."""
        self._file.seek(self._begin)
        end = self._begin
        while (record := _record(self._file, self._seed)) is not None:
            rows, data = record
            end = self._file.tell()
            pixels = np.frombuffer(zlib.decompress(data), self.dtype)
            yield pixels.reshape(rows, *self.shape)
        self._file.seek(end)
        self._file.truncate()

    def add(self, strip: NDArray[Any]) -> None:
        """Keep another block."""
        data = zlib_ng.compress(np.ascontiguousarray(strip).tobytes(), _LEVEL)
        self._file.write(_RECORD.pack(len(strip), zlib.crc32(data, self._seed), len(data)))
        self._file.write(data)
        self._file.flush()
        self.rows += len(strip)

    def close(self, *, done: bool) -> None:
        """Let go of the file, and remove it if it is not needed any more."""
        # What a full disk did not take was told of when it was written.
        with suppress(OSError):
            self._file.close()
        if done:
            forget(self.path)


def _kept(spool: Path) -> tuple[bytes, int]:
    """What a file that is there says of its run, and how many rows of it there are."""
    rows = 0
    try:
        with spool.open("rb") as file:
            head = file.readline(_HEAD)
            while (record := _record(file, zlib.crc32(head))) is not None:
                rows += record[0]
    except OSError:
        return b"", 0
    return head, rows


def _record(file: BinaryIO, seed: int) -> tuple[int, bytes] | None:
    """The next block's rows and its bytes, compressed and as they were written; None at the end
    or where a run was killed within one."""
    head = file.read(_RECORD.size)
    if len(head) < _RECORD.size:
        return None
    rows, crc, length = _RECORD.unpack(head)
    # After a power cut some file systems leave zeros.
    if not 0 < length <= os.fstat(file.fileno()).st_size or rows == 0:
        return None
    data = file.read(length)
    if len(data) < length or zlib.crc32(data, seed) != crc:
        return None
    return rows, data
