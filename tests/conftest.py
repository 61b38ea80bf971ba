"""Fixtures for all tests: private folders, no network, small pictures made on the spot."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Each of pytest's processes has a core; threads beyond that wait for one another, spinning.
# Read by torch when it is imported, here and in the programs that tests start.
_TESTERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _TESTERS)))

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from PIL import Image  # noqa: E402

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


class Forks:
    """Processes of the program, forked from one that has imported torch (forkserver.py)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        requests, self.requests = os.pipe()
        self.replies, replies = os.pipe()
        script = Path(__file__).with_name("forkserver.py")
        self.server = subprocess.Popen(
            [sys.executable, "-W", "error", script, str(requests), str(replies)],
            env={**os.environ, "COLUMNS": "80"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(requests, replies),
            start_new_session=True,
        )
        os.close(requests)
        os.close(replies)

    def run(self, arguments, cwd, env, timeout: float):
        """As ``subprocess.run``, with nothing to read and output to files."""
        streams = [Path(os.devnull), self.folder / "stdout", self.folder / "stderr"]
        for path in streams[1:]:
            path.write_bytes(b"")
        request = {
            "arguments": arguments,
            "cwd": str(cwd),
            "env": env,
            "streams": list(map(str, streams)),
        }
        os.write(self.requests, json.dumps(request).encode() + b"\n")
        if not select.select([self.replies], [], [], timeout)[0]:
            os.killpg(self.server.pid, 9)
            raise subprocess.TimeoutExpired(arguments, timeout)
        reply = os.read(self.replies, 100)
        assert reply, "the fork server is gone"
        return subprocess.CompletedProcess(
            arguments, int(reply), streams[1].read_bytes(), streams[2].read_bytes()
        )

    def close(self) -> None:
        os.close(self.requests)
        self.server.wait(10)
        os.close(self.replies)


@pytest.fixture(scope="session")
def forks(tmp_path_factory) -> Iterator[Forks]:
    started = Forks(tmp_path_factory.mktemp("streams"))
    yield started
    started.close()


@pytest.fixture
def upres(tmp_path, forks) -> Run:
    """Run the real program in an empty folder: ``upres("photo.png", "-s", "2")``."""

    def run(
        *args: object, timeout: float = 120, env=None, cwd=tmp_path, **kwargs
    ) -> "subprocess.CompletedProcess[bytes]":
        environment = {**os.environ, "COLUMNS": "80", **(env or {})}
        arguments = list(map(str, args))
        # Pipes are not files, and the interpreter reads its variables as it starts.
        plain = "-" not in arguments and not kwargs
        if plain and not any(name.startswith("PYTHON") for name in env or ()):
            return forks.run(arguments, cwd, environment, timeout)
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "upres", *arguments],
            capture_output=True,
            cwd=cwd,
            env=environment,
            timeout=timeout,
            check=False,
            **{"stdin": subprocess.DEVNULL} | kwargs if "input" not in kwargs else kwargs,
        )

    return run


@pytest.fixture
def small(tmp_path, photo) -> Path:
    """A 48 x 40 PNG of a cat's eye in the folder where ``upres`` runs."""
    path = tmp_path / "small.png"
    Image.fromarray(photo[100:140, 120:168]).save(path)
    return path
