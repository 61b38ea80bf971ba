"""What a training run looks like: a live table on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from upres.cli.output import Output, ReaderGone
from upres.errors import OutputError

OnGone = Callable[[Exception], None]
_LINE_EVERY = 30.0  # seconds, where there is no terminal


def clock(seconds: float) -> str:
    """ "1:02:03"."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


class TrainView:
    """Tells of a run, as ``training.session.TrainingView`` asks.

    Args:
        output: how the command speaks.
        live: rich's Live, or None to write lines.
        on_gone: told why standard output takes no more; the run is to be saved and to end then.
    """

    def __init__(self, output: Output, live: Any = None, on_gone: OnGone | None = None) -> None:
        self.output, self.live, self.on_gone = output, live, on_gone
        self.title, self.doing, self.written = "", "", 0.0
        self.facts: Mapping[str, Any] = {}
        self.quality: Sequence[Any] = ()
        self.quality_step = 0

    def preparing(self, what: str, done: int, total: int) -> None:
        """See ``TrainingView``."""
        if self.live is not None:
            self.doing = f"{what}: {_share(done, total)}"
            self._draw()
        elif done == total:
            self.output.note(f"{what}: {_share(done, total)}")

    def begins(self, title: str, recipe: Any, minutes: float | None) -> None:
        """See ``TrainingView``."""
        length = f"{minutes:g} minutes" if minutes is not None else f"{recipe.steps:,} steps"
        self.title, self.doing = f"{title}, recipe {recipe.name}, {length}", ""
        self.facts, self.quality = {}, ()
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
        elif time.monotonic() - self.written > _LINE_EVERY:
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
            self.live.console.print(text, markup=False, highlight=False)
        else:
            self.output.note(text)

    def _event(self, **event: Any) -> None:
        try:
            self.output.event(**event)
        except (ReaderGone, OutputError) as error:
            if self.on_gone is None:
                raise
            self.on_gone(error)

    def _rows(self) -> Iterator[tuple[str, str]]:
        facts = self.facts
        if not facts:
            return
        yield "step", f"{facts['step']:,}"
        yield "loss", f"{facts['loss']:.5f}"
        yield "rate", f"{facts['rate']:.2e}"
        yield "patches/s", f"{facts['patches_per_second']:.0f}"
        yield "time in data", f"{100 * facts['data_share']:.1f} %"
        yield "elapsed", clock(facts["seconds"])
        yield "left", clock(facts["seconds_left"])

    def _draw(self) -> None:
        if self.live is None:
            return
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        lines: list[Any] = [Text(self.title, style="bold")] if self.title else []
        if self.doing:
            lines.append(Text(self.doing))
        table = Table.grid(padding=(0, 2))
        for key, value in self._rows():
            table.add_row(Text(key, style="dim"), Text(value))
        for one in self.quality:
            table.add_row(
                Text("validation", style="dim"), Text(f"{_quality(one)} (step {self.quality_step})")
            )
        if self.facts:
            lines += [table, ProgressBar(total=1.0, completed=self.facts["progress"], width=60)]
        self.live.update(Group(*lines))


def _share(done: int, total: int) -> str:
    """Pictures are counted, bytes are told in megabytes."""
    if total > 1_000_000:
        return f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"
    return f"{done} of {total}"


def _quality(one: Any) -> str:
    gain = one.psnr - one.bicubic_psnr
    return (
        f"x{one.scale} {one.psnr:.2f} dB / {one.ssim:.4f}, bicubic {one.bicubic_psnr:.2f} / "
        f"{one.bicubic_ssim:.4f} ({gain:+.2f})"
    )


@contextmanager
def train_view(output: Output, on_gone: OnGone | None = None) -> Iterator[TrainView]:
    """A live view where there is a terminal to show it, lines elsewhere."""
    if output.quiet or output.json or not sys.stderr.isatty():
        yield TrainView(output, on_gone=on_gone)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), refresh_per_second=4, redirect_stdout=False) as live:
        yield TrainView(output, live, on_gone)
