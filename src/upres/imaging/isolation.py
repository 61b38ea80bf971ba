"""Decoding in a process of its own: a file that crashes a decoder, hangs it, or makes it take all
memory, ends that process and not the run."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from upres.errors import InputError, ResourceError, UpresError
from upres.imaging.picture import Picture
from upres.imaging.reader import read_picture
from upres.memory import group_memory

TIMEOUT = 300.0
_MEMORY_SHARE = 0.75


class Decoder:
    """A process that decodes, started when first needed and again whenever it had to be ended.

    Not for several threads at once, but for ``interrupt``. Close it, or use it in a ``with``.

    Args:
        timeout: seconds that one file may take.
    """

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self.timeout = timeout
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._given_up = False

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def read(
        self, path: Path, *, max_pixels: int | None, max_memory: int | None = None, frames: bool
    ) -> Picture:
        """See ``read_picture``.

        Raises:
            InputError: also if the decoder crashed or took too long.
            ResourceError: also if it was killed.
        """
        pipe = self._started()
        try:
            if self._given_up:  # it may have been before there was a process to end
                raise EOFError
            pipe.send(
                (path, {"max_pixels": max_pixels, "max_memory": max_memory, "frames": frames})
            )
            if not pipe.poll(self.timeout):
                self._end()
                raise InputError(
                    f"{path} was not decoded within {self.timeout:g} s", "it is probably damaged"
                )
            answer = pipe.recv()
        except (EOFError, OSError):  # also when it ends within an answer
            killed, code = not self._given_up and self._was_killed(), self._end()
            if killed:
                raise ResourceError(
                    f"the system ended the process that decoded {path}, most likely as memory was "
                    "full",
                    "free memory, or enlarge it alone",
                ) from None
            raise InputError(
                f"{path} made its decoder crash (exit code {code})",
                "it is probably damaged, or made to do so",
            ) from None
        except BaseException:  # memory that ran out within an answer, say: the rest of it is there
            if self._process is not None:
                self._end()
            raise
        if isinstance(answer, UpresError):
            raise answer
        picture: Picture = answer
        return picture

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._end()

    def interrupt(self) -> None:
        """End what another thread waits for: its ``read``, and any later one, raises at once."""
        self._given_up = True
        if (process := self._process) is not None:
            process.kill()

    def _started(self) -> Connection:
        if self._pipe is None or self._process is None or not self._process.is_alive():
            self.close()
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            try:
                with uninterrupted():
                    process.start()
            except OSError as error:
                raise ResourceError(
                    f"no process can be started to decode pictures ({error.strerror})",
                    "free memory, or end other programs",
                ) from error
            finally:
                theirs.close()
            self._process = process
        return self._pipe

    def _was_killed(self) -> bool:
        """Whether it ended by SIGKILL, which Linux sends where memory is full."""
        assert self._process is not None
        self._process.join(1)
        return self._process.exitcode == -9

    def _end(self) -> int | None:
        assert self._process is not None
        if self._pipe is not None:
            self._pipe.close()
        self._process.join(0.2)
        self._process.kill()
        self._process.join()
        code = self._process.exitcode
        self._process = self._pipe = None
        return code


@contextmanager
def uninterrupted() -> Iterator[None]:
    """What is started meanwhile never hears of Ctrl-C, which all processes of a terminal get: the
    one that started it ends it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection) -> None:
    _limit_memory()
    while True:
        try:
            path, options = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            pipe.send(read_picture(path, **options))
        except UpresError as error:
            greedy = isinstance(error.__cause__, MemoryError)  # it met the limit of this process
            pipe.send(_too_much(path) if greedy else error)
        except MemoryError:
            pipe.send(_too_much(path))
        except (KeyboardInterrupt, BrokenPipeError):
            return


def _too_much(path: Path) -> InputError:
    return InputError(
        f"{path} takes more memory than one picture of a folder may", "upscale it alone"
    )


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    page = os.sysconf("SC_PAGE_SIZE")
    most = int(page * os.sysconf("SC_PHYS_PAGES") * _MEMORY_SHARE)
    with suppress(OSError, ValueError):
        # What counts are addresses, of which programs have more than memory.
        there = page * int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = min(most, there + group_memory())
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or most < hard:
        with suppress(OSError, ValueError):  # macOS knows the limit and takes none
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))
