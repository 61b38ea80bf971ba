"""What was done in a folder of results: so that a second run does what is missing or changed.

One JSON object a line, the last one about a picture counts. A line "begun" is written before the
result, "done" or "failed" after it: whatever moment a run was killed at, the next one knows which
files are its own.
"""

import json
from dataclasses import asdict, dataclass
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
        made: size and time of the result, once it is done.
        error: why it failed.
    """

    state: Literal["begun", "done", "failed"]
    source: str
    content: str
    size: int
    modified: int
    settings: str
    made: tuple[int, int] | None = None
    error: str = ""


class Journal:
    """The journal of a folder of results, which belongs to one run at a time.

    Args:
        folder: of the results; it exists.
        settings: fingerprint of this run's.
        dry: only look; the folder need not exist.

    Raises:
        OutputError: another run works there, or the journal cannot be written.
    """

    def __init__(self, folder: Path, settings: str, *, dry: bool = False) -> None:
        import filelock

        self.folder, self.settings = folder, settings
        self.entries: dict[str, Entry] = {}
        self._begun: dict[str, Entry] = {}
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
            a result is there that upres did not make, or that was changed since.
        """
        entry = self.entries.get(name)
        there = _stamp(target)
        if entry is None:
            return "do" if there is None else "foreign"
        if entry.state == "begun":
            return "redo"
        same = entry.settings == self.settings and self._same_content(entry, source)
        if entry.state == "failed":
            return "failed" if same else "do" if there is None else "redo"
        if there is None:
            return "do"
        if there != entry.made:
            return "foreign"
        return "done" if same else "redo"

    def begin(self, name: str, source: Path) -> None:
        """Before a result is written."""
        self._begun[name] = entry = self._now(name, source)
        self._write(entry)

    def end(self, name: str, source: Path, target: Path, error: str | None) -> None:
        """After a result was written, or was not."""
        try:
            begun = self._begun.pop(name, None) or self._now(name, source)
        except OSError:  # it failed because it cannot be read
            begun = Entry("begun", name, "", 0, 0, self.settings)
        facts = asdict(begun)
        if error is None:
            entry = Entry(**{**facts, "state": "done", "made": _stamp(target)})
        else:
            entry = Entry(**{**facts, "state": "failed", "error": error})
        self._write(entry)

    def _now(self, name: str, source: Path) -> Entry:
        stat = source.stat()
        # Opening a pipe could wait for ever.
        content = sha256_of(source) if S_ISREG(stat.st_mode) else ""
        return Entry("begun", name, content, stat.st_size, stat.st_mtime_ns, self.settings)

    def _same_content(self, entry: Entry, source: Path) -> bool:
        try:
            stat = source.stat()
            if (stat.st_size, stat.st_mtime_ns) == (entry.size, entry.modified):
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


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns
