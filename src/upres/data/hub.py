"""Files of data sets on the Hugging Face Hub."""

from dataclasses import dataclass
from pathlib import Path

from upres.errors import WeightsError
from upres.hashing import sha256_of
from upres.progress import BytesProgress
from upres.weights.hub import download


@dataclass(frozen=True)
class HubFile:
    """A file of a data set.

    Attributes:
        repository: owner/name.
        revision: a full commit hash.
        path: inside the repository.
        sha256: of the file, or None where none is published; then the commit alone pins it.
    """

    repository: str
    revision: str
    path: str
    sha256: str | None

    def __str__(self) -> str:
        return f"{self.repository}/{self.path}"


def fetch_file(file: HubFile, remedy: str, progress: BytesProgress | None = None) -> Path:
    """The verified file, downloaded if need be.

    Args:
        remedy: what people can do instead.

    Raises:
        WeightsError: it cannot be had, or is not what was published.
        ResourceError: the disk is full.
    """
    for again in (False, True):
        path = download(
            file.repository,
            file.path,
            file.revision,
            progress=progress,
            again=again,
            kind="dataset",
            offline_remedy=remedy,
            remedy=f"try again later, or {remedy}",
        )
        try:
            actual = sha256_of(path)
        except OSError as error:
            raise WeightsError(
                f"{path} cannot be read ({error.strerror})", "set HF_HOME to another folder"
            ) from error
        if file.sha256 in (None, actual):
            return path
    raise WeightsError(
        f"{file} has SHA-256 {actual[:16]}..., published was {str(file.sha256)[:16]}...",
        remedy,
    )
