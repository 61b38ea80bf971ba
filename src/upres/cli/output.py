"""The only place that prints: data on stdout, everything else on stderr."""

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TextIO, cast

from upres.errors import OutputError, UpresError, UsageError, printable


class Progress(Protocol):
    """What is going on, for people who watch."""

    def transfer(self, what: str, done: int, total: int) -> None:
        """See ``progress.Transfer``."""
        ...

    def pictures(self, done: int, total: int) -> None:
        """So many of a run's pictures are done or failed."""
        ...

    def start(self, name: str, tile_pixels: float) -> None:
        """A picture begins, and stays until the next; each tile takes so many of its pixels."""
        ...

    def update(self, done: float, total: int) -> None:
        """``done`` of the picture's ``total`` tiles are computed."""
        ...


class Terminal:
    """Standard error, for rich: what nobody can be told any more is no reason to end.

    A window that is closed makes every further write an error, also for what ``disown`` lets live.
    """

    def __init__(self) -> None:
        self.stream = sys.stderr

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """As a stream does."""
        try:
            return self.stream.write(text)
        except OSError:
            _into_nothing(self.stream)
        return len(text)

    def flush(self) -> None:
        """As a stream does."""
        try:
            self.stream.flush()
        except OSError:
            _into_nothing(self.stream)


class ReaderGone(Exception):  # noqa: N818 - no error: `upres models | head -1` wants no more
    """Whoever read standard output stopped doing so."""


def _into_nothing(stream: TextIO) -> None:
    """Python flushes what is left when it exits; that must not fail a second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _standard_output() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _into_nothing(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise ReaderGone from None
        raise OutputError(f"standard output cannot be written ({error.strerror})") from error


@dataclass(frozen=True)
class Output:
    """How a command speaks.

    Attributes:
        json: stdout carries one JSON object a line instead of plain values.
        quiet: stderr carries errors only.
    """

    json: bool = False
    quiet: bool = False

    def value(self, text: str, **event: Any) -> None:
        """Data: the text as a line, or the event as JSON."""
        with _standard_output():
            sys.stdout.write((json.dumps(event) if self.json else text) + "\n")
            sys.stdout.flush()

    def made(self, path: str, **event: Any) -> None:
        """The path of a result; on a terminal a note has just named it."""
        seen = sys.stdout.isatty() and sys.stderr.isatty() and not self.quiet
        if self.json or not seen:
            self.value(path, **event)

    def event(self, **event: Any) -> None:
        """Data that only scripts want."""
        if self.json:
            self.value("", **event)

    def check_raw(self) -> None:
        """See that a picture's bytes may go to stdout.

        Raises:
            UsageError: it is a terminal, which would take them for commands.
        """
        if sys.stdout.isatty():
            raise UsageError(
                "a picture's bytes are not for a terminal", "give -o FILE, or pipe them on"
            )

    def raw(self, data: bytes) -> None:
        """A picture's bytes, on stdout."""
        with _standard_output():
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def note(self, text: str) -> None:
        """Something people want to know."""
        if not self.quiet:
            try:
                sys.stderr.write(f"{one_line(text)}\n")
                sys.stderr.flush()
            except OSError:  # nobody can be told; the work goes on
                _into_nothing(sys.stderr)

    def error(self, error: UpresError) -> None:
        """What went wrong, in one line."""
        complain(str(error))

    def text(self, text: str) -> None:
        """Data as it stands."""
        with _standard_output():
            sys.stdout.write(text)
            sys.stdout.flush()

    def table(self, title: Sequence[str], rows: Sequence[Sequence[str]], *, bold: str = "") -> None:
        """Columns on stdout, padded with spaces; plain text everywhere.

        Args:
            bold: cells that end in this are shown in bold, for terminals.
        """
        lines = _columns(title, rows)
        if bold:
            marked = re.compile(rf"(\S+ / \S+?){re.escape(bold)}")
            lines = (marked.sub("\x1b[1m\\1\x1b[0m ", line) for line in lines)
        self.text("".join(f"{line}\n" for line in lines))

    def note_table(self, title: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """The same for people, on stderr."""
        for line in _columns(title, rows):
            self.note(line)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Bars with throughput and time left; on anything but a terminal, a line a download."""
        if self.quiet or self.json or not sys.stderr.isatty():
            yield _Lines(self)
            return
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Live

        with Live(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[rate]}", markup=False),
            TimeRemainingColumn(),
            console=Console(file=cast(TextIO, Terminal())),
            transient=True,
            redirect_stdout=False,  # data never mixes with the display
        ) as live:
            yield _Bars(live)


def _columns(title: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    clean = [[one_line(cell) for cell in row] for row in [title, *rows]]
    widths = [max(len(row[i]) for row in clean) for i in range(len(title))]
    for row in clean:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


class _Lines:
    """Progress for logs and pipes."""

    def __init__(self, output: Output) -> None:
        self.output, self.told = output, set[str]()

    def transfer(self, what: str, done: int, total: int) -> None:
        if done > 0 and what not in self.told:
            self.told.add(what)
            size = f", {total / 1e6:.1f} MB" if total else ""
            self.output.note(f"{what}{size}")

    def pictures(self, done: int, total: int) -> None:
        pass

    def start(self, name: str, tile_pixels: float) -> None:
        pass

    def update(self, done: float, total: int) -> None:
        pass


class _Bars:
    """Progress on a terminal: a bar for each download, one for the picture at work, and one for
    all pictures."""

    def __init__(self, live: Any) -> None:
        self.live, self.tile_pixels = live, 0.0
        self.transfers: dict[str, Any] = {}
        self.picture: Any = None
        self.before: tuple[float, float] | None = None  # tiles and seconds when the first was told
        self.all: Any = None

    def transfer(self, what: str, done: int, total: int) -> None:
        if what not in self.transfers:
            self.transfers[what] = self.live.add_task(one_line(what), total=None, rate="")
        task = self.transfers[what]
        rate = f"{done / 1e6:.1f} MB"
        self.live.update(task, completed=done, total=total or None, rate=rate)
        self.live.update(task, visible=done < total or not total)

    def pictures(self, done: int, total: int) -> None:
        if total == 1:
            return
        if self.all is None:
            self.all = self.live.add_task("pictures", total=total, rate="")
        self.live.update(self.all, completed=done, rate=f"{done} of {total}")

    def start(self, name: str, tile_pixels: float) -> None:
        if self.picture is not None:
            self.live.remove_task(self.picture)
        self.tile_pixels, self.before = tile_pixels, None
        self.picture = self.live.add_task(one_line(name), total=None, rate="")

    def update(self, done: float, total: int) -> None:
        seconds = next(t.elapsed for t in self.live.tasks if t.id == self.picture) or 0.0
        tiles_before, begun = self.before = self.before or (done, seconds)
        pixels, seconds = (done - tiles_before) * self.tile_pixels, seconds - begun
        rate = f"{pixels / 1e6 / seconds:.2f} MP/s" if seconds > 0.2 else ""
        tiles = f"  tile {min(total, int(done) + 1)} of {total}" if total > 1 else ""
        self.live.update(self.picture, completed=done, total=total, rate=rate + tiles)


def one_line(text: str) -> str:
    """Without what would command a terminal; a file's name may hold a line break as well."""
    return printable(re.sub(r"\s*\n\s*", " ", text.strip()))


def complain(message: str) -> None:
    """One line on stderr, also before any command is chosen."""
    try:
        sys.stderr.write(f"upres: {one_line(message)}\n")
        sys.stderr.flush()
    except OSError:  # nobody can be told; the exit code still tells
        _into_nothing(sys.stderr)
