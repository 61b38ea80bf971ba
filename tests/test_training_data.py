"""From folders of pictures to patches: layouts, preparing, downloads, the law of patches."""

import errno
import hashlib
import io
import os
import shutil
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import skimage.color
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.hub import Hub
from tests.pictures import save, silent
from tests.prepared import ready, store_of
from upres.data import catalog, download, folders
from upres.data import prepare as prepare_module
from upres.data.catalog import Archive, TrainingSet, fetch_set, training_pictures
from upres.data.detail import detail_map
from upres.data.folders import find_pictures
from upres.data.gather import gather
from upres.data.patches import Sampler
from upres.errors import InputError, OutputError, ResourceError, WeightsError
from upres.imaging.degrade import Degradation, light_photo, through_jpeg
from upres.imaging.metrics import Protocol, psnr
from upres.imaging.resize import imresize
from upres.weights.facts import ModelFacts


@pytest.fixture
def pictures(tmp_path, photo):
    """A folder of five pictures of different sizes, two of them in a folder below."""
    folder = tmp_path / "pictures"
    for i, (height, width) in enumerate([(80, 100), (64, 64), (71, 90), (100, 65), (66, 67)]):
        name = f"{i}.png" if i < 3 else f"below/{i}.png"
        save(folder / name, photo[20 * i : 20 * i + height, 30 * i : 30 * i + width])
    return folder


# Folders


def test_a_tree_of_pictures(pictures):
    (pictures / ".hidden").mkdir()
    shutil.copy(pictures / "0.png", pictures / ".hidden" / "x.png")
    (pictures / "notes.txt").write_text("no picture")
    found = find_pictures(pictures)
    assert [f.name for f in found.train] == [
        "0.png",
        "1.png",
        "2.png",
        "below/3.png",
        "below/4.png",
    ]
    assert found.validation == ()


def test_the_layout_of_div2k(tmp_path, photo):
    high = photo[:64, :64]
    for kind, number in (("train", "0001"), ("valid", "0801")):
        save(tmp_path / f"DIV2K_{kind}_HR" / f"{number}.png", high)
        low = tmp_path / f"DIV2K_{kind}_LR_bicubic" / "X2" / f"{number}x2.png"
        save(low, imresize(high, 1 / 2))
    found = find_pictures(tmp_path)
    assert [f.name for f in found.train] == ["DIV2K_train_HR/0001.png"]
    assert found.train[0].low_at(2).name == "0001x2.png"
    assert found.train[0].low_at(3) is None
    assert [f.name for f in found.validation] == ["DIV2K_valid_HR/0801.png"]


def test_pairs_of_hr_and_lr(tmp_path, photo):
    save(tmp_path / "HR" / "a.png", photo[:66, :66])
    save(tmp_path / "LR_bicubic" / "X3" / "a.png", photo[:22, :22])
    (only,) = find_pictures(tmp_path).train
    assert only.low_at(3).read_bytes() == (tmp_path / "LR_bicubic/X3/a.png").read_bytes()


def test_sets_lie_where_they_lie(tmp_path, photo):
    """Several in one folder, in their own names and in any case, beside pictures of one's own."""
    high, low = photo[:64, :64], imresize(photo[:64, :64], 1 / 2)
    for root in ("sets/Flickr2K/Flickr2K", "sets/DIV2K/DIV2K_train", "sets/DIV2K/DIV2K_valid"):
        save(tmp_path / f"{root}_HR" / "1.png", high)
        save(tmp_path / f"{root}_LR_bicubic" / "x2" / "1x2.png", low)
        save(tmp_path / f"{root}_LR_unknown" / "X2" / "1x2.png", low)
    save(tmp_path / "sets/mine/LR/a.png", high)  # a program is called that, too
    save(tmp_path / "sets/old/LR/X4/a.png", low)
    found = find_pictures(tmp_path / "sets")
    assert {f.name: f.low_at(2) is not None for f in found.train} == {
        "DIV2K/DIV2K_train_HR/1.png": True,
        "Flickr2K/Flickr2K_HR/1.png": True,
        "mine/LR/a.png": False,
    }
    assert [f.name for f in found.validation] == ["DIV2K/DIV2K_valid_HR/1.png"]
    assert found.strangers == ()
    unknown = ("DIV2K/DIV2K_train", "DIV2K/DIV2K_valid", "Flickr2K/Flickr2K")
    places = [tmp_path / "sets" / f"{root}_LR_unknown" for root in unknown]
    places.append(tmp_path / "sets/old/LR")
    assert found.notes == tuple(f"low-resolution pictures in {p} are not used" for p in places)


def test_what_lies_beside_a_set_is_said(tmp_path, photo):
    for name in ("HR/a.png", "b.png", "other/c.png", "other/more/d.png", "LR_mild/X2/a.png"):
        save(tmp_path / name, photo[:64, :64])
    found = find_pictures(tmp_path)
    assert [f.name for f in found.train] == ["HR/a.png"]
    assert found.notes == (
        f"3 pictures beside {tmp_path / 'HR'} are not used",
        f"low-resolution pictures in {tmp_path / 'LR_mild'} are not used",
    )


def test_low_resolution_pictures_of_ones_own(tmp_path, photo):
    save(tmp_path / "HR" / "a.png", photo[:64, :64])
    save(tmp_path / "LR" / "X2" / "a.png", photo[:32, :32])
    found = find_pictures(tmp_path)
    assert found.train[0].low_at(2) == tmp_path / "LR/X2/a.png"
    assert found.notes == ()
    save(tmp_path / "LR_bicubic" / "a.png", photo[:32, :32])  # of which scale?
    assert find_pictures(tmp_path).notes == (
        f"low-resolution pictures in {tmp_path / 'LR_bicubic'} are not used",
    )


def test_beside_train_a_folder_may_be_for_validation(tmp_path, photo):
    for name in (
        "train/HR/a.png",
        "train/b/b.png",
        "Test/HR/c.png",
        "val/d.png",
        "more/test/e.png",
    ):
        save(tmp_path / "both" / name, photo[:64, :64])
    found = find_pictures(tmp_path / "both")
    # Beside HR there is nothing else; alone, "test" is a name like any other.
    assert [f.name for f in found.train] == ["more/test/e.png", "train/HR/a.png"]
    assert [f.name for f in found.validation] == ["Test/HR/c.png", "val/d.png"]
    save(tmp_path / "one" / "test" / "a.png", photo[:64, :64])
    assert len(find_pictures(tmp_path / "one").train) == 1
    for name in ("HR/train/a.png", "HR/val/b.png", "HR/test.png", "LR/X2/val/b.png"):
        save(tmp_path / "below" / name, photo[:64, :64])
    found = find_pictures(tmp_path / "below")
    assert [f.name for f in found.train] == ["HR/test.png", "HR/train/a.png"]
    assert [f.low_at(2) for f in found.validation] == [tmp_path / "below/LR/X2/val/b.png"]


@pytest.mark.parametrize("name", ["Set5/HR/a.png", "Urban100_HR/a.png", "benchmark/B100/a.png"])
def test_test_sets_are_not_trained_on_by_chance(tmp_path, photo, name):
    save(tmp_path / "mine.png", photo[:64, :64])
    test = save(tmp_path / name, photo[:64, :64])
    found = find_pictures(tmp_path)
    assert [f.name for f in found.train] == ["mine.png"]
    (note,) = found.notes
    assert "has the name of a test set and is not used" in note
    assert len(find_pictures(test.parent).train) == 1  # whoever says so
    (tmp_path / "mine.png").unlink()
    with pytest.raises(InputError, match=r"holds no pictures; .* has the name of a test set"):
        find_pictures(tmp_path)


def test_links_are_followed_once(tmp_path, photo):
    save(tmp_path / "disk" / "DIV2K_train_HR" / "0001.png", photo[:64, :64])
    save(tmp_path / "sets" / "DIV2K_valid_HR" / "0801.png", photo[:64, 64:128])
    (tmp_path / "sets" / "DIV2K_train_HR").symlink_to(tmp_path / "disk" / "DIV2K_train_HR")
    (tmp_path / "disk" / "DIV2K_train_HR" / "round").symlink_to(tmp_path / "sets")
    (tmp_path / "disk" / "DIV2K_train_HR" / "again").symlink_to(tmp_path / "disk")
    found = find_pictures(tmp_path / "sets")
    assert found.train[0].name == "DIV2K_train_HR/0001.png"
    assert {f.path.name for f in found.train} == {"0001.png"}
    assert [f.name for f in found.validation] == ["DIV2K_valid_HR/0801.png"]


def test_links_that_lead_nowhere_are_passed_over(tmp_path, photo):
    save(tmp_path / "a.png", photo[:64, :64])
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    assert [f.name for f in find_pictures(tmp_path).train] == ["a.png"]


def test_sets_may_share_what_they_link_to(tmp_path, photo):
    for name in ("a", "b"):
        save(tmp_path / "sets" / name / "HR" / "1.png", photo[:64, :64])
        (tmp_path / "sets" / name / "LR").symlink_to(tmp_path / "low")
    save(tmp_path / "low" / "X2" / "1.png", photo[:32, :32])
    assert all(f.low_at(2) for f in find_pictures(tmp_path / "sets").train)


def test_of_many_validation_pictures_a_hundred_are_measured(tmp_path, photo):
    save(tmp_path / "train" / "a.png", photo[:64, :64])
    for i in range(103):
        save(tmp_path / "val" / f"{i}.png", photo[i : i + 8, :8])
    found = gather([find_pictures(tmp_path)], 12)
    assert (len(found.train), len(found.validation), found.unmeasured) == (1, 100, 3)


def test_pictures_that_are_all_for_validation_too_are_said(tmp_path, photo):
    for folder in ("train", "val"):
        save(tmp_path / folder / "a.png", photo[:64, :64])
    with pytest.raises(InputError, match="every picture to train on is a validation picture too"):
        gather([find_pictures(tmp_path)], 12)


def test_validation_pictures_alone_are_trained_on(tmp_path, photo):
    save(tmp_path / "DIV2K_valid_HR" / "0801.png", photo[:64, :64])
    found = find_pictures(tmp_path)
    assert [f.name for f in found.train] == ["DIV2K_valid_HR/0801.png"]
    assert found.validation == ()


def test_folders_that_cannot_be_looked_into_are_said(pictures, monkeypatch):
    scandir = os.scandir

    def closed(folder):
        if Path(folder).name == "below":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(folders.os, "scandir", closed)
    found = find_pictures(pictures)
    assert len(found.train) == 3
    assert found.notes == (f"{pictures / 'below'} cannot be read (Permission denied)",)


def test_pictures_of_one_name_in_two_folders_keep_their_own_partners(tmp_path, photo):
    for folder, left in (("a", 0), ("b", 100)):
        high = photo[:64, left : left + 64]
        save(tmp_path / "HR" / folder / "0001.png", high)
        save(tmp_path / "LR_bicubic" / "X2" / folder / "0001x2.png", imresize(high, 1 / 2))
    save(tmp_path / "HR" / "box2.png", photo[:64, :64])
    save(tmp_path / "LR_bicubic" / "X2" / "box2.png", photo[:32, :32])
    found = {f.name: f.low_at(2) for f in find_pictures(tmp_path).train}
    assert {name: path.relative_to(tmp_path / "LR_bicubic/X2") for name, path in found.items()} == {
        "HR/a/0001.png": Path("a/0001x2.png"),
        "HR/b/0001.png": Path("b/0001x2.png"),
        "HR/box2.png": Path("box2.png"),
    }


def test_float_pictures_are_named_and_skipped(pictures, tmp_path):
    import tifffile

    tifffile.imwrite(pictures / "f.tif", np.ones((64, 64, 3), np.float32) / 2, photometric="rgb")
    prepared = ready(pictures, tmp_path)
    assert any("float32 pixels have no 8-bit values" in why for why in prepared.skipped)
    assert len({e.sha256 for e in prepared.entries}) == 5


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("")])
def test_no_pictures(tmp_path, make):
    make(tmp_path / "empty")
    with pytest.raises(InputError, match="empty"):
        find_pictures(tmp_path / "empty")


# Preparing


@pytest.mark.parametrize("damage", ["empty", "cut", "gone"])
def test_what_is_left_of_a_prepared_folder_is_made_anew(pictures, tmp_path, damage):
    first = ready(pictures, tmp_path)
    wanted = {p.name: p.read_bytes() for p in first.folder.iterdir()}
    if damage == "empty":
        (first.folder / "index.json").write_text("")
    elif damage == "cut":
        (first.folder / "high.u8").write_bytes(b"")
        (first.folder / "low-x2-bicubic.u8").write_bytes(b"")
    else:
        (first.folder / "detail.f32").unlink()
    again = ready(pictures, tmp_path)
    assert again.entries == first.entries
    assert {p.name: p.read_bytes() for p in again.folder.iterdir()} == wanted


def test_prepared_pixels_are_the_pictures_and_matlabs_resize(pictures, tmp_path):
    prepared = ready(pictures, tmp_path, scales=[2, 3])
    by_hash = {
        hashlib.sha256(p.read_bytes()).hexdigest(): np.asarray(Image.open(p))
        for p in pictures.rglob("*.png")
    }
    starts = {2: 0, 3: 0}
    for entry in prepared.entries:
        truth = by_hash[entry.sha256]
        high = prepared.high()[entry.start : entry.start + entry.pixels]
        assert np.array_equal(high.reshape(truth.shape), truth)
        for scale in (2, 3):
            h, w = entry.low(scale)
            low = prepared.low(scale)[starts[scale] : starts[scale] + h * w]
            starts[scale] += h * w
            expected = imresize(truth[: h * scale, : w * scale], 1 / scale)
            assert np.array_equal(low.reshape(h, w, 3), expected)


def test_gray_alpha_and_16_bits_become_rgb(tmp_path, photo):
    folder = tmp_path / "odd"
    gray = photo[:40, :40, 0]
    save(folder / "gray.png", gray)
    save(folder / "rgba.png", np.dstack([photo[:40, :40], gray]))
    save(folder / "deep.png", gray.astype(np.uint16) * 257)
    prepared = ready(folder, tmp_path)
    # The three have one size; two of them are the same gray.
    planes = {bytes(prepared.high()[e.start : e.start + e.pixels]) for e in prepared.entries}
    assert planes == {np.repeat(gray[..., None], 3, 2).tobytes(), photo[:40, :40].tobytes()}


def test_prepared_files_are_used_again(pictures, tmp_path):
    told = []
    ready(pictures, tmp_path, progress=lambda *a: told.append(a[0]))
    assert {"decoding", "shrinking to 1/2"} <= set(told)
    told.clear()
    ready(pictures, tmp_path, progress=lambda *a: told.append(a[0]))
    assert told == []
    ready(pictures, tmp_path, scales=[3], progress=lambda *a: told.append(a[0]))
    assert set(told) == {"shrinking to 1/3"}


def test_smaller_sizes_are_pictures_of_their_own(pictures, tmp_path):
    prepared = ready(pictures, tmp_path, sizes=[1.0, 0.5])
    sizes = {(e.height, e.width) for e in prepared.entries}
    assert {(80, 100), (40, 50)} <= sizes
    assert len(prepared.entries) == 10


def test_low_resolution_files_are_taken_as_they_are(tmp_path, photo):
    low = photo[100:132, 100:132]  # not what shrinking would give
    save(tmp_path / "d/HR/a.png", photo[:64, :64])
    save(tmp_path / "d/LR_bicubic/X2/a.png", low)
    prepared = ready(tmp_path / "d", tmp_path)
    assert prepared.low(2).tobytes() == low.tobytes()


def test_low_resolution_files_that_came_later_or_changed_are_taken(tmp_path, photo):
    save(tmp_path / "d/HR/a.png", photo[:64, :64])
    made = ready(tmp_path / "d", tmp_path).low(2).tobytes()
    for first in (100, 200):
        low = photo[first : first + 32, 100:132]
        save(tmp_path / "d/LR_bicubic/X2/a.png", low)
        assert ready(tmp_path / "d", tmp_path).low(2).tobytes() == low.tobytes()
    shutil.rmtree(tmp_path / "d/LR_bicubic")
    assert ready(tmp_path / "d", tmp_path).low(2).tobytes() == made


def test_low_resolution_files_that_do_not_fit_are_an_error(tmp_path, photo):
    save(tmp_path / "d/HR/a.png", photo[:64, :64])
    save(tmp_path / "d/LR_bicubic/X2/a.png", photo[:31, :32])
    with pytest.raises(InputError, match=r"32 x 31 pixels.*needs 32 x 32 at x2"):
        ready(tmp_path / "d", tmp_path)
    assert not list((tmp_path / "cache").rglob("low*"))


@pytest.mark.parametrize("closed", [False, True])
def test_low_resolution_files_that_cannot_be_read_are_made(tmp_path, photo, monkeypatch, closed):
    for name in "ab":
        high = photo[:64, :64] if name == "a" else photo[64:128, :64]
        save(tmp_path / "d/HR" / f"{name}.png", high)
        save(tmp_path / "d/LR_bicubic/X2" / f"{name}.png", 255 - imresize(high, 1 / 2))
    bad = tmp_path / "d/LR_bicubic/X2/a.png"
    if closed:
        real = prepare_module.sha256_of

        def refused(path):
            if path == bad:
                raise PermissionError(errno.EACCES, "Permission denied")
            return real(path)

        monkeypatch.setattr(prepare_module, "sha256_of", refused)
    else:
        bad.write_bytes(bad.read_bytes()[:100])
    prepared = ready(tmp_path / "d", tmp_path)
    (why,) = prepared.skipped
    assert why.startswith("a.png (")
    assert why.endswith("), made from its picture")
    assert imresize(photo[:64, :64], 1 / 2).tobytes() in prepared.low(2).tobytes()
    assert (255 - imresize(photo[64:128, :64], 1 / 2)).tobytes() in prepared.low(2).tobytes()


def test_pictures_that_take_little_of_16_bits_are_named(pictures, tmp_path, photo):
    deep = photo[:64, :64, 0].astype(np.uint16)
    for name, factor in (("dark", 16), ("whole", 257)):  # 12 bits in 16, and 16
        Image.fromarray(deep * factor).save(pictures / f"{name}.png")
    prepared = ready(pictures, tmp_path)
    (why,) = prepared.skipped
    assert why.startswith("dark.png (")
    assert f"goes up to {deep.max() * 16} of 65535 only" in why


def test_what_a_killed_run_left_is_removed(pictures, tmp_path):
    folder = ready(pictures, tmp_path).folder
    for name in (".upres-0a.part", ".upres-0b.part"):
        (folder / name).write_bytes(b"half")
    ready(pictures, tmp_path)
    assert not list(folder.glob("*.part"))


def test_two_runs_prepare_one_after_the_other(pictures, tmp_path):
    folder = ready(pictures, tmp_path).folder
    said = []
    with ThreadPoolExecutor(1) as other, FileLock(folder / ".lock"):
        tell = {"note": said.append}
        made = other.submit(ready, pictures, tmp_path, scales=[3], **tell)
        until = time.monotonic() + 30
        while not said and time.monotonic() < until:
            time.sleep(0.01)
        assert said == ["waiting for another run that prepares these pictures"]
        assert not made.done()
    assert made.result().low(3).size


def test_few_pictures_at_once_where_memory_is_short(pictures, tmp_path, monkeypatch):
    most = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers):
            most.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(prepare_module, "ThreadPoolExecutor", Pool)
    ready(pictures, tmp_path, threads=16)
    assert set(most) == {16}
    most.clear()
    monkeypatch.setattr(prepare_module, "free_main_memory", lambda: 80 * 80 * 100 * 5)
    ready(pictures, tmp_path / "b", threads=16)
    assert set(most) == {2}


def test_pictures_are_decoded_anew_once_they_can_be(pictures, tmp_path, monkeypatch):
    made = np.random.default_rng(0).integers(0, 256, (70, 80, 3), np.uint8)
    heif = pillow_heif.from_bytes("RGB", (80, 70), made.tobytes())
    heif.save(pictures / "phone.heic", quality=-1, chroma=444, matrix_coefficients=0)
    with monkeypatch.context() as hidden:
        hidden.setattr("upres.imaging.heic.available", lambda: False)
        prepared = ready(pictures, tmp_path)
        assert len(prepared.entries) == 5
        assert "needs pillow-heif" in prepared.skipped[0]
    prepared = ready(pictures, tmp_path)
    assert len(prepared.entries) == 6
    assert prepared.skipped == ()


def test_damaged_pictures_are_skipped_and_named(pictures, tmp_path):
    (pictures / "no.png").write_bytes(b"not a picture")
    whole = (pictures / "2.png").read_bytes()
    (pictures / "half.png").write_bytes(whole[: len(whole) // 2])
    prepared = ready(pictures, tmp_path)
    assert len(prepared.entries) == 5
    assert sorted(s.partition(" ")[0] for s in prepared.skipped) == ["half.png", "no.png"]
    assert ready(pictures, tmp_path).skipped == prepared.skipped  # also the second time


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (InputError("0.png cannot be read"), OSError(errno.EIO, "Input/output error")),
        (ResourceError("0.png takes 9 GB", "close others"), None),
    ],
)
def test_what_may_be_read_another_time_is_tried_again(
    pictures, tmp_path, monkeypatch, error, cause
):
    read, failing = prepare_module.read_full_range, [error]

    def once(path):
        if failing and path.name == "0.png":
            raise failing.pop() from cause
        return read(path)

    monkeypatch.setattr(prepare_module, "read_full_range", once)
    (why,) = ready(pictures, tmp_path).skipped
    assert why.startswith("0.png (")
    # Other processes of the same run find what the first one had.
    assert ready(pictures, tmp_path).skipped == (why,)
    # While it is as it was, nothing is decoded anew.
    failing += [error, error]
    (index,) = tmp_path.glob("cache/*/index.json")
    made = index.stat().st_mtime_ns
    assert ready(pictures, tmp_path, retry=True).skipped == (why,)
    assert index.stat().st_mtime_ns == made
    failing.clear()
    assert not ready(pictures, tmp_path, retry=True).skipped


def test_nothing_stands_in_for_what_may_be_read_another_time(tmp_path, photo, monkeypatch):
    save(tmp_path / "set" / "HR" / "a.png", photo[:64, :64])
    save(tmp_path / "set" / "LR" / "X2" / "a.png", photo[:32, :32])
    read, failing = prepare_module.read_rgb, [InputError("a.png cannot be read")]

    def once(path):
        if failing:
            raise failing.pop() from OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(prepare_module, "read_rgb", once)
    with pytest.raises(InputError, match=r"a\.png cannot be read"):
        ready(tmp_path / "set", tmp_path)
    (entry,) = (prepared := ready(tmp_path / "set", tmp_path)).entries
    assert np.array_equal(prepared.low(2)[: 32 * 32], photo[:32, :32].reshape(-1, 3))
    assert entry.low(2) == (32, 32)


def test_pictures_that_are_not_what_their_header_says_are_skipped(pictures, tmp_path, monkeypatch):
    look = prepare_module.read_size
    turned = {"1.png"}
    monkeypatch.setattr(
        prepare_module, "read_size", lambda path: (7, 9) if path.name in turned else look(path)
    )
    assert ready(pictures, tmp_path).skipped == (
        "1.png (it has another size than its header says)",
    )


def test_only_damaged_pictures_is_an_error(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/no.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"none of the pictures can be read: no\.png"):
        ready(tmp_path / "d", tmp_path)


def test_a_disk_without_room_is_found_out_before(pictures, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match=r"takes 0\.0 GB.*--cache"):
        ready(pictures, tmp_path)


def test_held_out_pictures_depend_on_their_content_alone(tmp_path, photo):
    folder = tmp_path / "many"
    for i in range(30):
        save(folder / f"{i}.png", photo[i : i + 16, i : i + 16])
    found = gather([find_pictures(folder)], 12)
    assert len(found.validation) == 3  # a tenth
    assert len(found.train) == 27
    chosen = {f.path.read_bytes() for f in found.validation}
    for path in sorted(folder.iterdir()):
        path.rename(folder / f"renamed-{path.name}")
    shutil.copy(folder / "renamed-0.png", folder / "double.png")
    again = gather([find_pictures(folder)], 12)
    assert {f.path.read_bytes() for f in again.validation} == chosen
    assert len(again.train) == 27
    assert again.fingerprint == found.fingerprint


def test_detail_is_where_the_gradients_are(photo):
    pixels = np.full((96, 192, 3), 128, np.uint8)
    pixels[:, 96:] = photo[100:196, 100:196]
    detail = detail_map(pixels)
    assert detail.shape == (6, 12)
    assert detail[:, :3].max() == 0
    assert detail[:, 9:].min() > 1


def test_detail_is_the_same_however_it_is_cut(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (150, 70, 3), np.uint8)
    at_once = detail_map(pixels)
    monkeypatch.setattr("upres.data.detail._BAND", 32)
    np.testing.assert_array_equal(detail_map(pixels), at_once)


# Patches


def sampler(prepared, **changes):
    options = {"patch": 16, "scales": [2], "seed": 3}
    return Sampler(prepared.entries, prepared.detail(), **options | changes)


def test_a_step_is_a_pure_function_of_seed_and_step(pictures, tmp_path):
    prepared = ready(pictures, tmp_path)
    one, other = sampler(prepared), sampler(prepared)
    assert np.array_equal(one.batch(7, 8).as_array(), other.batch(7, 8).as_array())
    assert not np.array_equal(one.batch(7, 8).as_array(), one.batch(8, 8).as_array())
    other = sampler(prepared, seed=4)
    assert not np.array_equal(one.batch(7, 8).as_array(), other.batch(7, 8).as_array())


def test_every_scale_and_every_turn_has_its_turn(pictures, tmp_path):
    prepared = ready(pictures, tmp_path, scales=[2, 3])
    batches = [sampler(prepared, scales=[2, 3]).batch(step, 8) for step in range(50)]
    assert 10 < sum(batch.scale == 3 for batch in batches) < 40
    assert {int(turn) for batch in batches for turn in batch.turn} == set(range(8))
    straight = sampler(prepared, augment=False)
    assert {int(turn) for step in range(50) for turn in straight.batch(step, 8).turn} == {0}


def test_shares_make_up_the_batch(pictures, tmp_path):
    law = sampler(ready(pictures, tmp_path), focus=0.5)
    shares = [law.batch(5, 8, slice(i, i + 4)).as_array() for i in (0, 4)]
    assert np.array_equal(np.concatenate(shares, 1), law.batch(5, 8).as_array())


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_patches_are_the_pictures_turned_alike(pictures, tmp_path, scale):
    """High-resolution patches shrink to their low-resolution partners, away from the border."""
    prepared = ready(pictures, tmp_path, scales=[scale])
    patch = 14
    law = sampler(prepared, patch=patch, scales=[scale])
    store = store_of(prepared, scales=(scale,), patch=patch)
    turns = set()
    for step in range(4):
        batch = law.batch(step, 16)
        turns |= set(batch.turn.tolist())
        low, high = store.cut(torch.from_numpy(batch.as_array()), scale)
        assert low.shape == (16, 3, patch, patch)
        assert high.shape == (16, 3, scale * patch, scale * patch)
        assert low.is_contiguous(memory_format=torch.channels_last)
        for one, truth in zip(low, high, strict=True):
            pixels = (truth * 255).round().byte().permute(1, 2, 0).numpy()
            shrunk = imresize(pixels, 1 / scale)[3:-3, 3:-3].astype(int)
            given = (one * 255).round().byte().permute(1, 2, 0).numpy()[3:-3, 3:-3].astype(int)
            assert np.abs(shrunk - given).max() <= 1  # rounding in the other order, when turned
    assert turns == set(range(8))


def test_patches_of_luma_are_what_evaluation_takes_for_it(pictures, tmp_path):
    prepared = ready(pictures, tmp_path, scales=[2])
    batch = torch.from_numpy(sampler(prepared, scales=[2]).batch(0, 8).as_array())
    stores = {colour: store_of(prepared, colour=colour) for colour in ("rgb", "y")}
    for rgb, luma in zip(*(stores[colour].cut(batch, 2) for colour in ("rgb", "y")), strict=True):
        assert luma.shape == (8, 1, *rgb.shape[2:])
        for one, other in zip(rgb, luma, strict=True):
            expected = skimage.color.rgb2ycbcr(one.permute(1, 2, 0).numpy())[..., 0] / 255
            np.testing.assert_allclose(other[0].numpy(), expected, atol=1e-5)


@given(patch=st.integers(8, 16), step=st.integers(0, 10**9), scale=st.sampled_from([2, 3, 4]))
def test_patches_lie_within_their_pictures(tmp_path_factory, photo, patch, step, scale):
    folder = tmp_path_factory.mktemp("inside")
    sides = [(64, 97), (71, 66)]
    for i, (h, w) in enumerate(sides):
        save(folder / f"d/{i}.png", photo[i : i + h, i : i + w])
    prepared = ready(folder / "d", folder, scales=[scale])
    law = sampler(prepared, patch=patch, scales=[scale], focus=0.5)
    batch = law.batch(step, 64)
    spans = [(e.start, e.start + e.pixels, e.width) for e in prepared.entries]
    for start, stride in zip(batch.high_start, batch.high_stride, strict=True):
        first, end, width = next(s for s in spans if s[0] <= start < s[1])
        assert stride == width
        assert (start - first) % width + scale * patch <= width
        assert start + (scale * patch - 1) * width + scale * patch <= end


def test_focus_prefers_detail(tmp_path, photo):
    pixels = np.full((256, 256, 3), 128, np.uint8)
    pixels[:, 128:] = photo[:256, 100:228]
    save(tmp_path / "d/half.png", pixels)
    prepared = ready(tmp_path / "d", tmp_path)

    def right(focus):
        batch = sampler(prepared, focus=focus).batch(0, 2000)
        return float(np.mean(batch.high_start % 256 + 16 > 128))

    assert 0.4 < right(0.0) < 0.6
    assert right(1.0) > 0.8


def test_pictures_smaller_than_a_patch_are_left_out(pictures, tmp_path):
    prepared = ready(pictures, tmp_path)
    law = sampler(prepared, patch=36)  # 72 pixels: none but the first are as high and as wide
    (large,) = [e for e in prepared.entries if min(e.low(2)) >= 36]
    starts = law.batch(0, 50).high_start
    assert ((starts >= large.start) & (starts < large.start + large.pixels)).all()
    with pytest.raises(InputError, match="no picture is as large as a patch: 200 x 200"):
        sampler(prepared, patch=100)


# Degradation


def test_degraded_versions_are_mixed_with_clean_ones(pictures, tmp_path):
    prepared = ready(pictures, tmp_path, versions=2)
    store = store_of(prepared, versions=2, patch=16)
    law = sampler(prepared, versions=2, clean=0.4)
    batch = law.batch(0, 400)
    assert 0.5 < batch.degraded.mean() < 0.7
    low, _ = store.cut(torch.from_numpy(batch.as_array()), 2)
    files = (prepared.low(2), prepared.degraded(2, 2))
    clean, degraded = (np.flatnonzero(batch.degraded == kind)[:20] for kind in (0, 1))
    for i in (*clean, *degraded):
        whole = files[batch.degraded[i]]
        start, stride = batch.low_start[i], batch.low_stride[i]
        piece = np.stack([whole[start + r * stride :][:16] for r in range(16)])
        got = (low[i] * 255).round().byte().permute(1, 2, 0).numpy()
        assert sorted(map(tuple, got.reshape(-1, 3))) == sorted(map(tuple, piece.reshape(-1, 3)))


def test_degraded_versions_do_not_depend_on_the_other_pictures(pictures, tmp_path, photo):
    first = ready(pictures, tmp_path, versions=2)
    save(pictures / "more.png", photo[:50, :50])
    second = ready(pictures, tmp_path, versions=2)

    def versions(prepared):
        start, found = 0, {}
        for entry in prepared.entries:
            h, w = entry.low(2)
            found[entry.sha256] = prepared.degraded(2, 2)[start : start + 2 * h * w].tobytes()
            start += 2 * h * w
        return found

    assert versions(first).items() <= versions(second).items()


def test_a_degradation_does_what_it_says(photo):
    random = np.random.default_rng(0)
    clean = Degradation().apply(photo[:, :450], 2, random)
    assert np.array_equal(clean, imresize(photo[:, :450], 1 / 2))
    noisy = Degradation(noise=5).apply(photo[:, :450], 2, random)
    assert np.std(noisy.astype(float) - clean) == pytest.approx(5, rel=0.1)
    grain = Degradation(noise=5, gray_noise=True).apply(photo[:, :450], 2, random)
    middle = (clean > 30).all(-1) & (clean < 220).all(-1)
    difference = (grain.astype(float) - clean)[middle]
    assert np.ptp(difference, axis=-1).max() == 0
    protocol = Protocol("rgb", 0)
    losses = [psnr(clean, through_jpeg(clean, q), protocol) for q in (50, 75, 95)]
    assert losses == sorted(losses)
    blurred = Degradation(blur=0.5).apply(photo[:, :450], 2, random)
    assert (
        np.abs(np.diff(blurred.astype(int), axis=1)).mean()
        < np.abs(np.diff(clean.astype(int), axis=1)).mean()
    )


def test_the_light_photo_degradation_is_light(photo):
    random = np.random.default_rng(1)
    drawn = [light_photo(random) for _ in range(500)]
    assert 0.4 < max(d.blur for d in drawn) <= 0.5
    assert 5 < max(d.noise for d in drawn) <= 6
    qualities = [d.quality for d in drawn if d.quality is not None]
    assert 50 <= min(qualities) < 55
    assert 90 < max(qualities) <= 95
    for degradation in drawn[:5]:
        assert degradation.apply(photo[:300, :300], 4, random).shape == (75, 75, 3)


# Downloads


def zipped(folder, files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{folder}/{name}", content)
    return data.getvalue()


def png(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def archives(photo):
    """Two small archives in DIV2K's layout."""
    return {
        "/DIV2K_train_HR.zip": zipped(
            "DIV2K_train_HR", {f"{i:04}.png": png(photo[i : i + 90, :120]) for i in (1, 2, 3)}
        ),
        "/DIV2K_valid_HR.zip": zipped("DIV2K_valid_HR", {"0801.png": png(photo[:90, 200:320])}),
    }


def known(hub, archives, **wrong):
    return TrainingSet(
        "DIV2K",
        tuple(
            Archive(
                hub.url + path,
                wrong.get("size", len(data)),
                wrong.get("sha256", hashlib.sha256(data).hexdigest()),
                path[1:-4],
            )
            for path, data in archives.items()
        ),
        "for academic research only",
        "DIV2K is for academic research only",
    )


def test_a_set_is_downloaded_verified_unpacked_and_found(archives, tmp_path, monkeypatch):
    notes, moved = [], []
    with Hub(archives) as hub:
        monkeypatch.setattr(catalog, "TRAINING_SETS", {"DIV2K": known(hub, archives)})

        def told(text):
            notes.append((text, len(hub.log)))

        name, found = training_pictures(
            "div2k", tmp_path, note=told, progress=lambda *a: moved.append(a)
        )
        assert name == "DIV2K"
        assert [f.path.name for f in found.train] == ["0001.png", "0002.png", "0003.png"]
        assert [f.path.name for f in found.validation] == ["0801.png"]
        assert notes[0] == ("DIV2K is for academic research only", 0)  # before the first byte
        size = len(archives["/DIV2K_train_HR.zip"])
        assert ("downloading DIV2K_train_HR.zip", size, size) in moved
        assert moved[-1][0] == "unpacking DIV2K_valid_HR"
        assert moved[-1][1] == moved[-1][2] > 10_000
        requests = len(hub.log)
        training_pictures("DIV2K", tmp_path, note=told, progress=silent)
        assert len(hub.log) == requests
    assert sorted(p.name for p in (tmp_path / "DIV2K").iterdir()) == [
        "DIV2K_train_HR",
        "DIV2K_valid_HR",
    ]


def test_room_for_all_of_a_set_is_looked_for_before_its_first_byte(archives, tmp_path, monkeypatch):
    sizes = [len(archives[f"/DIV2K_{kind}_HR.zip"]) for kind in ("train", "valid")]
    needed = max(2 * sizes[0], sizes[0] + 2 * sizes[1])
    usage = shutil.disk_usage(tmp_path)
    with Hub(archives) as hub:
        monkeypatch.setattr(catalog, "TRAINING_SETS", {"DIV2K": known(hub, archives)})
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
        with pytest.raises(ResourceError, match=r"DIV2K takes 0\.00 GB more until it is unpacked"):
            training_pictures("DIV2K", tmp_path, note=silent, progress=silent)
        assert not hub.log
        # What has arrived needs no room any more.
        (tmp_path / "DIV2K" / "DIV2K_train_HR.zip.part").write_bytes(b"PK")
        catalog._check_room(known(hub, archives).archives, tmp_path / "DIV2K")


@pytest.fixture
def large():
    return np.random.default_rng(0).bytes(5_000_000)


def get(hub, data, folder, **changes):
    options = {
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "progress": silent,
        "pause": 0.0,
    }
    return download.download(f"{hub.url}/big.zip", folder, **options | changes)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_is_cut_goes_on(large, tmp_path, ranges):
    with Hub({"/big.zip": large}) as hub:
        hub.cut_at, hub.cuts, hub.ranges = 2_000_000, 2, ranges
        path = get(hub, large, tmp_path)
        assert path.read_bytes() == large
        ranged = [r for _, _, r in hub.log if r]
        assert ranged[0] == "bytes=2000000-"
    assert [p.name for p in tmp_path.iterdir()] == ["big.zip"]


def test_a_download_goes_on_in_another_process(large, tmp_path):
    (tmp_path / "big.zip.part").write_bytes(large[:3_000_000])
    with Hub({"/big.zip": large}) as hub:
        assert get(hub, large, tmp_path).read_bytes() == large
        assert [r for _, _, r in hub.log] == ["bytes=3000000-"]


def test_a_download_that_brings_nothing_gives_up_and_keeps_what_there_is(large, tmp_path):
    with Hub({"/big.zip": large}) as hub:
        hub.cut_at, hub.cuts = 1_000_000, 1
        hub_status = hub._answer

        def then_fail(handler):
            hub.status = 503 if hub.cuts == 0 else None
            hub_status(handler)

        hub._answer = then_fail
        with pytest.raises(WeightsError, match=r"HTTP 503\); 1 MB are kept"):
            get(hub, large, tmp_path)
    assert (tmp_path / "big.zip.part").stat().st_size == 1_000_000


def test_a_page_of_another_server_does_not_replace_what_arrived(large, tmp_path):
    (tmp_path / "big.zip.part").write_bytes(large[:3_000_000])
    with Hub({"/big.zip": b"<html>Welcome to our hotel</html>"}) as hub:
        hub.ranges = False
        with pytest.raises(WeightsError, match=r"the server offers 33, not 5000000 bytes"):
            get(hub, large, tmp_path)
    assert (tmp_path / "big.zip.part").read_bytes() == large[:3_000_000]


def test_a_page_of_no_stated_length_does_not_replace_what_arrived(large, tmp_path):
    (tmp_path / "big.zip.part").write_bytes(large[:3_000_000])
    with Hub({"/big.zip": b"<html>Welcome!</html>"}) as hub:
        hub.ranges, hub.lengths = False, False
        with pytest.raises(WeightsError, match="3 MB are kept"):
            get(hub, large, tmp_path)
    assert (tmp_path / "big.zip.part").read_bytes() == large[:3_000_000]
    assert [p.name for p in tmp_path.iterdir()] == ["big.zip.part"]


def test_a_place_that_cannot_be_written_is_not_asked_for_again(large, tmp_path):
    (tmp_path / "big.zip.part").mkdir()
    with Hub({"/big.zip": large}) as hub:
        with pytest.raises(OutputError, match=r"big\.zip\.part cannot be written"):
            get(hub, large, tmp_path)
        assert len(hub.log) == 1


def test_a_file_that_lies_there_is_verified_too(large, tmp_path):
    (tmp_path / "big.zip").write_bytes(b"something")
    with Hub({"/big.zip": large}) as hub:
        assert get(hub, large, tmp_path).read_bytes() == large


@pytest.mark.parametrize("damage", range(8))
def test_a_damaged_archive_is_one_error(tmp_path, photo, damage):
    data = bytearray(zipped("DIV2K_train_HR", {"0001.png": png(photo)}))
    random = np.random.default_rng(damage)
    for at in random.integers(0, len(data), 40):
        data[at] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises((WeightsError, ResourceError)):
        download.unpack(tmp_path / "a.zip", tmp_path, "DIV2K_train_HR", progress=silent)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_a_download_that_is_not_there_is_an_error_at_once(large, tmp_path):
    with Hub({}) as hub:
        with pytest.raises(WeightsError, match="HTTP 404"):
            get(hub, large, tmp_path)
        assert len(hub.log) == 1


def test_another_file_than_published_is_not_used(large, tmp_path):
    with Hub({"/big.zip": large}) as hub:
        hub.corrupt = True
        with pytest.raises(WeightsError, match="published was"):
            get(hub, large, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_room_is_found_out_before_the_first_byte(large, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with Hub({"/big.zip": large}) as hub:
        with pytest.raises(ResourceError, match=r"takes 0\.01 GB more.*UPRES_DATA"):
            get(hub, large, tmp_path)
        assert hub.log == []


def test_a_disk_that_fills_up_keeps_what_arrived(large, tmp_path, monkeypatch):
    def full(url, part, start, size, progress):
        part.write_bytes(large[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_append", full)
    with Hub({"/big.zip": large}) as hub, pytest.raises(ResourceError, match="disk is full"):
        get(hub, large, tmp_path)
    assert (tmp_path / "big.zip.part").stat().st_size == 1000


def test_of_two_that_want_a_set_one_downloads_it(tmp_path, photo):
    data = {"/DIV2K_train_HR.zip": zipped("DIV2K_train_HR", {"0001.png": png(photo)})}
    with Hub(data) as hub, ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(fetch_set, known(hub, data), tmp_path, note=silent, progress=silent)
            for _ in range(2)
        ]
        for job in jobs:
            job.result()
        assert len(hub.log) == 1
    assert (tmp_path / "DIV2K_train_HR/0001.png").is_file()


def test_an_archive_with_something_else_is_refused(tmp_path, photo):
    data = {"/DIV2K_train_HR.zip": zipped("elsewhere", {"0001.png": png(photo)})}
    with Hub(data) as hub, pytest.raises(WeightsError, match=r"elsewhere/0001\.png"):
        fetch_set(known(hub, data), tmp_path, note=silent, progress=silent)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["a\nb", "日本\u3000の写真", "\u202f", "caf\udce9"])
def test_names_of_folders_become_a_line_of_text(tmp_path, photo, name):
    save(tmp_path / name / "a.png", photo[:32, :32])
    told, _ = training_pictures(str(tmp_path / name), tmp_path, note=silent, progress=silent)
    assert told.isprintable()
    assert told
    facts = ModelFacts("mine", "edsr", (), (2,), "rgb", "none", "tests", told)
    assert ModelFacts.from_mapping(facts.to_mapping()) == facts


def test_low_resolution_files_without_a_picture_are_said(tmp_path, photo):
    for name in ("HR/a.png", "LR_bicubic/X2/a.png", "LR_bicubic/X2/a_LR.png"):
        save(tmp_path / name, photo[:32, :32])
    notes = []
    training_pictures(str(tmp_path), tmp_path, note=notes.append, progress=silent)
    (said,) = notes
    assert "belong to no picture are not used: 1, such as" in said
    assert said.endswith(str(Path("LR_bicubic/X2/a_LR.png")))


def test_neither_folder_nor_set(tmp_path):
    with pytest.raises(InputError, match=r"neither a folder nor a known set.*DIV2K"):
        training_pictures("DIV3K", tmp_path, note=silent, progress=silent)


def test_what_runs_left_is_no_training_data(pictures):
    before = find_pictures(pictures)
    run = pictures / "runs" / "mine"
    (run / "validation").mkdir(parents=True)
    (run / "metrics.jsonl").touch()
    for place in (run / "curve.png", run / "validation" / "0000001.png"):
        Image.new("RGB", (64, 64)).save(place)
    assert find_pictures(pictures) == before
