"""``upres batch``: a folder, recursively, into a mirrored one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from upres.cli import options
from upres.cli.jobs import Job, ModelOptions, Settings
from upres.cli.output import Output
from upres.cli.run import run
from upres.errors import InputError, OutputError, UpresError

EXAMPLES = """
Examples:
  upres batch scans/                   into scans-x4/, names unchanged
  upres batch scans/ -o large -s 2     into large/, which is created
  upres batch scans/                   again: only what is not there yet
"""


def batch(
    folder: options.Folder,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for the results, created if need be.  [default: DIR-x4]",
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
    max_pixels: options.MaxPixels = 10**9,
    quality: options.Quality = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Upscale all pictures in a folder and its subfolders."""
    chosen = ModelOptions(
        scale,
        width,
        height,
        long_side,
        megapixels,
        model,
        fast,
        ensemble,
        device,
        precision,
        tile,
        threads,
    )
    chosen.check()
    speak = Output(json=json, quiet=quiet)
    target = output or _sibling(folder, chosen.label or "upscaled")
    sources, others = _pictures(
        folder, target, lambda e: speak.note(f"note: {e.filename} is left out ({e.strerror})")
    )
    pairs = [(source, target / source.relative_to(folder)) for source in sources]
    jobs = [Job(a, b) for a, b in pairs if overwrite or not os.path.lexists(b)]
    if not dry_run:
        _make_folders(jobs)
    failure: UpresError | None = None
    if jobs:
        settings = Settings(quality, overwrite, dry_run, max_pixels, folders_come=dry_run)
        try:
            run(jobs, chosen, settings, speak, alone=False)
        except UpresError as error:
            failure = error
    skipped = len(pairs) - len(jobs)
    speak.note(
        f"{len(jobs)} of {len(pairs)} pictures to do, {skipped} there already, "
        f"{others} other files left alone, results in {target}"
    )
    speak.event(
        event="summary", pictures=len(pairs), skipped=skipped, others=others, output=str(target)
    )
    if failure is not None:
        raise failure


def _sibling(folder: Path, label: str) -> Path:
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.with_name(f"{named.name}-{label}")


def _pictures(
    folder: Path, target: Path, on_error: Callable[[OSError], None]
) -> tuple[list[Path], int]:
    """Files with a picture's suffix in a stable order, and how many others there are. Hidden files
    and folders and the folder of the results are left alone, and links to folders not followed.
    """
    from upres.imaging.writer import FORMATS

    if not os.path.isdir(folder):  # noqa: PTH112 - pathlib raises on names that are too long
        raise InputError(f"{folder} is not a folder", "for single pictures leave out 'batch'")
    if os.path.realpath(folder) == os.path.realpath(target):
        raise OutputError(f"{target} is the folder of the pictures", "choose another with -o")
    suffixes = {suffix for kind in FORMATS.values() for suffix in kind.suffixes}
    found: list[Path] = []
    others = 0
    avoid = os.path.realpath(target)
    for place, folders, files in os.walk(folder, onerror=on_error):
        here = Path(place)
        folders[:] = sorted(
            f for f in folders if f[0] != "." and os.path.realpath(here / f) != avoid
        )
        for file in sorted(files):
            if file[0] != "." and Path(file).suffix.lower() in suffixes:
                found.append(here / file)
            else:
                others += 1
    return found, others


def _make_folders(jobs: list[Job]) -> None:
    for folder in {job.target.parent for job in jobs if job.target is not None}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be created ({error.strerror})") from error
