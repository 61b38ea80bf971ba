"""What a training run looks like: a live table on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO, cast

from upres.cli.output import Output, ReaderGone, Terminal, one_line
from upres.errors import OutputError

OnGone = Callable[[Exception], None]
_LINE_EVERY = 30.0  # seconds, where there is no terminal


def hms(seconds: float) -> str:
    """ "1:02:03"."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


class TrainView:
    """Tells of a run, as ``training.shared.TrainingView`` asks.

    Args:
        output: how the command speaks.
        live: rich's Live, or None to write lines.
        on_gone: told why standard output takes no more; the run is to be saved and to end then.
    """

    def __init__(self, output: Output, live: Any = None, on_gone: OnGone | None = None) -> None:
        self.output, self.live, self.on_gone = output, live, on_gone
        self.title, self.written = "", 0.0
        self.preparation: _Preparation | None = None
        self.facts: Mapping[str, Any] = {}
        self.quality: Sequence[Any] = ()
        self.quality_step = 0

    def preparing(self, what: str, done: int, total: int) -> None:
        """See ``TrainingView``."""
        self._prepare(what, done, total, of_bytes=False)

    def transfer(self, what: str, done: int, total: int) -> None:
        """See ``progress.Transfer``."""
        self._prepare(what, done, total, of_bytes=True)

    def _prepare(self, what: str, done: int, total: int, *, of_bytes: bool) -> None:
        if self.preparation is None or self.preparation.what != what:
            self.preparation = _Preparation(what, of_bytes, time.monotonic(), done)
        self.preparation.done, self.preparation.total = done, total
        if self.live is not None:
            self._draw()
        elif done == total or self._long_since(self.preparation.since):
            self.written = time.monotonic()
            self.output.note(str(self.preparation))

    def begins(self, title: str, recipe: Any, minutes: float | None) -> None:
        """See ``TrainingView``."""
        length = f"{minutes:g} minutes" if minutes is not None else f"{recipe.steps:,} steps"
        self.title, self.preparation = f"{title}, recipe {recipe.name}, {length}", None
        self.facts, self.quality, self.written = {}, (), 0.0
        self._event(event="begin", title=title, recipe=recipe.name)
        if self.live is None:
            self.output.note(self.title)
        self._draw()

    def steps(self, facts: Mapping[str, Any]) -> None:
        """See ``View``."""
        self.facts = facts
        self._event(event="steps", **facts)
        if self.live is not None:
            self._draw()
        elif self._long_since(self.written):
            self.written = time.monotonic()
            self.output.note(", ".join(f"{k} {v}" for k, v in self._rows()))

    def validated(self, step: int, quality: Sequence[Any]) -> None:
        """See ``View``."""
        self.quality, self.quality_step = quality, step
        for one in quality:
            self._event(event="validation", step=step, **vars(one))
            if self.live is None:
                self.output.note(f"step {step}: {_quality(one)}")
        self._draw()

    def note(self, text: str) -> None:
        """See ``View``."""
        if self.live is not None:
            self.live.console.print(one_line(text), markup=False, highlight=False)
        else:
            self.output.note(text)

    def _event(self, **event: Any) -> None:
        try:
            self.output.event(**event)
        except (ReaderGone, OutputError) as error:
            if self.on_gone is None:
                raise
            self.on_gone(error)

    def _long_since(self, begun: float) -> bool:
        return time.monotonic() - max(begun, self.written) > _LINE_EVERY

    def _rows(self) -> Iterator[tuple[str, str]]:
        facts = self.facts
        if not facts:
            return
        yield "step", f"{facts['step']:,}"
        yield "loss", f"{facts['loss']:.5f}"
        yield "rate", f"{facts['rate']:.2e}"
        yield "patches/s", f"{facts['patches_per_second']:.0f}"
        yield "time in data", f"{100 * facts['data_share']:.1f} %"
        yield "elapsed", hms(facts["seconds"])
        yield "left", hms(facts["seconds_left"])

    def _draw(self) -> None:
        if self.live is None:
            return
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        lines: list[Any] = [Text(self.title, style="bold")] if self.title else []
        if self.preparation is not None:
            share = self.preparation.done / max(1, self.preparation.total)
            lines += [Text(str(self.preparation)), _bar(share)]
        table = Table.grid(padding=(0, 2))
        for key, value in self._rows():
            table.add_row(Text(key, style="dim"), Text(value))
        for one in self.quality:
            table.add_row(
                Text("validation", style="dim"), Text(f"{_quality(one)} (step {self.quality_step})")
            )
        if self.facts:
            lines += [table, _bar(self.facts["progress"])]
        self.live.update(Group(*lines))


@dataclass
class _Preparation:
    """What is done before a run begins.

    Attributes:
        what: "decoding".
        of_bytes: whether bytes are counted, or pictures.
        since: when it began, in seconds of ``time.monotonic``.
        before: what was there already then.
        done, total: how many of them.
    """

    what: str
    of_bytes: bool
    since: float
    before: int
    done: int = 0
    total: int = 0

    def __str__(self) -> str:
        count = f"{self.done} of {self.total}"
        if self.of_bytes:
            count = f"{self.done / 1e6:.0f} of {self.total / 1e6:.0f} MB"
        seconds, made = time.monotonic() - self.since, self.done - self.before
        if made <= 0 or seconds < 1 or self.done >= self.total:
            return f"{self.what}: {count}"
        speed = f"{made / seconds / 1e6:.1f} MB/s, " if self.of_bytes else ""
        left = hms(seconds * (self.total - self.done) / made)
        return f"{self.what}: {count}, {speed}{left} left"


def _bar(share: float) -> Any:
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=1.0, completed=share, width=60)


def _quality(one: Any) -> str:
    gain = one.psnr - one.bicubic_psnr
    return (
        f"x{one.scale} {one.psnr:.2f} dB / {one.ssim:.4f}, bicubic {one.bicubic_psnr:.2f} / "
        f"{one.bicubic_ssim:.4f} ({gain:+.2f}; Y, {one.scale} pixels shaved)"
    )


@contextmanager
def train_view(output: Output, on_gone: OnGone | None = None) -> Iterator[TrainView]:
    """A live view where there is a terminal to show it, lines elsewhere."""
    if output.quiet or output.json or not sys.stderr.isatty():
        yield TrainView(output, on_gone=on_gone)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(file=cast(TextIO, Terminal()))
    with Live(console=console, refresh_per_second=4, redirect_stdout=False) as live:
        yield TrainView(output, live, on_gone)
