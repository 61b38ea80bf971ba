"""Prepared pictures, and patches of them, as tests of training want them."""

import torch

from tests.pictures import silent
from upres.data.folders import find_pictures
from upres.data.gather import gather
from upres.data.prepare import prepare
from upres.training.patches import PatchStore


def ready(folder, tmp_path, **changes):
    """A folder of pictures, prepared in the test's cache."""
    options = {
        "sizes": [1.0],
        "scales": [2],
        "versions": 0,
        "progress": silent,
        "note": silent,
        "threads": 2,
    }
    found = gather([find_pictures(folder)], 0)
    return prepare(found, tmp_path / "cache", **options | changes)


def store_of(prepared, **changes):
    """Where patches are cut, on the CPU."""
    options = {"scales": (2,), "versions": 0, "patch": 12, "colour": "rgb"}
    return PatchStore(prepared, device=torch.device("cpu"), **options | changes)
