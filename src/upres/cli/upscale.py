"""``upres upscale``, which ``upres photo.jpg`` means."""

import glob
import os
from pathlib import Path
from typing import Annotated

import typer

from upres.cli import options
from upres.cli.jobs import STREAM, Job, ModelOptions, Settings, file_at, refuse_collisions
from upres.cli.output import Output
from upres.cli.run import run
from upres.errors import InputError, OutputError, UsageError

EXAMPLES = """
Examples:
  upres photo.jpg                            photo-x4.jpg beside it
  upres photo.jpg --scale 2 -o large.png
  upres *.png --long-side 3840 -o wide/      several, into a folder that exists
  upres photo.jpg --model bicubic            no network, for comparison
  upres *.tif --format png                   in another format
  upres - -o - --format png < in.jpg > out.png   through pipes
"""


def upscale(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="Pictures, or - for standard input.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File, existing folder, or - for standard output.  [default: NAME-x4 beside NAME]",
            rich_help_panel="Output",
        ),
    ] = None,
    scale: options.Scale = None,
    width: options.Width = None,
    height: options.Height = None,
    long_side: options.LongSide = None,
    megapixels: options.Megapixels = None,
    model: options.ModelName = "auto",
    fast: options.Fast = False,
    ensemble: options.Ensemble = False,
    device: options.Device = "auto",
    precision: options.PrecisionName = "auto",
    tile: options.Tile = "auto",
    threads: options.Threads = None,
    max_pixels: options.MaxPixels = None,
    max_memory: options.MaxMemory = None,
    quality: options.Quality = None,
    alpha: options.AlphaBy = "bicubic",
    wrap: options.Wrap = False,
    background: options.Background = "white",
    strip_metadata: options.StripMetadata = False,
    convert_profile: options.ConvertProfile = None,
    report_fidelity: options.ReportFidelity = False,
    format_: options.FormatName = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue a large result whose run was interrupted.",
            rich_help_panel="Output",
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Upscale pictures, four times by default."""
    chosen = ModelOptions(
        scale=scale,
        width=width,
        height=height,
        long_side=long_side,
        megapixels=megapixels,
        model=model,
        fast=fast,
        ensemble=ensemble,
        device=device,
        precision=precision,
        tile=tile,
        threads=threads,
        alpha=alpha,
        wrap=wrap,
        max_memory=max_memory,
    )
    if output == "":
        raise UsageError("the name after -o is empty", "check the variable that supplies it")
    jobs = _jobs(files, output, chosen.label, format_)
    speak = Output(json=json, quiet=quiet)
    if any(job.target is None for job in jobs):
        if json:
            raise UsageError(
                "--json and a picture cannot share standard output", "name a file with -o"
            )
        if not dry_run:
            speak.check_raw()
    settings = Settings(
        quality=quality,
        overwrite=overwrite,
        dry_run=dry_run,
        max_pixels=max_pixels,
        background=background,
        strip_metadata=strip_metadata,
        convert_profile=convert_profile,
        report_fidelity=report_fidelity,
        max_memory=max_memory,
        resume=resume,
        wrap=wrap,
        sources=frozenset(file_at(job.source) for job in jobs if job.source and job.named_by_size),
    )
    settings.check(quiet=quiet and not json)
    run(jobs, chosen, settings, speak, single=len(jobs) == 1)


def _jobs(files: list[str], output: str | None, label: str | None, form: str | None) -> list[Job]:
    from upres.imaging.formats import FORMATS, written_to

    names = [name for file in files for name in _expanded(file)]
    if STREAM in names and len(names) > 1:
        raise UsageError(
            "- (standard input) cannot be combined with other pictures", "upscale it alone"
        )
    # os.path, since pathlib's is_dir() raises on names that are too long.
    folder = Path(output) if output and os.path.isdir(output) else None  # noqa: PTH112
    if output and output.endswith(("/", os.sep)) and folder is None:
        raise OutputError(f"{output} is not a folder", "create it first")
    if len(names) > 1 and output is not None and folder is None:
        raise OutputError(
            f"{output} cannot take {len(names)} pictures", "give -o a folder that exists"
        )
    jobs = []
    for name in names:
        source = None if name == STREAM else Path(name)
        if not name:
            raise InputError(
                "the name of a picture is empty", "check the variable or script that supplies it"
            )
        if source is not None and not source.name:
            raise InputError(f"{name} is a folder", f"use 'upres batch {name}'")
        if output == STREAM or (source is None and output is None):
            jobs.append(Job(source, None, form))
        elif output is not None and folder is None:
            jobs.append(Job(source, Path(output), _format_of(Path(output), form)))
        elif source is None:
            raise UsageError("a picture from standard input has no name", "name a file with -o")
        else:
            beside = written_to(source if folder is None else folder / source.name)
            if form is not None:
                beside = beside.with_suffix(FORMATS[form].suffixes[0])
            target = beside if label is None else beside.with_stem(f"{beside.stem}-{label}")
            jobs.append(Job(source, target, form, named_by_size=label is None))
    refuse_collisions(jobs, _place, "upscale them separately")
    return jobs


def _place(target: Path) -> str:
    """Equal where some system has one file: many don't tell capitals from small letters."""
    return os.path.join(os.path.realpath(target.parent), target.name.lower())  # noqa: PTH118


def _format_of(target: Path, form: str | None) -> str:
    from upres.imaging.formats import format_of

    named = format_of(target)
    if form not in (None, named):
        raise UsageError(f"{target} is {named} by its name, and not {form}", "leave --format out")
    return named


def _expanded(name: str) -> list[str]:
    """Patterns that the shell left as they are."""
    if name == STREAM or os.path.lexists(name) or not any(c in name for c in "*?["):
        return [name]
    found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - takes absolute patterns
    if not found:
        raise InputError(f"nothing matches {name!r}", "check the pattern")
    return found
