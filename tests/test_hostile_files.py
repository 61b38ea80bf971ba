"""Files made to do harm, and files that change while they are worked on."""

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, PngImagePlugin

from upres.errors import InputError, OutputError, ResourceError, WeightsError
from upres.imaging.encoder import encode
from upres.imaging.png import packed
from upres.imaging.reader import read_metadata, read_picture
from upres.imaging.spool import Spool
from upres.imaging.streaming import open_streamed
from upres.imaging.tiff_directories import Tags, directories
from upres.imaging.verify import check_written
from upres.imaging.writer import write_file
from upres.model import build, load
from upres.weights.facts import FactsError, ModelFacts
from upres.weights.header import read_training

RAMP = np.arange(40 * 60 * 3, dtype=np.uint16).reshape(40, 60, 3) * 9


def tiff(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def saved(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


# More than there is


def test_an_animation_that_claims_more_frames_than_memory_has_room_for():
    """A list of them would take 16 GB before any limit is looked at."""
    data = saved(Image.new("RGB", (4, 4)), "PNG")
    head = 8 + 25
    data = data[:head] + packed(b"acTL", struct.pack(">II", 2**31, 0)) + data[head:]
    with pytest.raises(InputError, match=r"4 x 4 pixels in one of 214748364[89] frames"):
        read_picture(data)
    with pytest.raises(InputError):
        read_metadata(data)


def test_a_file_of_nothing_but_directories(monkeypatch):
    data = tiff(RAMP[:5, :4, 0])
    pages = io.BytesIO()
    with tifffile.TiffWriter(pages) as file:
        for _ in range(5):
            file.write(RAMP[:5, :4, 0])
    monkeypatch.setattr("upres.imaging.tiff_directories._MOST_DIRECTORIES", 4)
    assert read_picture(data).pixels.shape[:2] == (5, 4)
    with pytest.raises(InputError, match="names more than 4 pages"):
        read_picture(pages.getvalue())


def test_what_would_not_fit_into_memory_is_not_decoded(monkeypatch):
    kinds = (
        saved(Image.new("RGB", (40, 30)), "WEBP"),
        tiff(RAMP),
        saved(Image.new("L", (9, 9)), "PNG"),
    )
    for data in kinds:
        with monkeypatch.context() as scarce:
            scarce.setattr("upres.imaging.reader.free_main_memory", lambda: 100)
            with pytest.raises(
                ResourceError, match=r"takes 0\.0 GiB of memory decoded, 0\.0 GiB are free"
            ):
                read_picture(data)
            assert read_metadata(data).kind
        assert read_picture(data).pixels.size


@pytest.mark.skipif(
    not hasattr(Tags(), "_tag_data_limit"), reason="this Pillow has no limit of its own"
)
def test_directories_that_all_name_the_same_bytes_are_not_read_again_and_again():
    """Each takes 42 bytes of the file; what each names is nearly all of it."""
    count, blob = 300, b"x" * 20_000
    begin = 8 + len(blob)
    parts = [b"II*\0", struct.pack("<I", begin), blob]
    for index in range(count):
        behind = begin + (index + 1) * 42 if index < count - 1 else 0
        parts.append(struct.pack("<H", 3))
        parts.append(struct.pack("<HHII", 256, 4, 1, 1) + struct.pack("<HHII", 257, 4, 1, 1))
        parts.append(struct.pack("<HHII", 700, 1, len(blob), 8) + struct.pack("<I", behind))
    data = b"".join(parts)
    found = list(directories(io.BytesIO(data)))
    assert len(found) == count
    assert sum(len(tags[700]) for _, tags in found if 700 in tags) <= len(data)


def test_frames_of_a_gif_beyond_its_screen_take_no_memory_for_what_lies_there():
    one, two = (Image.fromarray(np.full((12, 12), v, np.uint8)) for v in (10, 200))
    data = bytearray(saved(one, "GIF", save_all=True, append_images=[two], duration=50))
    struct.pack_into("<HH", data, data.rindex(b"\x2c") + 1, 3000, 0)
    picture = read_picture(bytes(data))
    assert len(picture.frames) == 2
    for frame in picture.frames:
        held = frame.pixels if frame.pixels.base is None else frame.pixels.base
        assert held.size <= 12 * 12 * 4


def test_large_pictures_that_pillow_reads_whole_are_not_taken_for_bombs(monkeypatch):
    """Its limit is 179 megapixels, ours a gigapixel."""
    image = Image.fromarray((RAMP[..., 0] // 256).astype(np.uint8)).quantize(16)
    data = saved(image, "TIFF", compression="tiff_lzw")
    whole = read_picture(data).pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    np.testing.assert_array_equal(read_picture(data).pixels, whole)
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.parametrize(
    ("form", "options", "what"),
    [
        ("JPEG", {"progressive": True, "subsampling": 2}, "progressive"),
        ("JPEG", {"progressive": True, "subsampling": 0}, "progressive"),
        ("JPEG", {}, None),
    ],
)
def test_what_does_not_come_row_by_row_is_counted(tmp_path, form, options, what):
    path = tmp_path / "picture"
    path.write_bytes(saved(Image.new("RGB", (200, 100)), form, **options))
    assert open_streamed(path, at_least=1) is not None
    if what is None:
        assert open_streamed(path, at_least=1, most=100) is not None
        return
    held = 200 * 100 * 3 * (1 if options["subsampling"] else 2)
    assert open_streamed(path, at_least=1, most=held) is not None
    with pytest.raises(ResourceError, match=f"is {what}: to read it takes 0.0 GiB"):
        open_streamed(path, at_least=1, most=held - 1)


# What takes for ever


def test_texts_made_to_be_searched_for_hours():
    words = PngImagePlugin.PngInfo()
    words.add_text("Raw profile type exif", "\n" * 10**6, zip=True)
    words.add_text("Raw profile type iptc", "\n" * 10**6 + "5", zip=True)
    picture = read_picture(saved(Image.new("RGB", (8, 8)), "PNG", pnginfo=words))
    assert (picture.exif, picture.iptc) == (None, None)
    text = "<OME " + "<Pixels " * 200_000
    picture = read_picture(tiff(RAMP, photometric="rgb", description=text, metadata=None))
    encode(picture, "TIFF")


# Words in the place of numbers


def test_a_pngs_texts_are_not_taken_for_facts():
    words = PngImagePlugin.PngInfo()
    named = {
        "dpi": "300", "transparency": "none", "gamma": "2.2", "srgb": "yes", "aspect": "4:3",
        "chromaticity": "D65", "icc_profile": "none", "exif": "none", "loop": "3",
        "photoshop": "8BIM",
    }  # fmt: skip
    for key, text in named.items():
        words.add_text(key, text)
    data = saved(Image.fromarray((RAMP // 256).astype(np.uint8)), "PNG", pnginfo=words)
    end = packed(b"IEND", b"")
    behind = data.removesuffix(end) + packed(b"tEXt", b"transparency\0none") + end
    for file in (data, behind):
        picture = read_picture(file)
        assert picture.pixels.shape == (40, 60, 3)
        assert (picture.dpi, picture.gamma, picture.intent, picture.icc) == (None,) * 4
        again = read_picture(encode(picture, "PNG")[0])
        assert again.texts == picture.texts
        assert len(picture.texts) >= len(named)


def test_letters_in_the_name_of_a_reference_system():
    text = "NTF (Paris) / Lambert zone II étendu|"
    tags = [
        (33550, 12, 3, (10.0, 10.0, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 5e5, 4.6e6, 0.0), True),
        (34735, 3, 4, (1, 1, 0, 0), True),
        (34737, 2, 0, text.encode("latin-1"), True),
    ]
    picture = read_picture(tiff(RAMP, photometric="rgb", extratags=tags, metadata=None))
    again = read_picture(encode(picture, "TIFF")[0])
    assert picture.place is not None
    assert again.place.tags[34737] == picture.place.tags[34737] == text


def test_more_pixels_a_unit_than_tiff_can_say():
    data = tiff(
        RAMP[..., 0], imagej=True, resolution=(2e9, 2e9), metadata={"unit": "m", "axes": "YX"}
    )
    picture = read_picture(data)
    assert "it is too small for TIFF" in " ".join(picture.notes)
    assert read_picture(encode(picture, "TIFF")[0]).pixels.shape == (40, 60, 1)


# Names


@pytest.mark.parametrize("name", [b"caf\xe9.tif", b"scan[1]", b"deep[page=7].tif"])
def test_names_that_libvips_would_not_take(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    data, _ = encode(read_picture(tiff(RAMP, photometric="rgb")), "TIFF")
    path.write_bytes(data)
    np.testing.assert_array_equal(read_picture(path).pixels, RAMP)
    streamed = open_streamed(path, at_least=1)
    assert streamed is not None
    np.testing.assert_array_equal(np.concatenate(list(streamed.pixels.blocks())), RAMP)


def test_two_names_that_some_systems_take_for_one(upres, small, tmp_path):
    for place in ("a/X.png", "b/x.png"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_bytes(small.read_bytes())
    (tmp_path / "out").mkdir()
    done = upres("a/X.png", "b/x.png", "-s", 2, "-m", "bicubic", "-o", "out/")
    assert done.returncode == 4
    assert b"a/X.png and b/x.png would both be written to" in done.stderr


# What changes meanwhile


def test_a_large_file_that_goes_away_fails_alone(upres, tmp_path, patched):
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "in" / "large.png", compress_level=0)
    Image.fromarray(noise[:20, :20]).save(tmp_path / "in" / "small.png")
    env = patched(
        "from upres.cli.jobs import Settings\n"
        "from upres.imaging import streaming\n"
        "Settings.reads_rows_from = lambda self, isolated: 2**20\n"
        "look = streaming.open_streamed\n"
        "def opened(path, **options):\n"
        "    found = look(path, **options)\n"
        "    if found is not None:\n"
        "        path.unlink()\n"
        "    return found\n"
        "streaming.open_streamed = opened\n"
    )
    done = upres("batch", "in", "-o", "out", "-s", 2, "-m", "bicubic", "--json", env=env)
    assert done.returncode == 7, done.stderr
    assert b"in/large.png cannot be read any more (No such file or directory)" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["done"] == 1


def test_a_file_that_becomes_another_is_noticed(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(encode(read_picture(tiff(RAMP, photometric="rgb")), "TIFF")[0])
    streamed = open_streamed(path, at_least=1)
    path.write_bytes(encode(read_picture(tiff(RAMP[:20], photometric="rgb")), "TIFF")[0])
    with pytest.raises(InputError, match="was changed meanwhile"):
        list(streamed.pixels.blocks())


def test_rows_that_a_full_disk_did_not_take_are_told_of_once(tmp_path, monkeypatch):
    spool = Spool(
        tmp_path / "a.tif", "key", 4, 3, np.dtype(np.uint8), resume=False, overwrite=False
    )

    class Full(io.BytesIO):
        def close(self):
            super().close()
            raise OSError(28, "No space left on device")

    spool._file.close()
    monkeypatch.setattr(spool, "_file", Full())
    spool.close(done=False)
    spool.close(done=True)
    assert not spool.path.exists()


# Weights


def test_a_small_file_of_many_layers(tmp_path):
    """A tensor of 10^9 numbers that has no bytes, so that as many layers seem right."""
    facts = {
        "format": 1, "name": "mine", "architecture": "edsr", "scales": [2], "colour": "rgb",
        "licence": "none", "trained_by": "tests", "trained_on": "nothing",
        "numbers": {"blocks": 10**9, "channels": 8},
    }  # fmt: skip
    for shape, offsets in (([10**9], [0, 0]), ([10**9, 0], [0, 0]), ([10**9], [0, "9"])):
        header = {
            "a": {"dtype": "F32", "shape": shape, "data_offsets": offsets},
            "__metadata__": {"upres": json.dumps(facts)},
        }
        text = json.dumps(header).encode()
        path = tmp_path / "a.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        with pytest.raises(WeightsError, match="blocks is 1000000000"):
            load(path)


@pytest.mark.parametrize("numbers", [{"blocks": 10**400}, {"blocks": [10**400]}])
def test_counts_of_hundreds_of_digits(numbers):
    raw = {
        "name": "mine", "architecture": "edsr", "scales": [2], "colour": "rgb", "licence": "none",
        "trained_by": "tests", "trained_on": "nothing", "numbers": numbers,
    }  # fmt: skip
    with pytest.raises(FactsError, match="must be a count from 0 on"):
        ModelFacts.from_mapping(raw)
    measured = [{"set": "set5", "scale": 2, "psnr": 10**400, "ssim": 0.5}]
    with pytest.raises(FactsError, match="psnr and ssim are numbers"):
        ModelFacts.from_mapping(raw | {"numbers": {}, "measured": measured})


@pytest.mark.parametrize("change", [{"data": {"names": 5}}, {"steps": "x"}, {"validation": [{}]}])
def test_a_story_that_somebody_else_told_is_not_repeated(tmp_path, upres, change):
    raw = {
        "name": "mine", "architecture": "edsr", "scales": [2], "colour": "rgb", "licence": "none",
        "trained_by": "tests", "trained_on": "nothing",
        "numbers": {"blocks": 1, "channels": 8},
    }  # fmt: skip
    story = {
        "recipe": {"name": "x"}, "steps": 5, "hours": 0.1, "device": "cpu", "seed": 0,
        "version": "0", "start": "nothing", "validation": [],
        "data": {"names": ["p"], "pictures": 1, "megapixels": 1.0, "sha256": "0"},
    }  # fmt: skip
    torch.manual_seed(0)
    path = tmp_path / "a.safetensors"
    model = build(ModelFacts.from_mapping(raw))
    model.save(path, training=story)
    assert read_training(path) == story
    story |= {k: story["data"] | v if isinstance(v, dict) else v for k, v in change.items()}
    model.save(path, training=story)
    assert read_training(path) is None
    assert upres("models", "show", "a.safetensors").returncode == 0


def test_a_last_strip_that_is_whole_and_too_short_is_found(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(encode(read_picture(tiff(RAMP, photometric="rgb")), "TIFF")[0])
    check_written(path, "TIFF", 60, 40)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        begin, size = page.dataoffsets[-1], page.databytecounts[-1]
    data = bytearray(path.read_bytes())
    short = zlib.compress(b"\0" * 10)
    data[begin : begin + size] = short + b"\0" * (size - len(short))
    path.write_bytes(data)
    with pytest.raises(OutputError, match="lacks its last row"):
        check_written(path, "TIFF", 60, 40)


# File systems


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write_file(tmp_path / "a.png", b"new", overwrite=False)
    assert (tmp_path / "a.png").read_bytes() == b"new"
    with pytest.raises(OutputError, match="exists by now"):
        write_file(tmp_path / "a.png", b"newer", overwrite=False)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"new")]
