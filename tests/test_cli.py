"""The real program, as people and scripts run it."""

import contextlib
import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import typer
from PIL import Image, ImageCms, JpegImagePlugin

from tests.conftest import SOAK
from tests.forks import until
from upres.cli.app import app
from upres.cli.groups import RootGroup
from upres.version import __version__ as upres_version

ROOT = Path(__file__).parent.parent


def lines(data):
    return data.decode().splitlines()


def opened(path):
    """An image, loaded and closed."""
    with Image.open(path) as image:
        image.load()
    return image


def assert_fails(done, code, *words):
    """One line on stderr that begins with the program's name, the right code, nothing on stdout."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert b"Traceback" not in done.stderr
    (line,) = [line for line in lines(done.stderr) if line.startswith("upres: ")]
    for word in words:
        assert word in line
    return line


def test_one_word_upscales_four_times_beside_the_picture(upres, small, tmp_path):
    done = upres("small.png")
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout) == ["small-x4.png"]
    (report,) = lines(done.stderr)
    assert report.startswith("small.png 48 x 40 -> small-x4.png 192 x 160, edsr-baseline x4, cpu ")
    with Image.open(tmp_path / "small-x4.png") as result:
        assert (result.size, result.mode, result.format) == ((192, 160), "RGB", "PNG")
        large = np.asarray(result).astype(int)
    shrunk = large.reshape(40, 4, 48, 4, 3).mean((1, 3))
    assert np.abs(shrunk - np.asarray(opened(small))).mean() < 3


def test_is_clearly_better_than_bicubic(upres, tmp_path, photo):
    from upres.imaging.metrics import Protocol, mod_crop, psnr
    from upres.imaging.resize import imresize

    whole = mod_crop(photo, 4)
    Image.fromarray(imresize(whole, 0.25)).save(tmp_path / "in.png")
    upres("in.png", "-o", "a.png")
    upres("in.png", "-o", "b.png", "-m", "bicubic")
    a, b = (np.asarray(opened(tmp_path / name)) for name in ("a.png", "b.png"))
    protocol = Protocol("y", 4)
    assert psnr(whole, a, protocol) > psnr(whole, b, protocol) + 0.6


def test_the_same_command_gives_the_same_bytes(upres, small, tmp_path):
    upres(small, "-o", "a.png", "--threads", 3)
    upres(small, "-o", "b.png", "--threads", 1)
    upres(small, "-o", "c.png", "--tile", 17)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    a, c = (np.asarray(opened(tmp_path / f"{n}.png")).astype(int) for n in "ac")
    assert np.abs(a - c).max() <= 1


@pytest.mark.parametrize(
    ("options", "size", "name"),
    [
        (["-s", "2"], (96, 80), "small-x2.png"),
        (["--scale", "2.5"], (120, 100), "small-x2.5.png"),
        (["-s", "8"], (384, 320), "small-x8.png"),
        (["--width", "100"], (100, 83), "small-100x83.png"),
        (["--height", "100"], (120, 100), "small-120x100.png"),
        (["--long-side", "150"], (150, 125), "small-150x125.png"),
        (["--megapixels", "0.03"], (190, 158), "small-190x158.png"),
    ],
)
def test_sizes_and_default_names(upres, small, tmp_path, options, size, name):
    done = upres(small, *options)
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout) == [str(tmp_path / name)]
    with Image.open(tmp_path / name) as result:
        assert result.size == size


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-s", "1"], ["--scale 1 is not a factor over 1 and up to 8"]),
        (["-s", "9"], ["--scale 9"]),
        (["-s", "nan"], ["--scale nan"]),
        (["--width", "20"], ["--width 20", "48 x 40"]),
        (["--width", "-5"], ["--width", "'-5' is not a whole number of at least 1"]),
        (["--width", "99", "-s", "2"], ["--scale and --width exclude each other"]),
        (["-m", "bicubic", "--ensemble"], ["bicubic, which has no network"]),
        (["--tile", "many"], ["--tile"]),
        (["--device", "abacus"], ["--device"]),
        (["--device", "cpu", "--precision", "fp16"], ["fp16 is not computed natively", "fp32"]),
        (["--quality", "101"], ["--quality"]),
        (["--surprise"], ["--surprise"]),
        (["-o", "-", "--json"], ["--json"]),
    ],
)
def test_options_that_mean_nothing_are_usage_errors(upres, small, options, words, tmp_path):
    done = upres(small, *options)
    assert_fails(done, 2, *words)
    assert done.stdout == b""
    assert [p.name for p in tmp_path.iterdir()] == ["small.png"]


def test_a_slip_of_the_first_word_is_told_from_a_picture(upres):
    assert_fails(upres("bathc"), 2, "no such file or command: bathc; did you mean batch?")
    assert_fails(upres("photo.png"), 3, "photo.png does not exist")
    assert_fails(upres("no*.png"), 3, "nothing matches 'no*.png'")


def test_bad_inputs_have_one_line_and_the_right_code(upres, tmp_path, small):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(small.read_bytes()[:-900])
    for name, word in (
        ("empty.png", "is empty"),
        ("text.png", "is not a picture"),
        ("cut.png", "is damaged"),
        (".", "is a folder"),
    ):
        assert_fails(upres("upscale", name), 3, word)
    assert_fails(upres("small.png", "--max-pixels", 100), 3, "over the limit of 100")
    assert_fails(upres("small.png", "-m", "nope"), 5, "no model is called 'nope'")
    assert_fails(upres("small.png", "-m", "nope.safetensors"), 5, "cannot be read")
    (tmp_path / "fake.safetensors").write_bytes(b"x" * 100)
    assert_fails(upres("small.png", "-m", "fake.safetensors"), 5, "not a safetensors file")
    assert not list(tmp_path.glob("*-x4*"))


def test_bad_outputs_have_one_line_and_the_right_code(upres, tmp_path, small):
    (tmp_path / "there.png").write_bytes(b"precious")
    for target, word in (
        ("there.png", "there.png exists"),
        ("no/a.png", "is not a folder"),
        ("no/", "no/ is not a folder; create it first"),
        ("a.doc", "no known format"),
        ("small.png", "the picture itself"),
        ("n" * 300 + ".png", "cannot be written"),
    ):
        assert_fails(upres("small.png", "-o", target, "-m", "bicubic"), 4, word)
    assert_fails(upres("small.png", "-o", "small.png", "--overwrite"), 4, "the picture itself")
    assert (tmp_path / "there.png").read_bytes() == b"precious"
    done = upres("small.png", "-o", "there.png", "--overwrite", "-m", "bicubic")
    assert done.returncode == 0
    assert opened(tmp_path / "there.png").size == (192, 160)


def test_colours_keep_their_resolution_in_files_that_lose(upres, small, tmp_path):
    """JPEG and AVIF at quality 95 in 4:4:4, as docs/quickstart.md says."""
    assert upres(small, "-o", "a.jpg", "-m", "bicubic").returncode == 0
    assert upres(small, "-o", "a.avif", "-m", "bicubic").returncode == 0
    with Image.open(tmp_path / "a.jpg") as made:
        assert JpegImagePlugin.get_sampling(made) == 0
        again = io.BytesIO()
        made.convert("RGB").save(again, "JPEG", quality=95)
        assert Image.open(again).quantization == made.quantization
    box = (tmp_path / "a.avif").read_bytes().partition(b"av1C")[2]
    assert box[2] & 0b1100 == 0  # chroma_subsampling_x and _y (AV1 in ISOBMFF, section 2.3)


@pytest.mark.parametrize(("suffix", "limit"), [("webp", 16383), ("jpg", 65500)])
def test_formats_too_small_for_the_result_are_found_first(upres, tmp_path, suffix, limit):
    side = limit // 4 + 1
    Image.new("RGB", (side, 1)).save(tmp_path / "wide.png")
    for more in ([], ["--dry-run"]):  # which computes nothing
        done = upres("wide.png", "-o", f"out.{suffix}", *more)
        assert_fails(done, 4, f"at most {limit} pixels")
    assert not (tmp_path / f"out.{suffix}").exists()


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (3, 2)])
def test_tiny_pictures(upres, tmp_path, size):
    Image.new("RGB", size, (200, 100, 50)).save(tmp_path / "tiny.png")
    assert upres("tiny.png", "-s", 3, "--ensemble").returncode == 0
    with Image.open(tmp_path / "tiny-x3.png") as result:
        assert result.size == (size[0] * 3, size[1] * 3)
        assert np.abs(np.asarray(result).astype(int) - (200, 100, 50)).max() < 40


def test_names_with_spaces_accents_and_length(upres, tmp_path, small):
    for name in ("bräunlich–猫 .png", "-dash.png", "n" * 240 + ".png"):
        shutil.copy(small, tmp_path / name)
        done = upres("-m", "bicubic", "--", name)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"{name[:-4]}-x4.png").exists()


def test_profile_orientation_and_grayness_come_through(upres, tmp_path, photo):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(photo[100:140, 120:168])
    image.save(tmp_path / "a.jpg", icc_profile=srgb, exif=exif, dpi=(240, 240), quality=95)
    image.convert("L").save(tmp_path / "gray.png")
    image.convert("LA").save(tmp_path / "ga.png")
    assert upres("a.jpg", "gray.png", "ga.png", "-s", 2).returncode == 0
    with Image.open(tmp_path / "a-x2.jpg") as result:
        assert result.size == (80, 96)
        assert result.info["icc_profile"] == srgb
        assert result.info["dpi"] == (240, 240)
        assert result.getexif().get(0x0112) == 1
    assert opened(tmp_path / "gray-x2.png").mode == "L"
    assert opened(tmp_path / "ga-x2.png").mode == "LA"


def test_what_changed_is_said(upres, tmp_path, photo):
    Image.fromarray(photo[:30, :30]).convert("CMYK").save(tmp_path / "cmyk.jpg")
    done = upres("cmyk.jpg", "-s", 2)
    assert b"note: cmyk.jpg: CMYK" in done.stderr
    quiet = upres("cmyk.jpg", "-s", 2, "--overwrite", "--quiet")
    assert quiet.stderr == b""
    assert lines(quiet.stdout) == ["cmyk-x2.jpg"]


def test_pipes(upres, small):
    done = upres("-", "-o", "-", "-s", 2, data=small.read_bytes())
    assert done.returncode == 0, done.stderr
    assert Image.open(io.BytesIO(done.stdout)).size == (96, 80)
    to_file = upres("-", "-o", "x.webp", "-s", 2, "-q", 100, data=small.read_bytes())
    assert lines(to_file.stdout) == ["x.webp"]
    assert opened(small.parent / "x.webp").format == "WEBP"
    assert_fails(upres("-"), 3, "standard input is empty")


def test_the_first_of_several_pages_is_said_to_be_all_that_is_kept(upres, tmp_path, photo):
    pages = [Image.fromarray(photo[:20, i : i + 30]) for i in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    done = upres("pages.tif", "-o", "one.jpg", "-s", 2, "-m", "bicubic", "--json")
    assert json.loads(done.stdout)["notes"] == ["only the first of 3 pages is kept"]
    assert upres("pages.tif", "-o", "all.tif", "-s", 2, "-m", "bicubic").returncode == 0
    with Image.open(tmp_path / "all.tif") as kept:
        assert kept.n_frames == 3


def test_what_is_said_of_a_later_page_is_told(upres, tmp_path):
    pages = np.random.default_rng(0).random((3, 30, 30), np.float32)
    pages[1, 5, 5] = 1e20
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack")
    done = upres("pages.tif", "-s", 2, "-m", "bicubic", "--json")
    assert done.returncode == 0, done.stderr
    notes = [note for note in json.loads(done.stdout)["notes"] if "missing" in note]
    assert len(notes) == 1
    assert done.stderr.decode().count(notes[0]) == 1


def test_a_name_that_lies_is_said(upres, tmp_path, small):
    Image.open(small).convert("RGB").save(tmp_path / "lies.png", "JPEG")
    done = upres("lies.png", "-s", 2, "-m", "bicubic")
    assert b"by its name the result is not JPEG" in done.stderr
    assert opened(tmp_path / "lies-x2.png").format == "JPEG"


def test_a_picture_without_a_suffix_keeps_its_format(upres, tmp_path, small):
    Image.open(small).convert("RGB").save(tmp_path / "photo", "JPEG")
    shutil.copy(tmp_path / "photo", tmp_path / "x.jpg_large")
    for name, made in (("photo", "photo-x2"), ("x.jpg_large", "x-x2.jpg_large")):
        done = upres(name, "-s", 2, "-m", "bicubic")
        assert done.returncode == 0, done.stderr
        assert opened(tmp_path / made).format == "JPEG"


def test_errors_of_several_pictures_name_them(upres, tmp_path):
    for name, size in (("wide.png", (500, 1)), ("usual.png", (60, 60))):
        Image.new("RGB", size).save(tmp_path / name)
    done = upres("wide.png", "usual.png", "--long-side", 100, "-m", "bicubic")
    assert done.returncode == 7
    assert lines(done.stderr)[0].startswith("upres: wide.png: --long-side 100")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["batch", ""], 2, "the folder's name is empty"),
        (["batch", "/", "--include", "zzz"], 4, "/ has no place beside it; give a folder with -o"),
        (["batch", ".", "-o", "-"], 2, "do not go to standard output"),
        (["upscale", ""], 3, "the name of a picture is empty"),
        ([""], 2, "no such file or command: ''"),
        (["x.png", "--threads", "200000"], 2, "'200000' is not a whole number from 1 to 1024"),
        (["x.png", "-q", "0"], 2, "'0' is not a whole number from 1 to 100"),
        (["x.png", "--width", "3.5"], 2, "'3.5' is not a whole number of at least 1"),
        (["x.png", "-s", "two"], 2, "'two' is not a number such as 2 or 2.5"),
        (["models", "show", "bicubic"], 5, "bicubic is computed, it has no weights"),
        (["bench", "set5", "--data-dir", "nowhere"], 3, "nowhere is not a folder"),
        (["bench", "set5", "--data-dir", ""], 2, "the folder's name is empty"),
        (["models", "add", "x.safetensors", "--name", ""], 2, "--name is empty"),
        (["batch", ".", "-o", "y", "--include", "*.tif"], 3, "is chosen by --include"),
        *(
            (["x.png", "-m", "bicubic", *given], 2, f"{' '.join(given)} with --model bicubic")
            for given in (
                ["--device", "cuda"],
                ["--precision", "bf16"],
                ["--alpha", "network"],
                ["--ensemble"],
            )
        ),
        (["x.png", "-m", "lanczos", "--tile", "64"], 2, "--tile with --model lanczos, which has"),
        (["compare", "x.png", "-m", "lanczos,bicubic", "--ensemble"], 2, "lanczos,bicubic, which"),
        (["train", "-d", ".", "-o", "."], 4, ". holds pictures of --data"),
        (
            ["train", "-d", ".", "--validate-every", "nan"],
            2,
            "--validate-every must be over 0, not nan",
        ),
    ],
)
def test_what_means_nothing_is_one_clear_line(upres, tmp_path, arguments, code, words):
    (tmp_path / "x.png").touch()
    assert_fails(upres(*arguments), code, words)
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_names_cannot_command_a_terminal(upres, tmp_path):
    name = "two  spaces \x1b(0 red.png"
    done = upres(name)
    assert done.stderr == b"upres: two  spaces \\x1b(0 red.png does not exist; check the path\n"
    (tmp_path / name).write_bytes(b"")
    assert b"\x1b" not in upres(name).stderr


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", *(["<&-", ">&-", "2>&-"] if SOAK else [])])
def test_closed_streams_are_nowhere(tmp_path, small, closed):
    for name, code in ((small.name, 0), *([("none.png", 3)] if "2>" in closed else [])):
        command = f"exec {sys.executable} -m upres {name} -s 2 -m bicubic --overwrite {closed}"
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == code
        assert b"Traceback" not in done.stderr
    assert opened(tmp_path / f"{small.stem}-x2.png").size == (96, 80)


def test_an_interrupt_during_imports_is_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'upres.cli.batch':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "upres", "--help"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 130
    assert lines(done.stderr) == ["upres: interrupted; no unfinished result was left"]


def test_options_of_what_a_group_means_alone(upres):
    assert upres("models", "--json").stdout == upres("models", "list", "--json").stdout
    assert_fails(upres("--json"), 2, "Missing argument 'FILE'")


def test_the_format_can_be_chosen_where_no_name_says_it(upres, small, tmp_path):
    plain = ("-s", 2, "-m", "bicubic", "--format", "jpeg")
    done = upres(small.name, *plain, "-o", "-")
    assert Image.open(io.BytesIO(done.stdout)).format == "JPEG"
    assert upres(small.name, *plain).returncode == 0
    assert opened(tmp_path / "small-x2.jpg").format == "JPEG"
    (tmp_path / "out").mkdir()
    assert upres(small.name, *plain, "-o", "out").returncode == 0
    assert opened(tmp_path / "out" / "small-x2.jpg").format == "JPEG"
    assert upres(small.name, *plain, "-o", "same.jpeg").returncode == 0
    refused = upres(small.name, *plain, "-o", "other.png")
    assert_fails(refused, 2, "other.png is PNG by its name, and not JPEG; leave --format out")
    assert_fails(
        upres(small.name, "--format", "psd"), 2, "'psd' is not a known format; known are jpeg"
    )


def test_pixels_are_counted_in_thousands_too(upres, small):
    plain = (small.name, "-s", 2, "-m", "bicubic", "--dry-run", "--max-pixels")
    assert_fails(upres(*plain, "1.9k"), 3, "48 x 40 pixels, over the limit of 1,900")
    assert upres(*plain, "1.92k").returncode == 0
    assert upres(*plain, "3G").returncode == 0
    assert_fails(upres(*plain, "3 GB"), 2, "is not a number of pixels such as 3G or 500M")


def test_files_beside_a_picture_are_named(upres, small, tmp_path):
    for name in ("small.pgw", "small.png.aux.xml", "small.xml"):
        (tmp_path / name).touch()
    done = upres(small.name, "-s", 2, "-m", "bicubic")
    assert b"small.pgw, small.png.aux.xml beside it is neither read nor adapted" in done.stderr
    (tmp_path / "small.pgw").rename(tmp_path / "small.PGW")
    done = upres(small.name, "-s", 2, "-m", "bicubic", "--overwrite")
    assert b"note: small.png: small." in done.stderr.replace(b"PGW", b"pgw")


def test_standard_input_is_upscaled_alone(upres, small):
    done = upres(small.name, "-", "-s", 2, data=small.read_bytes())
    assert_fails(
        done, 2, "- (standard input) cannot be combined with other pictures; upscale it alone"
    )
    assert done.stdout == b""


def test_named_pipes_among_several_files(upres, tmp_path, small):
    os.mkfifo(tmp_path / "b.png")
    contents = small.read_bytes()
    # A daemon: it waits for a reader, who may never come.
    writer = threading.Thread(
        target=(tmp_path / "b.png").write_bytes, args=(contents,), daemon=True
    )
    writer.start()
    done = upres(small.name, "b.png", "-s", 2, "-m", "bicubic")
    assert done.returncode == 0, done.stderr
    assert opened(tmp_path / "b-x2.png").size == opened(tmp_path / "small-x2.png").size


def test_several_files_globs_and_folders(upres, tmp_path, small):
    shutil.copy(small, tmp_path / "b.png")
    (tmp_path / "bad.png").write_bytes(b"bad")
    (tmp_path / "out").mkdir()
    done = upres("*.png", "-o", "out", "-s", 2)
    assert done.returncode == 7
    assert lines(done.stdout) == ["out/b-x2.png", "out/small-x2.png"]
    assert b"upres: bad.png is not a picture" in done.stderr
    assert b"upres: 1 of 3 pictures failed" in done.stderr
    assert_fails(upres("b.png", "small.png", "-o", "one.png"), 4, "a folder that exists")
    assert_fails(upres("b.png", "small.png", "-o", "-"), 4, "a folder that exists")
    (tmp_path / "sub").mkdir()
    shutil.copy(small, tmp_path / "sub" / "b.png")
    assert_fails(upres("b.png", "sub/b.png", "-o", "out"), 4, "would both be written")


def test_json_is_one_object_a_line(upres, tmp_path, small):
    (tmp_path / "bad.png").write_bytes(b"bad")
    done = upres("small.png", "bad.png", "-s", 2, "--json")
    done_event, failed = [json.loads(line) for line in lines(done.stdout)][::-1]
    if done_event["event"] == "failed":
        done_event, failed = failed, done_event
    assert (failed["event"], failed["input"], failed["exit_code"]) == ("failed", "bad.png", 3)
    assert done_event["event"] == "done"
    assert done_event["output_size"] == [96, 80]
    assert done_event["model"] == "edsr-baseline"
    assert done_event["seconds"] > 0
    for more, model in ((["-s", 2, "--fast"], "edsr-light"), (["-s", 3], "edsr-baseline")):
        done = upres("small.png", *more, "--json", "--overwrite")
        assert json.loads(done.stdout)["model"] == model


def test_a_dry_run_says_what_it_would_do_and_does_nothing(upres, small, tmp_path):
    done = upres("small.png", "--long-side", 300, "--fast", "--tile", 16, "--dry-run", "--json")
    planned = json.loads(done.stdout)
    assert planned["event"] == "planned"
    assert planned["output_size"] == [300, 250]
    assert planned["scales"] == [2, 4]
    assert planned["tiles"] == 9 + 36 - 6
    assert b"dry run" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["small.png"]


def test_a_model_file_of_ours_is_a_model(upres, small, tmp_path):
    import upres.weights.manifest as manifest
    from upres.weights.store import fetch

    (entry,) = manifest.load_manifest().family("edsr-light-x2")
    shutil.copy(fetch(entry), tmp_path / "mine.safetensors")
    assert upres("small.png", "-s", 2, "-m", "mine.safetensors", "-o", "a.png").returncode == 0
    assert upres("small.png", "-s", 2, "--fast", "-o", "b.png").returncode == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    twice = upres("small.png", "-s", 4, "-m", "mine.safetensors", "--json")
    assert json.loads(twice.stdout)["scales"] == [2, 2]
    shown = upres("models", "show", "mine.safetensors")
    assert b"architecture: edsr" in shown.stdout


def test_batch_mirrors_a_tree_and_goes_on(upres, tmp_path, small):
    tree = tmp_path / "scans"
    (tree / "a" / "b").mkdir(parents=True)
    for name in ("one.png", "a/two.png", "a/b/drei ü.png"):
        shutil.copy(small, tree / name)
    (tree / "a" / "bad.jpg").write_bytes(small.read_bytes()[:100])
    (tree / "notes.txt").write_text("no picture")
    (tree / "loop").symlink_to(tree)
    (tree / "._one.png").write_bytes(b"left behind by another system")
    (tree / ".hidden").mkdir()
    shutil.copy(small, tree / ".hidden" / "six.png")
    os.mkfifo(tree / "waits.png")
    first = upres("batch", "scans", "-s", 2)
    assert first.returncode == 7
    made = {
        str(p.relative_to(tmp_path / "scans-x2")) for p in (tmp_path / "scans-x2").rglob("*.png")
    }
    assert made == {"one.png", "a/two.png", "a/b/drei ü.png"}
    assert lines(first.stdout) == [
        "scans-x2/one.png", "scans-x2/a/two.png", "scans-x2/a/b/drei ü.png",
    ]  # fmt: skip
    assert b"5 pictures: 3 done, 2 failed, 2 other files\nresults in scans-x2\n" in first.stderr
    assert b"upres: scans/waits.png is neither a file nor a folder" in first.stderr
    assert b"upres: scans/a/bad.jpg is damaged" in first.stderr
    (tree / "a" / "bad.jpg").unlink()
    (tree / "waits.png").unlink()
    (tmp_path / "scans-x2" / "one.png").unlink()
    second = upres("batch", "scans", "-s", 2)
    assert second.returncode == 0, second.stderr
    assert lines(second.stdout) == ["scans-x2/one.png"]


def test_batch_never_enters_its_own_output(upres, tmp_path, small):
    for _ in range(2):
        done = upres("batch", ".", "-o", "large", "-s", 2, "-m", "bicubic", "--json")
        assert done.returncode == 0, done.stderr
    assert json.loads(lines(done.stdout)[-1]) == {
        "event": "summary", "pictures": 1, "done": 0, "failed": 0, "unfinished": 0, "unchanged": 1,
        "failed_before": 0, "not_ours": 0, "others": 0, "unread_folders": 0, "output": "large",
    }  # fmt: skip
    names = {p.name for p in (tmp_path / "large").iterdir()}
    assert names == {"small.png", ".upres-journal.jsonl", ".upres-lock"}
    planned = upres("batch", ".", "-o", "new", "-s", 3, "-m", "bicubic", "--dry-run", "--json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(lines(planned.stdout)[0])["output"] == "new/small.png"
    assert not (tmp_path / "new").exists()
    assert_fails(upres("batch", ".", "-o", "."), 4, "is the folder of the pictures")
    assert_fails(upres("batch", "n" * 300), 3, "is not a folder")
    assert_fails(upres("batch", "small.png"), 3, "is not a folder")
    assert_fails(upres("batch", "nowhere"), 3, "is not a folder")


def test_a_full_disk_keeps_the_old_file(tmp_path, small):
    (tmp_path / "out.png").write_bytes(b"old")
    command = f"{sys.executable} -m upres {small.name} -o out.png --overwrite -m bicubic"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 20 && exec {command}"],
        cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    assert_fails(done, 6, "larger than files may be there")
    assert (tmp_path / "out.png").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.png", "small.png"]


@pytest.mark.parametrize(
    ("memory", "options", "why"),
    [
        (10**5, ("-m", "bicubic"), "the result needs 0.0 GiB of memory, 0.0 GiB are free; write"),
        (10**6, ("--tile", 0, "--precision", "fp32"), "GiB are free; omit --tile"),
    ],
)
def test_what_is_larger_than_memory_is_refused_first(
    upres, tmp_path, photo, patched, memory, options, why
):
    Image.fromarray(photo).save(tmp_path / "in.png")
    env = patched(f"from upres.cli import plan\nplan.free_main_memory = lambda: {memory}\n")
    done = upres("in.png", "-o", "out.jpg", "-s", 2, *options, env=env)
    assert_fails(done, 6, why)
    assert not (tmp_path / "out.jpg").exists()


def test_results_are_read_again_before_they_take_their_names(upres, small, tmp_path, patched):
    (tmp_path / "out.png").write_bytes(b"old")
    env = patched(
        "from upres.imaging import encoder\n"
        "encode = encoder.encode\n"
        "def cut(*arguments):\n"
        "    data, notes = encode(*arguments)\n"
        "    return data[:-20], notes\n"
        "encoder.encode = cut\n"
    )
    done = upres(small, "-o", "out.png", "--overwrite", "-s", 2, "-m", "bicubic", env=env)
    assert_fails(done, 4, "the PNG that was written has no end")
    assert (tmp_path / "out.png").read_bytes() == b"old"


def test_pages_that_cannot_become_so_large_are_named_first(upres, tmp_path):
    pages = [Image.new("RGB", (width, 20)) for width in (40, 90)]
    pages[0].save(tmp_path / "in.tif", save_all=True, append_images=pages[1:])
    done = upres("in.tif", "-o", "out.tif", "--width", 80, "-m", "bicubic")
    assert_fails(done, 2, "page 2: --width 80 is 0.889 times a picture of 90 x 20")
    done = upres("in.tif", "-o", "out.tif", "--width", 100, "-m", "bicubic", "--dry-run")
    assert done.returncode == 0, done.stderr


def test_nohup_is_heeded(tmp_path, small):
    process = subprocess.Popen(
        [sys.executable, "-m", "upres", small.name, "-s", "2", "-o", "out.png", "--quiet"],
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # as nohup does
    )
    while process.poll() is None:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    assert process.returncode == 0
    assert (tmp_path / "out.png").exists()


def into(pipe, data, process):
    """Write to a named pipe when the process has opened it."""
    opened = []

    def there():
        with contextlib.suppress(OSError):
            opened.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return opened

    until(there, process)
    os.set_blocking(opened[0], True)
    with os.fdopen(opened[0], "wb") as file:
        file.write(data)


@pytest.mark.parametrize(
    ("kill", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupt_leaves_nothing_half_written(start, tmp_path, photo, kill, code):
    picture = io.BytesIO()
    Image.fromarray(np.tile(photo, (4, 4, 1))).save(picture, "PNG")
    os.mkfifo(tmp_path / "big.png")
    (tmp_path / "out.png").write_bytes(b"an earlier result")
    options = ("--ensemble", "--precision", "fp32", "--overwrite")
    process = start("big.png", "-o", "out.png", *options)
    into(tmp_path / "big.png", picture.getvalue(), process)
    time.sleep(1)
    process.send_signal(kill)
    assert process.wait(60) == code
    assert process.out == b""
    word = "interrupted" if code == 130 else "terminated"
    assert lines(process.err)[-1] == f"upres: {word}; no unfinished result was left"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big.png", "out.png"]
    assert (tmp_path / "out.png").read_bytes() == b"an earlier result"


def test_a_reader_that_goes_away_is_no_error_of_ours(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.png")
    # The picture is more than a pipe holds.
    for command, codes in (("a.png -s 2 -m bicubic -o -", {141}), ("models", {0, 141})):
        script = f"set -o pipefail; {sys.executable} -m upres {command} | true"
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode in codes, done
        assert b"Traceback" not in done.stderr
        assert b"upres:" not in done.stderr


def test_a_reader_that_is_gone_ends_it_with_141(start, small):
    reads, writes = os.pipe()
    process = start(small, "-s", "2", "-m", "bicubic", "-o", "-", stdout=writes)
    os.close(reads)
    os.close(writes)
    assert process.wait(60) == 141
    assert b"Traceback" not in process.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["-o", "-"], []], ids=["picture", "path"])
def test_a_full_standard_output_is_an_output_error(start, small, arguments):
    with Path("/dev/full").open("wb") as full:
        process = start(small, "-s", "2", "-m", "bicubic", *arguments, stdout=full)
    assert process.wait() == 4
    assert b"Traceback" not in process.err
    assert b"upres: standard output cannot be written (No space left on device)" in process.err


def test_an_interrupt_while_a_pipe_is_silent(start):
    reads, writes = os.pipe()
    process = start("-", "-o", "x.png", stdin=reads)
    os.write(writes, b"x")
    until(lambda: not select.select([reads], [], [], 0)[0], process)  # it has read that
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    os.close(reads)
    os.close(writes)


def test_a_named_pipe_is_read_once(tmp_path, small, upres):
    fifo = tmp_path / "pipe.png"
    os.mkfifo(fifo)
    writer = subprocess.Popen(["sh", "-c", f"cat {small} > {fifo}"])
    done = upres(fifo, "-s", 2, "-m", "bicubic", "-o", "x.png")
    assert writer.wait(20) == 0
    assert done.returncode == 0, done.stderr
    assert opened(tmp_path / "x.png").size == (96, 80)


def test_names_that_are_not_utf8(tmp_path, small):
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    shutil.copy(small, name)
    done = subprocess.run(
        [sys.executable, "-m", "upres", name, "-s", "2", "-m", "bicubic"],
        cwd=tmp_path, capture_output=True, check=False, env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == os.fsencode(tmp_path) + b"/caf\xe9-x2.png\n"


def test_names_on_a_terminal_that_knows_only_ascii(upres, small, tmp_path):
    done = upres(small, "-m", "bicubic", "-o", "猫.png", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "猫.png\n".encode()


def test_what_is_wrong_for_all_pictures_is_said_once(upres, tmp_path, small):
    shutil.copy(small, tmp_path / "b.png")
    assert_fails(upres("small.png", "b.png", "--precision", "fp16", "--device", "cpu"), 2, "fp16")
    assert_fails(upres("small.png", "b.png", "-m", "edsr-base", "-s", 2), 5, "HF_HUB_OFFLINE")


def test_a_quality_that_means_nothing_is_said(upres, small):
    done = upres("small.png", "-s", 2, "-m", "bicubic", "-q", 50)
    assert b"PNG is lossless" in done.stderr


def test_help_is_fast_to_read_and_complete(upres):
    for arguments in (["--help"], ["-h"], []):
        text = upres(*arguments).stdout.decode()
        for word in ("upscale", "batch", "models", "doctor", "Examples:", "Exit codes:"):
            assert word in text
    text = upres("upscale", "--help").stdout.decode()
    for heading in ("Size:", "Model:", "Execution:", "Output:", "Examples:"):
        assert heading in text
    assert lines(upres("--version").stdout) == [f"upres {upres_version}"]


def test_every_command_and_option_has_help():
    import typer

    def walk(command, context):
        assert command.help, command.name
        for parameter in command.params:
            assert getattr(parameter, "help", None), (command.name, parameter.name)
        for name in getattr(command, "list_commands", lambda c: [])(context):
            walk(command.get_command(context, name), context)

    command = typer.main.get_command(app)
    walk(command, typer.Context(command, info_name="upres"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("upres mod", "models"),
        ("upres --mod", "--model"),
        ("upres photo.png --model eds", "edsr-light"),
        ("upres upscale --device c", "cuda"),
    ],
)
def test_shell_completion(words, expected, upres):
    environment = {
        "_UPRES_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    code = "import sys; sys.argv[0] = 'upres'; from upres.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment},
        capture_output=True, check=False,
    )  # fmt: skip
    assert expected in done.stdout.decode().split(), done


def test_what_is_light_stays_light():
    """Neither the package, nor help, nor a list of models imports torch or numpy."""
    for code in (
        "import upres, upres.weights.manifest, upres.weights.store",
        "from upres.cli.app import app; app(['--help'])",
        "from upres.cli.app import app; app(['models', 'list'])",
        "from upres.cli.app import app; app(['models', 'show', 'edsr-light'])",
    ):
        check = (
            "import sys, atexit\n"
            "heavy = lambda: sorted({'torch', 'numpy', 'PIL'} & set(sys.modules))\n"
            "atexit.register(lambda: print('HEAVY', heavy()))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", check + code], capture_output=True, check=True, text=True
        )
        assert done.stdout.splitlines()[-1] == "HEAVY []", code


def test_doctor_speaks_where_there_is_no_home(upres):
    done = upres("doctor", env={"UPRES_HOME": "~nobody-of-that-name/x"})
    assert done.returncode == 0
    assert b"will use:" in done.stdout


@pytest.mark.parametrize("wrong", [{"HF_ENDPOINT": "http://[x"}, {"HF_HUB_ETAG_TIMEOUT": "30s"}])
def test_doctor_says_what_is_wrong_with_the_hubs_settings(upres, wrong):
    done = upres("doctor", env=wrong)
    assert done.returncode == 0, done.stderr
    assert b"huggingface_hub does not start" in done.stdout


def test_a_pictures_bytes_do_not_go_to_a_terminal(start, small):
    import pty

    screen, end = pty.openpty()
    process = start("small.png", "-o", "-", "-s", "2", "-m", "bicubic", stdout=end)
    assert process.wait(60) == 2
    assert b"a picture's bytes are not for a terminal; give -o FILE" in process.err
    os.close(end)
    os.close(screen)


def test_a_terminal_that_is_closed_is_no_reason_to_end(start, tmp_path, photo):
    import pty

    Image.fromarray(photo[:150, :220]).save(tmp_path / "a.png")
    screen, end = pty.openpty()
    told = {"stderr": end, "env": {"TERM": "xterm"}}
    process = start("a.png", "-s", "2", "--fast", "--tile", "16", **told)
    os.close(end)
    seen = b""
    while b"tile " not in seen:
        seen += os.read(screen, 65536)
    assert process.poll() is None  # it has more to show
    os.close(screen)
    assert process.wait(60) == 0
    assert opened(tmp_path / "a-x2.png").size == (440, 300)


def test_doctor_knows_the_machine(upres):
    facts = json.loads(upres("doctor", "--json").stdout)
    assert facts["torch"].startswith("2.")
    assert facts["will use"].split()[0] in ("cpu", "cuda", "mps")
    text = upres("doctor").stdout.decode()
    assert "native bfloat16:" in text


def test_verify_is_green_and_models_are_shown(upres):
    done = upres("models", "verify")
    assert done.returncode == 0
    assert "edsr-light-x4: ok" in lines(done.stdout)
    assert "edsr-base-x2: not downloaded" in lines(done.stdout)
    shown = upres("models", "show", "edsr-base-x2").stdout.decode()
    assert "not measured by us" in shown
    listed = [json.loads(line) for line in lines(upres("models", "list", "--json").stdout)]
    assert {entry["id"] for entry in listed} >= {"edsr-light-x2", "edsr-base-x4"}
    assert_fails(upres("models", "pull"), 2, "--all")
    assert_fails(upres("models", "show", "nope"), 5, "no model")
    assert_fails(upres("models", "path", "edsr-base"), 5, "not on this machine")


def test_the_documented_command_line_is_the_real_one():
    generated = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate_cli.py", "--print"],
        capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    assert (ROOT / "docs" / "cli.md").read_text() == generated, "run 'make docs'"


def test_on_a_terminal_a_result_is_named_once(start, small):
    import pty

    screen, end = pty.openpty()
    command = (small, "-m", "bicubic", "-o", "out.png")
    for more, times in (([], 1), (["--quiet", "--overwrite"], 1)):
        assert start(*command, *more, stdout=end, stderr=end).wait() == 0
        assert os.read(screen, 65536).count(b"out.png") == times
    os.close(end)
    os.close(screen)


def test_a_terminal_shows_progress_and_a_pipe_does_not(upres, start, tmp_path, photo):
    import pty

    named = "a\x1b[2J.png"  # which would clear the screen
    Image.fromarray(photo[:150, :220]).save(tmp_path / named)
    arguments = (named, "-s", "2", "--fast", "--tile", "64")
    screen, end = pty.openpty()
    process = start(*arguments, stderr=end, env={"TERM": "xterm"})
    os.close(end)
    seen = b""
    while True:
        try:
            data = os.read(screen, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        seen += data
    assert process.wait(60) == 0
    os.close(screen)
    assert process.out == b"a\x1b[2J-x2.png\n"
    assert b"\x1b[2J" not in seen
    for word in (b"a\\x1b[2J.png", b"%", b"MP/s", b"tile ", b" of 12"):
        assert word in seen
    quiet = upres(*arguments, "--overwrite")
    assert quiet.returncode == 0
    assert b"%" not in quiet.stderr
    assert len(lines(quiet.stderr)) == 1


def test_a_folder_that_cannot_be_written_is_an_output_error(upres, small):
    assert_fails(
        upres("small.png", "-o", "/sys/kernel/small.png", "-m", "bicubic"), 4, "/sys/kernel"
    )


def test_memory_that_is_full_anywhere_is_one_line(capsys):
    small = typer.Typer(cls=RootGroup)

    @small.command()
    def fill():
        raise MemoryError

    @small.command()
    def leave():
        pass

    with pytest.raises(SystemExit, match="6"):
        small(["fill"])
    said = "upres: memory is full; free some, or take a smaller picture or scale\n"
    assert capsys.readouterr().err == said


def test_a_result_named_by_its_size_is_not_written_over_another_picture(upres, small, tmp_path):
    shutil.copy(small, tmp_path / "small-100x83.png")
    before = (tmp_path / "small-100x83.png").read_bytes()
    plain = ("--width", 100, "-m", "bicubic", "--overwrite")
    done = upres("small.png", "small-100x83.png", *plain)
    assert done.returncode == 7, done.stderr
    assert b"small-100x83.png is to be upscaled too, and would be overwritten" in done.stderr
    assert (tmp_path / "small-100x83.png").read_bytes() == before
    # Links to one file are two pictures, and neither's result is in the other's place.
    os.link(small, tmp_path / "same.png")
    both = upres("small.png", "same.png", "--width", 99, "-m", "bicubic")
    assert both.returncode == 0, both.stderr
    # By a link as well, and where results are named by the factor.
    (tmp_path / "small-x2.png").symlink_to(tmp_path / "small-100x83.png")
    done = upres("small.png", "small-100x83.png", "-s", 2, "-m", "bicubic", "--overwrite")
    assert_fails(done, 4, "small.png would be written over small-100x83.png")
    assert (tmp_path / "small-100x83.png").read_bytes() == before


def test_a_place_that_links_to_an_impossible_name_is_replaced_or_refused(upres, small, tmp_path):
    (tmp_path / "out.png").symlink_to("n" * 300)
    plain = ("small.png", "-s", 2, "-m", "bicubic", "-o", "out.png")
    assert_fails(upres(*plain), 4, "out.png exists")
    assert upres(*plain, "--overwrite").returncode == 0


def test_jpeg_2000_without_a_container_is_read_and_becomes_png(upres, small, tmp_path):
    Image.open(small).convert("RGB").save(tmp_path / "a.j2k")
    done = upres("a.j2k", "-s", 2, "-m", "bicubic")
    assert (done.returncode, done.stdout) == (0, b"a-x2.png\n"), done.stderr
    refused = upres("a.j2k", "-s", 2, "-m", "bicubic", "-o", "b.j2k")
    assert_fails(refused, 4, "b.j2k would be JPEG 2000 without a container, which is read and not")


def test_a_report_that_nobody_would_see_is_refused(upres, small):
    plain = (small, "-m", "bicubic", "--report-fidelity")
    assert_fails(upres(*plain, "--quiet"), 2, "--report-fidelity with --quiet, which has none")
    assert_fails(upres(*plain, "--dry-run"), 2, "--report-fidelity with --dry-run, which has none")
    assert upres(*plain, "--quiet", "--json").returncode == 0


def test_an_empty_name_for_the_result_is_said(upres, small):
    assert_fails(upres(small, "-m", "bicubic", "-o", ""), 2, "the name after -o is empty")


def test_doctor_speaks_where_libvips_does_not_start(upres, patched):
    done = upres("doctor", env=patched("import sys\nsys.modules['pyvips'] = None\n"))
    assert done.returncode == 0, done.stderr
    assert b"libvips:          does not start: " in done.stdout
