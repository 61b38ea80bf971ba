"""Device, number format and memory, each with the reason why it was chosen."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch.nn import functional as F

from upres.errors import UsageError
from upres.memory import free_main_memory

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

_DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class Target:
    """Where and in which number format networks run.

    Attributes:
        device, dtype: as torch names them.
        reason: why, for people.
        passed_over: on the CPU, an accelerator that is there and does not work, and why; or "".
    """

    device: torch.device
    dtype: torch.dtype
    reason: str
    passed_over: str = ""

    @property
    def precision(self) -> str:
        """ "fp32", "bf16" or "fp16"."""
        return next(name for name, dtype in _DTYPES.items() if dtype == self.dtype)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device does so natively; torch would do it on any, many times slower."""
    if device.type != "cuda":
        return cpu_has_bfloat16()
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


@cache
def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 natively (AVX512-BF16, AMX, or Arm's BF16)."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        # Not Linux: torch knows, under a name that it does not promise to keep.
        probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(probe and probe())
    return not words.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def choose(device: DeviceName, precision: Precision, *, deep: bool) -> Target:
    """Pick the device and number format.

    Args:
        deep: the picture has more than 8 bits, so a half type's 8 to 11 bits would show.

    Raises:
        UsageError: the device is not there, or does not compute in that format.
    """
    chosen, why, passed_over = _device(device)
    kind = chosen.type
    if kind == "cpu" and (precision == "fp16" or (precision == "bf16" and not cpu_has_bfloat16())):
        # torch would do it, hundreds of times slower than float32.
        others = "bf16 or fp32" if cpu_has_bfloat16() else "fp32"
        raise UsageError(
            f"{precision} is not computed natively on this CPU", f"use --precision {others}"
        )
    if kind == "cuda" and precision == "bf16" and not multiplies_bfloat16(chosen):
        raise UsageError(
            "bf16 is not computed natively on this GPU", "use --precision fp16 or fp32"
        )
    if kind == "mps" and precision in ("bf16", "fp16") and (why_not := _refusal(chosen, precision)):
        raise UsageError(f"{precision} is not computed here ({why_not})", "use --precision fp32")
    if precision != "auto":
        dtype, because = _DTYPES[precision], f"{precision} as asked"
    elif deep:
        dtype, because = torch.float32, "fp32 because the picture has over 8 bits"
    elif kind == "cuda":
        dtype, because = torch.float16, "fp16 is fastest there"
    elif kind == "cpu" and cpu_has_bfloat16():
        dtype, because = torch.bfloat16, "bf16 because the CPU computes it natively"
    else:
        dtype, because = torch.float32, "fp32 because nothing faster is native"
    return Target(chosen, dtype, f"{why}; {because}", passed_over)


def _device(name: DeviceName) -> tuple[torch.device, str, str]:
    """The device, why it is that one, and what would have been better and does not work."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name in there and not there[name]:
        raise UsageError(
            f"device {name} is not available here",
            "'upres doctor' says what is; --device auto picks the best",
        )
    if name in there and (why := why_unusable(name)):
        raise UsageError(
            f"device {name} does not work here ({why})", "--device auto takes what does"
        )
    if name != "auto":
        return _numbered(name), f"{name} as asked", ""
    broken = ""
    for kind, available in there.items():
        if available:
            if not (why := why_unusable(kind)):
                return _numbered(kind), f"{kind} is available", ""
            broken = f"{kind} does not work here ({why})"
    return torch.device("cpu"), broken or "no accelerator", broken


_working: set[str] = set()


def why_unusable(kind: str) -> str:
    """Why an accelerator that says it is there does not compute; "" if it does. A GPU may be older
    than those that torch was built for, or belong to another process alone, or be full for now."""
    try:
        if kind not in _working:
            (torch.ones(1, device=kind) + 1).item()
            _working.add(kind)
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return ""


def _refusal(device: torch.device, precision: Literal["bf16", "fp16"]) -> str:
    """Why a device does not convolve in that format; "" if it does."""
    try:
        x = torch.ones(1, 1, 3, 3).to(device, _DTYPES[precision])
        F.conv2d(x, x).item()
    except (RuntimeError, TypeError) as error:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return ""


def _numbered(kind: str) -> torch.device:
    """The current one of several, which another thread may not know."""
    return torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)


def wait_for(device: torch.device) -> None:
    """Until it has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


# How many computations need cuDNN as it should be now, and what was set before the first.
_whole, _before, _lock = 0, ("", False), threading.Lock()


@contextmanager
def all_of_float32(device: torch.device) -> Iterator[None]:
    """cuDNN computes float32 with TF32, 10 of its 23 bits, unless told otherwise; who asks for
    fp32 means all of them. Nor does it search for the fastest algorithm, as the caller may have
    asked: tiles have many shapes, and what is found depends on the moment. Both settings are the
    process's: the last of several threads that are in here sets them back."""
    global _whole, _before
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    convolutions = cudnn.conv  # type: ignore[attr-defined]
    with _lock:
        if _whole == 0:
            _before = convolutions.fp32_precision, cudnn.benchmark
            convolutions.fp32_precision, cudnn.benchmark = "ieee", False
        _whole += 1
    try:
        yield
    finally:
        with _lock:
            _whole -= 1
            if _whole == 0:
                convolutions.fp32_precision, cudnn.benchmark = _before


@contextmanager
def on_cpu() -> Iterator[None]:
    """New tensors are the CPU's, whatever the caller made the default."""
    if torch.get_default_device().type == "cpu":
        yield
    else:
        with torch.device("cpu"):
            yield


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated now.

    Linux kills a process rather than refuse memory, so callers stay well below.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free_main_memory()
