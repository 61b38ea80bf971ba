"""What was done in a folder of results: so that a second run does what is missing or changed.

One JSON object a line, the last one about a result counts. A line "begun", with the hash of what
is ready beside the result's place, is written before that takes the place, and "done" or "failed"
after it: whatever moment a run was killed at, the next one knows which files are its own. A line
without a target says what the settings are that entries name by a fingerprint.
"""

import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from stat import S_ISREG
from typing import Any, Literal, TextIO

from upres.errors import OutputError, os_errors
from upres.files import PARTS
from upres.hashing import host_id, sha256_of

NAME = ".upres-journal.jsonl"
LOCK = ".upres-lock"
Todo = Literal["do", "redo", "done", "failed", "foreign"]


@dataclass(frozen=True)
class Entry:
    """The last that is known about a result.

    Attributes:
        state: "begun", "done" or "failed".
        target: path of the result below the journal's folder, with slashes.
        source: path of the picture below the folder of the pictures, with slashes.
        content: SHA-256 of the file.
        size, modified: of the file, in bytes and nanoseconds: while both stay, so does the content.
        settings: fingerprint of all that the result depends on but the picture.
        made: size and time of what is ours at the result's place; of "begun", of what was there
            before.
        error: why it failed.
        folder: of the pictures.
        limits: what a picture may fail by besides.
        result: SHA-256 of what is ours there: a copy has another time.
    """

    state: Literal["begun", "done", "failed"]
    target: str
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
        depends: what that is the fingerprint of, for people who come later.
        source: folder of the pictures.
        limits: what pictures may fail by that results do not depend on.
        dry: only look; the folder need not exist.

    Raises:
        OutputError: another run works there, or the journal cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        settings: str,
        depends: Mapping[str, Any] | None = None,
        *,
        source: Path,
        limits: str = "",
        dry: bool = False,
    ) -> None:
        import filelock

        self.folder, self.settings, self.limits = folder, settings, limits
        self.source = os.path.realpath(source)
        self.entries: dict[str, Entry] = {}  # by their targets
        self._explained: set[str] = set()  # settings that a line tells of
        self._seen: dict[str, Entry] = {}  # read, and not at their end
        self._planned: dict[str, _Stamp | None] = {}  # what was there when it was asked about
        self._file: TextIO | None = None
        self._writing = threading.Lock()
        self._cut = False  # a run was killed within a line
        self._lock = filelock.FileLock(folder / LOCK)
        if dry:
            self._read()
            return
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise OutputError(
                f"another upres is already working in {folder}",
                "wait for it, or choose another folder with -o",
            ) from None
        except OSError as error:
            raise OutputError(f"{folder} cannot be written ({error.strerror})") from error
        try:
            # Whoever was killed cannot have removed its own.
            for part in folder.rglob(PARTS):
                if _abandoned(part):
                    with suppress(OSError):
                        part.unlink(missing_ok=True)
            self._read()
            with os_errors(folder / NAME):
                self._file = (folder / NAME).open("a+", encoding="utf-8")
                if depends is not None and settings not in self._explained:
                    self._line({"settings": settings, **depends})
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            with suppress(OSError):  # all was flushed, or its failure told
                self._file.close()
        self._lock.release()

    def todo(self, name: str, source: Path, target: Path) -> Todo:
        """What is to be done about a picture.

        Returns:
            "do" where there is no result; "redo" where there is an old one of ours, and picture or
            settings changed or a run was killed; "done"; "failed" where it failed before and
            nothing changed; "foreign" where a result is there that upres did not make, that was
            changed since, or that belongs to another picture of that name, from another folder.
        """
        key = self._key(target)
        entry = self.entries.get(key)
        there = self._planned[key] = _stamp(target)
        if entry is None:
            return "do" if there is None else "foreign"
        # Where a run was killed, what has the stamp is the old result.
        stamped = there is not None and there == entry.made
        made = (stamped and entry.state == "done") or _is(target, entry.result)
        if there is not None and not stamped and not made:
            return "foreign"
        content = entry.source == name and self._same_content(entry, source)
        if there is not None and not content and entry.folder != self.source:
            return "foreign"
        same = content and entry.settings == self.settings
        if entry.state == "failed" and same and entry.limits == self.limits:
            return "failed"
        if there is None:
            return "do"
        return "done" if same and made and entry.state != "failed" else "redo"

    def see(self, name: str, source: Path, target: Path) -> None:
        """Before a picture is read: should it change from then on, the next run will notice."""
        try:
            self._seen[self._key(target)] = self._now(name, source, target)
        except OSError:
            self._seen.pop(self._key(target), None)  # whoever reads it says what is wrong

    def begin(
        self, name: str, source: Path, target: Path, part: Path, *, replaces: bool = False
    ) -> None:
        """Before a result that is ready takes its place.

        Args:
            part: the result, in the same file system.
            replaces: ``todo`` found an old result of ours there.

        Raises:
            OutputError: the old result was changed meanwhile, or the journal cannot be written.
            ResourceError: the disk is full.
        """
        key = self._key(target)
        before = _stamp(target)
        if replaces and before not in (None, self._planned.get(key)):
            raise OutputError(
                f"{target} was changed while this run worked, and is left alone",
                "move it away, or replace it with --overwrite",
            )
        seen = self._seen.get(key) or self._now(name, source, target)
        self._seen[key] = replace(seen, made=_stamp(part), result=sha256_of(part))
        self._write(replace(self._seen[key], made=before), lasting=True)

    def end(self, name: str, source: Path, target: Path, error: str | None) -> None:
        """After a result took its place, or did not; in a dry run none did.

        Raises:
            OutputError, ResourceError: the journal cannot be written.
        """
        if self._file is None:
            return
        key = self._key(target)
        begun = self._seen.pop(key, None)
        # What went wrong after the result took its place, as telling of it, does not undo it.
        if begun is not None and (error is None or (begun.result and _stamp(target) == begun.made)):
            self._write(replace(begun, state="done"))
            return
        try:
            begun = begun or self._now(name, source, target)
        except OSError:  # it failed because it cannot be read
            begun = self._entry(name, target, "", 0, 0)
        # What is there stays ours only if it was.
        ours = self.entries.get(key, begun)
        failed = replace(begun, state="failed", error=error or "")
        self._write(replace(failed, made=ours.made, result=ours.result))

    def _key(self, target: Path) -> str:
        return target.relative_to(self.folder).as_posix()

    def _now(self, name: str, source: Path, target: Path) -> Entry:
        stat = source.stat()
        # Opening a pipe could wait for ever.
        content = sha256_of(source) if S_ISREG(stat.st_mode) else ""
        return self._entry(name, target, content, stat.st_size, stat.st_mtime_ns)

    def _entry(self, name: str, target: Path, content: str, size: int, modified: int) -> Entry:
        return Entry(
            "begun",
            self._key(target),
            name,
            content,
            size,
            modified,
            self.settings,
            folder=self.source,
            limits=self.limits,
        )

    def _same_content(self, entry: Entry, source: Path) -> bool:
        try:
            stat = source.stat()
            known = (entry.folder, entry.size, entry.modified)
            if known == (self.source, stat.st_size, stat.st_mtime_ns):
                return True
            if stat.st_size != entry.size or not S_ISREG(stat.st_mode):
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
            # Half a line of a run that was killed, or what else somebody wrote, says nothing.
            with suppress(ValueError, TypeError, KeyError, RecursionError):
                facts = json.loads(line)
                if "target" not in facts:
                    self._explained.add(facts["settings"])
                    continue
                facts["made"] = facts["made"] and tuple(facts["made"])
                entry = Entry(**facts)
                self.entries[entry.target] = entry

    def _write(self, entry: Entry, *, lasting: bool = False) -> None:
        # The thread that writes results begins, the one that computes ends.
        with self._writing, os_errors(self.folder / NAME):
            self.entries[entry.target] = entry
            if self._file is not None:
                self._line(asdict(entry))
                if lasting:
                    os.fsync(self._file.fileno())

    def _line(self, facts: Mapping[str, Any]) -> None:
        assert self._file is not None
        # A line that could not be written whole would swallow the next.
        end, self._cut = "\n" if self._cut else "", True
        self._file.write(f"{end}{json.dumps(facts, default=str)}\n")
        self._file.flush()
        self._cut = False


def _is(path: Path, sha256: str) -> bool:
    try:
        return bool(sha256) and path.is_file() and sha256_of(path) == sha256
    except OSError:
        return False


def _abandoned(part: Path) -> bool:
    """Whether the process that writes a file, which its name tells, is gone from this machine."""
    process, where = [*part.name.split("-"), ""][1:3]
    if not process.isdecimal() or where != host_id() or os.name != "posix":
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False


_Stamp = tuple[int, int]


def _stamp(path: Path) -> _Stamp | None:
    try:
        stat = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns
