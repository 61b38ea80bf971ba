"""Foreign state dicts under our keys and in our value range.

A pickled file is read with ``torch.load(weights_only=True)``, which builds tensors and plain
containers and runs nothing else.
"""

import pickle
import re
import warnings
from pathlib import Path

import torch
from torch import Tensor

from upres.errors import WeightsError

# eugenesiow/super-image's EDSR: the names of EDSR-PyTorch, behind "module." where it was saved
# from DataParallel. Values are 0..1. Its mean shifts are stored but never applied, so they are
# left out, and the manifest says mean = 0.
_SUPER_IMAGE = (
    (r"head\.0\.(weight|bias)", r"head.\1"),
    (r"body\.(\d+)\.body\.0\.(weight|bias)", r"body.\1.conv1.\2"),
    (r"body\.(\d+)\.body\.2\.(weight|bias)", r"body.\1.conv2.\2"),
    (r"body\.\d+\.(weight|bias)", r"body_out.\1"),
    (r"tail\.0\.0\.(weight|bias)", r"up.0.\1"),
    (r"tail\.0\.2\.(weight|bias)", r"up.1.\1"),
    (r"tail\.1\.(weight|bias)", r"tail.\1"),
    (r"(?:sub|add)_mean\.(?:weight|bias)", ""),
)


def super_image_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a verified file of eugenesiow/super-image, under our keys.

    Raises:
        WeightsError: no state dict, or not in this layout.
    """
    return renamed(_read_pickle(path), str(path))


def renamed(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """super-image's keys as ours.

    Raises:
        WeightsError: a key that this layout does not have.
    """
    result = {}
    for key, value in state.items():
        bare = key.removeprefix("module.")
        for pattern, ours in _SUPER_IMAGE:
            if match := re.fullmatch(pattern, bare):
                if ours:
                    result[match.expand(ours)] = value.float()
                break
        else:
            raise WeightsError(f"{where} has a tensor {key!r} that this layout does not know")
    return result


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of storage classes that old files name
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path} is not a file of plain tensors") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} is not a state dict of tensors")
    return state
