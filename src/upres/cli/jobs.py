"""What the options of ``upscale`` and ``batch`` mean: pictures to do, and how."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from upres.cli.options import refuse_without_network
from upres.errors import OutputError, UsageError
from upres.hashing import sha256_of
from upres.version import __version__

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
        file_format: the one to write, or None for the input's.
        named_by_size: the target's name gets the result's size, once that is known.
        data: the file's bytes, where they can be read only once: a pipe.
        key: what a batch's journal calls it.
        replaces: the target is our own of an earlier run.
    """

    source: Path | None
    target: Path | None
    file_format: str | None = None
    named_by_size: bool = False
    data: bytes | None = None
    key: str = ""
    replaces: bool = False

    @property
    def contents(self) -> Path | bytes:
        """What the picture is read from."""
        if self.data is not None:
            return self.data
        assert self.source is not None  # standard input is read when a run begins
        return self.source

    @property
    def name(self) -> str:
        """For people."""
        return STREAM if self.source is None else str(self.source)


def refuse_collisions(jobs: Sequence[Job], place: Callable[[Path], str], remedy: str) -> None:
    """No two results in one file, and none in the place of another picture of this run.

    Args:
        place: equal for targets that would be the same file.

    Raises:
        OutputError: two would be.
    """
    seen: dict[str, Job] = {}
    sources = {file_at(job.source): job for job in jobs if job.source is not None}
    for job in jobs:
        if job.target is None:
            continue
        # Those that are named by a size have their names later; see refuse_source.
        source = None if job.named_by_size else sources.get(file_at(job.target))
        if source is not None and source is not job:
            raise OutputError(
                f"{job.name} would be written over {source.name}, which is to be upscaled too",
                remedy,
            )
        other = seen.setdefault(place(job.target), job)
        if other is not job:
            raise OutputError(
                f"{other.name} and {job.name} would both be written to {job.target}", remedy
            )


def file_at(path: Path) -> tuple[int, int] | str:
    """Equal for all names of one file: links, and capitals where the system minds none."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - pathlib's raises on names that are too long
    except (OSError, ValueError):
        return os.path.realpath(path)
    return stat.st_dev, stat.st_ino


def refuse_source(target: Path, sources: Set[tuple[int, int] | str]) -> None:
    """No result in the place of a picture of this run, for one whose name is known only now.

    Args:
        sources: ``file_at`` of each.

    Raises:
        OutputError: it would be.
    """
    if file_at(target) in sources:
        raise OutputError(
            f"{target} is to be upscaled too, and would be overwritten",
            "choose another name with -o, or upscale them separately",
        )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the options say, as far as it does not concern the model.

    Attributes:
        max_pixels: see ``read_picture``.
        folders_come: the targets' folders would be made if it were not a dry run.
        background: red, green, blue behind what is transparent where a format cannot hold it.
        strip_metadata: leave out what tells of people, places and programs.
        convert_profile: the profile that colours are converted to, if any.
        report_fidelity: say what became of everything in the file.
        fail_fast: the first failure ends the run.
        max_memory: bytes that the process may take, or None.
        resume: go on with what an interrupted run left of a large result.
        wrap: the picture goes on at its other side, so that all of it is needed at once.
        sources: ``file_at`` of this run's pictures, where results are named by their sizes.
    """

    quality: int | None
    overwrite: bool
    dry_run: bool
    max_pixels: int | None
    folders_come: bool = False
    background: tuple[int, int, int] = (255, 255, 255)
    strip_metadata: bool = False
    convert_profile: Literal["srgb"] | None = None
    report_fidelity: bool = False
    fail_fast: bool = False
    max_memory: int | None = None
    resume: bool = False
    wrap: bool = False
    sources: frozenset[tuple[int, int] | str] = frozenset()

    def check(self, *, quiet: bool) -> None:
        """See that a report is asked for where one can be given.

        Args:
            quiet: nothing is told, not as JSON either.

        Raises:
            UsageError: it cannot.
        """
        if self.report_fidelity and (self.dry_run or quiet):
            other = "--dry-run" if self.dry_run else "--quiet"
            raise UsageError(f"--report-fidelity with {other}, which has none", "leave one out")

    @property
    def streams_from(self) -> int:
        """Bytes of pixels from which on results are written row by row."""
        usual = 2**28
        return usual if self.max_memory is None else min(usual, self.max_memory // 64)

    def reads_rows_from(self, *, isolated: bool) -> int:
        """Bytes of pixels from which on pictures are read row by row.

        Args:
            isolated: others are decoded in a process of their own, which costs this one less than
                a file that makes it crash: only what is large for the limit is read here.
        """
        if self.max_memory is None or not isolated:
            return self.streams_from
        return min(2**28, self.max_memory // 8)


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Equal where the facts are: 32 hex digits."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
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
    alpha: Literal["bicubic", "network"]
    wrap: bool
    max_memory: int | None

    # What results depend on by rounding alone.
    _INDIFFERENT: ClassVar = ("threads", "tile", "max_memory")

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
        from upres.weights.manifest import KERNELS

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
        given = {
            "--ensemble": self.ensemble,
            f"--device {self.device}": self.device in ("cuda", "mps"),
            f"--precision {self.precision}": self.precision in ("bf16", "fp16"),
            "--tile": self.tile is not None,
            "--alpha network": self.alpha == "network",
        }
        refuse_without_network([self.model], given)
        if self.model.endswith(".safetensors"):
            read_facts(Path(self.model))
        elif self.model not in ("auto", *KERNELS):
            known_models().family(self.model)

    def weights(self) -> list[str]:
        """SHA-256 of all files that may be used, as far as the options say."""
        from upres.weights.known import known_models
        from upres.weights.manifest import KERNELS

        if self.model in KERNELS:
            return []
        if self.model.endswith(".safetensors"):
            return [sha256_of(Path(self.model))]
        known = known_models()
        listed = (*known.default, *known.fast, *known.photo)
        names = listed if self.model == "auto" else (self.model,)
        return sorted({entry.sha256 for name in names for entry in known.files(name)})

    def facts(self, **others: object) -> dict[str, Any]:
        """What results depend on: the version, these options, the weights and ``others``."""
        told = {k: v for k, v in vars(self).items() if k not in self._INDIFFERENT}
        told["scale"] = self.goal.fixed  # the same whether it was asked for or is the usual one
        return {"version": __version__, **told, "weights": self.weights(), **others}

    def upscaler(self, on_download: Any) -> "Upscaler":
        """The model, ready."""
        import torch

        from upres.api import Upscaler

        if self.threads:
            torch.set_num_threads(self.threads)
        return Upscaler(
            self.model,
            self.goal,
            device=self.device,
            precision=self.precision,
            tile=self.tile,
            ensemble=self.ensemble,
            fast=self.fast,
            alpha=self.alpha,
            wrap=self.wrap,
            max_memory=self.max_memory,
            on_download=on_download,
        )
