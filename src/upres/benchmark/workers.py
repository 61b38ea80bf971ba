"""Contenders in processes of their own.

In one process they disturb each other: an allocator that gives memory back makes the next one map
it anew, and threads of one library spin while another computes (measured: up to twice the time).
Here a contender has its process to itself, keeps its memory and waits idle while the others run,
and the peak memory of a process is that of one contender.
"""

import importlib.util
import multiprocessing
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from upres.api import Upscaler
from upres.benchmark.contenders import PEERS, Contender, eager
from upres.errors import ResourceError, UpresError
from upres.imaging.isolation import uninterrupted
from upres.inference.device import DeviceName, Precision, wait_for
from upres.inference.sizes import Goal


@dataclass(frozen=True)
class Setting:
    """What all contenders run. See ``Upscaler``."""

    model: str
    scale: int
    device: DeviceName = "auto"
    precision: Precision = "auto"
    ensemble: bool = False
    threads: int | None = None

    def upscaler(self) -> Upscaler:
        """The model, ready."""
        return Upscaler(
            self.model,
            Goal(scale=self.scale),
            device=self.device,
            precision=self.precision,
            ensemble=self.ensemble,
        )


@dataclass(frozen=True)
class Prepared:
    """A contender at one size, warmed up.

    Attributes:
        tiles: how many the picture was cut into; 1 for contenders that take it whole.
    """

    device: str
    precision: str
    tiles: int


def picture(megapixels: float) -> NDArray[np.uint8]:
    """Noise, 3 : 2; what is in a picture does not matter to a convolution."""
    height = max(16, round((megapixels * 1e6 / 1.5) ** 0.5))
    width = round(1.5 * height)
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def installed() -> list[str]:
    """Names of other libraries' contenders that can run here."""
    return [name for name, peer in PEERS.items() if all(map(importlib.util.find_spec, peer.needs))]


class Worker:
    """A contender in its own process. Close it, or use it in a ``with``.

    Args:
        contender: "upres", "eager", or one of ``installed()``.
    """

    def __init__(self, contender: str, setting: Setting) -> None:
        self.contender = contender
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, contender, setting))
        with uninterrupted():
            self._process.start()
        theirs.close()

    def prepare(self, megapixels: float) -> Prepared:
        """Make it ready for a picture of this size and run it once.

        Raises:
            UpresError: it cannot run.
        """
        prepared: Prepared = self._ask(megapixels)
        return prepared

    def run(self) -> float:
        """Seconds that the picture takes."""
        seconds: float = self._ask("run")
        return seconds

    def peak_memory(self) -> int:
        """Most bytes that were in use so far: of the accelerator, or of the process."""
        found: int = self._ask("memory")
        return found

    def _ask(self, request: float | str) -> Any:
        try:
            self._pipe.send(request)
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            raise ResourceError(
                f"{self.contender} ended with {self._process.exitcode} while it was measured",
                "most often memory ran out: leave out the largest of --sizes",
            ) from None
        if isinstance(answer, UpresError):
            raise answer
        return answer

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(0.2)  # which it takes to hear of that, unless it computes
        self._process.kill()
        self._process.join()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _serve(pipe: Connection, contender: str, setting: Setting) -> None:
    """Answer requests until the other side hangs up."""
    if setting.threads is not None:
        torch.set_num_threads(setting.threads)
    run: Contender = _idle
    device = torch.device("cpu")
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        try:
            if request == "run":
                pipe.send(_timed(run, device))
            elif request == "memory":
                pipe.send(_peak_memory(device))
            else:
                run, prepared = _made(contender, setting, picture(request))
                device = torch.device(prepared.device)
                _forget_peak()
                _timed(run, device)
                pipe.send(prepared)
        except (BrokenPipeError, ConnectionResetError):
            return
        except UpresError as error:
            pipe.send(error)
        except Exception as error:  # noqa: BLE001 - other programs have errors of their own
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            pipe.send(ResourceError(f"{contender} failed ({reason})", "leave it out"))


def _made(
    contender: str, setting: Setting, pixels: NDArray[np.uint8]
) -> tuple[Contender, Prepared]:
    upscaler = setting.upscaler()
    pipeline = upscaler.pipeline(pixels)
    target = pipeline.steps.target
    device = target.device.type
    if contender == "upres":
        tiles = pipeline.tiles
        return lambda: upscaler.upscale(pixels), Prepared(device, target.precision, tiles)
    network, _ = pipeline.steps.networks[0]
    if contender == "eager":
        run = eager(network, setting.scale, pixels, target.device)
        return run, Prepared(device, _usual_precision(target.device), 1)
    peer = PEERS[contender]
    made = peer.make(network, setting.scale, pixels, setting.threads)
    return made, Prepared("cpu", peer.precision, 1)


def _usual_precision(device: torch.device) -> str:
    """What torch makes of float32 convolutions where nothing is set."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return "fp32"
    return "tf32"


def _idle() -> None:
    pass


def _timed(run: Contender, device: torch.device) -> float:
    begun = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - begun


def _forget_peak() -> None:
    """What exporting a network takes is not what running it takes."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # Linux alone has it
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        # getrusage would count what the parent had in use when this process was forked from it.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
