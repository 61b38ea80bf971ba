"""A teacher that sees whole pictures, once, before the first step."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.pictures import save, silent
from tests.prepared import ready, store_of
from upres.data.patches import Sampler
from upres.errors import ResourceError
from upres.inference.device import Target
from upres.model import build
from upres.training.run import Taught
from upres.training.taught import taught_pictures
from upres.training.validation import enlarge
from upres.weights.facts import ModelFacts

CPU = Target(torch.device("cpu"), torch.float32, "tests")
NETWORKS = {
    "edsr": ("rgb", {"blocks": 1, "channels": 4}),
    "srcnn": ("y", {"widths": (4, 4)}),
}


SIZES = [1.0, 0.7]


@pytest.fixture
def pictures(tmp_path, photo):
    folder = tmp_path / "pictures"
    for i, (height, width) in enumerate([(80, 101), (64, 64), (71, 90)]):
        save(folder / f"{i}.png", photo[20 * i : 20 * i + height, 30 * i : 30 * i + width])
    return folder


def teacher(architecture="edsr", scale=2, seed=0):
    colour, numbers = NETWORKS[architecture]
    facts = ModelFacts.from_mapping(
        {
            "name": "teacher",
            "architecture": architecture,
            "numbers": numbers,
            "scales": [scale],
            "colour": colour,
            "licence": "MIT",
            "trained_by": "tests",
            "trained_on": "nothing",
        }
    )
    torch.manual_seed(seed)
    model = build(facts)
    # What it makes differs from place to place, and is not black or white everywhere.
    for parameter in model.network.parameters():
        parameter.data.mul_(1.5)
    return Taught(model, {"name": "teacher", "sha256": f"{seed:0<64}"})


def made(taught, prepared, scale=2, progress=silent):
    return taught_pictures(taught, prepared, scale, CPU, progress=progress, note=silent)


@pytest.mark.parametrize(("architecture", "scale"), [("edsr", 2), ("edsr", 3), ("srcnn", 2)])
def test_what_it_makes_lies_as_the_pictures_do(pictures, tmp_path, architecture, scale):
    prepared = ready(pictures, tmp_path, scales=[scale], sizes=SIZES)
    taught = teacher(architecture, scale)
    pixels, high, low = made(taught, prepared, scale), prepared.high(), prepared.low(scale)
    assert pixels.shape == high.shape
    assert len(prepared.entries) == 6
    start, values = 0, set()
    for entry in prepared.entries:
        h, w = entry.low(scale)
        part = slice(entry.start, entry.start + entry.pixels)
        got, truth = (one[part].reshape(entry.height, entry.width, 3) for one in (pixels, high))
        seen = np.ascontiguousarray(low[start : start + h * w].reshape(h, w, 3))
        start += h * w
        wanted = enlarge(taught.model, seen, scale, torch.float32)
        covered = got[: h * scale, : w * scale]
        assert np.abs(covered.astype(int) - wanted).max() <= 1
        np.testing.assert_array_equal(got[h * scale :], truth[h * scale :])
        np.testing.assert_array_equal(got[:, w * scale :], truth[:, w * scale :])
        values |= set(covered.ravel().tolist())
    assert len(values) > 50


def test_a_patch_is_a_mean_of_both(pictures, tmp_path):
    prepared = ready(pictures, tmp_path, sizes=SIZES)
    pixels = made(teacher(), prepared)
    law = Sampler(prepared.entries, prepared.detail(), patch=12, scales=[2])
    batch = law.batch(0, 32)
    places = torch.from_numpy(batch.as_array())

    def cut(**options):
        return store_of(prepared, **options).cut(places, 2)

    for colour in ("rgb", "y"):
        low, truth = cut(colour=colour)
        same, its = cut(colour=colour, taught={2: pixels}, share=1.0)
        assert torch.equal(low, same)
        _, both = cut(colour=colour, taught={2: pixels}, share=0.25)
        torch.testing.assert_close(both, 0.75 * truth + 0.25 * its, atol=1e-6, rtol=0)
    _, its = cut(taught={2: pixels}, share=1.0)
    for i in range(32):  # turned or not, these are the pixels of that place
        start, stride = batch.high_start[i], batch.high_stride[i]
        piece = np.stack([pixels[start + r * stride :][:24] for r in range(24)])
        got = (its[i] * 255).round().byte().permute(1, 2, 0).numpy()
        assert sorted(map(tuple, got.reshape(-1, 3))) == sorted(map(tuple, piece.reshape(-1, 3)))


def test_it_goes_on_where_it_was_interrupted(pictures, tmp_path):
    prepared = ready(pictures, tmp_path, sizes=SIZES)
    whole = made(teacher(), prepared).copy()
    (path,) = prepared.folder.glob("taught-*.u8")
    path.unlink()

    def stop(what, done, total):
        assert what == "x2 by teacher"
        if (done, total) == (3, 6):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(teacher(), prepared, progress=stop)
    assert not path.exists()
    (growing,) = prepared.folder.glob("taught-*.growing")
    # Killed in the middle of the third: that one is made again, the first is not.
    third = 3 * prepared.entries[2].start
    kept = bytearray(growing.read_bytes()[: third + 100])
    kept[0] ^= 255
    growing.write_bytes(kept)
    again = made(teacher(), prepared)
    assert again[0, 0] == whole[0, 0] ^ 255
    np.testing.assert_array_equal(again.ravel()[1:], whole.ravel()[1:])
    assert not growing.exists()


def test_what_is_there_is_not_made_again_but_for_other_weights(pictures, tmp_path):
    prepared = ready(pictures, tmp_path, sizes=SIZES)
    first = made(teacher(), prepared)

    def never(what, done, total):
        raise AssertionError(what)

    np.testing.assert_array_equal(made(teacher(), prepared, progress=never), first)
    other = made(teacher(seed=1), prepared)
    assert not np.array_equal(other, first)
    assert len(list(prepared.folder.glob("taught-*.u8"))) == 2


def test_pictures_that_moved_are_enlarged_anew(pictures, tmp_path):
    prepared = ready(pictures, tmp_path, sizes=SIZES)
    first = made(teacher(), prepared)
    fewer = replace(prepared, entries=prepared.entries[:2] + prepared.entries[4:])
    again = made(teacher(), fewer)  # as if the second picture could not be read that day
    assert len(list(prepared.folder.glob("taught-*.u8"))) == 2
    middle = slice(prepared.entries[2].start, prepared.entries[4].start)
    assert not again[middle].any()
    assert first[middle].any()


def test_pictures_decoded_anew_are_enlarged_anew(pictures, tmp_path):
    prepared = ready(pictures, tmp_path, sizes=SIZES)
    made(teacher(), prepared)
    (prepared.folder / "index.json").unlink()
    assert ready(pictures, tmp_path, sizes=SIZES).folder == prepared.folder
    assert not list(prepared.folder.glob("taught-*.u8"))


def test_no_room_is_found_out_before(pictures, tmp_path, monkeypatch):
    prepared = ready(pictures, tmp_path, sizes=SIZES)
    usage = shutil.disk_usage(tmp_path)._replace(free=2**26)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match=r"preparing the pictures takes .*--cache"):
        made(teacher(), prepared)
