"""Wiring: commands, help texts, signals. Nothing here is heavy to import."""

import io
import os
import signal
import sys
import warnings
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer

from upres import __version__
from upres.cli import batch, bench, compare, doctor, models, train, upscale
from upres.cli.groups import RootGroup, UpresCommand
from upres.cli.output import Output, complain

_HELP = "Upscale photographs: no seams, pictures of any size, metadata kept."

_EPILOG = """
Examples:
  upres photo.jpg                    four times as wide and high: photo-x4.jpg
  upres photo.jpg -s 2 -o out.png    'upscale' is implied
  upres batch scans/                 a folder, into scans-x4/
  upres upscale --help               all options

Environment: UPRES_HOME and UPRES_DATA say where weights and sets are kept; HF_HOME,
HF_ENDPOINT and HF_HUB_OFFLINE are huggingface_hub's. All: docs/quickstart.md.
Pictures never leave the machine.

Exit codes: 0 done, 1 our bug, 2 usage, 3 input, 4 output, 5 weights, checkpoint or
download, 6 memory or disk, 7 part of a batch failed, 8 verification failed,
129/130/143 stopped by a signal, 141 nobody reads stdout any more.
"""

app = typer.Typer(
    name="upres",
    cls=RootGroup,
    help=_HELP,
    epilog=_EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(value: bool) -> None:
    if value:
        Output().value(f"upres {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Upscale photographs: no seams, pictures of any size, metadata kept."""
    del version


app.command(cls=UpresCommand, epilog=upscale.EXAMPLES)(upscale.upscale)
app.command(cls=UpresCommand, epilog=batch.EXAMPLES)(batch.batch)
app.command(
    cls=UpresCommand,
    epilog=bench.EXAMPLES,
    short_help="Measure the quality (PSNR, SSIM) or speed of models.",
)(bench.bench)
app.command(
    cls=UpresCommand,
    epilog=compare.EXAMPLES,
    short_help="Show a picture by several models on one page.",
)(compare.compare)
app.command(cls=UpresCommand, epilog=train.EXAMPLES)(train.train)
app.add_typer(models.app, name="models", short_help="List, verify, add and publish weights.")
app.command(cls=UpresCommand, short_help="Show versions, devices and folders in use.")(
    doctor.doctor
)


def _terminated(signum: int, frame: Any) -> NoReturn:
    del frame
    # A closed terminal takes no words, and none that writes at this moment.
    with suppress(OSError, RuntimeError):
        complain("terminated; no unfinished result was left")
    sys.exit(128 + signum)


def _open_streams() -> None:
    """What the shell closed (``<&-``) reads as empty and writes to nowhere. Otherwise the next file
    to be opened would get the number of a standard stream."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def main() -> None:
    """The console script."""
    _open_streams()
    signal.signal(signal.SIGTERM, _terminated)
    # A closed terminal, unless nohup asked to outlive it.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _terminated)
    # File names need not be UTF-8; they are printed as the bytes that they are.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")
    # Decoders warn of what does not concern the pixels; what does is an error of ours.
    warnings.filterwarnings("ignore", module="PIL")
    app(prog_name="upres")
