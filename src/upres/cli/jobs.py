"""What the options of ``upscale`` and ``batch`` mean: pictures to do, and how."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from upres.errors import UsageError

if TYPE_CHECKING:
    from upres.api import Upscaler
    from upres.inference.sizes import Goal

STREAM = "-"


@dataclass(frozen=True)
class Job:
    """One picture.

    Attributes:
        source: a path, or None for standard input.
        target: a path, or None for standard output.
        kind: the format to write, or None for the input's.
        named_by_size: the target's name gets the result's size, once that is known.
        data: the file's bytes, where they can be read only once: a pipe.
    """

    source: Path | None
    target: Path | None
    kind: str | None = None
    named_by_size: bool = False
    data: bytes | None = None

    @property
    def contents(self) -> Path | bytes:
        """What the picture is read from."""
        if self.data is not None:
            return self.data
        return sys.stdin.buffer.read() if self.source is None else self.source

    @property
    def name(self) -> str:
        """For people."""
        return STREAM if self.source is None else str(self.source)


@dataclass(frozen=True)
class Settings:
    """What the options say, as far as it does not concern the model.

    Attributes:
        folders_come: the targets' folders would be made if it were not a dry run.
    """

    quality: int | None
    overwrite: bool
    dry_run: bool
    max_pixels: int
    folders_come: bool = False


@dataclass(frozen=True)
class ModelOptions:
    """What the options say about size, model and execution, as they were given."""

    scale: float | None
    width: int | None
    height: int | None
    long_side: int | None
    megapixels: float | None
    model: str
    fast: bool
    ensemble: bool
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    tile: int | None
    threads: int | None

    @property
    def goal(self) -> "Goal":
        """The size that is asked for."""
        from upres.inference.sizes import Goal

        return Goal(self.scale, self.width, self.height, self.long_side, self.megapixels)

    @property
    def label(self) -> str | None:
        """The end of a default name, where it does not depend on the picture."""
        fixed = self.goal.fixed
        return None if fixed is None else f"x{fixed:g}"

    def check(self) -> None:
        """Refuse before torch is imported what no picture could make right.

        Raises:
            UsageError: goals exclude each other, or are impossible.
            WeightsError: there is no such model.
        """
        from upres.weights.header import read_facts
        from upres.weights.known import known_models

        if self.fast and self.model != "auto":
            raise UsageError("--fast and --model exclude each other", "give one of them")
        goal = self.goal
        for name, value in vars(goal).items():
            if value is not None and not value > 0:
                raise UsageError(f"--{name.replace('_', '-')} {value:g}", "give a positive number")
        if goal.fixed is not None:
            goal.size(10**6, 10**6)
        elif sum(v is not None for v in vars(goal).values()) > 1:
            goal.size(1, 1)
        if self.model.endswith(".safetensors"):
            read_facts(Path(self.model))
        elif self.model not in ("auto", "bicubic", "lanczos"):
            known_models().family(self.model)

    def upscaler(self, on_download: Any) -> "Upscaler":
        """The model, ready."""
        import torch

        from upres.api import Upscaler

        if self.threads:
            torch.set_num_threads(self.threads)
        return Upscaler(
            self.model,
            self.goal,
            self.device,
            self.precision,
            self.tile,
            self.ensemble,
            self.fast,
            on_download,
        )
