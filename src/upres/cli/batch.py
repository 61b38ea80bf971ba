"""``upres batch``: a folder, recursively, into a mirrored one."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from upres.cli import options
from upres.cli.jobs import Job, ModelOptions, Settings, fingerprint, refuse_collisions
from upres.cli.journal import Journal
from upres.cli.output import Output
from upres.cli.reports import Report
from upres.cli.run import duration, run
from upres.cli.tree import (
    Chosen,
    job_of,
    make_folders,
    pictures_in,
    places_of,
    refuse_mixing,
    sibling_of,
)
from upres.errors import (
    BatchError,
    InputError,
    ResourceError,
    UpresError,
    UsageError,
)

EXAMPLES = """
Examples:
  upres batch scans/                   into scans-x4/, names unchanged (HEIC, J2K: .png)
  upres batch scans/ -o large -s 2     into large/, which is created
  upres batch scans/                   again: only what is missing or changed
  upres batch scans/ --include '*.tif' --format png
"""


def batch(
    folder: options.Folder,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            parser=options.named,
            metavar="DIR",
            help="Folder for the results, created if need be.  "
            "[default: DIR-x4, or DIR-upscaled for sizes]",
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
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Only these, such as '*.jpg' or 'raw/*'; can be given several times.",
            rich_help_panel="Folder",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="All but these; can be given several times.",
            rich_help_panel="Folder",
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Try again the pictures that failed before, even if nothing changed.",
            rich_help_panel="Folder",
        ),
    ] = False,
    ignore_existing: Annotated[
        bool,
        typer.Option(
            "--ignore-existing",
            help="Keep existing results, even if the picture or the options changed.",
            rich_help_panel="Folder",
        ),
    ] = False,
    fail_fast: Annotated[
        bool,
        typer.Option("--fail-fast", help="Stop at the first failure.", rich_help_panel="Folder"),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Process everything again and replace all results, even files that upres did not "
            "make.",
            rich_help_panel="Output",
        ),
    ] = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Upscale all pictures in a folder and its subfolders."""
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
    chosen.check()
    if ignore_existing and overwrite:
        raise UsageError("--ignore-existing and --overwrite exclude each other", "give one of them")
    if output == Path("-"):
        raise UsageError("a folder's results do not go to standard output", "give -o a folder")
    speak = Output(json=json, quiet=quiet)
    target = output or sibling_of(folder, chosen.label or "upscaled")
    unread: list[OSError] = []
    sources, others = pictures_in(
        folder, target, Chosen(tuple(include or ()), tuple(exclude or ())), unread.append
    )
    if (include or exclude) and not sources and not unread:
        raise InputError(
            f"no picture in {folder} is chosen by --include and --exclude",
            "give patterns of names or paths below it, such as '*.tif' or 'scans/*'",
        )
    for error in unread:
        speak.error(InputError(f"{error.filename} cannot be read ({error.strerror})"))
    jobs = [job_of(source, folder, target, format_) for source in sources]
    # Systems that don't tell capitals from small letters would keep one of the two.
    refuse_collisions(
        jobs, lambda path: str(path).lower(), "rename one, or leave one out with --exclude"
    )
    refuse_mixing(jobs, folder, target)
    depends = chosen.facts(
        quality=quality,
        background=background,
        strip_metadata=strip_metadata,
        convert_profile=convert_profile,
        format=format_,
    )
    settings = Settings(
        quality=quality,
        overwrite=overwrite,
        dry_run=dry_run,
        max_pixels=max_pixels,
        folders_come=dry_run,
        background=background,
        strip_metadata=strip_metadata,
        convert_profile=convert_profile,
        report_fidelity=report_fidelity,
        max_memory=max_memory,
        resume=True,
        fail_fast=fail_fast,
        wrap=wrap,
    )
    settings.check(quiet=quiet and not json)
    if not dry_run:
        make_folders(target, jobs)
    with Journal(
        target,
        fingerprint(depends),
        depends,
        source=folder,
        limits=_limits(max_pixels),
        dry=dry_run,
    ) as journal:
        plan = {job: journal.todo(job.key, *places_of(job)) for job in jobs}
        does = {"do"} | ({"failed"} if retry_failed else set())
        does |= set() if ignore_existing else {"redo"}
        wanted = [
            replace(job, replaces=todo in ("redo", "failed"))
            for job, todo in plan.items()
            if overwrite or todo in does
        ]
        again = 0 if overwrite or ignore_existing else list(plan.values()).count("redo")
        if again:
            speak.note(
                f"note: results of earlier runs that are made again: {again}, since the picture, "
                "options, weights or version changed; --ignore-existing keeps them"
            )
        tally = _Tally(journal, overwrite=overwrite)
        failure: UpresError | None = None
        if wanted:
            try:
                run(wanted, chosen, settings, speak, isolated=True, watch=tally)
            except UpresError as error:
                failure = error
    tried = {job.key for job in wanted}
    left = {job: todo for job, todo in plan.items() if job.key not in tried}
    counts = {
        "pictures": len(jobs),
        "planned" if dry_run else "done": tally.done,
        "failed": tally.failed,
        "unfinished": len(wanted) - tally.done - tally.failed,
        "unchanged": sum(todo in ("done", "redo") for todo in left.values()),
        "failed_before": sum(todo == "failed" for todo in left.values()),
        "not_ours": sum(todo == "foreign" for todo in left.values()),
        "others": others,
        "unread_folders": len(unread),
    }
    for job in (job for job, todo in left.items() if todo == "foreign"):
        speak.note(
            f"note: {job.target} exists but was not made by upres from {job.source}; left "
            "alone (--overwrite replaces it)"
        )
    _summarise(speak, target, counts, tally.seconds if dry_run else None)
    if failure is not None:
        raise failure
    if counts["failed_before"]:
        raise BatchError(
            f"{counts['failed_before']} of {len(jobs)} pictures failed in an earlier run",
            "--retry-failed tries them again",
        )
    if unread:
        raise BatchError(
            f"folders that could not be read: {len(unread)}", "check their permissions"
        )


def _summarise(speak: Output, target: Path, counts: dict[str, int], seconds: float | None) -> None:
    """Say what became of all pictures.

    Args:
        seconds: that they would take, of a dry run.
    """
    parts = [
        f"{count} {_WORDS[what]}" for what, count in counts.items() if count and what in _WORDS
    ]
    if seconds is not None and counts["planned"]:
        parts.append(f"about {duration(seconds)}")
    number = counts["pictures"]
    speak.note(f"{number} picture{'s' * (number != 1)}: {', '.join(parts) or 'nothing to do'}")
    speak.note(f"results in {target}")
    long = {} if seconds is None else {"estimated_seconds": round(seconds, 1)}
    speak.event(event="summary", **counts, **long, output=str(target))


_WORDS = {
    "planned": "to do",
    "done": "done",
    "failed": "failed",
    "unfinished": "not finished",
    "unchanged": "done before",
    "failed_before": "failed before",
    "not_ours": "left alone since upres did not make them",
    "others": "other files",
    "unread_folders": "folders that cannot be read",
}


class _Tally:
    """Tells the journal, and counts."""

    def __init__(self, journal: Journal, *, overwrite: bool) -> None:
        self.journal, self.done, self.failed = journal, 0, 0
        self.overwrite = overwrite
        self.seconds = 0.0  # that the pictures of a dry run would take

    def planned(self, report: Report) -> None:
        """See ``Watch``."""
        self.seconds += report.estimated_seconds or 0.0

    def reads(self, job: Job) -> None:
        """See ``Watch``."""
        self.journal.see(job.key, *places_of(job))

    def writes(self, job: Job, part: Path) -> None:
        """See ``Watch``."""
        replaces = job.replaces and not self.overwrite
        self.journal.begin(job.key, *places_of(job), part, replaces=replaces)

    def ended(self, job: Job, error: UpresError | None) -> None:
        """See ``Watch``."""
        self.done, self.failed = self.done + (error is None), self.failed + (error is not None)
        if not isinstance(error, ResourceError):  # else the next run tries again
            self.journal.end(job.key, *places_of(job), None if error is None else str(error))


def _limits(max_pixels: int | None) -> str:
    """What pictures may fail by here, and not elsewhere or later."""
    from upres.imaging import heic, jpeg2000

    extras = {"heic": heic.available(), "codecs": jpeg2000.available()}
    missing = [f"no {extra}" for extra, there in extras.items() if not there]
    return ", ".join([f"max-pixels {max_pixels}", *missing])
