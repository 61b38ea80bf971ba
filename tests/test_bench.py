"""`upres bench`: sets, protocol, tables, statistics, verification."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import upres
from tests.conftest import SOAK
from tests.hub import Hub
from tests.pictures import save, silent
from upres.api import Goal, Upscaler
from upres.benchmark import session
from upres.benchmark.quality import Measured, Row, Settings, example, measure, measure_set
from upres.benchmark.report import Report, as_csv, as_json, as_markdown, details, matrix
from upres.benchmark.session import Order, demand, run_order, verify
from upres.benchmark.speed import Timing, exponent, time_model, traffic
from upres.benchmark.statistics import gains, interval
from upres.benchmark.workers import Prepared, Setting, Worker
from upres.data.evaluation import EVALUATION_SETS, Truth, find_set
from upres.errors import InputError, ResourceError, UsageError, VerificationError, WeightsError
from upres.imaging.degrade import Degradation
from upres.imaging.resize import imresize
from upres.inference.executor import PlainExecutor
from upres.inference.folded import FoldedExecutor
from upres.inference.pipeline import Pipeline
from upres.inference.streamed import StreamedExecutor
from upres.model import load
from upres.places import home
from upres.weights.known import known_models
from upres.weights.manifest import load_manifest
from upres.weights.store import local_path


@pytest.fixture
def small_set(tmp_path, photo):
    """Three pictures, one of them gray, none a multiple of everything."""
    folder = tmp_path / "mine"
    save(folder / "a.png", photo[:61, :74])
    save(folder / "b.png", photo[60:130, 100:171])
    save(folder / "gray.png", photo[100:165, 100:170, 0])
    return folder


def find(text, tmp_path, scale=2, data_dir=None):
    home = tmp_path / "home"
    return find_set(text, scale, data_dir=data_dir, home=home, note=silent, progress=silent)


# Sets


def test_low_resolution_files_are_found_by_the_names_that_sets_give_them(tmp_path, photo):
    for i, name in enumerate(("0801", "0802")):
        high = photo[8 * i : 8 * i + 40, :40]
        save(tmp_path / f"zip/DIV2K_valid_HR/{name}.png", high)
        save(tmp_path / f"zip/DIV2K_valid_LR_bicubic/x2/{name}x2.png", 255 - high[:20, :20])
    pair = f"{tmp_path}/zip/DIV2K_valid_HR:{tmp_path}/zip/DIV2K_valid_LR_bicubic/x2"
    for text, place in ((pair, None), ("div2k", tmp_path / "zip")):
        _, found = find(text, tmp_path, data_dir=place)
        assert [(t.path.name, t.low.name) for t in found] == [
            ("0801.png", "0801x2.png"),
            ("0802.png", "0802x2.png"),
        ]


@pytest.mark.parametrize(
    "layout",
    [
        "Set5/HR/@.png",
        "set5/@.png",
        "Set5_HR/@.png",
        "SET5/image_SRF_2/@_SRF_2_HR.png",
    ],
)
def test_copies_in_the_usual_layouts_are_found(tmp_path, photo, layout):
    for letter in "abcde":
        save(tmp_path / "data" / layout.replace("@", letter), photo[:40, :40])
    name, found = find("SET5", tmp_path, data_dir=tmp_path / "data")
    assert name == "set5"
    assert [t.name for t in found] == list("abcde")


def test_low_resolution_files_of_a_copy_are_found(tmp_path, photo):
    save(tmp_path / "Set14/HR/a.png", photo[:40, :40])
    save(tmp_path / "Set14/LR_bicubic/X2/ax2.png", photo[:20, :20])
    save(tmp_path / "B100/image_SRF_2/i_SRF_2_HR.png", photo[:40, :40])
    save(tmp_path / "B100/image_SRF_2/i_SRF_2_LR.png", photo[:20, :20])
    save(tmp_path / "DIV2K/DIV2K_valid_HR/0801.png", photo[:40, :40])
    save(tmp_path / "DIV2K/DIV2K_valid_LR_bicubic/X2/0801x2.png", photo[:20, :20])
    for text, low in (("set14", "ax2"), ("b100", "i_SRF_2_LR"), ("div2k", "0801x2")):
        (truth,) = find(text, tmp_path, data_dir=tmp_path)[1]
        assert truth.low.stem == low
    (truth,) = find("set14", tmp_path, scale=3, data_dir=tmp_path)[1]
    assert truth.low is None


def test_any_folder_and_any_pair_of_folders(tmp_path, small_set, photo):
    name, found = find(str(small_set), tmp_path)
    assert (name, [t.name for t in found]) == ("mine", ["a", "b", "gray"])
    for letter in "ab":
        save(tmp_path / "low" / f"{letter}.png", photo[:30, :37])
    with pytest.raises(InputError, match="low has no picture called gray"):
        find(f"{small_set}:{tmp_path / 'low'}", tmp_path)
    save(tmp_path / "low" / "gray.png", photo[:30, :37])
    found = find(f"{small_set}:{tmp_path / 'low'}", tmp_path)[1]
    assert [t.low.name for t in found] == ["a.png", "b.png", "gray.png"]


def test_what_cannot_be_had_says_what_to_put_where(tmp_path):
    with pytest.raises(InputError, match=r"Manga109 cannot be downloaded.*109 PNG files into .*HR"):
        find("manga109", tmp_path)
    with pytest.raises(InputError, match=r"set6 is neither a known set nor a folder.*set5"):
        find("set6", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        find(str(tmp_path / "empty"), tmp_path)


REVISION = "0" * 40


def packed(pictures, folder="tiny_HR"):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, pixels in pictures.items():
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "PNG")
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = content.tell()
            content.seek(0)
            archive.addfile(info, content)
    return data.getvalue()


@pytest.fixture
def archive(photo):
    return packed({"a.png": photo[:40, :40], "b.png": photo[:44, :40]})


@pytest.fixture
def fetch(tmp_path):
    """Ask for a set called tiny in a process of its own, since the Hub's settings are read once."""

    def run(hub, data, members=None, pictures=2, sha256="", **environment):
        sha256 = sha256 if sha256 is None else sha256 or hashlib.sha256(data).hexdigest()
        code = f"""
from pathlib import Path
from upres.data.evaluation import EVALUATION_SETS, EvaluationSet, find_set
from upres.errors import UpresError
from upres.data.hub import HubFile
source = HubFile("a/tiny", "{REVISION}", "data/t.tar.gz", {sha256!r})
known = EvaluationSet("tiny", "Tiny", {pictures}, "x", source, {members or {}!r})
EVALUATION_SETS["tiny"] = known
quiet = lambda *_: None
try:
    name, found = find_set(
        "tiny", 2, data_dir=None, home=Path("home"), note=quiet, progress=quiet
    )
    print(name, *(t.path.as_posix() for t in found))
except UpresError as error:
    print("error", error)
"""
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            env=os.environ
            | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
            | environment,
        ).stdout.strip()

    return run


def hosting(data):
    return Hub({("datasets/a/tiny", REVISION, "data/t.tar.gz"): data})


def test_a_set_is_downloaded_verified_unpacked_and_kept(archive, fetch, tmp_path):
    expected = "tiny home/Tiny/HR/a.png home/Tiny/HR/b.png"
    with hosting(archive) as hub:
        assert fetch(hub, archive) == expected
        requests = len(hub.log)
        assert fetch(hub, archive) == expected
        assert len(hub.log) == requests
        assert {p.name for p in (tmp_path / "home").iterdir()} == {"Tiny", ".Tiny.lock"}


def test_a_set_is_put_beside_what_is_there_of_it(archive, fetch, photo, tmp_path):
    theirs = tmp_path / "home/Set5/image_SRF_4"
    for name, side in (("a_SRF_4_HR", 40), ("a_SRF_4_LR", 10)):
        save(theirs / f"{name}.png", photo[:side, :side])
        save(tmp_path / "home/Set5/HR/b.png", photo[:40, :40])
    (truth,) = find("set5", tmp_path, scale=4)[1]  # their own, with what came with it
    assert (truth.path.parent, truth.low.name) == (theirs, "a_SRF_4_LR.png")
    assert [t.path.name for t in find("set5", tmp_path, scale=2)[1]] == ["b.png"]
    (tmp_path / "home/Tiny/image_SRF_4").mkdir(parents=True)
    (tmp_path / "home/Tiny/HR").mkdir()
    (tmp_path / "home/Tiny/HR/notes.txt").write_text("mine")
    with hosting(archive) as hub:
        assert "HR holds other files than the set's pictures" in fetch(hub, archive)
        (tmp_path / "home/Tiny/HR/notes.txt").unlink()
        assert fetch(hub, archive) == "tiny home/Tiny/HR/a.png home/Tiny/HR/b.png"


def test_another_archive_than_published_is_not_used(archive, fetch, tmp_path):
    with hosting(archive) as hub:
        assert "published was" in fetch(hub, archive, sha256="1" * 64)
    assert not (tmp_path / "home").exists()


def test_pictures_are_verified_where_the_archive_cannot_be(archive, fetch, photo, tmp_path):
    wrong = {"a.png": "1" * 64, "b.png": "2" * 64}
    with hosting(archive) as hub:
        said = fetch(hub, archive, sha256=None, members=wrong)
        assert "of a/tiny/data/t.tar.gz is not what was published" in said
        assert "holds 2 pictures, Tiny has 3" in fetch(hub, archive, pictures=3)
        assert {p.name for p in (tmp_path / "home").iterdir()} <= {".Tiny.lock"}


def test_what_lies_outside_of_an_archive_is_left_out(fetch, photo, tmp_path):
    names = ("a.png", "../../evil.png", "sub/../../../evil.png")
    some = dict.fromkeys(names, photo[:40, :40])
    data = packed({**some, "b.png": photo[:44, :40]})
    with hosting(data) as hub:
        said = fetch(hub, data)
    assert "a.png" in said
    assert "b.png" in said
    assert not list(tmp_path.rglob("evil.png"))


def test_half_an_archive_and_no_network(archive, fetch, tmp_path):
    with hosting(archive[: len(archive) // 2]) as hub:
        said = fetch(hub, b"", sha256=None)
        assert "no archive that can be unpacked" in said
        # What it says to do helps: the Hub's cache would give a link to the same file again.
        Path(re.search(r"remove (\S+) and ask again", said)[1]).unlink()
        hub.files["datasets/a/tiny", REVISION, "data/t.tar.gz"] = archive
        assert "home/Tiny/HR/a.png" in fetch(hub, archive, sha256=None)
        shutil.rmtree(tmp_path / "home")
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": "elsewhere"}
        said = fetch(hub, archive, **offline)
        assert "is not in the cache and HF_HUB_OFFLINE forbids" in said
        assert "put its 2 PNG files into" in said


# Papers


def row(model, values, name="set5", scale=2):
    images = tuple(Measured(str(i), v, 0.9, 50.0, 0.1, 0.05) for i, v in enumerate(values))
    return Row(model, name, scale, 0 if model == "bicubic" else 1000, images)


def test_a_protocol_is_what_independent_code_measures(small_set, tmp_path):
    """Cropping, shrinking, shaving, luma and both metrics, by scikit-image."""
    (truth, *_) = find(str(small_set), tmp_path)[1]
    one = example(truth, 3, Settings())
    original = np.asarray(Image.open(truth.path))[:60, :72]
    assert np.array_equal(one.high, original)
    assert np.array_equal(one.low, imresize(original, 1 / 3))
    figures, made = measure(one, upres.load("bicubic", scale=3), 3, Settings())
    # Bicubic as a model does not round between its two dimensions, as MATLAB does.
    assert np.abs(made.astype(int) - imresize(one.low, 3)).max() <= 1

    def luma(rgb):
        return 16 + rgb[3:-3, 3:-3].astype(float) @ [65.481, 128.553, 24.966] / 255

    a, b = luma(original), luma(made)
    assert figures.psnr == pytest.approx(peak_signal_noise_ratio(a, b, data_range=255), abs=1e-6)
    expected = structural_similarity(
        a,
        b,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    # scikit-image averages over what is left after cropping half a window, as "valid" does.
    assert figures.ssim == pytest.approx(expected, abs=1e-6)
    back = imresize(made, 1 / 3)
    assert figures.consistency == pytest.approx(
        peak_signal_noise_ratio(one.low, back, data_range=255), abs=1e-6
    )


def test_other_protocols(small_set, tmp_path):
    truth = find(str(small_set), tmp_path)[1][1]
    one = example(truth, 2, Settings())
    bicubic = upres.load("bicubic", scale=2)
    for settings, shave in ((Settings("rgb"), 2), (Settings("div2k"), 8), (Settings("rgb", 5), 5)):
        figures, made = measure(one, bicubic, 2, settings)
        crop = slice(shave, -shave)
        expected = peak_signal_noise_ratio(one.high[crop, crop], made[crop, crop], data_range=255)
        assert figures.psnr == pytest.approx(expected, abs=1e-6)
    assert "scale + 6" in str(Settings("div2k"))
    assert Settings().published
    assert not Settings(shave=3).published


def test_gray_pictures_are_expanded(small_set, tmp_path):
    truth = find(str(small_set), tmp_path)[1][2]
    one = example(truth, 2, Settings())
    assert one.high.shape == (64, 70, 3)
    assert np.ptp(one.high, axis=-1).max() == 0


def test_degraded_inputs_are_the_same_for_every_model(small_set, tmp_path):
    settings = Settings(degradation=Degradation(noise=5.0, quality=60, subsampled=True))
    truth = find(str(small_set), tmp_path)[1][0]
    one, again = example(truth, 2, settings), example(truth, 2, settings)
    assert np.array_equal(one.low, again.low)
    assert not np.array_equal(one.low, example(truth, 2, Settings()).low)
    assert "noise 5, JPEG 60" in str(settings)
    assert not settings.published
    # And in every copy, whatever that calls its files.
    copied = replace(truth, name="img_001")
    assert np.array_equal(one.low, example(copied, 2, settings).low)


def test_given_low_resolution_files_are_used_and_must_fit(tmp_path, photo):
    high, low = save(tmp_path / "h/a.png", photo[:40, :40]), photo[100:120, 100:120]
    truth = Truth("a", high, save(tmp_path / "l/a.png", low))
    assert np.array_equal(example(truth, 2, Settings()).low, low)
    with pytest.raises(InputError, match=r"20 x 20 pixels, and .* of 40 x 40 needs 10 x 10 at x4"):
        example(truth, 4, Settings())


def test_pictures_too_small_to_measure_are_refused(tmp_path, photo):
    truth = Truth("a", save(tmp_path / "a.png", photo[:14, :40]))
    with pytest.raises(InputError, match="10 pixels are left after shaving, SSIM needs 11"):
        example(truth, 2, Settings())
    Image.new("RGB", (1, 500)).save(tmp_path / "line.png")
    with pytest.raises(InputError, match="0 pixels are left after shaving"):
        example(Truth("line", tmp_path / "line.png"), 2, Settings())


# What things are called


def measured_on(sets, tmp_path):
    """A report of bicubic alone, at x2."""
    asked = Order(sets, (2,), (), Settings(), None, tmp_path)
    return run_order(asked, note=silent, progress=silent)[0]


def test_a_file_never_stands_for_a_model_that_has_its_name():
    names = ("mine/edsr-light.safetensors", "edsr-light", "a/x.safetensors", "b/x.safetensors")
    assert session.labelled(names) == {
        "mine/edsr-light.safetensors": "mine/edsr-light.safetensors",
        "edsr-light": "edsr-light",
        "a/x.safetensors": "x",
        "b/x.safetensors": "b/x.safetensors",
    }
    # On pages the truth stands among the models.
    assert session.labelled(["truth.safetensors"]) == {"truth.safetensors": "truth.safetensors"}


def test_texts_that_are_labels_already_get_a_number():
    taken = {}
    assert session.unambiguous("HR", "/x/HR", taken) == "HR"
    assert session.unambiguous("HR", "HR", taken) == "HR (2)"
    assert session.unambiguous("HR", "HR", taken) == "HR (2)"


def test_a_folder_called_like_a_set_is_not_that_set(tmp_path, photo):
    save(tmp_path / "set5" / "a.png", photo[:61, :74])
    folder = str(tmp_path / "set5")
    report = measured_on((folder,), tmp_path)
    assert report.columns == [(folder, 2)]
    assert not any("published" in name for name, _ in matrix(report)[1])


def test_a_part_of_a_set_is_called_a_part_of_it(tmp_path, photo):
    save(tmp_path / "Set5" / "HR" / "a.png", photo[:61, :74])
    said = []
    name, truths = find_set(
        "set5", 2, data_dir=tmp_path, home=tmp_path, note=said.append, progress=silent
    )
    assert (name, len(truths)) == ("set5 (1 of 5)", 1)
    assert "1 of Set5's 5 pictures" in said[0]


def test_the_protocol_says_where_low_resolution_comes_from(tmp_path, small_set):
    for path in small_set.iterdir():
        with Image.open(path) as image:
            half = (image.width // 2, image.height // 2)
            image.resize(half).save(tmp_path / f"{path.stem}.jpg")
    given = f"{small_set}:{tmp_path}"
    asked = ((str(small_set),), (given,), (str(small_set), given))
    protocols = [measured_on(sets, tmp_path).protocol for sets in asked]
    assert protocols[0].endswith("LR by MATLAB's imresize")
    assert protocols[1].endswith("LR as it came with the pictures")
    assert protocols[2].endswith(f"imresize, but as it came with the pictures of {given} x2")
    shutil.copytree(small_set, tmp_path / "some" / "HR")
    for name in "ab":
        with Image.open(tmp_path / f"{name}.jpg") as image:
            save(tmp_path / f"some/LR_bicubic/X2/{name}x2.png", np.asarray(image))
    some = measured_on((str(tmp_path / "some"),), tmp_path).protocol
    assert some.endswith("imresize, but as it came with the pictures of some x2 (2 of 3)")


def test_pictures_that_differ_in_their_suffix_only_are_two(tmp_path, photo):
    save(tmp_path / "mine" / "x.png", photo[:64, :60])
    save(tmp_path / "mine" / "x.tif", photo[80:160, :96])
    save(tmp_path / "mine" / "y.png", photo[:64, :60])
    _, truths = find(str(tmp_path / "mine"), tmp_path)
    assert [t.name for t in truths] == ["x.png", "x.tif", "y"]


def test_a_set_without_pictures_is_said(tmp_path):
    (tmp_path / "home" / "DIV2K" / "DIV2K_valid_HR").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no pictures"):
        find("div2k", tmp_path)


# Statistics and tables


def test_gains_are_means_with_intervals_that_hold_them():
    rows = [row("bicubic", [30, 31, 32]), row("a", [31, 33, 33]), row("b", [32, 33, 35])]
    found = {(g.model, g.over): g for g in gains(rows)}
    assert found["a", "bicubic"].mean == pytest.approx(4 / 3)
    assert (found["b", "a"].mean, found["b", "a"].won) == (1.0, 2)
    for one in found.values():
        assert one.low <= one.mean <= one.high
    assert interval([1.0, 1.0]) == (1.0, 1.0)
    assert np.isnan(interval([1.0])).all()  # one picture says nothing about others


@pytest.mark.parametrize("count", [2, 3, 4, 5, 14, 15, 100])
def test_intervals_are_students(count):
    from scipy import stats

    values = np.random.default_rng(count).normal(1.0, 2.0, count)
    want = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert interval(values.tolist()) == pytest.approx(want, rel=1e-9)


@pytest.fixture
def report():
    rows = (row("bicubic", [30.0, 31.0]), row("edsr-base", [33.5, 34.0]))
    return Report(Settings(), rows, ("set14 x2: not here",), "a machine")


def test_tables_hold_what_was_measured_and_what_is_published(report):
    head, rows = matrix(report)
    assert head == ["PSNR / SSIM", "set5 x2"]
    cells = dict(rows)
    assert cells["edsr-base"] == "33.75 / 0.9000*"
    assert cells["EDSR-baseline (published)"] == "37.99"
    assert "SRResNet (published)" not in cells  # it has no figure for x2
    head, rows = details(report)
    line = dict(zip(head, rows[1], strict=True))
    assert line["gain over bicubic (95 %)"] == "+3.25 (+0.07 to +6.43)"
    assert (line["published"], line["parameters"], line["s/MP"]) == ("37.99", "1,000", "2.00")
    other = Report(Settings("rgb"), report.rows, (), "a machine")
    assert not any("published" in name for name, _ in matrix(other)[1])


def test_reports_for_programs(report):
    found = json.loads(as_json(report))
    assert found["protocol"].startswith("Y channel")
    assert found["rows"][1] | {"model": "edsr-base", "set": "set5", "scale": 2} == found["rows"][1]
    assert found["rows"][1]["psnr"] == 33.75
    assert [image["psnr"] for image in found["rows"][1]["images"]] == [33.5, 34.0]
    assert found["failures"] == ["set14 x2: not here"]
    lines = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert len(lines) == 4
    assert lines[0]["model"] == "bicubic"
    assert "| edsr-base | 33.75 / 0.9000* |" in as_markdown(report)
    assert "Not measured: set14 x2" in as_markdown(report)


# The command


def test_bench_prints_pictures_means_and_protocol(upres, small_set):
    done = upres("bench", small_set)
    assert done.returncode == 0, done.stderr
    out, said = done.stdout.decode(), done.stderr.decode()
    assert "Y channel (BT.601), scale pixels shaved" in said
    assert all(f"mine x{scale} gray" in out for scale in (2, 3, 4))
    assert [line.split()[0] for line in out.splitlines() if line.startswith("edsr-baseline")]
    rows = [line.split() for line in out.splitlines() if line.startswith("mine x2  edsr-baseline")]
    assert float(rows[0][3]) > 30


def test_bench_several_models_scales_and_reports(upres, small_set, tmp_path):
    arguments = ("bench", small_set, "--scale", "2,4", "--model", "lanczos,edsr-light")
    done = upres(*arguments, "--report", "r.json", "--report", "r.csv", "--report", "r.md")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "r.json").read_text())
    assert re.search(r", cpu (bf16|fp32)$", found["machine"])
    assert [(r["model"], r["scale"]) for r in found["rows"]] == [
        (m, s) for s in (2, 4) for m in ("bicubic", "lanczos", "edsr-light")
    ]
    assert "edsr-light over lanczos on mine x2: +" in done.stdout.decode()
    assert (tmp_path / "r.csv").read_text().count("\n") == 1 + 2 * 3 * 3
    assert upres(*arguments, "--report", "r.json").returncode == 4
    assert upres(*arguments, "--report", "r.pdf").returncode == 4


def test_files_and_folders_of_the_same_name_are_told_apart(small_set, tmp_path):
    weights = [e for e in known_models().entries if e.name in ("edsr-light-x2", "photo-x2")]
    for entry, run in zip(weights, ("runs/a", "runs/b"), strict=True):
        (tmp_path / run).mkdir(parents=True)
        shutil.copy(local_path(entry), tmp_path / run / "model.safetensors")
        shutil.copy(local_path(entry), tmp_path / run / "best.safetensors")
    sets = []
    for name in "ab":
        sets.append(str(tmp_path / name / "HR"))
        save(Path(sets[-1]) / "x.png", np.asarray(Image.open(small_set / f"{name}.png")))
    files = [(run, file) for file in ("model", "best") for run in "ab"]
    models = [f"{tmp_path}/runs/{run}/{file}.safetensors" for run, file in files]
    order = Order(tuple(sets), (2,), tuple(models), Settings(), None, tmp_path)
    report = run_order(order, note=silent, progress=silent)[0]
    assert report.columns == [("HR", 2), (sets[1], 2)]
    assert report.models == ["bicubic", "a", "b", "best", models[3]]
    assert len({row.psnr for row in report.rows}) == 2 * 3  # bicubic and two networks on each set


def test_a_picture_that_is_met_exactly_counts_100(tmp_path):
    save(tmp_path / "flat" / "x.png", np.full((40, 40, 3), 128, np.uint8))
    (truth,) = find(str(tmp_path / "flat"), tmp_path)[1]
    one = example(truth, 2, Settings())
    figures, _ = measure(one, upres.load("bicubic", scale=2), 2, Settings())
    assert (figures.psnr, figures.consistency) == (100.0, 100.0)


def test_bench_json_is_one_document(upres, small_set):
    done = upres("bench", small_set, "-s", "3", "--json", "--jpeg", "60")
    found = json.loads(done.stdout)
    assert "JPEG 60" in found["protocol"]
    assert len(found["rows"]) == 2
    assert done.stdout.count(b"\n") == 1


def test_bench_keeps_going_when_asked(upres, small_set):
    done = upres("bench", f"none,{small_set}", "-s", "2")
    assert done.returncode == 3
    assert not done.stdout
    done = upres("bench", f"none,{small_set}", "-s", "2", "--keep-going")
    assert done.returncode == 7
    assert b"mine x2" in done.stdout
    assert b"none is neither a known set nor a folder" in done.stderr


class _Greedy(Upscaler):
    """Has memory for small pictures only."""

    def pipeline(self, pixels, **options):
        if pixels.size > 16 * 16 * 3:
            raise MemoryError
        return super().pipeline(pixels, **options)


def test_a_model_that_needs_too_much_memory_costs_the_others_nothing(small_set):
    models = [(name, Upscaler(name, Goal(scale=2))) for name in ("bicubic", "lanczos")]
    models.insert(1, ("greedy", _Greedy("lanczos", Goal(scale=2))))
    _, truths = find_set(str(small_set), 2, data_dir=None, home=Path(), note=print, progress=None)
    failures = []
    rows = list(
        measure_set(
            "mine",
            truths,
            2,
            models,
            Settings(),
            note=failures.append,
            failed=lambda *why: failures.append(why),
        )
    )
    assert [row.model for row in rows] == ["bicubic", "lanczos"]
    assert all(len(row.images) == len(truths) for row in rows)
    ((model, error),) = failures
    assert model == "greedy"
    assert isinstance(error, ResourceError)
    with pytest.raises(ResourceError):
        list(measure_set("mine", truths, 2, models, Settings(), note=print))


def test_what_is_said_of_a_picture_names_it(small_set, monkeypatch):
    monkeypatch.setattr(Pipeline, "notes", ("odd",))
    notes = []
    _, truths = find_set(str(small_set), 2, data_dir=None, home=Path(), note=print, progress=None)
    models = [("bicubic", Upscaler("bicubic", Goal(scale=2)))]
    list(measure_set("mine", truths, 2, models, Settings(), note=notes.append))
    assert notes == [f"note: bicubic x2: {truth.name}: odd" for truth in truths]


def test_what_keeps_going_leaves_out_no_more_than_what_fails(upres, small_set):
    good = sorted(Path(small_set).iterdir())
    (Path(small_set) / "zz.png").write_bytes(good[0].read_bytes()[:200])
    run = ("bench", small_set, "-s", "2", "-m", "edsr-light,nope", "--keep-going", "--quiet")
    done = upres(*run)
    assert done.returncode == 7
    assert f"mine ({len(good)} of {len(good) + 1}) x2".encode() in done.stdout
    assert b"edsr-light" in done.stdout
    assert b"not measured: nope x2: no model is called 'nope'" in done.stderr
    # Once, however many sets there are.
    shutil.copytree(small_set, Path(small_set).parent / "other")
    twice = upres(*run, Path(small_set).parent / "other")
    assert twice.stderr.count(b"not measured: nope x2") == 1
    assert b"not measured: zz of mine x2: " in done.stderr


def test_auto_is_also_what_it_means_for_jpegs(upres, small_set):
    def models(*options):
        found = json.loads(upres("bench", small_set, "--json", *options).stdout)
        return [row["model"] for row in found["rows"]]

    assert models("-s", "2", "--jpeg", "60") == ["bicubic", "edsr-baseline", "photo"]
    assert models("-s", "2", "--jpeg", "95") == ["bicubic", "edsr-baseline"]
    assert models("-s", "3", "--jpeg", "60") == ["bicubic", "edsr-baseline"]


def test_names_with_commas_that_are_there(upres, small_set, tmp_path):
    Path(small_set).rename(tmp_path / "Rome, 2024")
    done = upres("bench", "Rome, 2024", "-s", "2", "-m", "bicubic")
    assert done.returncode == 0, done.stderr
    assert b"Rome, 2024 x2" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "bench needs a set"),
        (("set5", "-m", "nope"), 5, "no model is called 'nope'"),
        (("set5", "-s", "5"), 2, "--scale takes 2, 3, 4"),
        (("set5",), 5, "Set5_HR.tar.gz is not in the cache"),
        (("",), 2, "no set is named"),
        (("set5", "-s", ""), 2, "no scale is named"),
        (("set5", "-m", ","), 2, "no model is named"),
        (("set5", "--report", "r.md", "--report", "./r.md"), 4, "two reports"),
        (("manga109",), 3, "Manga109 cannot be downloaded"),
    ],
)
def test_bench_refuses_in_one_line(upres, arguments, code, words):
    done = upres("bench", *arguments)
    assert done.returncode == code
    assert words in done.stderr.decode().splitlines()[-1]


def test_pictures_that_would_be_black_are_not_measured(upres, tmp_path):
    dark = np.full((40, 40, 4), 4095, np.uint16)
    dark[..., 3] = 65535
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in/a.tif", dark, photometric="rgb", extrasamples=["unassalpha"])
    done = upres("bench", "in", "-s", "2", "-m", "lanczos")
    assert done.returncode == 3
    assert b"goes up to 4095 of 65535 only; stretch it to 16 bits" in done.stderr


def test_kernels_are_measured_whatever_the_device(upres, small_set):
    done = upres("bench", small_set, "-s", "2", "-m", "lanczos", "--device", "cuda", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["machine"].endswith(", cpu fp32")


def test_bench_lists_sets(upres):
    done = upres("bench", "--list")
    assert done.stdout.decode().count("\n") == 1 + len(EVALUATION_SETS)


# Verification


@pytest.fixture
def stated(monkeypatch, small_set, tmp_path):
    """Say of edsr-light what it reaches on the small set, more or less."""
    for letter in "abcde":
        save(tmp_path / f"data/Set5/{letter}.png", np.asarray(Image.open(small_set / "b.png")))
    order = Order(("set5",), (2,), ("edsr-light",), Settings(), tmp_path / "data", tmp_path)
    true = run_order(order, note=silent, progress=silent)[0].rows[1].psnr

    def state(difference):
        manifest = session.known_models()
        entries = []
        for entry in manifest.entries:
            measured = ()
            if entry.name == "edsr-light-x2":
                measured = (type(entry.facts.measured[0])("set5", 2, true + difference, 0.9),)
            facts = type(entry.facts)(**{**vars(entry.facts), "measured": measured})
            entries.append(type(entry)(**{**vars(entry), "facts": facts}))
        changed = type(manifest)(**{**vars(manifest), "entries": tuple(entries)})
        monkeypatch.setattr(session, "known_models", lambda: changed)
        return order

    return state


def test_verification_holds_within_two_hundredths(stated):
    checks, never = verify(stated(0.015), note=silent, progress=silent)
    assert [c.holds for c in checks] == [True]
    assert not never
    demand(checks)


def test_verification_of_some_models_and_scales(stated):
    order = stated(0.0)
    every = replace(order, models=("auto",), scales=(2, 3, 4))
    checks, never = verify(every, note=silent, progress=silent)
    assert [c.model for c in checks] == ["edsr-light"]
    assert {"edsr-light-x3", "photo-x2", "edsr-base-x4"} < set(never)
    for some in (replace(every, scales=(3, 4)), replace(every, models=("photo",))):
        checks, never = verify(some, note=silent, progress=silent)
        assert not checks
        assert "photo-x4" in never
    with pytest.raises(UsageError, match="no figures of bicubic"):
        verify(replace(every, models=("bicubic",)), note=silent, progress=silent)


def test_verification_fails_beyond(stated):
    checks, _ = verify(stated(0.03), note=silent, progress=silent)
    with pytest.raises(VerificationError, match=r"are stated \(1 of 1 figures differ\)"):
        demand(checks)


def test_weights_that_cannot_be_read_are_no_success(stated, monkeypatch):
    def damaged(*_, **__):
        raise WeightsError("edsr-light-x2.safetensors is damaged")

    order = stated(0.0)
    monkeypatch.setattr(session, "models_at", damaged)
    checks, _ = verify(order, note=silent, progress=silent)
    assert [c.holds for c in checks] == [False]
    with pytest.raises(VerificationError, match="is damaged"):
        demand(checks)


def test_a_picture_that_cannot_be_read_says_nothing_about_weights(stated, tmp_path):
    order, told = stated(0.0), []
    picture = tmp_path / "data/Set5/c.png"
    picture.write_bytes(picture.read_bytes()[:300])
    checks, _ = verify(order, note=told.append, progress=silent)
    assert [c.holds for c in checks] == [None]
    assert any("c.png" in note for note in told)
    with pytest.raises(UsageError, match="1 of 1 figures could not be measured"):
        demand(checks)


def test_models_that_cannot_be_used_are_said_when_figures_are_verified(stated):
    folder, told = home() / "models", []
    folder.mkdir(parents=True)
    (folder / "mine-x2.json").write_text("{")
    order = stated(0.0)
    checks, _ = verify(replace(order, models=("auto",)), note=told.append, progress=silent)
    assert [c.holds for c in checks] == [True]
    assert any("mine-x2.json is damaged" in note for note in told)
    with pytest.raises(WeightsError, match="is damaged"):
        verify(replace(order, models=("mine",)), note=silent, progress=silent)


def test_a_set_that_is_not_at_hand_says_nothing(stated, tmp_path):
    order = replace(stated(0.0), data_dir=tmp_path / "none", home=tmp_path / "none")
    checks, _ = verify(order, note=silent, progress=silent)
    assert [c.holds for c in checks] == [None]
    with pytest.raises(UsageError, match="1 of 1 figures could not be measured"):
        demand(checks)


def test_the_command_verifies_what_a_file_states(upres, small_set, tmp_path):
    """A model of one's own, and a set that lies where UPRES_DATA points."""
    for letter in "abcde":
        save(tmp_path / f"data/Set5/{letter}.png", np.asarray(Image.open(small_set / "b.png")))
    there = {"UPRES_DATA": str(tmp_path / "data")}
    light = next(e for e in load_manifest().entries if e.name == "edsr-light-x2")
    model = load(local_path(light))
    for stated, code in ((0.01, 0), (0.1, 8)):
        told = ("bench", "set5", "-s", "2", "-m", "edsr-light", "--precision", "fp32", "--json")
        psnr = json.loads(upres(*told, env=there).stdout)["rows"][1]["psnr"]
        measured = (type(light.facts.measured[0])("set5", 2, psnr + stated, 0.9),)
        facts = replace(model.facts, name="mine", measured=measured)
        replace(model, facts=facts).save(tmp_path / "mine.safetensors")
        assert upres("models", "add", "mine.safetensors", "--overwrite").returncode == 0
        done = upres("bench", "--verify", "-m", "mine", "-s", "2", "--json", env=there)
        assert done.returncode == code, done.stderr
        check = json.loads(done.stdout)
        assert check["holds"] == (code == 0)
        assert check["stated"] - check["measured"] == pytest.approx(stated, abs=0.01)


def test_the_protocol_and_the_damage_are_as_asked(upres, small_set):
    def psnr(*more):
        done = upres("bench", small_set, "-s", "2", "-m", "bicubic", "--json", *more)
        found = json.loads(done.stdout)
        return found["rows"][0]["psnr"], found["protocol"]

    usual, words = psnr()
    assert words.startswith("Y channel")
    for more, said in (
        (["--protocol", "rgb"], "RGB"),
        (["--shave", "0"], "0 pixels"),
        (["--noise", "10"], "noise"),
        (["--blur", "1"], "blur"),
        (["--jpeg", "30"], "JPEG"),
    ):
        other, words = psnr(*more)
        assert other != usual
        assert said in words


def test_all_models_are_measured_in_one_table(upres, tmp_path, photo):
    save(tmp_path / "one/a.png", photo[:40, :50])
    done = upres("bench", "one", "-s", "2", "--all", "--pictures")
    assert done.returncode == 0, done.stderr
    head = next(line for line in done.stdout.decode().splitlines() if line.startswith("picture"))
    assert set(head.split()[1:]) == {"bicubic", "lanczos", "edsr-light", "edsr-baseline", "photo"}


def test_verification_of_nothing_is_no_success():
    with pytest.raises(UsageError, match="no figure is stated"):
        demand([])


# With the classic sets, where a copy is at hand


COPIES = os.environ.get("UPRES_DATA")


@pytest.mark.skipif(not COPIES, reason="no copies of Set5 and Set14")
@pytest.mark.parametrize("name", ["set5", "set14"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_reproduces_the_published_column(name, scale):
    """Papers take Set14's bridge.png as raw gray."""
    from upres.benchmark.published import published
    from upres.imaging.metrics import mod_crop

    home = Path(COPIES)
    _, truths = find_set(name, scale, data_dir=home, home=home, note=silent, progress=silent)
    bicubic = upres.load("bicubic", scale=scale)
    found = []
    for truth in truths:
        with Image.open(truth.path) as image:
            pixels = np.asarray(image)
        if pixels.ndim == 3:
            one = example(truth, scale, Settings())
            found.append(measure(one, bicubic, scale, Settings())[0].psnr)
        else:
            whole = mod_crop(pixels, scale)
            made = imresize(imresize(whole, 1 / scale), scale)
            inner = slice(scale, -scale)
            found.append(
                peak_signal_noise_ratio(whole[inner, inner], made[inner, inner], data_range=255)
            )
    assert np.mean(found) == pytest.approx(published("bicubic", name, scale), abs=0.02)


# Speed


def test_speed_is_measured_beside_the_usual_way(upres):
    arguments = ("bench", "--speed", "-s", "2", "--device", "cpu")
    done = upres(*arguments, "-m", "edsr-light", "--sizes", "0.002", "--rounds", "2", "--json")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.decode().splitlines()]
    timings = [event for event in found if event["event"] == "timing"]
    assert {t["contender"] for t in timings} >= {"upres", "eager"}
    assert {t["model"] for t in timings} == {"bicubic", "edsr-light"}
    for t in timings:
        assert len(t["seconds"]) == 2
        assert t["megapixels_per_second"] == pytest.approx(t["megapixels"] / t["median"])
    (summary,) = [e for e in found if e["event"] == "summary" and e["model"] == "edsr-light"]
    assert summary["operations_per_second"] > 0
    assert all(t["peak_memory"] > 2**27 for t in timings)


@pytest.mark.skipif(not SOAK, reason="make soak: every contender starts torch anew")
def test_speed_is_told_in_words(upres):
    arguments = ("bench", "--speed", "-s", "2", "--device", "cpu", "-m", "bicubic")
    done = upres(*arguments, "--sizes", "0.002,0.004", "--rounds", "1")
    assert b"time grows with size to the power" in done.stdout


def test_an_alternative_that_dies_is_left_out(monkeypatch):
    class Fake:
        def __init__(self, contender, setting):
            self.contender, self.runs = contender, 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def prepare(self, size):
            return Prepared("cpu", "fp32", 1)

        def run(self):
            self.runs += 1
            if self.contender == "eager" and self.runs == 2:
                raise ResourceError("eager ended with -9")
            return 1.0

        def peak_memory(self):
            return 1

    monkeypatch.setattr("upres.benchmark.speed.Worker", Fake)
    monkeypatch.setattr("upres.benchmark.speed.installed", lambda: ["onnxruntime"])
    notes = []
    setting = Setting("bicubic", 2)
    timings = list(time_model("m", setting, [0.1, 0.2], 3, alternatives=True, note=notes.append))
    assert [(t.megapixels, t.contender) for t in timings] == [
        (size, name) for size in (0.1, 0.2) for name in ("upres", "onnxruntime")
    ]
    assert any("eager ended with -9" in note for note in notes)


def test_the_exponent_is_the_slope():
    timings = [
        Timing("m", 2, size, "upres", "cpu", "fp32", (3 * size**1.5,)) for size in (0.5, 1, 2)
    ]
    assert exponent(timings) == pytest.approx(1.5)
    assert exponent(timings[:1]) is None


def test_operations_are_counted():
    from upres.networks import EDSR

    network = EDSR(2, blocks=1, channels=8)
    # Two for each weight of a convolution, four times that at twice the resolution (the tail).
    low = 8 * 3 * 9 + 3 * 8 * 8 * 9
    plain = PlainExecutor(network, 2, torch.device("cpu"), torch.float32)
    assert plain.operations() == 2 * (low + 32 * 8 * 9 + 4 * 3 * 8 * 9)
    # What is done instead: one convolution of 5 x 5 to the 12 numbers of 2 x 2 pixels.
    streamed = StreamedExecutor(network, 2, torch.float32)
    folded = FoldedExecutor(network, 2, torch.device("cpu"), torch.float32)
    assert folded.operations() == streamed.operations() == 2 * (low + 8 * 12 * 25)


def test_bytes_between_layers_are_counted():
    from upres.networks import EDSR, SRCNN

    network = EDSR(2, blocks=1, channels=8)
    # Head, body, and one convolution to the 12 numbers of 2 x 2 pixels.
    values = (3 + 8) + 3 * (8 + 8) + (8 + 12)
    assert traffic(network, 2, torch.float16) == 2 * values
    # Everything at the size of the result.
    values = 4 * ((1 + 8) + (8 + 4) + (4 + 1))
    assert traffic(SRCNN(2, widths=(8, 4)), 2, torch.float16) == 2 * values


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say")
@pytest.mark.skipif(not SOAK, reason="make soak: every contender starts torch anew")
def test_contenders_have_processes_of_their_own():
    ballast = np.ones(2**29, np.uint8)
    with Worker("upres", Setting("bicubic", 2, device="cpu")) as worker:
        assert worker.prepare(0.01).tiles >= 0
        assert worker.run() > 0
        assert worker.peak_memory() < 2**29 <= ballast.nbytes
    with pytest.raises(ResourceError, match="ended"):
        worker.run()


def test_a_contender_that_cannot_run_says_why():
    with (
        Worker("upres", Setting("nonsense", 2)) as worker,
        pytest.raises(WeightsError, match="nonsense"),
    ):
        worker.prepare(0.01)


@pytest.mark.parametrize(
    "arguments", [("--sizes", "x"), ("set5",), ("--verify",), ("--jpeg", "75"), ("--pictures",)]
)
def test_speed_refuses_in_one_line(upres, arguments):
    done = upres("bench", "--speed", *arguments)
    assert done.returncode == 2
    assert done.stderr.decode().count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("set5", "--sizes", "1"), "--sizes means nothing with a set"),
        (("--verify", "--rounds", "2"), "--rounds means nothing with --verify"),
        (("--verify", "--jpeg", "75"), "--jpeg means nothing with --verify"),
        (("--verify", "--keep-going"), "--keep-going means nothing with --verify"),
        (("--verify", "--model", "none"), "no figures of none are stated"),
        (("--verify", "set5,set41"), "no figure is stated on set41"),
        (("--verify", "--overwrite"), "--overwrite means nothing with --verify"),
        (("--speed", "--overwrite"), "--overwrite means nothing with --speed"),
        (("set5", "--overwrite"), "--overwrite means nothing without --report"),
        (("--list", "set5"), "a set means nothing with --list"),
        (("--list", "--speed"), "--speed means nothing with --list"),
        (("set5", "--model", "lanczos", "--ensemble"), "--ensemble with --model lanczos"),
        (("./mine", "--data-dir", "."), "--data-dir means nothing with folders alone"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(upres, arguments, what):
    done = upres("bench", *arguments)
    assert done.returncode == 2
    assert what in done.stderr.decode()
