"""Signals that end a run without losing it."""

import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol


class Stopping(Protocol):
    """Knows whether a run shall end before its time."""

    def __call__(self) -> bool:
        """Whether to save and end now."""
        ...

    def listening(self) -> AbstractContextManager[None]:
        """Within the block it may be asked to; outside a signal ends the program as usual."""
        ...


# A closed terminal is told of twice, by the shell and by the system; so is what is sent to a group
# and to its leader. Signals so close, in seconds, are one.
_SAME_REQUEST = 2.0


class Stop:
    """Turns Ctrl-C, SIGTERM and a closed terminal into a request to save and end; another one
    later than that ends at once.

    Attributes:
        signal: which one came, or None.
        error: the other reason to end, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.error: Exception | None = None
        self._since = 0.0

    def __call__(self) -> bool:
        return self.signal is not None or self.error is not None

    def because_of(self, error: Exception) -> None:
        """End as if by a signal; of several reasons the first counts."""
        self.error = self.error or error

    @contextmanager
    def listening(self) -> Iterator[None]:
        """See ``Stopping``; signals wait for the step that is being made."""
        known = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
        before = {s: signal.getsignal(s) for s in known if s is not None}
        # nohup asked to outlive the terminal.
        before = {s: handler for s, handler in before.items() if handler != signal.SIG_IGN}

        def asked(number: int, frame: Any) -> None:
            del frame
            if self.signal is None:
                self.signal, self._since = number, time.monotonic()
            elif time.monotonic() - self._since > _SAME_REQUEST:
                signal.signal(number, before[signal.Signals(number)])
                signal.raise_signal(number)

        for number in before:
            signal.signal(number, asked)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
