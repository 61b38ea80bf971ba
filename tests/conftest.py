"""Fixtures for all tests: private folders, no network, small pictures made on the spot."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Each of pytest's processes has a core; threads beyond that wait for one another, spinning.
# Read by torch when it is imported, here and in the programs that tests start. Not in the process
# that starts pytest's others: they would inherit its number.
if _testers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    # A container may have fewer cores than its machine; macOS and Windows do not tell.
    _cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    os.environ["OMP_NUM_THREADS"] = str(max(1, _cores // _testers))

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from tests.forks import Forks, Process
from tests.network import stay_here

SOAK = os.environ.get("UPRES_SOAK") == "1"

stay_here()

# Reproducible by default; `make soak` searches anew and longer.
_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile(
    "test", max_examples=25, deadline=None, derandomize=True, suppress_health_check=_QUIET
)
settings.register_profile("soak", max_examples=400, deadline=None, suppress_health_check=_QUIET)
settings.load_profile("soak" if SOAK else "test")

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]

# The program prints as on any other machine, and no process of the tests takes memory of a GPU.
_SURROUNDINGS = {"COLUMNS": "80", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(autouse=True)
def _private_folders(tmp_path_factory, monkeypatch):
    """No test reads or writes what belongs to the person who runs it, or calls the Hub."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("UPRES_HOME", str(home / "upres"))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (
        "HF_ENDPOINT",
        "HF_HUB_CACHE",
        "HF_TOKEN",
        "UPRES_DATA",
        "HTTP_PROXY",
        "http_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(autouse=True)
def _seeded():
    """A failure can be repeated, whichever tests ran before."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A real photograph, 300 x 451 x 3 uint8 (scikit-image's chelsea)."""
    from skimage import data

    return data.chelsea()


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    # A socket's name may have a hundred letters, which pytest's own folders exceed.
    with tempfile.TemporaryDirectory() as folder:
        started = Forks(Path(folder))
        yield started
        started.close()


@pytest.fixture
def start(tmp_path, forks) -> Iterator[Callable[..., Process]]:
    """Start the real program in an empty folder; what a test leaves running is killed."""
    processes = []

    def begin(*arguments: object, env=None, cwd=tmp_path, **more: Any) -> Process:
        environment = {**os.environ, **_SURROUNDINGS, **(env or {})}
        words = list(map(str, arguments))
        processes.append(Process(forks, words, cwd=cwd, env=environment, **more))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def upres(tmp_path, start) -> Run:
    """Run the real program in an empty folder: ``upres("photo.png", "-s", "2")``."""

    def run(
        *arguments: object, timeout: float = 120, env=None, data: bytes = b"", cwd=tmp_path
    ) -> "subprocess.CompletedProcess[bytes]":
        words = list(map(str, arguments))
        # The interpreter reads its variables as it starts; the fork server knows the path's.
        if any(name.startswith("PYTHON") and name != "PYTHONPATH" for name in env or ()):
            return subprocess.run(
                [sys.executable, "-W", "error", "-m", "upres", *words],
                capture_output=True, input=data, cwd=cwd, timeout=timeout, check=False,
                env={**os.environ, **_SURROUNDINGS, **env},
            )  # fmt: skip
        process = start(*words, env=env, cwd=cwd, data=data)
        status = process.wait(timeout)
        return subprocess.CompletedProcess(words, status, process.out, process.err)

    return run


@pytest.fixture
def patched(tmp_path) -> Callable[[str], dict[str, str]]:
    """Variables for ``upres``, whose processes run this code when they start."""

    def write(code: str) -> dict[str, str]:
        (tmp_path / "site").mkdir(exist_ok=True)
        (tmp_path / "site" / "sitecustomize.py").write_text(code)
        return {"PYTHONPATH": str(tmp_path / "site")}

    return write


@pytest.fixture
def small(tmp_path, photo) -> Path:
    """A 48 x 40 PNG of a cat's eye in the folder where ``upres`` runs."""
    path = tmp_path / "small.png"
    Image.fromarray(photo[100:140, 120:168]).save(path)
    return path
