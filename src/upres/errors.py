"""Everything that can go wrong, as one tree.

    UpresError                  exit code 1 (only its subclasses are raised)
    |-- UsageError           2  the command or call cannot mean anything
    |-- InputError           3  a picture cannot be read
    |-- OutputError          4  a picture cannot be written where or how it was asked
    |-- WeightsError         5  weights are unknown; they or a set damaged, or not to be had
    |-- ResourceError        6  memory or disk is full
    |-- BatchError           7  part of a batch failed
    `-- VerificationError    8  a check of an installation or of a file failed

A message is one line: the value, the rule it breaks, and the next step.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "BatchError",
    "InputError",
    "OutputError",
    "ResourceError",
    "UpresError",
    "UsageError",
    "VerificationError",
    "WeightsError",
]


# A disk is full, or a quota.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the system says that a disk or a quota is full."""
    return getattr(error, "errno", None) in DISK_FULL


def printable(text: str) -> str:
    """The text without what would command the terminal that shows it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class UpresError(Exception):
    """Base of all errors that upres raises on purpose.

    Args:
        problem: the value and the rule it breaks, without a full stop.
        next_step: what the reader can do about it; may be empty.
    """

    exit_code = 1

    def __init__(self, problem: str, next_step: str = "") -> None:
        self.problem = problem
        self.next_step = next_step
        super().__init__(f"{problem}; {next_step}" if next_step else problem)

    def __reduce__(self) -> tuple[type["UpresError"], tuple[str, str]]:
        return type(self), (self.problem, self.next_step)


class UsageError(UpresError):
    """The command or call cannot mean anything (exit code 2)."""

    exit_code = 2


class InputError(UpresError):
    """A picture cannot be read (exit code 3)."""

    exit_code = 3


class OutputError(UpresError):
    """A picture cannot be written where or how it was asked (exit code 4)."""

    exit_code = 4


class WeightsError(UpresError):
    """Weights are unknown; or they, a set of pictures or a checkpoint are damaged, or cannot be
    downloaded (exit code 5)."""

    exit_code = 5


class ResourceError(UpresError):
    """Memory or disk is full (exit code 6)."""

    exit_code = 6


class BatchError(UpresError):
    """Part of a batch failed (exit code 7)."""

    exit_code = 7


class VerificationError(UpresError):
    """A check of an installation or of a file failed (exit code 8)."""

    exit_code = 8


@contextmanager
def os_errors(path: Path, elsewhere: str = "write elsewhere") -> Iterator[None]:
    """What goes wrong in writing ``path``, as errors for people.

    Args:
        elsewhere: how people choose another place.

    Raises:
        ResourceError: the disk is full, or takes no file so large.
        OutputError: anything else, such as no permission.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise ResourceError(
                f"there is no room on the disk for {path} ({error.strerror})",
                f"free disk space, or {elsewhere}",
            ) from error
        if error.errno == errno.EFBIG:
            raise ResourceError(
                f"{path} is larger than files may be there ({error.strerror})",
                f"{elsewhere}, or choose a smaller result",
            ) from error
        raise OutputError(f"{path} cannot be written ({error.strerror})", elsewhere) from error
