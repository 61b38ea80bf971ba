"""What was done in a folder of results: so that a second run does what is missing or changed.

One JSON object a line, the last one about a picture counts. A line "begun" is written before the
result, "done" or "failed" after it: whatever moment a run was killed at, the next one knows which
files are its own.
"""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from stat import S_ISREG
from typing import Literal, TextIO

from upres.errors import OutputError
from upres.hashing import sha256_of

NAME = ".upres-journal.jsonl"
LOCK = ".upres-lock"
Todo = Literal["do", "redo", "done", "failed", "foreign"]


@dataclass(frozen=True)
class Entry:
    """The last that is known about a picture.

    Attributes:
        state: "begun", "done" or "failed".
        source: path below the folder of the pictures, with slashes.
        content: SHA-256 of the file.
        size, modified: of the file, in bytes and nanoseconds: while both stay, so does the content.
        settings: fingerprint of all that the result depends on but the picture.
        made: size and time of what was at the result's place in the end.
        error: why it failed.
        folder: of the pictures.
        limits: what a picture may fail by besides.
        result: SHA-256 of the result, once it is done: a copy has another time.
    """

    state: Literal["begun", "done", "failed"]
    source: str
    content: str
    size: int
    modified: int
    settings: str
    made: tuple[int, int] | None = None
    error: str = ""
    folder: str = ""
    limits: str = ""
    result: str = ""


class Journal:
    """The journal of a folder of results, which belongs to one run at a time.

    Args:
        folder: of the results; it exists.
        settings: fingerprint of this run's.
        source: folder of the pictures.
        limits: what pictures may fail by that results do not depend on.
        dry: only look; the folder need not exist.

    Raises:
        OutputError: another run works there, or the journal cannot be written.
    """

    def __init__(
        self, folder: Path, settings: str, *, source: Path, limits: str = "", dry: bool = False
    ) -> None:
        import filelock

        self.folder, self.settings, self.limits = folder, settings, limits
        self.source = os.path.realpath(source)
        self.entries: dict[str, Entry] = {}
        self._seen: dict[str, Entry] = {}  # read, and not at their end
        self._file: TextIO | None = None
        self._cut = False  # a run was killed within a line
        self._lock = filelock.FileLock(folder / LOCK)
        if dry:
            self._read()
            return
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise OutputError(
                f"another upres works on {folder}", "wait for it, or choose another folder with -o"
            ) from None
        except OSError as error:
            raise OutputError(f"{folder} cannot be written ({error.strerror})") from error
        # Whoever was killed cannot have removed its own.
        for part in folder.rglob(".upres-*.part"):
            if _abandoned(part):
                part.unlink(missing_ok=True)
        self._read()
        self._file = (folder / NAME).open("a+", encoding="utf-8")
        if self._cut:
            self._file.write("\n")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()
        self._lock.release()

    def todo(self, name: str, source: Path, target: Path) -> Todo:
        """What is to be done about a picture.

        Returns:
            "do" where there is no result; "redo" where picture or settings changed, or a run was
            killed; "done"; "failed" where it failed before and nothing changed; "foreign" where
            a result is there that upres did not make, that was changed since, or that belongs to
            another picture of that name, from another folder.
        """
        entry = self.entries.get(name)
        there = _stamp(target)
        if entry is None:
            return "do" if there is None else "foreign"
        content = self._same_content(entry, source)
        if there is not None and not content and entry.folder != self.source:
            return "foreign"
        if entry.state == "begun":
            return "redo"
        same = entry.settings == self.settings and content
        if entry.state == "failed":
            if same and entry.limits == self.limits:
                return "failed"
            if there is None:
                return "do"
            return "redo" if there == entry.made else "foreign"
        if there is None:
            return "do"
        if there != entry.made and not _is(target, entry.result):
            return "foreign"
        return "done" if same else "redo"

    def see(self, name: str, source: Path) -> None:
        """Before a picture is read: should it change from then on, the next run will notice."""
        try:
            self._seen[name] = self._now(name, source)
        except OSError:
            self._seen.pop(name, None)  # whoever reads it says what is wrong

    def begin(self, name: str, source: Path) -> None:
        """Before a result is written."""
        if name not in self._seen:
            self._seen[name] = self._now(name, source)
        self._write(self._seen[name])

    def end(self, name: str, source: Path, target: Path, error: str | None) -> None:
        """After a result was written, or was not; in a dry run nothing was."""
        if self._file is None:
            return
        try:
            begun = self._seen.pop(name, None) or self._now(name, source)
        except OSError:  # it failed because it cannot be read
            begun = self._entry(name, "", 0, 0)
        made = _stamp(target)
        if error is None:
            self._write(replace(begun, state="done", made=made, result=sha256_of(target)))
        else:
            self._write(replace(begun, state="failed", made=made, error=error))

    def _now(self, name: str, source: Path) -> Entry:
        stat = source.stat()
        # Opening a pipe could wait for ever.
        content = sha256_of(source) if S_ISREG(stat.st_mode) else ""
        return self._entry(name, content, stat.st_size, stat.st_mtime_ns)

    def _entry(self, name: str, content: str, size: int, modified: int) -> Entry:
        folder, limits = self.source, self.limits
        settings = self.settings
        return Entry("begun", name, content, size, modified, settings, folder=folder, limits=limits)

    def _same_content(self, entry: Entry, source: Path) -> bool:
        try:
            stat = source.stat()
            known = (entry.folder, entry.size, entry.modified)
            if known == (self.source, stat.st_size, stat.st_mtime_ns):
                return True
            if stat.st_size != entry.size:
                return False
            return sha256_of(source) == entry.content
        except OSError:
            return not entry.content

    def _read(self) -> None:
        path = self.folder / NAME
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"{path} cannot be read ({error.strerror})") from error
        self._cut = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                facts = json.loads(line)
                facts["made"] = facts["made"] and tuple(facts["made"])
                entry = Entry(**facts)
            except (ValueError, TypeError, KeyError):
                continue  # half a line of a run that was killed
            self.entries[entry.source] = entry

    def _write(self, entry: Entry) -> None:
        self.entries[entry.source] = entry
        if self._file is not None:
            self._file.write(json.dumps(asdict(entry)) + "\n")
            self._file.flush()


def _is(path: Path, sha256: str) -> bool:
    try:
        return bool(sha256) and path.is_file() and sha256_of(path) == sha256
    except OSError:
        return False


def _abandoned(part: Path) -> bool:
    """Whether the process that writes a file, which its name tells, is gone."""
    process = part.name.split("-")[1]
    if not process.isdecimal() or os.name != "posix":
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns
