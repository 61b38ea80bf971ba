"""``upres bench``: how good models are, by the field's protocol."""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from upres.cli import options
from upres.cli.output import Output, ReaderGone, one_line
from upres.errors import BatchError, InputError, OutputError, UpresError, UsageError

if TYPE_CHECKING:
    from upres.benchmark.report import Report
    from upres.benchmark.session import Order

EXAMPLES = """
Examples:
  upres bench set14                              the default model beside bicubic
  upres bench set5,set14 --all --report all.html
  upres bench mine/ --model a.safetensors,edsr-light --scale 2
  upres bench HR/:LR/ --scale 4                  low-resolution pictures of one's own
  upres bench set14 --jpeg 75                    after JPEG
  upres bench --speed --model edsr-light         and against other ways to run it
  upres bench --verify                           does this installation give the stated figures?

Sets are looked for in --data-dir, then in UPRES_DATA, and downloaded if they are nowhere.
"""

_MODE, _WHAT, _HOW, _OUT = "Mode", "Data", "Model", "Output"
# What would do nothing, were it allowed: options by their names here and on the command line.
_OF_SPEED = {"sizes": "--sizes", "rounds": "--rounds"}
_OF_QUALITY = {
    "protocol": "--protocol",
    "shave": "--shave",
    "jpeg": "--jpeg",
    "noise": "--noise",
    "blur": "--blur",
    "report": "--report",
    "by_picture": "--pictures",
    "keep_going": "--keep-going",
    "overwrite": "--overwrite",
}
_OF_SETS = {"sets": "a set", "data_dir": "--data-dir"}
_OF_MODELS = {"everything": "--all", "ensemble": "--ensemble"}
_MEANINGLESS = {
    "--speed": {**_OF_SETS, "verify": "--verify", **_OF_QUALITY},
    "--verify": {**_OF_MODELS, **_OF_QUALITY, **_OF_SPEED},
    "a set": _OF_SPEED,
    "--list": {
        **_OF_SETS,
        "scale": "--scale",
        "model": "--model",
        **_OF_MODELS,
        "device": "--device",
        "precision": "--precision",
        "threads": "--threads",
        "speed": "--speed",
        "verify": "--verify",
        **_OF_QUALITY,
        **_OF_SPEED,
    },
}


def bench(
    context: typer.Context,
    sets: Annotated[
        list[str] | None,
        typer.Argument(metavar="SET", help="Known sets, folders, or HIGH:LOW folders."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=options.named,
            help="Folder with copies of test sets.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            "--scale",
            "-s",
            metavar="2,3,4",
            help="Scales to measure.",
            rich_help_panel=_WHAT,
        ),
    ] = "2,3,4",
    protocol: Annotated[
        Literal["y", "rgb", "div2k"],
        typer.Option(
            help="y: luma, scale shaved, as in papers; rgb; div2k: RGB, scale + 6 shaved.",
            rich_help_panel=_WHAT,
        ),
    ] = "y",
    shave: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Border pixels left out on each side.  [default: the protocol's]",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    jpeg: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            metavar="Q",
            help="Save inputs as JPEG of this quality first.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    noise: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="S",
            help="Add noise of this sigma to inputs, in levels of 255.",
            rich_help_panel=_WHAT,
        ),
    ] = 0.0,
    blur: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="S",
            help="Blur inputs by this sigma first, in pixels.",
            rich_help_panel=_WHAT,
        ),
    ] = 0.0,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="A,B",
            help="Names or .safetensors files; bicubic is always measured.",
            rich_help_panel=_HOW,
        ),
    ] = "auto",
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="All bundled and added models, and Lanczos.", rich_help_panel=_HOW
        ),
    ] = False,
    ensemble: options.Ensemble = False,
    device: options.Device = "auto",
    precision: options.PrecisionName = "auto",
    threads: options.Threads = None,
    report: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help=".html, .json, .csv or .md; can be given several times.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    by_picture: Annotated[
        bool,
        typer.Option(
            "--pictures", help="Also print a line for each picture.", rich_help_panel=_OUT
        ),
    ] = False,
    list_: Annotated[
        bool,
        typer.Option("--list", help="Say which sets are known, and stop.", rich_help_panel=_MODE),
    ] = False,
    speed: Annotated[
        bool,
        typer.Option(
            "--speed",
            help="Measure speed instead, on pictures of --sizes.",
            rich_help_panel=_MODE,
        ),
    ] = False,
    sizes: Annotated[
        str,
        typer.Option(
            metavar="A,B", help="For --speed: megapixels of input.", rich_help_panel=_MODE
        ),
    ] = "0.25,1,4",
    rounds: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Timing rounds, for --speed.", rich_help_panel=_MODE),
    ] = 3,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Check that the figures in weights.toml are reached; see SET and --data-dir.",
            rich_help_panel=_MODE,
        ),
    ] = False,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            help="Leave out what fails, and measure the rest.",
            rich_help_panel="Execution",
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure PSNR and SSIM of models beside bicubic, on known sets or your own pictures, or
    their speed beside other runtimes.
    """
    output = Output(json=json, quiet=quiet)
    if not sets and not verify and not speed and not list_:
        raise UsageError("bench needs a set", "for example 'upres bench set14'; --list names them")
    modes = {"--list": list_, "--speed": speed, "--verify": verify}
    _check_meaning(context, next((mode for mode, chosen in modes.items() if chosen), "a set"))
    if list_:
        _list(output)
        return
    if overwrite and not report:
        raise UsageError("--overwrite means nothing without --report", "leave it out")
    for path in report or ():
        _check_report(path, overwrite=overwrite)
    if len({path.resolve() for path in report or ()}) < len(report or ()):
        raise OutputError("two reports would be written to one file", "name each --report once")
    if data_dir is not None and not data_dir.is_dir():
        raise InputError(f"{data_dir} is not a folder", "give --data-dir one with copies of sets")
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    from upres.benchmark.quality import Settings
    from upres.benchmark.session import Order, every_model
    from upres.data.evaluation import EVALUATION_SETS
    from upres.imaging.degrade import Degradation
    from upres.places import data_home

    named = options.words(sets) if sets else ("set5", "set14")
    models = every_model(output.note) if everything else options.words([model])
    scales = options.scales(scale)
    for what, found in (("set", named), ("model", models), ("scale", scales)):
        if not found:  # as of an empty variable in a script
            raise UsageError(f"no {what} is named", "name one, or leave out what says so")
    options.refuse_without_network(models, {"--ensemble": ensemble})
    if data_dir is not None and not any(name in EVALUATION_SETS for name in named):
        raise UsageError(
            "--data-dir means nothing with folders alone", "it is for known sets: see --list"
        )
    order = Order(
        sets=named,
        scales=scales,
        models=models,
        settings=Settings(
            protocol, shave, Degradation(blur=blur, noise=noise, quality=jpeg, subsampled=True)
        ),
        data_dir=data_dir,
        home=data_home(),
        ensemble=ensemble,
        device=device,
        precision=precision,
        keep_going=keep_going,
        pictures=any(path.suffix == ".html" for path in report or ()),
    )
    if verify:
        _verify(order, output)
        return
    if speed:
        from upres.cli.speed import measure

        measure(order, output, sizes, rounds, threads)
        return
    _measure(order, output, report or [], by_picture=by_picture, overwrite=overwrite)


def _check_meaning(context: typer.Context, mode: str) -> None:
    """Raises:
    UsageError: an option was given that means nothing in this mode.
    """

    def given(name: str) -> bool:
        source = context.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"

    for name, spelled in _MEANINGLESS[mode].items():
        if given(name):
            raise UsageError(f"{spelled} means nothing with {mode}", "leave one of them out")
    if given("everything") and given("model"):
        raise UsageError("--model means nothing with --all", "leave one of them out")


def _measure(
    order: "Order", output: Output, files: list[Path], *, by_picture: bool, overwrite: bool
) -> None:
    from upres.benchmark import report as reports
    from upres.benchmark.session import run_order

    with output.progress() as progress:
        found, gallery = run_order(
            order, note=output.note, progress=progress.transfer, counted=output.note
        )
    # First what is kept: who reads the rest may go away.
    unwritten: list[UpresError] = []
    for path in files:
        from upres.benchmark.page import page
        from upres.imaging.writer import write_file

        if path.suffix == ".html":
            protocol = f"{found.protocol}; {found.machine}"
            text = page(found, gallery, title=", ".join(order.sets), protocol=protocol)
        else:
            writers = {
                ".json": reports.as_json,
                ".csv": reports.as_csv,
                ".md": reports.as_markdown,
            }
            text = writers[path.suffix](found)
        try:
            # A picture's name need not be UTF-8.
            write_file(path, text.encode("utf-8", "surrogateescape"), overwrite=overwrite)
        except UpresError as error:  # what was measured is still to be shown
            unwritten.append(error)
        else:
            output.note(f"written: {path}")
    try:
        if output.json:
            output.text(reports.as_json(found, indent=None))
        elif found.rows:
            models_a_column = Counter((row.set, row.scale) for row in found.rows)
            _show(found, output, by_picture=by_picture or max(models_a_column.values()) <= 2)
    except ReaderGone:
        if not unwritten:
            raise
    for failure in found.failures:
        output.error(BatchError(f"not measured: {failure}"))
    for other in unwritten[1:]:
        output.error(other)
    if unwritten:
        raise unwritten[0]
    if found.failures:
        raise BatchError(
            f"parts that could not be measured: {len(found.failures)}", "each is named above"
        )


def _show(found: "Report", output: Output, *, by_picture: bool) -> None:
    from upres.benchmark import report as reports

    bold = sys.stdout.isatty()
    output.note(f"{found.protocol}; {found.machine}")
    if by_picture:
        output.table(*reports.pictures(found))
        output.text("\n")
    head, rows = reports.matrix(found)
    output.table(head, rows, bold="*" if bold else "")
    output.text("\n")
    output.table(*reports.details(found))
    for gain in found.gains:
        if gain.over != "bicubic":
            name, where = one_line(gain.model), f"{one_line(gain.set)} x{gain.scale}"
            spread = f" ({gain.low:+.3f} to {gain.high:+.3f})" if gain.pictures > 1 else ""
            output.text(
                f"\n{name} over {gain.over} on {where}: {gain.mean:+.3f} dB{spread}, "
                f"better on {gain.won} of {gain.pictures}\n"
            )


def _verify(order: "Order", output: Output) -> None:
    from upres.benchmark.session import demand, verify

    with output.progress() as progress:
        checks, never = verify(order, note=output.note, progress=progress.transfer)
    for check in checks:
        if check.measured is None:
            state = f"FAILED ({check.error})" if check.error else "could not be measured"
        else:
            state = f"{check.measured:.3f} dB, " + ("ok" if check.holds else "DIFFERS")
        output.value(
            f"{check.model} x{check.scale} on {check.set}: stated {check.stated:.3f}, {state}",
            **vars(check),
            holds=check.holds,
        )
    for name in never:
        output.note(f"{name}: not measured by us, nothing to compare")
    agree = sum(check.holds is True for check in checks)
    output.note(f"{agree} of {len(checks)} figures agree")
    demand(checks)


def _list(output: Output) -> None:
    from upres.data.evaluation import EVALUATION_SETS

    rows = []
    for known in EVALUATION_SETS.values():
        where = "DIV2K's own host" if known.name == "div2k" else "nowhere to download"
        if known.source is not None:
            where = f"Hub: {known.source.repository}"
        rows.append([known.name, str(known.pictures), where, known.licence])
        if output.json:
            output.value(
                "", set=known.name, pictures=known.pictures, source=where, licence=known.licence
            )
    if not output.json:
        output.table(["set", "pictures", "from", "licence"], rows)


def _check_report(path: Path, *, overwrite: bool) -> None:
    if path.suffix not in (".html", ".json", ".csv", ".md"):
        raise OutputError(f"{path} is no kind of report", "name a .html, .json, .csv or .md file")
    from upres.imaging.writer import check_target

    check_target(path, overwrite=overwrite)
