"""Processes of the program, forked from one that has imported torch (forkserver.py)."""

import array
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import IO, Any

Stream = IO[Any] | int | None


def until(condition: Callable[[], object], process: "Process", seconds: float = 100) -> None:
    """Wait for something that a process at work does."""
    end = time.monotonic() + seconds
    while not condition():
        time.sleep(0.01)
        assert process.poll() is None, process.err
        assert time.monotonic() < end, process.err


class Forks:
    """Starts processes.

    Args:
        folder: for the socket; its name must be short.
    """

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "s")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen()
        script = Path(__file__).with_name("forkserver.py")
        self.server = subprocess.Popen(
            [sys.executable, "-W", "error", script, str(listener.fileno())],
            env={**os.environ, "COLUMNS": "80"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(listener.fileno(),),
            start_new_session=True,
        )
        listener.close()

    def close(self) -> None:
        """End the server; processes that it started go on."""
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(60)


class Process:
    """A running program, with what of ``subprocess.Popen`` tests need.

    What it writes is read at once; ``out`` and ``err`` are that, when it has ended. Its standard
    input is empty, and stays open if ``stdin`` is ``subprocess.PIPE``.
    """

    def __init__(
        self,
        forks: Forks,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        data: bytes = b"",
    ) -> None:
        self.arguments, self.returncode = arguments, None
        self._read: dict[int, bytes] = {1: b"", 2: b""}
        self._threads: list[Thread] = []
        self._open: int | None = None
        given, ours = [stdin, stdout, stderr], []
        for number, stream in enumerate(given):
            if stream not in (None, subprocess.PIPE):
                continue
            reads, writes = os.pipe()
            theirs = reads if number == 0 else writes
            given[number] = theirs
            ours.append(theirs)
            if number:
                self._in_background(self._drain, number, reads)
            elif stream is subprocess.PIPE:
                self._open = writes
            else:
                self._in_background(self._feed, writes, data)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(forks.path)
        request = json.dumps({"arguments": arguments, "cwd": str(cwd), "env": dict(env)}).encode()
        streams = [s if isinstance(s, int) else s.fileno() for s in given if s is not None]
        sent = socket.send_fds(self._server, [request], streams)
        self._server.sendall(request[sent:])
        self._server.shutdown(socket.SHUT_WR)
        for theirs in ours:
            os.close(theirs)
        self.pid = self._number(60)

    def poll(self) -> int | None:
        """How it ended, or None while it runs."""
        if self.returncode is None:
            try:
                self.wait(0.001)
            except subprocess.TimeoutExpired:
                return None
        return self.returncode

    def wait(self, timeout: float = 120) -> int:
        """How it ended, when it has: minus the signal's number if that was one."""
        if self.returncode is None:
            self.returncode = self._number(timeout)
            self._server.close()
            for thread in self._threads:
                thread.join()
            if self._open is not None:
                os.close(self._open)
        return self.returncode

    @property
    def out(self) -> bytes:
        """What it wrote to standard output."""
        return self._read[1]

    @property
    def err(self) -> bytes:
        """What it wrote to standard error."""
        return self._read[2]

    def send_signal(self, sign: signal.Signals) -> None:
        """Nothing, once it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sign)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _number(self, timeout: float) -> int:
        self._server.settimeout(timeout)
        try:
            data = self._server.recv(8, socket.MSG_WAITALL)
        except TimeoutError:
            raise subprocess.TimeoutExpired(self.arguments, timeout) from None
        assert len(data) == 8, "the fork server is gone"
        return array.array("q", data)[0]

    def _in_background(self, what, *arguments) -> None:
        thread = Thread(target=what, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _drain(self, number: int, reads: int) -> None:
        with open(reads, "rb") as file:
            while piece := os.read(file.fileno(), 2**16):
                self._read[number] += piece

    @staticmethod
    def _feed(writes: int, data: bytes) -> None:
        try:
            with open(writes, "wb") as file:
                file.write(data)
        except BrokenPipeError:
            pass  # it did not want all of it
