"""What stays of a run besides its weights: metrics.jsonl, TensorBoard, pictures, curves."""

import importlib.util
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from upres.files import atomic_write
from upres.model import Model
from upres.training.validation import Pair, Quality, measure

METRICS = "metrics.jsonl"
PICTURES = "validation"
BOARD = "tensorboard"
CURVE = "curve.png"
_SHOWN = 4  # validation pictures that are kept side by side


class View(Protocol):
    """What people see of a run while it goes on."""

    def steps(self, facts: Mapping[str, Any]) -> None:
        """Some steps were made."""
        ...

    def validated(self, step: int, quality: Sequence[Quality]) -> None:
        """The weights were measured."""
        ...

    def note(self, text: str) -> None:
        """Something that people want to know."""
        ...


class Record:
    """Keeps what happens in a run's folder, and shows it.

    A run outlives its record: what cannot be written is said once, and training goes on.

    Args:
        folder: of the run.
        pairs: validation pictures; without any, nothing is measured.
        view: who is told.
    """

    def __init__(self, folder: Path, pairs: Sequence[Pair], view: View) -> None:
        self.folder, self.pairs, self.view = folder, tuple(pairs), view
        self.complete = True
        self.resumed_at: int | None = None
        events = read_events(folder)
        if events:  # a line that a crash cut short would swallow the next
            self._rewrite(events)

    def steps(self, facts: Mapping[str, Any]) -> None:
        """See ``run.Watch``."""
        self._write("steps", facts)
        self.view.steps(facts)
        values = {key: facts[key] for key in ("loss", "rate", "patches_per_second")}
        self._plot(values, facts["step"])

    def event(self, name: str, facts: Mapping[str, Any]) -> None:
        """See ``run.Watch``."""
        if name == "resume":
            self.forget_after(facts["step"])
            self.view.note(f"goes on from step {facts['step']}; it began from {facts['start']}")
        self._write(name, facts)
        if name == "unsaved":
            self.view.note(f"{facts['why']}; training goes on, and saving is tried again")
        if name == "pause":
            self.view.note(f"stopped for {facts['seconds']:.0f} s, which do not count")
        if name == "other_pictures":
            self.view.note(
                "the pictures are not those that the run was begun with; it may have been trained "
                "on some that are held out now"
            )
        if name == "rollback":
            self.view.note(
                f"the loss was not finite before step {facts['step']}: back to step "
                f"{facts['back_to']}, with {facts['rate_factor']:g} of the rate"
            )

    def validate(self, step: int, model: Model, dtype: torch.dtype) -> tuple[Quality, ...]:
        """Measure, keep side by side what the pictures look like, and tell; see ``run.Watch``."""
        if not self.pairs:
            return ()
        quality, made = measure(model, self.pairs, dtype)
        for one in quality:
            self._write("validation", {"step": step, **asdict(one)})
            values = {f"psnr/x{one.scale}": one.psnr, f"ssim/x{one.scale}": one.ssim}
            self._plot(values, step)
        with self._losing_no_run():
            side_by_side(self.pairs[:_SHOWN], made, self.folder / PICTURES / f"{step:07d}.png")
        self.view.validated(step, quality)
        return quality

    def close(self) -> None:
        """Finish the files; draw the curves if matplotlib is there."""
        self._to_board(lambda board: board.close())
        with self._losing_no_run():
            try:
                draw_curves(self.folder)
            except (ImportError, AttributeError) as error:  # of a matplotlib that is broken
                self.view.note(f"no {CURVE}: matplotlib does not work ({error})")

    @cached_property
    def board(self) -> Any:
        """TensorBoard's writer, or None. It hides what an interrupted run did beyond its last
        checkpoint, so it is made once that is known."""
        return _tensorboard(self.folder, self.resumed_at)

    def _plot(self, values: Mapping[str, float], step: int) -> None:
        def add(board: Any) -> None:
            for key, value in values.items():
                board.add_scalar(key, value, step)

        self._to_board(add)

    def _to_board(self, use: Callable[[Any], None]) -> None:
        """It writes in a thread, whose errors (a full disk) any later call raises."""
        try:
            if self.board is not None:
                use(self.board)
        except Exception as error:  # noqa: BLE001 - also packages that do not fit each other
            self.board = None
            self.view.note(f"TensorBoard's log has a gap from here on ({error}); training goes on")

    def _write(self, name: str, facts: Mapping[str, Any]) -> None:
        event = {"event": name, "time": round(time.time(), 3), **facts}
        with self._losing_no_run(), (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def forget_after(self, step: int) -> None:
        """Steps that were made but never saved are made again."""
        self.resumed_at = step + 1
        events = read_events(self.folder)
        made = ("steps", "validation")
        kept = [event for event in events if event["event"] not in made or event["step"] <= step]
        if len(kept) < len(events):
            self._rewrite(kept)

    def _rewrite(self, events: Iterable[Mapping[str, Any]]) -> None:
        path = self.folder / METRICS
        with self._losing_no_run(), atomic_write(path) as part:
            part.write_text("".join(json.dumps(event) + "\n" for event in events), "utf-8")

    @contextmanager
    def _losing_no_run(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self.complete:
                self.view.note(
                    f"the run's record has gaps from here on ({error}); training goes on"
                )
            self.complete = False


_NUMBERS = {
    "steps": ("step", "loss"),
    "validation": ("step", "scale", "psnr", "bicubic_psnr"),
}


def read_events(folder: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl holds; a line that a crash cut short is left out."""
    path, events = folder / METRICS, []
    try:
        text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    except OSError:  # a run outlives its record
        return []
    for line in text.splitlines():
        with suppress(ValueError, RecursionError):
            event = json.loads(line)
            if _is_event(event):
                events.append(event)
    return events


def _is_event(raw: Any) -> bool:
    """Whether it says what it is, and all that curves are drawn from; somebody may have edited."""
    if not isinstance(raw, dict) or not isinstance(raw.get("event"), str):
        return False
    return all(isinstance(raw.get(key), int | float) for key in _NUMBERS.get(raw["event"], ()))


def side_by_side(pairs: Sequence[Pair], made: Sequence[NDArray[np.uint8]], path: Path) -> None:
    """A PNG with a row for each picture: bicubic, upscaled, truth."""
    rows = []
    width = max(pair.high.shape[1] for pair in pairs)
    for pair, picture in zip(pairs, made, strict=False):
        wide = [
            np.pad(p, ((0, 4), (0, width - p.shape[1] + 4), (0, 0)), constant_values=255)
            for p in (pair.bicubic, picture, pair.high)
        ]
        rows.append(np.concatenate(wide, axis=1))
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path) as part:
        Image.fromarray(np.concatenate(rows)).save(part, "PNG")


def draw_curves(folder: Path) -> Path | None:
    """curve.png: loss, and PSNR beside bicubic's, over steps. None without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure

    events = read_events(folder)
    steps = [e for e in events if e["event"] == "steps"]
    looks = [e for e in events if e["event"] == "validation"]
    figure = Figure(figsize=(9, 7), layout="constrained")
    loss, psnr = figure.subplots(2, 1, sharex=True)
    loss.plot([e["step"] for e in steps], [e["loss"] for e in steps], linewidth=0.8)
    positive = all(e["loss"] > 0 for e in steps)  # "psnr" is below zero
    loss.set(ylabel="loss", yscale="log" if steps and positive else "linear")
    for scale in sorted({e["scale"] for e in looks}):
        some = [e for e in looks if e["scale"] == scale]
        at = [e["step"] for e in some]
        (line,) = psnr.plot(at, [e["psnr"] for e in some], marker=".", label=f"x{scale}")
        psnr.axhline(
            some[-1]["bicubic_psnr"],
            color=line.get_color(),
            linestyle=":",
            label=f"bicubic x{scale}",
        )
    psnr.set(xlabel="step", ylabel="validation PSNR, dB (Y channel)")
    if looks:
        psnr.legend()
    path = folder / CURVE
    with atomic_write(path) as part:
        figure.savefig(part, dpi=110, format="png")
    return path


def _tensorboard(folder: Path, purge_step: int | None) -> Any:
    """A writer, if TensorBoard is installed and works."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    with suppress(ImportError):
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder / BOARD), purge_step=purge_step)
    return None
