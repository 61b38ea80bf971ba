"""From an entry of weights.toml to a verified local file, as published.

Bundled files lie in the package. Others are downloaded from the Hugging Face Hub at a pinned
commit into the Hub's own cache (HF_HOME, HF_HUB_CACHE, HF_ENDPOINT and HF_HUB_OFFLINE are
honoured), and no byte of them is used before the whole file's SHA-256 is right. An interrupted
transfer is continued where it stopped while the command runs.
"""

from contextlib import suppress
from pathlib import Path

from upres import hashing
from upres.errors import WeightsError
from upres.progress import BytesProgress
from upres.weights.hub import download, hub
from upres.weights.manifest import WeightsEntry


def checked_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        return hashing.sha256_of(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror})") from error


def local_path(entry: WeightsEntry) -> Path | None:
    """Where the file lies on this machine, unverified and without the network, or None."""
    if entry.local is not None:
        return entry.local if entry.local.is_file() else None
    if entry.hub is None:
        path = Path(__file__).resolve().parent / "bundled" / entry.file
        return path if path.is_file() else None
    with suppress(WeightsError):  # without the Hub, which says why when something is asked of it
        found = hub().try_to_load_from_cache(
            entry.hub.repository, entry.file, revision=entry.hub.revision
        )
        return Path(found) if isinstance(found, str) else None
    return None


def verify(entry: WeightsEntry, path: Path) -> None:
    """Compare with the manifest's SHA-256.

    Raises:
        WeightsError: they differ, or the file cannot be read.
    """
    actual = checked_sha256(path)
    if actual != entry.sha256:
        raise WeightsError(
            f"{path} has SHA-256 {actual[:16]}..., and not {entry.sha256[:16]}... as published"
            if entry.local is None
            else f"{path} has changed since it was added",
            remedy(entry),
        )


def remedy(entry: WeightsEntry) -> str:
    """What people can do where its file is missing or damaged."""
    if entry.local is not None:
        return "add it again with 'upres models add --overwrite'"
    return "install upres again" if entry.hub is None else f"'upres models pull {entry.name}'"


def fetch(entry: WeightsEntry, progress: BytesProgress | None = None) -> Path:
    """The verified file, downloaded if need be.

    Raises:
        WeightsError: it cannot be had, or what was had is not what was published.
        ResourceError: the disk is full.
    """
    path = local_path(entry)
    if entry.hub is None:
        if path is None:
            raise WeightsError(f"{entry.file} is missing", remedy(entry))
        verify(entry, path)
        return path
    if path is not None and checked_sha256(path) == entry.sha256:
        return path
    # What the cache holds is damaged, if it holds anything: ask for all of it.
    path = download(
        entry.hub.repository,
        entry.file,
        entry.hub.revision,
        progress=progress,
        again=path is not None,
        offline_remedy=f"run 'upres models pull {entry.name}' where there is a network",
        remedy="try again later; bundled models need no network",
    )
    verify(entry, path)
    return path
