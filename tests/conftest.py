"""Fixtures for all tests: private folders, no network, small pictures made on the spot."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

SOAK = os.environ.get("UPRES_SOAK") == "1"

# Reproducible by default; `make soak` searches anew and longer.
_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile(
    "test", max_examples=25, deadline=None, derandomize=True, suppress_health_check=_QUIET
)
settings.register_profile("soak", max_examples=400, deadline=None, suppress_health_check=_QUIET)
settings.load_profile("soak" if SOAK else "test")

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


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


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A real photograph, 300 x 451 x 3 uint8 (scikit-image's chelsea)."""
    from skimage import data

    return data.chelsea()


@pytest.fixture
def upres(tmp_path) -> Run:
    """Run the real program in an empty folder: ``upres("photo.png", "-s", "2")``."""

    def run(*args: object, timeout: float = 120, **kwargs) -> "subprocess.CompletedProcess[bytes]":
        environment = {**os.environ, "COLUMNS": "80", **kwargs.pop("env", {})}
        kwargs.setdefault("cwd", tmp_path)
        kwargs.setdefault("stdin" if "input" not in kwargs else "_", subprocess.DEVNULL)
        kwargs.pop("_", None)
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "upres", *map(str, args)],
            capture_output=True,
            env=environment,
            timeout=timeout,
            check=False,
            **kwargs,
        )

    return run


@pytest.fixture
def small(tmp_path, photo) -> Path:
    """A 48 x 40 PNG of a cat's eye in the folder where ``upres`` runs."""
    path = tmp_path / "small.png"
    Image.fromarray(photo[100:140, 120:168]).save(path)
    return path
