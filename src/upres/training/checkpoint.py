"""last.pt: everything a run needs to go on, written beside its place and renamed."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from upres.errors import OutputError, ResourceError, WeightsError, is_disk_full
from upres.files import atomic_write

NAME = "last.pt"
FORMAT = 4


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Replace the folder's checkpoint; until the new one is whole the old one stays.

    Raises:
        ResourceError: the disk is full.
        OutputError: the folder cannot be written.
    """
    path = folder / NAME
    try:
        with atomic_write(path) as part, part.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
    except (OSError, RuntimeError) as error:
        goes_on = "go on with --resume" if path.is_file() else "then begin again"
        # torch's own writer wraps what the file system says.
        if is_disk_full(error) or is_disk_full(error.__context__):
            raise ResourceError(
                f"the disk is full; {_kept(path)}", f"free disk space, and {goes_on}"
            ) from error
        first = str(error).partition("\n")[0]
        raise OutputError(
            f"the checkpoint in {folder} cannot be written ({first}); {_kept(path)}",
            f"when it can, {goes_on}",
        ) from error


def _kept(path: Path) -> str:
    return f"{path} stays as it was" if path.is_file() else "nothing was saved before"


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """The folder's checkpoint; no code in it is ever run.

    Raises:
        WeightsError: there is none, or it cannot be read, is damaged or of another version.
    """
    path = folder / NAME
    if not path.is_file():
        raise WeightsError(f"{folder} holds no {NAME}", "train without --resume to begin there")
    try:
        with zipfile.ZipFile(path) as parts:  # torch does not look at their checksums
            damaged = parts.testzip()
        if damaged is not None:
            raise ValueError(f"its part {damaged}")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror})") from error
    except MemoryError:
        raise
    except Exception as error:
        # Damaged files raise whatever torch stumbles over: IndexError, AttributeError, ...
        first = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path} is damaged ({first})", "begin again in another folder"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise WeightsError(f"{path} is not a checkpoint of this version", "begin in another folder")
    return state
