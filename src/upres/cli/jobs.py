"""What the options of ``upscale`` and ``batch`` mean: pictures to do, and how."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from upres.errors import UsageError

if TYPE_CHECKING:
    from upres.api import Upscaler

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
    ensemble: bool
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    tile: int | None
    threads: int | None

    @property
    def label(self) -> str | None:
        """The end of a default name, where it does not depend on the picture."""
        sizes = (self.width, self.height, self.long_side, self.megapixels)
        if any(size is not None for size in sizes):
            return None
        return f"x{4 if self.scale is None else self.scale:g}"

    def check(self) -> None:
        """Refuse before torch is imported what no picture could make right.

        Raises:
            UsageError: goals exclude each other, or are impossible.
            WeightsError: there is no such model.
        """
        from upres.inference.sizes import Goal
        from upres.weights.header import read_facts
        from upres.weights.manifest import load_manifest

        goal = Goal(self.scale, self.width, self.height, self.long_side, self.megapixels)
        for name, value in vars(goal).items():
            if value is not None and not value > 0:
                raise UsageError(f"--{name.replace('_', '-')} {value:g}", "give a positive number")
        if self.label is not None:
            goal.size(10**6, 10**6)
        elif sum(v is not None for v in vars(goal).values()) > 1:
            goal.size(1, 1)
        if self.model.endswith(".safetensors"):
            read_facts(Path(self.model))
        elif self.model not in ("auto", "bicubic", "lanczos"):
            load_manifest().family(self.model)

    def upscaler(self, on_download: Any) -> "Upscaler":
        """The model, ready."""
        import torch

        from upres.api import Upscaler
        from upres.inference.sizes import Goal

        if self.threads:
            torch.set_num_threads(self.threads)
        goal = Goal(self.scale, self.width, self.height, self.long_side, self.megapixels)
        return Upscaler(
            self.model, goal, self.device, self.precision, self.tile, self.ensemble, on_download
        )
