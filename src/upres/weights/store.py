"""From an entry of weights.toml to a verified local file, as published.

Bundled files lie in the package. Others are downloaded from the Hugging Face Hub at a pinned
commit into the Hub's own cache (HF_HOME, HF_HUB_CACHE, HF_ENDPOINT and HF_HUB_OFFLINE are
honoured), and no byte of them is used before the whole file's SHA-256 is right. An interrupted
transfer is continued where it stopped while the command runs.
"""

import errno
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from upres.errors import ResourceError, WeightsError
from upres.weights.manifest import WeightsEntry

# Bytes that arrived so far, and bytes in all (0 where the server does not say).
Progress = Callable[[int, int], None]


def home() -> Path:
    """Where converted weights are kept: UPRES_HOME, or the platform's user data folder."""
    if chosen := os.environ.get("UPRES_HOME"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "upres"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "upres"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "upres"


def data_home() -> Path:
    """Where sets of pictures are kept: UPRES_DATA, or a folder in ``home()``."""
    if chosen := os.environ.get("UPRES_DATA"):
        return Path(chosen).expanduser()
    return home() / "data"


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror})") from error


def local_path(entry: WeightsEntry) -> Path | None:
    """Where the file lies on this machine, unverified and without the network, or None."""
    if entry.local is not None:
        return entry.local if entry.local.is_file() else None
    if entry.hub is None:
        path = Path(__file__).resolve().parent / "bundled" / entry.file
        return path if path.is_file() else None
    found = hub().try_to_load_from_cache(
        entry.hub.repository, entry.file, revision=entry.hub.revision
    )
    return Path(found) if isinstance(found, str) else None


def verify(entry: WeightsEntry, path: Path) -> None:
    """Compare with the manifest's SHA-256.

    Raises:
        WeightsError: they differ, or the file cannot be read.
    """
    actual = sha256_of(path)
    if actual != entry.sha256:
        raise WeightsError(
            f"{path} has SHA-256 {actual[:16]}..., weights.toml says {entry.sha256[:16]}...",
            _remedy(entry),
        )


def _remedy(entry: WeightsEntry) -> str:
    if entry.local is not None:
        return "add it again with 'upres models add --overwrite'"
    return "install upres again" if entry.hub is None else f"'upres models pull {entry.name}'"


def fetch(entry: WeightsEntry, progress: Progress | None = None) -> Path:
    """The verified file, downloaded if need be.

    Raises:
        WeightsError: it cannot be had, or what was had is not what was published.
        ResourceError: the disk is full.
    """
    path = local_path(entry)
    if entry.hub is None:
        if path is None:
            raise WeightsError(f"{entry.file} is missing", _remedy(entry))
        verify(entry, path)
        return path
    if path is not None and sha256_of(path) == entry.sha256:
        return path
    # What the cache holds is damaged, if it holds anything: ask for all of it.
    path = _download(entry, progress, again=path is not None)
    verify(entry, path)
    return path


def _download(entry: WeightsEntry, progress: Progress | None, *, again: bool) -> Path:
    library = hub()
    assert entry.hub is not None
    where = f"{entry.hub.repository}/{entry.file}"
    if library.constants.HF_HUB_OFFLINE:
        state = "is damaged in the cache" if again else "is not in the cache"
        raise WeightsError(
            f"{where} {state} and HF_HUB_OFFLINE forbids to download it",
            f"unset it, or run 'upres models pull {entry.name}' where there is a network",
        )
    try:
        return Path(
            library.hf_hub_download(
                entry.hub.repository,
                entry.file,
                revision=entry.hub.revision,
                force_download=again,
                tqdm_class=_progress_class(progress),
            )
        )
    except (OSError, ValueError, RuntimeError, library.errors.HTTPError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise ResourceError(
                f"the disk is full, {where} cannot be stored", "free some, or set HF_HOME"
            ) from error
        cause = error.__cause__ or error
        reason = str(cause).strip().partition("\n")[0].rstrip(":.") or type(cause).__name__
        raise WeightsError(
            f"{where} cannot be downloaded ({reason})",
            "try again later; bundled models need no network",
        ) from error


def hub() -> Any:
    """huggingface_hub, imported when first needed: it takes a seventh of a second."""
    # Neither is part of a download: a daily request about the program, and a second transfer
    # protocol that mirrors rarely speak and that waits minutes where it is blocked.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    import huggingface_hub
    import huggingface_hub.errors
    import huggingface_hub.utils.logging as hub_logging

    set_level: Any = hub_logging.set_verbosity_error
    set_level()
    return huggingface_hub


def _progress_class(progress: Progress | None) -> type[Any]:
    """A bar in the shape that huggingface_hub expects, which only passes numbers on."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.arrived = int(kwargs.get("initial") or 0)
            self.expected = int(kwargs.get("total") or 0)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self.arrived += int(n or 0)
            if progress is not None:
                progress(self.arrived, self.expected)

    return Bar
