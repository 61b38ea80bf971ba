"""What ``import upres`` offers."""

import hashlib
import math
import os
import warnings
from collections.abc import Set
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upres.errors import InputError, UsageError
from upres.imaging.decoding import from_pil
from upres.imaging.encoder import encode
from upres.imaging.formats import format_of, written_as, written_to
from upres.imaging.holding import holds_frames, prepared_for
from upres.imaging.jpeg import quality_of
from upres.imaging.parameters import Encoding
from upres.imaging.picture import Extra, Picture, in_8_bits
from upres.imaging.reader import read_picture
from upres.imaging.resize import Kernel
from upres.imaging.streaming import StreamedPixels
from upres.imaging.writer import check_target, write_file
from upres.inference.device import DeviceName, Precision, choose
from upres.inference.engine import memory_errors
from upres.inference.pipeline import Pipeline
from upres.inference.planning import check_max_memory
from upres.inference.sizes import Goal, is_whole, steps_to
from upres.inference.steps import Alpha, Steps
from upres.model import Model, load_published
from upres.model import load as load_model
from upres.progress import Note, TileProgress, Transfer
from upres.weights.header import read_facts
from upres.weights.known import known_models
from upres.weights.manifest import KERNELS, PHOTO_BELOW, Manifest, WeightsEntry
from upres.weights.store import fetch

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Upscaler:
    """A choice of model and of how to run it; networks are loaded when first needed. Other choices
    are another Upscaler: ``dataclasses.replace(upscaler, ensemble=True)``.

    Args:
        model: a name from ``upres models``, "bicubic", "lanczos", the path of a safetensors file
            that upres wrote, or "auto" for the best that serves the scale.
        goal: how large results are; a number is a factor.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto", "fp32", "bf16" or "fp16".
        tile: side of a tile's core in input pixels, 0 for no tiles, None to choose.
        ensemble: average over the eight flips and rotations: eight times the time for about 0.1 dB.
        fast: with "auto", the best of the small models.
        alpha: what enlarges transparency, "bicubic" or "network".
        wrap: the picture goes on at its other side: seamless textures stay so. Whole factors only.
        max_memory: bytes that the process may take; tiles are cut accordingly.
        on_download: told of the bytes of weights that arrive: the model's name, how many there are,
            and how many there will be (0: not known).

    Raises:
        WeightsError: the model is unknown, cannot be had, or is damaged.
        UsageError: an option does not fit the model or the machine.
    """

    model: str = "auto"
    goal: Goal = field(default_factory=Goal)
    _: KW_ONLY
    device: DeviceName = "auto"
    precision: Precision = "auto"
    tile: int | None = None
    ensemble: bool = False
    fast: bool = False
    alpha: Alpha = "bicubic"
    wrap: bool = False
    max_memory: int | None = None
    on_download: Transfer | None = None
    _models: dict[tuple[str, int], Model] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _steps: dict[tuple[tuple[tuple[str, int], ...], bool], Steps] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _path: Path | None = field(default=None, init=False, repr=False, compare=False)
    _own_scales: frozenset[int] = field(
        default_factory=frozenset, init=False, repr=False, compare=False
    )
    _known: Manifest = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        model, goal = cast(Any, self.model), cast(Any, self.goal)
        if not isinstance(model, str | Path):
            raise UsageError(f"{model!r} is no model", "give a name, or the path of a file")
        fix = partial(object.__setattr__, self)
        fix("model", str(model))
        fix("goal", goal if isinstance(goal, Goal) else _goal(goal))
        for what, names in (("device", DeviceName), ("precision", Precision), ("alpha", Alpha)):
            known, name = get_args(names), getattr(self, what)
            if name not in known:
                raise UsageError(f"no {what} is called {name!r}", f"known are {', '.join(known)}")
        if self.fast and self.model != "auto":
            raise UsageError(
                f"fast and model {self.model}", "give one; fast chooses among those of 'auto'"
            )
        if self.tile is not None and not is_whole(self.tile):
            raise UsageError(f"a tile of {self.tile!r}", "give a number of pixels, or None")
        if self.tile is not None and self.tile < 0:
            raise UsageError(f"a tile of {self.tile} pixels", "give 0, a positive number or auto")
        fix("tile", None if self.tile is None else int(self.tile))  # numpy's would spread
        if self.ensemble and self.model in KERNELS:
            raise UsageError(
                f"an ensemble of model {self.model}, which has no network", "leave it out"
            )
        check_max_memory(self.max_memory)
        fix("_known", known_models())  # those of now, for all pictures
        if self.model.endswith(".safetensors"):
            fix("_path", Path(self.model))
            fix("_own_scales", frozenset(read_facts(Path(self.model)).scales))
        elif self.model not in ("auto", *KERNELS):
            self._known.family(self.model)

    def __getstate__(self) -> dict[str, Any]:
        """Without what was made ready for this process and its device."""
        return {**vars(self), "_steps": {}}

    @property
    def models(self) -> tuple[Model, ...]:
        """Those that were loaded so far; one may serve several scales."""
        return tuple({id(model): model for model in self._models.values()}.values())

    def serves(self, scale: int) -> bool:
        """Whether it enlarges by this factor in one step; kernels do by any."""
        return self.model in KERNELS or [s for _, s in self._chain(scale)] == [scale]

    def chosen(self, factor: float) -> str:
        """The model that "auto" means for this factor; otherwise the one that was named."""
        chain = self._chain(factor)
        return chain[0][0] if chain else self.model

    def check_device(self) -> None:
        """Find out before any picture whether the device and number format are there.

        Raises:
            UsageError: they are not.
        """
        if self.model not in KERNELS:  # numpy computes those
            choose(self.device, self.precision, deep=False)

    def pipeline(
        self,
        pixels: NDArray[Any] | StreamedPixels,
        *,
        jpeg_quality: int | None = None,
        ranged: bool = False,
        no_data: float | None = None,
        extra: tuple[Extra, ...] = (),
    ) -> Pipeline:
        """Everything made ready to enlarge H x W x C pixels.

        Args:
            ranged: floats may lie in any range, and some may not be finite.
            no_data: the value that stands for missing ones, or None.
            extra: what channels beyond colours are; see ``Picture``.
            jpeg_quality: which quality a JPEG was saved at, if they come from one; "auto" takes a
                model that undoes JPEG's traces for those below ``PHOTO_BELOW``.

        Raises:
            UsageError: the size cannot be made with these options, or the device is not there.
            WeightsError: weights are downloaded, and cannot be had.
            ResourceError: the network does not fit into memory.
        """
        height, width = pixels.shape[:2]
        wide, high = self.goal.size(width, height)
        # A side that was rounded up by less than a pixel asks for no larger model.
        exact = max(1.0, max(wide / width, high / height) - 1.0 / max(width, height))
        chain = self._chain(self.goal.fixed or exact)
        remarks: tuple[str, ...] = ()
        if jpeg_quality is not None and jpeg_quality < PHOTO_BELOW:
            chain, remarks = self._for_photo(chain, jpeg_quality)
        with memory_errors("the network does not fit into memory", "free memory, or use the CPU"):
            steps = self._steps_for(chain, deep=pixels.dtype != np.uint8)
            return Pipeline(steps, pixels, (high, wide), remarks, ranged, no_data, extra)

    def pipeline_of(self, picture: Picture, pixels: NDArray[Any] | None = None) -> Pipeline:
        """The same for a picture from a file, or for one of its frames."""
        return self.pipeline(
            picture.pixels if pixels is None else pixels,
            jpeg_quality=picture.jpeg_quality,
            ranged=True,
            no_data=picture.no_data,
            extra=picture.extra,
        )

    def _chain(self, factor: float) -> tuple[tuple[str, int], ...]:
        """Models and scales, in the order they are applied; none for a kernel."""
        if self.model in KERNELS:
            return ()
        name = self.model
        if name == "auto":
            listed = self._known.fast if self.fast else self._known.default
            # The first that does it in one step, or else in the smallest and fewest ones.
            chains = {n: steps_to(factor, self._available(n)) for n in listed}
            one = (math.ceil(factor),)
            name = min(
                chains, key=lambda n: (chains[n] != one, math.prod(chains[n]), len(chains[n]))
            )
        return tuple((name, scale) for scale in steps_to(factor, self._available(name)))

    def _for_photo(
        self, chain: tuple[tuple[str, int], ...], quality: int
    ) -> tuple[tuple[tuple[str, int], ...], tuple[str, ...]]:
        """The same chain with a first model that undoes JPEG's traces, where "auto" may choose."""
        if self.model != "auto":
            return chain, ()
        (usual, scale), *later = chain
        for name in self._known.photo:
            if scale in self._available(name):
                remark = (
                    f"JPEG of quality {quality}: model {name} (--model {usual} for clean input)"
                )
                return ((name, scale), *later), (remark,)
        # One that does not serve this scale may get there by a larger one.
        return chain, tuple(
            f"JPEG of quality {quality}: its traces stay, as no model against them serves "
            f"x{scale}; --model {name} removes them, enlarging further and then reducing"
            for name in self._known.photo[:1]
        )

    def _steps_for(self, chain: tuple[tuple[str, int], ...], *, deep: bool) -> Steps:
        key = (chain, deep)
        if key not in self._steps:
            # Kernels are computed by numpy, always there and always in this format.
            target = choose(
                self.device if chain else "cpu", self.precision if chain else "fp32", deep=deep
            )
            networks = [(self._model(name, scale).as_rgb(), scale) for name, scale in chain]
            kernel: Kernel = "lanczos" if self.model == "lanczos" else "bicubic"
            names = " then ".join(dict.fromkeys(name for name, _ in chain)) or kernel
            self._steps[key] = Steps(
                networks=networks,
                kernel=kernel,
                target=target,
                tile=self.tile,
                ensemble=self.ensemble,
                name=names,
                alpha=self.alpha,
                wrap=self.wrap,
                max_memory=self.max_memory,
            )
        return self._steps[key]

    def _available(self, name: str) -> Set[int]:
        if self._path is not None:
            return self._own_scales
        return {s for entry in self._known.files(name) for s in entry.facts.scales}

    def _model(self, name: str, scale: int) -> Model:
        if (name, scale) not in self._models:
            if self._path is not None:
                model = load_model(self._path)
            else:
                entry = next(e for e in self._known.files(name) if scale in e.facts.scales)
                model = self._fetched(entry)
            self._models.update(dict.fromkeys(((name, s) for s in model.facts.scales), model))
        return self._models[name, scale]

    def _fetched(self, entry: WeightsEntry) -> Model:
        told = self.on_download
        path = fetch(entry, None if told is None else lambda n, total: told(entry.name, n, total))
        return load_published(entry, path)

    def upscale(self, x: "Image | NDArray[Any] | Tensor") -> Any:
        """Enlarge a picture; the result is of the kind that was given.

        Args:
            x: a PIL image; or a numpy array, H x W or H x W x C with C from 1 to 4, uint8, uint16
                or floats in 0..1; or a torch tensor, C x H x W or N x C x H x W, uint8 or floats
                in 0..1. Two and four channels have alpha last.

        Returns:
            A PIL image; an array of the same dtype and number of axes; a tensor of the same dtype
            and number of axes on the same device.

        Warns:
            UserWarning: what of a PIL image is not kept as it was, and what else people should
                know, as the command would say it.

        Raises:
            InputError: another shape or dtype.
            UsageError: the device is not there, or the size cannot be made with these options.
            WeightsError: weights are downloaded, and cannot be had.
            ResourceError: memory is full.
        """
        if isinstance(x, np.ma.MaskedArray):
            raise InputError("a masked array", "give x.filled(...), or NaN for what is missing")
        if isinstance(x, np.ndarray):
            array, notes = self._array(np.asarray(x))  # of kinds such as matrix, too
            _warn(notes)
            return array
        if isinstance(x, Tensor):
            with memory_errors():
                tensor, notes = self._tensor(x)
            _warn(notes)
            return tensor
        from PIL import Image

        if isinstance(x, Image.Image):
            try:
                picture = from_pil(x)
            except OSError as error:  # only now is it decoded
                raise InputError(f"the image is damaged ({error})", "get it again") from error
            pixels, notes = self._array(picture.pixels, quality_of(x))
            notes = [*picture.notes, *notes]
            if pixels.dtype == np.uint16 and pixels.shape[2] == 2:
                pixels = in_8_bits(pixels)
                notes.append("Pillow has no image of 16-bit gray with transparency: it has 8 bits")
            _warn(notes)
            result = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
            if picture.icc:
                result.info["icc_profile"] = picture.icc
            if picture.dpi is not None:
                result.info["dpi"] = picture.dpi
            return result
        raise InputError(
            f"a {type(x).__name__} is no picture", "give a PIL image, a numpy array or a tensor"
        )

    def _array(
        self, x: NDArray[Any], jpeg_quality: int | None = None
    ) -> tuple[NDArray[Any], list[str]]:
        real = np.issubdtype(x.dtype, np.floating) and x.dtype.itemsize <= 8
        known = x.dtype in (np.uint8, np.uint16) or real
        pixels = x[..., None] if x.ndim == 2 else x
        if not known or pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4 or 0 in pixels.shape:
            raise InputError(
                f"an array of shape {x.shape} and type {x.dtype}",
                "give H x W or H x W x C (C from 1 to 4), uint8, uint16 or floats in 0..1",
            )
        # Written so that NaN fails; a little beyond 0..1 is what other filters leave.
        if real and not (pixels.min() >= -0.5 and pixels.max() <= 1.5):
            raise InputError(
                f"an array with values from {x.min()} to {x.max()}", "scale floats to 0..1"
            )
        pipeline = self.pipeline(pixels, jpeg_quality=jpeg_quality)
        with memory_errors():
            result = pipeline.run()
        return (result[..., 0] if x.ndim == 2 else result), pipeline.notes

    def _tensor(self, x: Tensor) -> tuple[Tensor, list[str]]:
        if (
            x.ndim not in (3, 4)
            or 0 in x.shape
            or x.shape[-3] > 4
            or not (x.dtype == torch.uint8 or x.is_floating_point())
            or x.layout != torch.strided
            or x.device.type == "meta"
        ):
            raise InputError(
                f"a tensor of shape {tuple(x.shape)} and type {x.dtype}",
                "give C x H x W or N x C x H x W (C from 1 to 4), uint8 or floats in 0..1, dense",
            )
        host = x.detach().cpu()
        host = host.float() if x.is_floating_point() else host
        batch = host if x.ndim == 4 else host[None]
        done, notes = [], []
        for picture in batch:
            array, told = self._array(picture.permute(1, 2, 0).contiguous().numpy())
            done.append(torch.from_numpy(array))
            notes += told
        result = torch.stack(done).permute(0, 3, 1, 2).to(x.device, x.dtype).contiguous()
        return (result if x.ndim == 4 else result[0]), list(dict.fromkeys(notes))

    def picture(
        self,
        picture: Picture,
        progress: TileProgress | None = None,
        on_note: Note | None = None,
    ) -> Picture:
        """Enlarge a picture, all its frames, and keep everything else about it.

        Frames with equal pixels are computed once. What people should know stands in its notes.

        Args:
            progress, on_note: see ``Pipeline.strips``; tiles of all frames count.
        """
        count = max(1, len(picture.frames))
        made: dict[bytes, NDArray[Any]] = {}
        notes: list[str] = []

        def enlarged(pixels: NDArray[Any], index: int) -> NDArray[Any]:
            key = fingerprint(pixels)
            if key not in made:
                pipeline = self.pipeline_of(picture, pixels)

                def told(done: float, tiles: int) -> None:
                    if progress is not None:
                        progress(index * tiles + done, count * tiles)

                made[key] = pipeline.run(told, on_note)
                notes.extend(pipeline.notes)
            return made[key]

        frames = tuple(
            replace(frame, pixels=enlarged(frame.pixels, index))
            for index, frame in enumerate(picture.frames)
        )
        pixels = enlarged(picture.pixels, 0)
        told = tuple(dict.fromkeys((*picture.notes, *notes)))
        return replace(picture, pixels=pixels, frames=frames, notes=told)

    def upscale_file(
        self,
        source: str | Path,
        output: str | Path | None = None,
        *,
        quality: int | None = None,
        overwrite: bool = False,
        max_pixels: int | None = None,
    ) -> Path:
        """Enlarge a file with what the format holds of its metadata, and return where the result
        is.

        The whole picture is held in memory. What is not kept as it was is a ``UserWarning``.

        Args:
            output: its suffix chooses the format; None writes ``photo-x4.png`` style beside the
                source (``photo-1920x1080.png`` where the goal is a size), in the source's format,
                of a HEIC in PNG; an existing folder takes that name.
            quality: 1 to 100 for lossy formats; None means 95, or lossless for a WebP that was.
            overwrite: replace an existing file.
            max_pixels: see ``read_picture``.

        Raises:
            InputError, OutputError, WeightsError, UsageError, ResourceError: see ``upres.errors``.
        """
        target, notes = self._file(source, output, quality, max_pixels, overwrite=overwrite)
        for note in notes:
            warnings.warn(note, stacklevel=2)
        return target

    def _file(
        self,
        source: str | Path,
        output: str | Path | None,
        quality: int | None,
        max_pixels: int | None,
        *,
        overwrite: bool,
    ) -> tuple[Path, list[str]]:
        """Where the result is, and what is not kept as it was."""
        path = Path(source)
        if quality is not None and not (is_whole(quality) and 1 <= quality <= 100):
            raise UsageError(f"a quality of {quality!r}", "give 1 to 100")
        folder = Path(output) if output and os.path.isdir(output) else None  # noqa: PTH112 - of any name
        asked = format_of(Path(output)) if output and folder is None else None
        frames = asked is None or holds_frames(asked)
        picture = read_picture(path, max_pixels=max_pixels, frames=frames)
        wide, high = self.goal.sizes(picture.sizes)[0]
        if output and folder is None:
            target = Path(output)
        else:
            usual = path.with_stem(f"{path.stem}-{self.goal.label(wide, high)}")
            target = written_to(usual if folder is None else folder / usual.name)
        file_format = asked or written_as(picture.format, path, target)
        check_target(target, overwrite=overwrite, source=path)
        with memory_errors():
            result = self.picture(prepared_for(file_format, picture, wide, high))
        data, notes = encode(result, file_format, Encoding(quality))
        write_file(target, data, overwrite=overwrite)
        return target, [f"{path}: {note}" for note in dict.fromkeys([*result.notes, *notes])]


def fingerprint(pixels: NDArray[Any]) -> bytes:
    """Equal for equal pixels."""
    about = f"{pixels.shape} {pixels.dtype}".encode()
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, key=about[:64]).digest()


def load(
    model: str | Path = "auto",
    *,
    scale: float = 4,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    tile: int | None = None,
    ensemble: bool = False,
    fast: bool = False,
) -> Upscaler:
    """A model, ready to enlarge pictures: ``upres.load("edsr-light", scale=4).upscale(x)``.

    See ``Upscaler`` for the arguments and errors. The network is loaded at once where the scale
    alone says which one it is.
    """
    goal = _goal(scale)
    upscaler = Upscaler(
        cast(str, model),
        goal,
        device=device,
        precision=precision,
        tile=tile,
        ensemble=ensemble,
        fast=fast,
    )
    upscaler._steps_for(upscaler._chain(float(scale)), deep=False)
    return upscaler


def _warn(notes: list[str]) -> None:
    """In the name of who called ``upscale``."""
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=3)


def _goal(scale: float) -> Goal:
    """An impossible factor is refused now rather than later."""
    if not isinstance(scale, int | float | np.number):
        raise UsageError(f"a scale of {scale!r}", "give a number, such as 4 or 2.5")
    goal = Goal(scale=float(scale))
    goal.size(10**6, 10**6)
    return goal


def upscale_file(
    source: str | Path,
    output: str | Path | None = None,
    *,
    model: str | Path = "auto",
    scale: float = 4,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    quality: int | None = None,
    overwrite: bool = False,
    max_pixels: int | None = None,
    fast: bool = False,
) -> Path:
    """``Upscaler.upscale_file`` of one file; for several, an Upscaler loads its network once.

    See there for the arguments and errors.
    """
    upscaler = Upscaler(
        cast(str, model), _goal(scale), device=device, precision=precision, fast=fast
    )
    target, notes = upscaler._file(source, output, quality, max_pixels, overwrite=overwrite)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return target


__all__ = ["Goal", "Upscaler", "load", "upscale_file"]
