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
_LEVEL = 1
_LONGEST = 240  # bytes of a name: file systems end them at 255


def spool_path(target: Path) -> Path:
    """Where the rows of a result are kept meanwhile."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return target.with_name(f".{name}.upres-resume")


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

    Raises:
        OutputError: an earlier run left rows, and neither was asked for.
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
        self.shape, self.dtype, self.rows = (width, channels), dtype, 0
        head = json.dumps({"key": key, "row": [width, channels, dtype.str]}).encode() + b"\n"
        self._begin = len(head)
        # Blocks of another run on the same target, should there be one at the same time, are none.
        self._seed = zlib.crc32(head)
        with os_errors(self.path):
            # What is to be begun anew is not looked at.
            kept = (resume or not overwrite) and self._kept(head)
            if kept and self.rows and not resume:
                raise OutputError(
                    f"{self.path} keeps {self.rows} rows of a run that was interrupted",
                    "--resume goes on after them, --overwrite begins anew",
                )
            if not kept:
                self.rows = 0
                self.path.write_bytes(head)
            self._file: BinaryIO = self.path.open("r+b")

    def kept(self) -> Iterator[NDArray[Any]]:
        """The blocks that are there, from the top down; then ``add`` goes on after them."""
        self._file.seek(self._begin)
        end = self._begin
        while (record := self._record(self._file)) is not None:
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

    def _kept(self, head: bytes) -> bool:
        try:
            with self.path.open("rb") as file:
                if file.read(len(head)) != head:
                    return False
                while (record := self._record(file)) is not None:
                    self.rows += record[0]
        except OSError:
            return False
        return True

    def _record(self, file: BinaryIO) -> tuple[int, bytes] | None:
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
        if len(data) < length or zlib.crc32(data, self._seed) != crc:
            return None
        return rows, data
