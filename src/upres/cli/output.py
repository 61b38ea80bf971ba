"""The only place that prints: data on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from upres.errors import UpresError


class Meter(Protocol):
    """A progress display."""

    def start(self, name: str, unit_pixels: float) -> None:
        """A picture begins; ``unit_pixels`` of its input are done with each tile."""
        ...

    def update(self, done: float, total: int) -> None:
        """``done`` of ``total`` tiles are computed."""
        ...


class _NoMeter:
    def start(self, name: str, unit_pixels: float) -> None:
        pass

    def update(self, done: float, total: int) -> None:
        pass


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
        sys.stdout.write((json.dumps(event) if self.json else text) + "\n")
        sys.stdout.flush()

    def event(self, **event: Any) -> None:
        """Data that only scripts want."""
        if self.json:
            self.value("", **event)

    def raw(self, data: bytes) -> None:
        """A picture's bytes, on stdout."""
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def note(self, text: str) -> None:
        """Something people want to know."""
        if not self.quiet:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def error(self, error: UpresError) -> None:
        """What went wrong, in one line."""
        complain(str(error))

    def table(self, title: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns on stdout, padded with spaces; plain text everywhere."""
        widths = [max(len(r[i]) for r in [title, *rows]) for i in range(len(title))]
        for row in [title, *rows]:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            sys.stdout.write("  ".join(cells).rstrip() + "\n")
        sys.stdout.flush()

    @contextmanager
    def meter(self) -> Iterator[Meter]:
        """A progress bar with throughput and time left, on terminals only."""
        if self.quiet or self.json or not sys.stderr.isatty():
            yield _NoMeter()
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        ) as progress:
            yield _RichMeter(progress)

    @contextmanager
    def download(self) -> Iterator[Any]:
        """A function ``(name, bytes so far, bytes in all)`` that shows a transfer."""
        if self.quiet or self.json or not sys.stderr.isatty():
            announced: set[str] = set()

            def announce(name: str, done: int, total: int) -> None:
                if done > 0 and name not in announced:
                    announced.add(name)
                    self.note(f"downloading {name}" + (f", {total / 1e6:.1f} MB" if total else ""))

            yield announce
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

        with Progress(
            "{task.description}",
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(stderr=True),
            transient=True,
        ) as progress:
            tasks: dict[str, Any] = {}

            def show(name: str, done: int, total: int) -> None:
                if name not in tasks:
                    tasks[name] = progress.add_task(f"downloading {name}", total=total or None)
                progress.update(tasks[name], completed=done)

            yield show


class _RichMeter:
    def __init__(self, progress: Any) -> None:
        self.progress, self.pixels = progress, 0.0
        self.task: Any = None

    def start(self, name: str, unit_pixels: float) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.pixels = unit_pixels
        self.task = self.progress.add_task(name, total=None, rate="")

    def update(self, done: float, total: int) -> None:
        task = self.progress.tasks[0]
        seconds = task.elapsed or 0.0
        rate = f"{done * self.pixels / 1e6 / seconds:.2f} MP/s" if seconds > 0.5 else ""
        tiles = f"  tile {min(total, int(done) + 1)}/{total}" if total > 1 else ""
        self.progress.update(self.task, completed=done, total=total, rate=rate + tiles)


def complain(message: str) -> None:
    """One line on stderr, also before any command is chosen."""
    sys.stderr.write(f"upres: {' '.join(message.split())}\n")
    sys.stderr.flush()
