"""``upres train``: from a folder of pictures to weights."""

import os
import shlex
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from upres.cli import options
from upres.cli.output import Output
from upres.cli.trainview import train_view
from upres.errors import UsageError

EXAMPLES = """
Examples:
  upres train --data DIV2K                     edsr-baseline x2, from bundled weights
  upres train --data DIV2K --init none         the same from scratch, on DIV2K alone
  upres train --data pictures/ --recipe edsr-light --minutes 5
  upres train --data pictures/ --recipe edsr-paper --scale 2,3,4
  upres train --data pictures/ --recipe edsr-light --minutes 5 --resume   continues it
  upres train --data pictures/ --set optimiser.rate=2e-4 --set data.focus=0.5

Recipes, and how long they are: docs/training.md.
"""

_DATA, _RECIPE, _RUN, _OUT = "Data", "Recipe", "Execution", "Output"


def _recipe_names(incomplete: str) -> list[str]:
    from upres.training.recipe import shipped

    return [name for name in shipped() if name.startswith(incomplete)]


def train(
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            "-d",
            metavar="DIR|SET",
            help="A folder of pictures, or a set such as DIV2K. Can be given several times.",
            rich_help_panel=_DATA,
        ),
    ],
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=options.named,
            help="Where decoded pictures are kept between runs.  [default: in UPRES_HOME]",
            rich_help_panel=_DATA,
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            "-r",
            metavar="NAME|FILE",
            help="How to train: network, loss, optimiser, initial weights.",
            rich_help_panel=_RECIPE,
            autocompletion=_recipe_names,
        ),
    ] = "edsr-baseline",
    scale: Annotated[
        str,
        typer.Option(
            "--scale",
            "-s",
            metavar="2|3|4|2,3,4",
            help="Scales to train, one after the other.  [default: the recipe's]",
            rich_help_panel=_RECIPE,
        ),
    ] = "",
    steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="How many steps; 0 measures and writes what --init says.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Minutes for each scale instead of --steps, without preparation.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME|none",
            help="Initial weights of the first scale: one model; A,B: their mean; A,+B,-C: A plus "
            "the difference of B and C; none: from scratch.  [default: as the recipe says]",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME|none",
            help="Knowledge distillation: the model whose output is blended into the target.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="X", help="Learning rate.", rich_help_panel=_RECIPE),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="N", help="Patches a step.", rich_help_panel=_RECIPE)
    ] = None,
    patch: Annotated[
        int | None,
        typer.Option(metavar="N", help="Side of a patch in input pixels.", rich_help_panel=_RECIPE),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any field of the recipe; can be given several times.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Random seed of patches and initial weights.",
            rich_help_panel=_RUN,
        ),
    ] = 0,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="Where to train.", rich_help_panel=_RUN),
    ] = "auto",
    threads: options.Threads = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            parser=options.named,
            help="Folder of the run.  [default: runs/RECIPE; with --scale runs/RECIPE-x2 and so "
            "on]",
            rich_help_panel=_OUT,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue from the last checkpoint.", rich_help_panel=_OUT),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Start over, in place of the previous run.", rich_help_panel=_OUT
        ),
    ] = False,
    name: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Name of the model in the result.", rich_help_panel=_OUT),
    ] = "",
    licence: Annotated[
        str, typer.Option(metavar="TEXT", help="Licence of the result.", rich_help_panel=_OUT)
    ] = "",
    author: Annotated[
        str, typer.Option(metavar="TEXT", help="Who trained it.", rich_help_panel=_OUT)
    ] = "",
    validate_every: Annotated[
        float,
        typer.Option(
            metavar="MINUTES",
            help="Minutes between validations; with --minutes, at most a fifth of the run.",
            rich_help_panel=_OUT,
        ),
    ] = 5.0,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a model on your own pictures, or on a known set."""
    from upres.data.catalog import check_named, training_pictures
    from upres.places import data_home, home
    from upres.training.check import check_order
    from upres.training.order import Order
    from upres.training.recipe import parse_change
    from upres.training.session import run_order
    from upres.training.stop import Stop

    if steps is not None and minutes is not None:
        raise UsageError("--steps and --minutes exclude each other", "give one of them")
    if minutes is not None and not 0 < minutes < 1e6:
        raise UsageError(
            f"--minutes must be over 0 and below 1,000,000, not {minutes:g}",
            "for example --minutes 30",
        )
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other", "give one of them")
    if seed >= 2**63:
        raise UsageError(f"--seed {seed} has more than 63 bits", "give a smaller one")
    for option, text in (("--name", name), ("--licence", licence), ("--author", author)):
        if not text.isprintable():
            raise UsageError(
                f"{option} {text!r} contains a line break or control character", "remove it"
            )
    if not validate_every > 0:
        raise UsageError(
            f"--validate-every must be over 0, not {validate_every:g}", "for example 5"
        )
    for one in data:
        check_named(one)
    for option, given in (("--init", init), ("--teacher", teacher)):
        if given == "":  # as of an empty variable in a script
            raise UsageError(f"{option} is empty", f"give {option} none, or leave it out")
    changes = dict(parse_change(text) for text in change or ())
    named: dict[str, tuple[str, object]] = {
        "--steps": ("steps", steps),
        "--rate": ("optimiser.rate", rate),
        "--batch": ("data.batch", batch),
        "--patch": ("data.patch", patch),
        "--teacher": ("teacher.weights", teacher),
    }
    for option, (key, value) in named.items():
        if value is not None and key in changes:
            raise UsageError(f"{option} and --set {key} are the same", "give one of them")
        if value is not None:
            changes[key] = value
    if minutes is not None and "steps" in changes:
        raise UsageError("--set steps and --minutes exclude each other", "give one of them")
    scales = tuple(sorted(options.scales(scale)))  # higher ones start from lower ones
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    # Of several processes that torchrun started, the first one speaks.
    out = Output(json=json, quiet=quiet or os.environ.get("RANK", "0") != "0")
    order = Order(
        data=(),
        recipe=recipe,
        changes=changes,
        scales=scales,
        folder=output or Path("runs") / _run_name(recipe, scales),
        cache=cache or home() / "training",
        minutes=minutes,
        seed=seed,
        init=init,
        resume=resume,
        overwrite=overwrite,
        device=device,
        threads=threads or os.cpu_count() or 1,
        name=name,
        licence=licence,
        trained_by=author,
        validate_minutes=validate_every,
    )
    runs = len(check_order(order))
    with train_view(out) as view:
        pictures = tuple(
            training_pictures(one, data_home(), note=view.note, progress=view.transfer)
            for one in data
        )
    order = replace(order, data=pictures)
    stop = Stop()
    with train_view(out, stop.because_of) as view:
        results = run_order(order, view, stop)
    _report(out, results)
    ended = len(results) == runs and all(one.finished for one in results)
    # It may have been asked to while the last weights were measured, and so may another process.
    stopped = not ended and (stop() or bool(results))
    if stopped:
        how = "in place of --overwrite" if overwrite else ""
        out.note(f"stopped and saved; to continue, repeat the command with --resume {how}".rstrip())
    if stop.error is not None:
        raise stop.error
    if stop.signal is not None:
        raise typer.Exit(128 + stop.signal)
    if stopped:
        raise typer.Exit(128 + signal.SIGTERM)


def _run_name(recipe: str, scales: tuple[int, ...]) -> str:
    stem = Path(recipe).stem
    return stem + "".join(f"-x{s}" for s in scales) if scales else stem


def _report(out: Output, results: Sequence[Any]) -> None:
    rows = [
        [
            f"x{one.scale}",
            f"{one.psnr:.2f} / {one.ssim:.4f}",
            f"{one.bicubic_psnr:.2f} / {one.bicubic_ssim:.4f}",
            f"{one.psnr - one.bicubic_psnr:+.2f} dB",
        ]
        for result in results
        for one in result.quality
    ]
    if rows:
        out.note_table(["validation (Y, scale shaved)", "model", "bicubic", "gain"], rows)
    for result in results:
        out.value(str(result.path), event="result", path=str(result.path))
        scale = f" --scale {result.quality[0].scale}" if result.quality else ""
        out.note(f"use it: upres photo.jpg{scale} --model {shlex.quote(str(result.path))}")
