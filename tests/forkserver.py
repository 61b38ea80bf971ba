"""The program without the two seconds that importing torch takes, for tests.

Started once by forks.py: it imports what the program imports and waits at a socket. Each request
is answered by a fork, a process of its own, that takes on the arguments, folder, environment and
standard streams that came with it and then runs ``python -m upres`` to its end. What training
imports beyond that, three seconds, is imported before the first training.
"""

import array
import atexit
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
import warnings
from pathlib import Path


def serve(listener: socket.socket) -> tuple[socket.socket, dict]:
    """Fork for each connection; in the fork, return it and its request. End with standard input."""
    # Nobody waits for the forks: each tells its client how its own child ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            listener.close()
            sys.exit()
        connection, _ = listener.accept()
        data, streams, _, _ = socket.recv_fds(connection, 2**16, 3)
        while more := connection.recv(2**16):
            data += more
        request = {**json.loads(data), "streams": streams}
        if request["arguments"][:1] == ["train"]:
            for name in ("torch._dynamo", "matplotlib.figure"):
                importlib.import_module(name)
        if fork() == 0:
            listener.close()
            return connection, request
        for number in streams:
            os.close(number)
        connection.close()


def fork() -> int:
    """``os.fork``, without the warning of Python 3.12: NumPy's idle threads stay behind."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* is multi-threaded", DeprecationWarning)
        return os.fork()


def answer(connection: socket.socket, request: dict) -> dict:
    """Return the request in a child; tell the client the child's number and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = fork()
    if child == 0:
        connection.close()
        return request
    for number in request["streams"]:
        os.close(number)
    connection.sendall(array.array("q", [child]).tobytes())
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(array.array("q", [status]).tobytes())
    os._exit(0)


def become(request: dict) -> None:
    """Take on what a process gets from who starts it."""
    for number, stream in enumerate(request["streams"]):
        os.dup2(stream, number)
        os.close(stream)
    # The old ones remember what kind of file theirs was.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["upres", *request["arguments"]]
    # Whoever runs the tests in the background may have had this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTHONPATH" in os.environ:
        sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")


def run() -> None:
    """As the interpreter does, but without taking itself apart, which takes as long again."""
    status = 0
    try:
        runpy.run_module("upres", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last one to see it
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    # What most commands import, but not what reads the environment meanwhile.
    for name in ("typer._adapters", "upres.cli.run", "upres.api", "upres.networks"):
        importlib.import_module(name)
    assert "huggingface_hub" not in sys.modules
    # Of all tests' modules this one alone; the programs' path stays theirs.
    sys.path.append(str(Path(__file__).parents[1]))
    importlib.import_module("tests.network").stay_here()
    sys.path.pop()
    become(answer(*serve(socket.socket(fileno=int(sys.argv[1])))))
    run()
