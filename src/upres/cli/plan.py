"""What one picture will become: looked at before anything is computed."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upres.cli.jobs import STREAM, Job, Settings, refuse_source
from upres.cli.reading import check_target_of
from upres.cli.reports import Report
from upres.errors import OutputError, ResourceError
from upres.memory import PROCESS, free_main_memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from upres.api import Upscaler
    from upres.imaging.picture import Picture
    from upres.imaging.streaming import StreamedPixels
    from upres.inference.pipeline import Pipeline

# Bytes of a result that takes so long that people want to know how long.
_SLOW = 10**8


@dataclass(frozen=True)
class Plan:
    """A result that is to be written.

    Attributes:
        source: the picture as it was read, without its pixels.
        file_format: of the result.
        target: None is standard output.
        shape: H x W x C of the result.
        streams: whether it is written row by row.
        report: what is said when it is done.
    """

    job: Job
    source: "Picture"
    file_format: str
    target: Path | None
    shape: tuple[int, int, int]
    streams: bool
    report: Report


def plan(
    job: Job, source: "Picture", upscaler: "Upscaler", settings: Settings
) -> tuple[Plan, "Picture", "Pipeline"]:
    """Look at everything that could go wrong.

    Returns:
        The plan; the picture with the channels that the result's format holds; what computes it.
        Both are large, and apart from the plan, since that is kept while the result is written
        and the next picture computed.

    Raises:
        OutputError: the format cannot hold the result, or its place is taken.
        ResourceError: disk or memory cannot.
        UsageError, WeightsError: see ``Upscaler``.
    """
    from upres.imaging.formats import FORMATS, written_as
    from upres.imaging.georeference import files_beside
    from upres.imaging.holding import prepared_for
    from upres.imaging.spool import rows_are_kept, spool_path
    from upres.imaging.writer import check_disk

    sizes = upscaler.goal.sizes(source.sizes)
    wide, high = sizes[0]
    file_format = job.file_format or written_as(source.format, job.source, job.target)
    picture = prepared_for(file_format, source, wide, high)
    target = job.target
    if target is not None and job.named_by_size:
        target = target.with_stem(f"{target.stem}-{upscaler.goal.label(wide, high)}")
        check_target_of(job, target, settings)
        refuse_source(target, settings.sources)
    pipeline = upscaler.pipeline_of(picture)
    frames = len(picture.frames)
    shape = (high, wide, picture.pixels.shape[2])
    values = sum(map(math.prod, sizes)) * shape[2]
    depth = picture.pixels.dtype.itemsize
    by_rows = file_format in ("PNG", "TIFF") and not frames and target is not None
    # Where an interrupted run left rows, they are gone on with, or refused, whatever the size.
    streams = by_rows and (values * depth >= settings.streams_from or rows_are_kept(target))
    notes = [*picture.notes, *pipeline.notes]
    if settings.resume and not streams and not job.key:
        notes.append("--resume: its result is not written row by row, and begins anew")
    if job.file_format is None and target is not None and _named_otherwise(target, file_format):
        notes.append(f"by its name the result is not {file_format}, as the input is inside")
    if job.source is not None and (beside := files_beside(job.source)):
        notes.append(f"{', '.join(beside)} beside it is neither read nor adapted")
    if target is not None:
        written = values * (depth if FORMATS[file_format].deep else 1)
        room = check_disk(target, file_format, written, spool_path(target) if streams else None)
        notes += [room] if room else []
    held = 0 if streams else values * depth
    _check_memory(job, picture, pipeline, held, settings, by_rows=by_rows)
    estimated = None
    if settings.dry_run or values * depth >= _SLOW:
        estimated = round(values / math.prod(shape) * pipeline.estimate(), 1)
    report = Report(
        input=job.name,
        output=STREAM if target is None else str(target),
        input_size=(picture.width, picture.height),
        output_size=(wide, high),
        frames=frames or 1,
        model=pipeline.steps.name,
        scales=tuple(scale for _, scale in pipeline.steps.networks),
        device=pipeline.steps.target.device.type,
        precision=pipeline.steps.target.precision,
        tiles=pipeline.tiles,
        tile_memory_bytes=pipeline.memory,
        notes=tuple(notes),
        estimated_seconds=estimated,
    )
    about = replace(
        source,
        pixels=_none_of(source.pixels),
        frames=tuple(replace(frame, pixels=_none_of(frame.pixels)) for frame in source.frames),
    )
    return Plan(job, about, file_format, target, shape, streams, report), picture, pipeline


def _none_of(pixels: "NDArray[Any] | StreamedPixels") -> "NDArray[Any]":
    """No pixels, of that type and with so many channels."""
    import numpy as np

    return np.empty((0, 0, pixels.shape[2]), pixels.dtype)


def _named_otherwise(target: Path, file_format: str) -> bool:
    """Whether its suffix is another format's; one that is none says nothing."""
    from upres.imaging.formats import format_of

    try:
        return format_of(target) != file_format
    except OutputError:
        return False


def _check_memory(
    job: Job,
    picture: "Picture",
    pipeline: "Pipeline",
    result: int,
    settings: Settings,
    *,
    by_rows: bool,
) -> None:
    """Linux hands out memory that it does not have and then kills; so count first.

    Args:
        result: bytes of the result that are in memory at once.
        by_rows: it could be written row by row instead.
    """
    from upres.imaging.streaming import StreamedPixels

    smaller = "choose a smaller result"
    if not picture.frames and job.target is not None:
        smaller = f"write .tif or .png, which need not be in memory, or {smaller}"
    on_cpu = pipeline.steps.target.device.type == "cpu"
    # The result, Pillow's copy of it (four bytes a pixel), and the file.
    made, tiles = int(result * 3.5), pipeline.memory if on_cpu else 0
    needed, free = made + tiles, free_main_memory()
    if needed > free and tiles > made:
        raise ResourceError(
            f"{job.name}: a tile needs {tiles / 2**30:.1f} GiB of memory, "
            f"{free / 2**30:.1f} GiB are free",
            "omit --tile, or give a smaller one",
        )
    if needed > free:
        raise ResourceError(
            f"{job.name}: the result needs {needed / 2**30:.1f} GiB of memory, "
            f"{free / 2**30:.1f} GiB are free",
            "give --max-memory 1G, so that it is written row by row"
            if by_rows and result
            else smaller,
        )
    most = settings.max_memory
    source = pipeline.source
    held = sum(frame.pixels.nbytes for frame in picture.frames)
    if not picture.frames and not isinstance(source, StreamedPixels):
        held = source.nbytes
    needed += PROCESS + held
    if most is not None and needed > most:
        what, remedy = "the result as a whole", f"{smaller}, or allow more"
        if tiles > max(made, held):
            what, remedy = "a tile", "omit --tile, give a smaller one, or allow more"
        elif held > made:
            what, remedy = "the picture, which cannot be read row by row,", "allow more"
        raise ResourceError(
            f"{job.name}: {what} needs {needed / 2**30:.1f} GiB of memory, "
            f"more than --max-memory {most / 2**30:.2g} GiB",
            remedy,
        )
