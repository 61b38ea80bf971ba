"""``upres compare``: a page that shows one's own picture by several models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upres.cli import options
from upres.cli.output import Output
from upres.errors import InputError, OutputError, UsageError
from upres.progress import downloading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BAND = 512  # rows

EXAMPLES = """
Examples:
  upres compare photo.jpg                                 bicubic beside the usual model
  upres compare photo.jpg --model edsr-light,my.safetensors --scale 2 -o page.html
"""


def compare(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A picture.")],
    scale: options.Scale = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="A,B",
            help="Names or .safetensors files; bicubic is always shown.",
            rich_help_panel="Model",
        ),
    ] = "auto",
    ensemble: options.Ensemble = False,
    device: options.Device = "auto",
    precision: options.PrecisionName = "auto",
    threads: options.Threads = None,
    max_pixels: options.MaxPixels = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The page.  [default: NAME-compare.html beside NAME]",
            rich_help_panel="Output",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Show a picture enlarged by several models on one page, before and after."""
    from upres.data.rgb import check_full_range
    from upres.imaging.reader import read_picture
    from upres.imaging.writer import check_target, write_file

    if not (given := options.words([model])):
        raise UsageError("no model is named", "'upres models' lists them")
    asks = {"--ensemble": ensemble, f"--device {device}": device in ("cuda", "mps")}
    asks[f"--precision {precision}"] = precision in ("bf16", "fp16")
    options.refuse_without_network(given, asks)
    if not file.name:
        raise InputError(f"{file} is a folder", "give a picture")
    target = output or file.with_name(f"{file.stem}-compare.html")
    if target.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{target} is not a page", "name a .html file")
    check_target(target, overwrite=overwrite, source=file)
    picture = read_picture(file, max_pixels=max_pixels, frames=False).without_bands()
    if picture.pixels.dtype.kind == "f":
        raise InputError(
            f"{file} holds floating-point values, which a page cannot show",
            "convert it to 8 or 16 bits first",
        )
    speak = Output(quiet=quiet)
    check_full_range(picture, file)
    for note in picture.notes:
        speak.note(f"note: {file}: {note}")
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    from upres.api import Upscaler
    from upres.benchmark.page import Gallery, page
    from upres.benchmark.session import labelled
    from upres.imaging.profiles import fits
    from upres.inference.engine import memory_errors
    from upres.inference.sizes import Goal
    from upres.weights.manifest import KERNELS

    names = dict.fromkeys(["bicubic", *given])
    goal = Goal(scale=scale)
    gallery = Gallery(len(names))
    labels = labelled(list(names))
    icc = picture.icc if picture.icc and fits(picture.icc, 3) else None
    with speak.progress() as progress, memory_errors():
        for name in names:
            upscaler = Upscaler(
                name,
                goal,
                device=device,
                precision=precision,
                ensemble=ensemble and name not in KERNELS,
                on_download=downloading(progress.transfer),
            )
            pipeline = upscaler.pipeline(picture.pixels, jpeg_quality=picture.jpeg_quality)
            progress.start(name, picture.width * picture.height / max(1, pipeline.tiles))
            for told in pipeline.notes:
                speak.note(f"note: {name}: {told}")
            made = _over_white(pipeline.run(progress.update, speak.note))
            label = labels[name] if name.endswith(".safetensors") else pipeline.steps.name
            gallery.add(label + "+" * upscaler.ensemble, "", 0, file.name, made, None, icc)
    height, width = made.shape[:2]
    text = page(
        None,
        gallery,
        title=file.name,
        protocol=f"{picture.width} x {picture.height} enlarged to {width} x {height}",
    )
    write_file(target, text.encode(), overwrite=overwrite)
    speak.value(str(target))


def _over_white(pixels: "NDArray[Any]") -> "NDArray[np.uint8]":
    """H x W x 1..4 uint8 or uint16 as H x W x 3 uint8, what is transparent over white."""
    import numpy as np

    from upres.data.rgb import as_rgb
    from upres.imaging.fit import flattened

    clear = pixels.shape[2] in (2, 4)
    made = np.empty((*pixels.shape[:2], 3), np.uint8)
    for top in range(0, len(pixels), _BAND):  # on the way they are floats
        rows = pixels[top : top + _BAND]
        made[top : top + _BAND] = as_rgb(flattened(rows, (255,)) if clear else rows)
    return made
