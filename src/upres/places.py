"""Where upres keeps what it makes and downloads for itself."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from upres.errors import UsageError


def home() -> Path:
    """Converted and added weights, prepared pictures, and ``data_home``: UPRES_HOME, or the
    platform's user data folder.

    Raises:
        UsageError: nobody knows where the user's folders are.
    """
    try:
        if chosen := os.environ.get("UPRES_HOME"):
            return Path(chosen).expanduser()
        return _usual_home()
    except RuntimeError as error:
        raise UsageError(
            f"there is no home folder ({error})", "set UPRES_HOME to a folder"
        ) from error


def _usual_home() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "upres"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "upres"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "upres"


def data_home() -> Path:
    """Sets of pictures: UPRES_DATA, or a folder in ``home()``."""
    if chosen := os.environ.get("UPRES_DATA"):
        with suppress(RuntimeError):  # no such user: a folder whose name begins with ~
            return Path(chosen).expanduser()
        return Path(chosen)
    return home() / "data"
