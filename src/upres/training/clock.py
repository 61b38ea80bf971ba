"""Time in which a run could work."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_TICK = 0.5
# A process that does not come to its next tick for so many seconds was stopped, as people do to
# measure something else.
_STOPPED = 5.0


class Clock:
    """Seconds in which this process was not stopped (SIGSTOP, Ctrl-Z), whatever it did then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen = time.monotonic()
        self._away = self._told = 0.0

    def now(self) -> float:
        """Seconds since some moment."""
        with self._lock:
            now = time.monotonic()
            if now - self._seen > _STOPPED:
                self._away += now - self._seen
            self._seen = now
            return now - self._away

    def pause(self) -> float:
        """For how long the process was stopped since this was asked last, in seconds."""
        self.now()
        with self._lock:
            pause, self._told = self._away - self._told, self._away
            return pause


@contextmanager
def ticking() -> Iterator[Clock]:
    """A clock for the block; a thread sees to it that pauses are told from long steps."""
    clock, ended = Clock(), threading.Event()

    def tick() -> None:
        while not ended.wait(_TICK):
            clock.now()

    thread = threading.Thread(target=tick, name="clock", daemon=True)
    thread.start()
    try:
        yield clock
    finally:
        ended.set()
        thread.join()
