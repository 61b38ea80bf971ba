"""The program without the two seconds that importing torch takes, for tests.

Started once by conftest.py: it imports what the program imports and waits. Each request is answered
by a fork, a process of its own, that takes the arguments, folder, environment, standard streams and
then runs ``python -m upres`` to its end.
"""

import atexit
import importlib
import json
import os
import runpy
import sys
import threading
import traceback


def serve(requests: int, replies: int) -> dict | None:
    """Fork for each line of ``requests``; in the fork, what is asked for."""
    with open(requests, closefd=False) as lines:
        for line in lines:
            child = os.fork()
            if child == 0:
                return json.loads(line)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os.write(replies, f"{status}\n".encode())
    return None


def become(request: dict) -> None:
    """Take on what a process gets from who starts it."""
    for number, path in enumerate(request["streams"]):
        file = os.open(path, os.O_RDWR if number else os.O_RDONLY)
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["upres", *request["arguments"]]


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
    channels = [int(number) for number in sys.argv[1:]]
    if asked := serve(*channels):
        for channel in channels:
            os.close(channel)
        become(asked)
        run()
