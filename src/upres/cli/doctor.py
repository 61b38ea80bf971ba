"""``upres doctor``: what this installation is, and what would make it faster."""

import os
import platform
from importlib.metadata import version
from typing import Any

from upres.cli import options
from upres.cli.output import Output
from upres.errors import UsageError, WeightsError
from upres.memory import free_main_memory


def doctor(json: options.Json = False) -> None:
    """Say what upres found on this machine: versions, devices, memory, caches."""
    import torch

    import upres
    from upres.imaging import heic, jpeg2000
    from upres.inference.device import choose, cpu_has_bfloat16
    from upres.inference.onednn import available

    packages = (
        *("torch", "pillow", "numpy", "tifffile", "zlib-ng", "huggingface-hub", "safetensors"),
        *("typer", "rich"),
    )
    target = choose("auto", "auto", deep=False)
    facts: dict[str, Any] = {
        "upres": upres.__version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        **{name: version(name) for name in packages},
        "cpu threads": torch.get_num_threads(),
        "native bfloat16": "yes" if cpu_has_bfloat16() else "no",
        "fused operators": "yes" if available() else "no: slower on the CPU",
        "cuda": _cuda(),
        "mps": "available" if torch.backends.mps.is_available() else "not available",
        "will use": f"{target.device.type} {target.precision} ({target.reason})",
        "free memory": f"{free_main_memory() / 2**30:.1f} GiB",
        "libvips": _vips(),
        "HEIC": "read" if heic.available() else "not read: install pillow-heif",
        "rarer codecs": "read" if jpeg2000.available() else "not read: install imagecodecs",
        "downloads": _hub_cache(),
        "data folder": _home(),
        "hub": _hub_settings(),
    }
    output = Output(json=json)
    if json:
        output.value("", **facts)
        return
    for key, value in facts.items():
        output.value(f"{key + ':':<18}{value}")


def _vips() -> str:
    try:
        from upres.imaging.vips import vips

        vips()
    except (ImportError, OSError) as error:  # this, too, is what people ask the doctor about
        return f"does not start: {error}"
    return ".".join(str(vips().version(part)) for part in range(3))


def _home() -> str:
    from upres.places import home

    try:
        return str(home())
    except UsageError as error:
        return str(error)


def _cuda() -> str:
    """The GPUs, or why there are none."""
    import torch

    if torch.cuda.is_available():
        return ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))
    built_for = torch.version.cuda
    if built_for is None:
        return (
            "not available: this torch was built without it; with an NVIDIA GPU, install one from "
            "https://pytorch.org/get-started/locally"
        )
    return f"not available: torch was built for CUDA {built_for}, but no GPU or driver was found"


def _hub_cache() -> str:
    from upres.weights.hub import hub

    try:
        return str(hub().constants.HF_HUB_CACHE)
    except WeightsError as error:
        return str(error)


def _hub_settings() -> str:
    names = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HOME", "HF_HUB_CACHE")
    return ", ".join(f"{n}={os.environ[n]}" for n in names if n in os.environ) or "defaults"
