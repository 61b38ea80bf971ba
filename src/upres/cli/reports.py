"""What is said about a picture, before and after."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from upres.cli.jobs import STREAM
from upres.cli.output import Output

if TYPE_CHECKING:
    from upres.imaging.fidelity import Item


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is said of one picture: a line, or the JSON object that docs/scripts.md explains.

    Attributes:
        frames: 1 for a picture that is not animated and has one page.
        scales: of the networks, in order.
        tile_memory_bytes: what tiles take at once.
        estimated_seconds: only where it was asked for, or is long.
        fidelity: what became of everything in the file, if that was asked for.
    """

    input: str
    output: str
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    frames: int
    model: str
    scales: tuple[int, ...]
    device: str
    precision: str
    tiles: int
    tile_memory_bytes: int
    notes: tuple[str, ...]
    estimated_seconds: float | None = None
    fidelity: "list[Item] | None" = None

    def facts(self) -> dict[str, Any]:
        """Without what was not asked for."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def line(self, more: str) -> str:
        """For people; ``more`` comes last."""
        a, b = (f"{wide} x {high}" for wide, high in (self.input_size, self.output_size))
        scales = " then ".join(f"x{scale}" for scale in self.scales)
        frames = f"{self.frames} frames, " if self.frames > 1 else ""
        how = f"{frames}{f'{self.model} {scales}'.strip()}, {self.device} {self.precision}"
        return f"{self.input} {a} -> {self.output} {b}, {how}, {more}"


def say_planned(report: Report, output: Output) -> None:
    """What a dry run says."""
    _say_notes(report, output)
    long = f"about {report.estimated_seconds:.1f} s (dry run)"
    tiles = f"{report.tiles} tile{'s' * (report.tiles != 1)}"
    if report.tiles:  # kernels have none
        long = f"{tiles}, {report.tile_memory_bytes / 2**20:.0f} MiB of memory for tiles, {long}"
    output.note(report.line(long))
    output.event(event="planned", **report.facts())


def say_done(report: Report, output: Output, seconds: float) -> None:
    """What is said when the result is written."""
    _say_notes(report, output)
    output.note(report.line(f"{seconds:.1f} s"))
    if report.fidelity:
        rows = [list(vars(item).values()) for item in report.fidelity]
        output.note_table(list(vars(report.fidelity[0])), rows)
    if report.output != STREAM:
        output.made(report.output, event="done", seconds=round(seconds, 3), **report.facts())


def _say_notes(report: Report, output: Output) -> None:
    for note in report.notes:
        output.note(f"note: {report.input}: {note}")
