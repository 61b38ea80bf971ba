"""Pictures that need not fit into memory: read and written row by row."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import SOAK
from tests.forks import until
from upres.api import Upscaler
from upres.errors import InputError, OutputError, ResourceError
from upres.imaging.encoder import encode
from upres.imaging.picture import Picture
from upres.imaging.reader import read_picture
from upres.imaging.spool import Spool, spool_path
from upres.imaging.streaming import StreamedPixels, open_streamed
from upres.imaging.tiff_writer import TiffPages
from upres.imaging.verify import check_written
from upres.imaging.writer import check_disk
from upres.inference.device import choose
from upres.inference.planning import plan_tiles
from upres.inference.rows import ArrayRows, ResizeStage
from upres.inference.sizes import Goal
from upres.model import Model
from upres.networks import EDSR, MDSR
from upres.weights.facts import ModelFacts


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A network of two small blocks, as a file: what is tested is what goes on around it."""
    torch.manual_seed(0)
    numbers = {"blocks": 2, "channels": 8}
    facts = ModelFacts(
        "tiny", "mdsr", tuple(numbers.items()), (2, 4), "rgb", "none", "tests", "nothing"
    )
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    Model(MDSR((2, 4), **numbers), facts).save(path)
    return str(path)


def written(path, channels, dtype, form, size=(150, 90)):
    """A picture of noise over a ramp."""
    top = np.iinfo(dtype).max
    rng = np.random.default_rng(channels)
    ramp = np.linspace(0, top * 0.9, size[0])[:, None, None]
    made = (ramp + rng.integers(0, top // 10, (*size, channels))).astype(dtype)
    if channels in (2, 4):
        made[40:80, :30, -1] = 0
    path.write_bytes(encode(Picture(made, form), form)[0])
    return made


@pytest.mark.parametrize("model", ["bicubic", "tiny"])
@pytest.mark.parametrize(
    ("channels", "dtype", "form"),
    [
        (1, np.uint8, "PNG"),
        (3, np.uint8, "PNG"),
        (4, np.uint8, "PNG"),
        (3, np.uint16, "PNG"),
        (2, np.uint8, "TIFF"),
        (3, np.uint8, "TIFF"),
        (4, np.uint16, "TIFF"),
        (1, np.uint16, "TIFF"),
        (3, np.uint8, "JPEG"),
    ],
)
def test_reading_row_by_row_changes_nothing(tmp_path, tiny, model, channels, dtype, form):
    path = tmp_path / "picture"
    written(path, channels, dtype, form)
    large = open_streamed(path, at_least=1)
    assert large is not None
    assert (large.width, large.height, large.channels) == (90, 150, channels)
    whole = read_picture(path)
    # Tiles, so that rows are read in several turns, halos overlapping.
    model = tiny if model == "tiny" else model
    upscaler = Upscaler(model, Goal(scale=2), tile=32, precision="fp32")
    got = upscaler.pipeline(large.pixels).run()
    want = upscaler.pipeline(whole.pixels).run()
    assert got.dtype == want.dtype == dtype
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_channels_of_one_value_stay_it_row_by_row_too(tmp_path, tiny, dtype):
    """Opacity that a network would be given, and a band beside colours."""
    path, top = tmp_path / "in.tif", np.iinfo(dtype).max
    rng = np.random.default_rng(0)
    colours = rng.integers(0, top, (60, 50, 3)).astype(dtype)
    for kinds, options in (("unassalpha", {"alpha": "network"}), ("unspecified", {})):
        same = np.full((60, 50, 1), top - 1, dtype)
        pixels = np.concatenate([colours, same], axis=2)
        tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=[kinds], metadata=None)
        large, whole = open_streamed(path, at_least=1), read_picture(path)
        upscaler = Upscaler(tiny, Goal(scale=2), precision="fp32", **options)
        got = upscaler.pipeline_of(large).run()
        np.testing.assert_array_equal(got, upscaler.pipeline_of(whole).run())
        assert (got[..., 3] == top - 1).all()


def test_16_bits_with_bands_are_read_once_before_the_work(tmp_path, tiny, monkeypatch):
    made = np.random.default_rng(0).integers(0, 900, (60, 50, 6)).astype(np.uint16)
    kinds = ["unassalpha", "unspecified", "unspecified"]
    tifffile.imwrite(
        tmp_path / "in.tif", made, photometric="rgb", extrasamples=kinds, metadata=None
    )
    large, whole = open_streamed(tmp_path / "in.tif", at_least=1), read_picture(tmp_path / "in.tif")
    passes, blocks = [], StreamedPixels.blocks
    monkeypatch.setattr(StreamedPixels, "blocks", lambda self: passes.append(self) or blocks(self))
    upscaler = Upscaler(tiny, Goal(scale=2), precision="fp32")
    pipeline = upscaler.pipeline_of(large)
    assert len(passes) == 1
    np.testing.assert_array_equal(pipeline.run(), upscaler.pipeline_of(whole).run())
    assert len(passes) == 1


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 20), st.integers(1, 30)), max_size=30
    )
)
def test_readers_go_on_independently(tmp_path_factory, steps):
    path = tmp_path_factory.getbasetemp() / "readers.png"
    if not path.exists():
        written(path, 3, np.uint8, "PNG")
    whole = read_picture(path).pixels
    large = open_streamed(path, at_least=1)
    readers, tops = [large.pixels.reader(), large.pixels.reader()], [0, 0]
    for which, forward, count in steps:
        tops[which] = top = min(149, tops[which] + forward)
        bottom = min(150, top + count)
        np.testing.assert_array_equal(readers[which].read(top, bottom), whole[top:bottom])


@pytest.mark.parametrize("why", ["small", "turned", "palette", "frames", "float", "profile"])
def test_what_has_to_be_read_whole_is(tmp_path, why):
    path = tmp_path / "picture.png"
    image = Image.new("RGB", (30, 20), "red")
    options = {}
    if why == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        options["exif"] = exif
    elif why == "palette":
        image = image.quantize(4)
    elif why == "frames":
        options = {"save_all": True, "append_images": [image.rotate(180, fillcolor="blue")]}
        image.putpixel((0, 0), (0, 0, 255))
    elif why == "profile":
        from tests.test_fidelity import GRAY

        options["icc_profile"] = GRAY
    image.save(path, **options)
    if why == "float":
        path.write_bytes(encode(Picture(np.ones((9, 9, 1), np.float32), "TIFF"), "TIFF")[0])
    assert open_streamed(path, at_least=10**6 if why == "small" else 1) is None


def test_a_file_that_ends_early_is_found_while_it_is_read(tmp_path):
    path = tmp_path / "picture.tif"
    written(path, 3, np.uint8, "TIFF", (600, 400))
    pages = path.read_bytes()
    at = len(pages) // 2
    path.write_bytes(pages[:at] + b"\0" * (len(pages) - at))
    large = open_streamed(path, at_least=1)
    with pytest.raises(InputError, match="damaged"):
        large.pixels.reader().read(0, 600)


# Writing


def tiff(path, rows, width, nbytes=0):
    """A TIFF of noise, written strip by strip."""
    rng = np.random.default_rng(0)
    strips = (
        rng.integers(0, 256, (min(64, rows - top), width, 3), np.uint8)
        for top in range(0, rows, 64)
    )
    with path.open("w+b") as file, TiffPages(file, nbytes) as pages:
        about = Picture(np.empty((0, 0, 3), np.uint8), "TIFF")
        pages.add(about, (rows, width, 3), np.dtype(np.uint8), strips, None, None)


def peak(tmp_path, *arguments):
    """Bytes that a run of the program takes at most."""
    code = (
        "import sys; from upres.cli.app import main\n"
        "try: main()\n"
        "finally:\n"
        "    text = open('/proc/self/status').read().partition('VmHWM:')[2]\n"
        "    sys.stderr.write('PEAK ' + text.split()[0])\n"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    # Threads with heaps of their own hold on to memory by chance.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, env=environment)
    return 1024 * int(done.stderr.rpartition(b"PEAK ")[2])


@pytest.mark.skipif(not SOAK or sys.platform != "linux", reason="make soak; /proc")
@pytest.mark.parametrize("form", ["tif", "png"])
def test_memory_does_not_depend_on_the_height(tmp_path, monkeypatch, form):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # Pillow only reads the size here
    times = (1, 4, 16, 64) if form == "tif" else (1, 4, 16)
    peaks = []
    for factor in times:
        tiff(tmp_path / "in.tif", 1000 * factor, 5600)
        model = ("-s", 1.05, "-m", "bicubic", "--max-memory", "1G")
        peaks.append(peak(tmp_path, "in.tif", "-o", f"out.{form}", *model, "--overwrite"))
        with Image.open(tmp_path / f"out.{form}") as made:
            assert made.size == (5880, 1050 * factor)
    # Both pictures, held whole, would take so much more.
    more = (times[-1] - times[0]) * (1000 * 5600 + 1050 * 5880) * 3
    assert max(peaks) - min(peaks) < min(more / 2, 200 * 2**20)
    assert max(peaks) < 2**30


def test_a_band_of_wide_tiles_keeps_to_its_share():
    network = EDSR(2)
    target = choose("cpu", "fp32", deep=False)
    size, row, result = (30_000, 30_000), 30_000 * 3 * 4, 30_000 * 3 * 8
    needs = {"bytes_per_pixel": 30, "values": 1, "bytes_per_row": row, "bytes_per_result": result}
    usual = plan_tiles(network, 2, target, size, None, **needs)
    asked = plan_tiles(network, 2, target, size, 2048, **needs)
    limited = {**needs, "max_memory": 2**30}
    tight = plan_tiles(network, 2, target, size, None, **limited)
    shared = plan_tiles(network, 2, target, size, None, bands=2, **limited)
    share = (2**30 - 400 * 2**20) / 3
    for plan, most in ((usual, 2**29), (asked, 2**29), (tight, share), (shared, share / 2)):
        low = max(b - a for a, b in plan.grid.rows)
        taken = (low + 2 * plan.grid.halo) * row + low * result
        assert taken <= most
        assert 2 * low >= min(2048, most // (row + result) - 2 * plan.grid.halo)  # nor far below
    assert max(b - a for a, b in asked.grid.columns) == 2000
    assert tight.memory <= (2**30 - 400 * 2**20) / 2
    # Where the user says nothing, very low bands would only cost time.
    wide = plan_tiles(network, 2, target, size, None, **{**needs, "bytes_per_result": 60 * row})
    assert max(b - a for a, b in wide.grid.rows) > 32


PEAK = """
import sys, torch
from upres.inference.streamed import StreamedExecutor
from upres.inference.tiling import Cut
from upres.networks import EDSR

blocks, channels, height, width = map(int, sys.argv[1:])
executor = StreamedExecutor(EDSR(2, blocks=blocks, channels=channels), 2, torch.float32)
def peak():
    text = open("/proc/self/status").read()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024

with torch.inference_mode():
    for _ in executor.rows(torch.zeros(1, 3, 64, 64), Cut()):
        pass
    x, before = torch.zeros(1, 3, height, width), peak()
    for _ in executor.rows(x, Cut()):
        pass
pixels = height * width * executor.bytes_per_pixel()
print(peak() - before, int(pixels + executor.fixed_bytes(height, width)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("size", [(16, 8, 900, 3000), (48, 16, 400, 600)][: 2 if SOAK else 1])
def test_layers_take_the_memory_that_is_planned(size):
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, size)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )
    took, planned = map(int, done.stdout.split())
    assert planned / 4 < took < planned * 1.25


@pytest.mark.parametrize("model", ["bicubic", "edsr-light"])
def test_a_limit_holds_for_everything(upres, tmp_path, model):
    Image.new("RGB", (6000, 3000)).save(tmp_path / "in.png")
    done = upres("in.png", "-s", 2, "-m", model, "--max-memory", "500M")
    assert done.returncode == 2
    assert b"give at least 1G" in done.stderr
    if model != "bicubic":
        done = upres("in.png", "-s", 2, "-m", model, "--max-memory", "1G", "--tile", 0)
        assert done.returncode == 2
        assert b"--tile 0 takes" in done.stderr
    assert not list(tmp_path.glob("*-x2*"))


def test_wide_results_are_resized_in_fewer_rows():
    usual, wide = (
        ResizeStage(ArrayRows(np.zeros((40, width, 3), np.uint8)), 80, 8 * width, "bicubic", 255)
        for width in (100, 20_000)
    )
    assert len(next(usual.strips())) == 80
    assert len(next(wide.strips())) * 8 * 20_000 * 3 * 4 <= 2**25


@pytest.mark.parametrize("model", ["bicubic", "edsr-light"])
def test_a_part_of_a_large_result_is_that_part_enlarged_alone(tmp_path, model):
    path, out = tmp_path / "in.tif", tmp_path / "out.tif"
    made = written(path, 3, np.uint8, "TIFF", (400, 300))
    upscaler = Upscaler(model, Goal(scale=2), tile=100, precision="fp32")
    large = open_streamed(path, at_least=1)
    strips = upscaler.pipeline(large.pixels).strips()
    with out.open("w+b") as file, TiffPages(file, 0) as pages:
        pages.add(large, (800, 600, 3), np.dtype(np.uint8), strips, None, None)
    check_written(out, "TIFF", 600, 800)
    got = read_picture(out).pixels[400:600, 300:440]
    alone = upscaler.upscale(made[200 - 40 : 300 + 40, 150 - 40 : 220 + 40])[80:-80, 80:-80]
    assert np.abs(got.astype(int) - alone).max() <= (0 if model == "bicubic" else 1)


def test_a_bigtiff_is_read_by_others(tmp_path):
    import tifffile

    path = tmp_path / "big.tif"
    tiff(path, 100, 80, nbytes=5 * 10**9)
    assert path.read_bytes()[:4] == b"II+\0"
    assert tifffile.imread(path).shape == (100, 80, 3)
    assert read_picture(path).height == 100


# Going on


@pytest.mark.parametrize(
    ("model", "scale", "channels", "options"),
    [
        ("bicubic", 2, 3, {}),
        ("bicubic", 2.7, 4, {}),
        ("tiny", 2, 4, {"tile": 32}),
        ("tiny", 2, 4, {"tile": 32, "alpha": "network"}),
        ("tiny", 8, 3, {"tile": 32}),
        ("tiny", 2.5, 3, {"tile": 32}),
        ("tiny", 2, 3, {"tile": 32, "wrap": True}),
    ],
)
def test_rows_from_anywhere_on_are_the_same_rows(tmp_path, tiny, model, scale, channels, options):
    path = tmp_path / "in.png"
    written(path, channels, np.uint8, "PNG", (100, 40))
    model = tiny if model == "tiny" else model
    upscaler = Upscaler(model, Goal(scale=scale), precision="fp32", **options)
    whole = upscaler.pipeline(read_picture(path).pixels).run()
    for start in (0, 1, len(whole) // 2, len(whole) - 1):
        large = open_streamed(path, at_least=1)
        rest = np.concatenate(list(upscaler.pipeline(large.pixels).strips(start=start)))
        np.testing.assert_array_equal(rest, whole[start:])
    # A run may be killed between its last row and the file's end.
    large = open_streamed(path, at_least=1)
    assert list(upscaler.pipeline(large.pixels).strips(start=len(whole))) == []


def test_zeros_after_a_power_cut_are_no_rows(tmp_path):
    first = spool(tmp_path)
    list(first.kept())
    first.add(np.ones((2, 5, 3), np.uint16))
    first.close(done=False)
    with first.path.open("ab") as file:
        file.write(bytes(64))
    second = spool(tmp_path)
    assert second.rows == 2
    assert len(list(second.kept())) == 1
    second.close(done=True)


def test_a_spool_that_cannot_be_made_is_an_error_for_people(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        Spool(tmp_path / "none" / "a", "k", 5, 3, np.dtype(np.uint8), resume=False, overwrite=True)


def test_the_longest_names_have_a_spool_each(tmp_path):
    paths = {spool_path(tmp_path / (letter * 255)) for letter in "ab"}
    assert len(paths) == 2
    for path in paths:
        path.touch()


def test_blocks_of_another_run_are_not_gone_on_with(tmp_path):
    other, one = spool(tmp_path, "x"), spool(tmp_path)  # at the same time: one began last
    for run in (one, other):
        assert not list(run.kept())
        run.add(np.ones((2, 5, 3), np.uint16))
        run.close(done=False)
    again = spool(tmp_path)
    assert again.rows == 0
    again.close(done=True)


def test_where_a_run_goes_on_nothing_from_long_before_is_held(tmp_path):
    tiff(tmp_path / "in.tif", 9000, 8)
    source = open_streamed(tmp_path / "in.tif", at_least=1).pixels
    whole = tifffile.imread(tmp_path / "in.tif")
    colours, alpha = source.reader(), source.reader()
    np.testing.assert_array_equal(colours.read(8000, 8064), whole[8000:8064])
    np.testing.assert_array_equal(alpha.read(7990, 8010), whole[7990:8010])
    np.testing.assert_array_equal(colours.read(8064, 8100), whole[8064:8100])
    assert len(source._held) < 200


def spool(tmp_path, key="k", **options):
    options = {"resume": True, "overwrite": False} | options
    return Spool(tmp_path / "out.tif", key, 5, 3, np.dtype(np.uint16), **options)


def test_a_spool_keeps_whole_blocks_only(tmp_path):
    blocks = [np.full((n, 5, 3), n, np.uint16) for n in (3, 1, 4)]
    first = spool(tmp_path)
    assert not list(first.kept())
    for block in blocks:
        first.add(block)
    first.close(done=False)
    data = first.path.read_bytes()
    first.path.write_bytes(data[:-1])  # killed within the last
    second = spool(tmp_path)
    assert second.rows == 4
    for got, want in zip(second.kept(), blocks[:2], strict=True):
        np.testing.assert_array_equal(got, want)
    second.add(blocks[2])
    second.close(done=False)
    assert second.path.read_bytes() == data
    with pytest.raises(OutputError, match="keeps 8 rows of a run that was interrupted"):
        spool(tmp_path, resume=False)
    assert second.path.read_bytes() == data
    with pytest.raises(OutputError, match="8 rows of an interrupted run with other settings"):
        spool(tmp_path, key="another")
    assert second.path.read_bytes() == data
    for options in ({"key": "another"}, {"resume": False}):
        second.path.write_bytes(data)
        other = spool(tmp_path, overwrite=True, **options)
        assert (other.rows, other.dropped) == (0, 8)
        other.close(done=False)
    (tmp_path / second.path).write_bytes(b"no run's" * 2**14)
    other = spool(tmp_path)
    assert (other.rows, other.dropped) == (0, 0)
    other.close(done=False)
    last = spool(tmp_path)
    last.close(done=True)
    assert not last.path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("form", ["tif", "png"] if SOAK else ["png"])
def test_an_interrupted_run_goes_on_and_ends_in_the_same_bytes(upres, start, tmp_path, form):
    tiff(tmp_path / "in.tif", 1800, 2000)
    options = ("in.tif", "-s", 1.5, "-m", "bicubic", "--max-memory", "1G", "-o")
    assert upres(*options, f"whole.{form}").returncode == 0
    kept = tmp_path / f".out.{form}.upres-resume"
    for kill in (signal.SIGKILL, signal.SIGINT):
        process = start(*options, f"out.{form}", "--resume")
        size = kept.stat().st_size if kept.exists() else 0
        until(lambda size=size: kept.exists() and kept.stat().st_size >= size + 2**20, process)
        process.send_signal(kill)
        assert process.wait() in (-9, 130)
        assert not (tmp_path / f"out.{form}").exists()
    refused = upres(*options, f"out.{form}")
    assert refused.returncode == 4
    assert b"--resume goes on after them, --overwrite begins anew" in refused.stderr
    done = upres(*options, f"out.{form}", "--resume")
    assert done.returncode == 0, done.stderr
    assert b"in.tif: continues at " in done.stderr
    assert (tmp_path / f"out.{form}").read_bytes() == (tmp_path / f"whole.{form}").read_bytes()
    assert not kept.exists()


SMALL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 2**20, resource.RLIM_INFINITY))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
@pytest.mark.parametrize("form", ["tif", "png"])
@pytest.mark.parametrize("memory", [(), ("--max-memory", "1G")], ids=["whole", "streamed"])
def test_a_file_that_can_grow_no_further_leaves_the_old_result(
    upres, tmp_path, patched, form, memory
):
    """Refused by the kernel, in the middle of a file."""
    tiff(tmp_path / "in.tif", 1800, 2000)
    old = tmp_path / f"out.{form}"
    old.write_bytes(b"an earlier result")
    options = ("in.tif", "-s", 1.5, "-m", "bicubic", "--overwrite", *memory, "-o", old.name)
    there = set(tmp_path.iterdir())
    done = upres(*options, env=patched(SMALL_DISK))
    assert done.returncode == 6, done.stderr
    assert b"File too large" in done.stderr
    assert b"Traceback" not in done.stderr
    assert old.read_bytes() == b"an earlier result"
    kept = tmp_path / f".out.{form}.upres-resume"
    assert set(tmp_path.iterdir()) - there - {kept, tmp_path / "site"} == set()
    assert kept.exists() == bool(memory)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
def test_kept_rows_are_gone_on_with_or_refused_but_never_lost(upres, tmp_path, patched):
    tiff(tmp_path / "in.tif", 1800, 2000)
    options = ("in.tif", "-s", 1.5, "-m", "bicubic", "-o", "out.tif")
    said = upres(*options, "--resume")
    assert b"--resume: its result is not written row by row, and begins anew" in said.stderr
    whole = (tmp_path / "out.tif").read_bytes()
    (tmp_path / "out.tif").unlink()
    assert upres(*options, "--max-memory", "1G", env=patched(SMALL_DISK)).returncode == 6
    kept = tmp_path / ".out.tif.upres-resume"
    before = kept.read_bytes()
    for more, words in (
        ((), b"rows of a run that was interrupted"),
        (("--resume", "-m", "lanczos"), b"with other settings, or of another picture"),
    ):
        refused = upres(*options, *more)
        assert (refused.returncode, words in refused.stderr) == (4, True), refused.stderr
        assert kept.read_bytes() == before
    done = upres(*options, "--resume")  # with as much memory as there is
    assert b"in.tif: continues at " in done.stderr
    assert (tmp_path / "out.tif").read_bytes() == whole
    assert not kept.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
def test_where_not_one_row_was_kept_nothing_is_left(upres, tmp_path, patched):
    tiff(tmp_path / "in.tif", 1800, 2000)
    options = ("in.tif", "-s", 1.5, "-m", "bicubic", "--max-memory", "1G", "-o", "out.tif")
    done = upres(*options, env=patched(SMALL_DISK.replace("3 * 2**20", "2000")))
    assert done.returncode == 6, done.stderr
    assert b"is kept in" not in done.stderr
    assert not (tmp_path / ".out.tif.upres-resume").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_batch_goes_on_within_a_large_picture(upres, start, tmp_path):
    (tmp_path / "in").mkdir()
    tiff(tmp_path / "in" / "a.tif", 1800, 1600)
    options = ("batch", "in", "-s", 1.5, "-m", "bicubic", "--max-memory", "1G", "-o")
    assert upres(*options, "whole").returncode == 0
    kept = tmp_path / "out" / ".a.tif.upres-resume"
    process = start(*options, "out")
    until(lambda: kept.exists() and kept.stat().st_size >= 2**20, process)
    process.kill()
    process.wait()
    # Rows in other colours, or of another picture, are not gone on with.
    shutil.copytree(tmp_path / "out", tmp_path / "other")
    other = upres(*options, "other", "--convert-profile", "srgb")
    assert other.returncode == 0, other.stderr
    assert b"continues at" not in other.stderr
    shutil.copytree(tmp_path / "out", tmp_path / "changed")
    (tmp_path / "in" / "a.tif").rename(tmp_path / "a.tif")
    pixels = 255 - tifffile.imread(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "in" / "a.tif", pixels, photometric="rgb")
    changed = upres(*options, "changed")
    assert changed.returncode == 0, changed.stderr
    assert b"continues at" not in changed.stderr
    light, dark = (tifffile.imread(tmp_path / at / "a.tif") for at in ("whole", "changed"))
    np.testing.assert_allclose(dark, 255.0 - light, atol=1)  # rounding
    (tmp_path / "a.tif").replace(tmp_path / "in" / "a.tif")
    done = upres(*options, "out")
    assert done.returncode == 0, done.stderr
    assert b"a.tif: continues at " in done.stderr
    whole, made = (tmp_path / folder / "a.tif" for folder in ("whole", "out"))
    assert whole.read_bytes() == made.read_bytes()
    assert not kept.exists()


# Before and after


def test_room_on_the_disk_is_looked_at_first(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "upres.imaging.writer.shutil.disk_usage", lambda _: SimpleNamespace(free=10**9)
    )
    with pytest.raises(ResourceError, match=r"takes at least 2\.0 GB, 1\.0 GB are free"):
        check_disk(tmp_path / "a.tif", "TIFF", 2 * 10**11)
    # Drawings of that size fit.
    assert "up to 10.0 GB" in str(check_disk(tmp_path / "a.tif", "TIFF", 10**10))
    assert "may take up to 2.0 GB" in str(check_disk(tmp_path / "a.png", "PNG", 2 * 10**9))
    assert check_disk(tmp_path / "a.jpg", "JPEG", 10**10) is None
    with pytest.raises(ResourceError, match=r"takes at least 2\.0 GB"):
        check_disk(tmp_path / "a.bmp", "BMP", 2 * 10**9)
    # Rows are there twice until the result is done, less what an earlier run left.
    rows = tmp_path / "rows"
    assert "may take up to 1.2 GB" in str(check_disk(tmp_path / "a.png", "PNG", 6 * 10**8, rows))
    with rows.open("wb") as file:
        file.truncate(3 * 10**8)
    assert check_disk(tmp_path / "a.png", "PNG", 6 * 10**8, rows) is None


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
def test_a_written_file_is_read_again(tmp_path, form):
    path = tmp_path / "picture"
    written(path, 3, np.uint8, form, (600, 400))
    check_written(path, form, 400, 600)
    check_written(path.read_bytes(), form, 400, 600)
    with pytest.raises(OutputError, match="400 x 600 pixels, not 401 x 600"):
        check_written(path, form, 401, 600)
    data = path.read_bytes()
    if form == "TIFF":  # its directory stands before the pixels
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(data[:-30])
    with pytest.raises(OutputError, match="that was written"):
        check_written(path, form, 400, 600)


def test_a_dry_run_says_how_long_it_will_take(upres, tmp_path):
    Image.new("RGB", (700, 500)).save(tmp_path / "in.png")
    done = upres("in.png", "-s", 2, "--dry-run", "-m", "edsr-light")
    assert done.returncode == 0, done.stderr
    assert b" MiB of memory for tiles, about " in done.stderr


def test_a_kernels_time_is_estimated_too(upres, tmp_path):
    Image.new("RGB", (6000, 4000)).save(tmp_path / "in.png")
    done = upres("in.png", "-s", 4, "--dry-run", "-m", "bicubic", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["estimated_seconds"] > 0


@pytest.mark.parametrize(("size", "words"), [("much", "not a size"), ("700M", "give at least 1G")])
def test_impossible_limits_are_refused(upres, tmp_path, size, words):
    Image.new("RGB", (32, 32)).save(tmp_path / "in.png")
    done = upres("in.png", "--max-memory", size)
    assert done.returncode == 2
    assert words in done.stderr.decode()
    assert done.stderr.decode().count("\n") == 1


def test_a_result_that_has_to_fit_into_memory_keeps_to_the_limit_too(upres, tmp_path):
    Image.new("RGB", (1500, 1500)).save(tmp_path / "in.png")
    options = ("in.png", "-s", 7, "-m", "bicubic", "--max-memory", "1G", "--dry-run", "-o")
    done = upres(*options, "out.jpg")
    assert done.returncode == 6
    assert b"the result as a whole needs 1.5 GiB of memory, more than --max-memory 1 GiB" in (
        done.stderr
    )
    assert upres(*options, "out.png").returncode == 0


@pytest.mark.parametrize(("count", "code"), [(4, 0), (5, 6)])
def test_all_pages_of_a_picture_count_where_memory_is_limited(upres, tmp_path, count, code):
    """30 MB a page and three and a half times that for its result, of 624 MiB."""
    pages = [Image.new("RGB", (3150, 3150), (i, 0, 0)) for i in range(count)]
    pages[0].save(
        tmp_path / "in.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw"
    )
    done = upres("in.tif", "--width", 3151, "-m", "bicubic", "--max-memory", "1G", "--dry-run")
    assert done.returncode == code, done.stderr
    assert (b"more than --max-memory 1 GiB" in done.stderr) == bool(code)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_what_is_cut_off_is_found_before_the_work(tmp_path, form):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    path = tmp_path / "a"
    path.write_bytes(encode(Picture(noise, form, "RGB"), form)[0])
    assert open_streamed(path, at_least=1) is not None
    with path.open("ab") as file:
        file.write(b"and more behind it")
    assert open_streamed(path, at_least=1) is not None
    data = path.read_bytes()
    if form == "TIFF":  # its directory may stand first
        begin = io.BytesIO()
        Image.fromarray(noise).save(begin, "TIFF", compression="raw")
        data = begin.getvalue()
    path.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(InputError, match="cut off: it has no end"):
        open_streamed(path, at_least=1)


def test_a_large_picture_through_the_command(upres, tmp_path):
    made = written(tmp_path / "in.png", 4, np.uint8, "PNG", (2400, 1800))
    options = ("-s", 1.1, "-m", "bicubic", "--max-memory", "1G", "-o", "out.tif")
    done = upres("in.png", *options)
    assert done.returncode == 0, done.stderr
    out = read_picture(tmp_path / "out.tif")
    want = Upscaler("bicubic", Goal(scale=1.1)).upscale(made)
    np.testing.assert_array_equal(out.pixels, want)
