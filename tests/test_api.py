"""What ``import upres`` offers."""

import copy
import dataclasses
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import upres
import upres.api
from upres.errors import UsageError
from upres.inference import pipeline
from upres.inference.device import cpu_has_bfloat16
from upres.model import load_published
from upres.weights.manifest import load_manifest
from upres.weights.store import local_path


@pytest.fixture(scope="module")
def doubled():
    return upres.load("edsr-light", scale=2, precision="fp32", device="cpu")


@pytest.fixture
def pixels(photo):
    return photo[100:130, 100:140]


def test_two_upscalers_of_the_same_settings_are_equal_whatever_they_did(pixels):
    worked = upres.load("bicubic", scale=2)
    worked.upscale(pixels)
    assert worked == upres.load("bicubic", scale=2)
    assert worked != upres.load("bicubic", scale=3)


def test_an_upscaler_stays_what_it_is(pixels):
    plain = upres.Upscaler("edsr-light", 2, precision="fp32", device="cpu")
    with pytest.raises(AttributeError, match="cannot assign"):
        plain.ensemble = True
    other = dataclasses.replace(plain, ensemble=True)
    assert not np.array_equal(plain.upscale(pixels), other.upscale(pixels))


def test_an_image_from_a_jpeg_gets_the_model_that_its_file_gets(tmp_path, photo):
    path = tmp_path / "in.jpg"
    Image.fromarray(photo[:60, :80]).save(path, quality=60)
    both = upres.Upscaler(goal=2, device="cpu", precision="fp32")
    with pytest.warns(UserWarning, match="JPEG of quality 60: model photo"):
        both.upscale_file(path, tmp_path / "out.png")
    with Image.open(path) as image, pytest.warns(UserWarning, match="quality 60: model photo"):
        made = both.upscale(image)
    with Image.open(tmp_path / "out.png") as image:
        np.testing.assert_array_equal(made, image)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory")])
def test_memory_that_is_full_is_an_error_of_ours(pixels, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(pipeline, "collect", full)
    with pytest.raises(upres.ResourceError, match="memory is full"):
        upres.load("bicubic", scale=2).upscale(pixels)


def test_the_public_names_are_sorted_and_there():
    names = [n for n in upres.__all__ if n != "__version__"]
    assert names == sorted(names, key=lambda n: (n.islower(), n))
    for name in upres.__all__:
        assert getattr(upres, name) is not None
    assert dir(upres) == upres.__all__
    with pytest.raises(AttributeError, match="nope"):
        upres.nope  # noqa: B018


def test_arrays_keep_their_type_and_axes(doubled, pixels):
    whole = doubled.upscale(pixels)
    assert (whole.shape, whole.dtype) == ((60, 80, 3), np.uint8)
    gray = doubled.upscale(pixels[..., 0])
    assert (gray.shape, gray.dtype) == ((60, 80), np.uint8)
    deep = doubled.upscale(pixels.astype(np.uint16) * 257)
    assert (deep.shape, deep.dtype) == ((60, 80, 3), np.uint16)
    assert np.abs(deep / 257 - whole).max() <= 0.51
    for dtype in (np.float32, np.float64):
        real = doubled.upscale((pixels / 255).astype(dtype))
        assert real.dtype == dtype
        assert np.abs(real * 255 - whole).max() <= 0.51
    assert doubled.upscale(np.dstack([pixels, pixels[..., :1]])).shape == (60, 80, 4)


def test_tensors_keep_their_type_and_axes(doubled, pixels):
    expected = torch.from_numpy(doubled.upscale(pixels)).permute(2, 0, 1)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    assert torch.equal(doubled.upscale(tensor), expected)
    batch = doubled.upscale(torch.stack([tensor, tensor.flip(2)]).half() / 255)
    assert (batch.shape, batch.dtype) == ((2, 3, 60, 80), torch.float16)
    assert (batch[0].float() * 255 - expected).abs().max() < 1


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_images_keep_their_mode(doubled, pixels, mode):
    result = doubled.upscale(Image.fromarray(pixels).convert(mode))
    assert (result.size, result.mode) == ((80, 60), mode)


def test_images_keep_profile_and_resolution(doubled, pixels):
    from PIL import ImageCms

    image = Image.fromarray(pixels)
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.info["dpi"] = (300, 300)
    result = doubled.upscale(image)
    assert {k: result.info[k] for k in ("icc_profile", "dpi")} == image.info


def test_one_pixel_at_four_uses_the_weights_for_four():
    made = upres.load(scale=4).pipeline(np.zeros((1, 1, 3), np.uint8))
    assert [scale for _, scale in made.steps.networks] == [4]


def test_images_with_a_palette_become_plain(doubled, pixels):
    assert doubled.upscale(Image.fromarray(pixels).convert("P")).mode == "RGB"


@pytest.mark.parametrize(
    "value",
    ["photo.png", np.zeros((4, 4, 5)), np.zeros((4, 4, 3), np.int32), np.zeros((0, 4, 3), np.uint8),
     np.zeros(4, np.uint8), np.full((4, 4), 255.0), np.full((4, 4), np.nan),
     torch.zeros(0, 3, 4, 4),
     torch.zeros(4, 4), torch.zeros(3, 4, 4, dtype=torch.int32)],
)  # fmt: skip
def test_what_is_no_picture_is_refused(doubled, value):
    with pytest.raises(upres.InputError):
        doubled.upscale(value)


def test_impossible_settings_are_refused_at_once():
    for settings, error in (
        ({"scale": 1}, upres.UsageError("1 is not a factor over 1")),
        ({"scale": 9}, upres.UsageError("9 is not a factor over 1 and up to 8")),
        ({"model": "nope"}, upres.WeightsError("no model is called 'nope'")),
        ({"model": "nope.safetensors"}, upres.WeightsError("nope.safetensors cannot be read")),
        ({"tile": -1}, upres.UsageError("a tile of -1 pixels")),
        ({"device": "cpu", "precision": "fp16"}, upres.UsageError("fp16")),
    ):
        with pytest.raises(type(error), match=error.problem):
            upres.load(**settings)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "float16"}, "no precision is called 'float16'; known are auto, fp32"),
        ({"device": "gpu"}, "no device is called 'gpu'; known are auto, cpu, cuda"),
        ({"tile": "auto"}, "a tile of 'auto'"),
        ({"scale": "4"}, "a scale of '4'"),
        ({"fast": True}, "fast and model bicubic"),
    ],
)
def test_words_that_mean_nothing_are_refused_by_name(options, words):
    with pytest.raises(upres.UsageError, match=words):
        upres.load("bicubic", **options)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"scale": "4"}, upres.UsageError, "a scale of '4'"),
        ({"quality": 500}, upres.UsageError, "a quality of 500; give 1 to 100"),
        ({"quality": 0}, upres.UsageError, "a quality of 0"),
        ({"quality": "90"}, upres.UsageError, "a quality of '90'"),
        ({"quality": True}, upres.UsageError, "a quality of True"),
        ({"source": "."}, upres.InputError, "folder"),
    ],
)
def test_files_are_not_begun_with_impossible_settings(tmp_path, pixels, options, error, words):
    Image.fromarray(pixels).save(tmp_path / "in.jpg")
    with pytest.raises(error, match=words):
        upres.upscale_file(**{"source": tmp_path / "in.jpg"} | options)
    assert [p.name for p in tmp_path.iterdir()] == ["in.jpg"]


def test_numpys_numbers_and_paths_do_as_well(pixels):
    path = local_path(load_manifest().family("edsr-light")[0])
    a = upres.load(path, scale=np.float32(2), tile=np.int64(64), device="cpu")
    b = upres.load(str(path), scale=2, tile=64, device="cpu")
    np.testing.assert_array_equal(a.upscale(pixels), b.upscale(pixels))


def test_channels_last_tensors_are_refused_by_their_own_shape(doubled):
    with pytest.raises(upres.InputError, match=r"tensor of shape \(48, 64, 3\).*C x H x W"):
        doubled.upscale(torch.zeros(48, 64, 3))


def test_a_result_larger_than_memory_is_refused(doubled, pixels, monkeypatch):
    monkeypatch.setattr(pipeline, "free_main_memory", lambda: 1000)
    with pytest.raises(upres.ResourceError, match="the result needs"):
        doubled.upscale(pixels)


def test_tiles_larger_than_memory_are_refused(pixels, monkeypatch):
    model = upres.load("edsr-light", scale=2, tile=0, device="cpu")
    monkeypatch.setattr(pipeline, "free_main_memory", lambda: 10**6)
    with pytest.raises(upres.ResourceError, match=r"the tile needs .*let tiles be chosen"):
        model.upscale(pixels)


def test_an_upscaler_travels_to_other_processes(pixels):
    model = upres.load("edsr-light", scale=2, device="cpu")
    expected = model.upscale(pixels)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.upscale(pixels), expected)


def test_a_default_device_of_the_callers_is_not_ours(pixels):
    expected = upres.load("edsr-light", scale=2, device="cpu").upscale(pixels)
    with torch.device("meta"):
        made = upres.load("edsr-light", scale=2, device="cpu").upscale(pixels)
    np.testing.assert_array_equal(made, expected)


def test_a_name_that_no_file_can_have_is_an_error_of_ours(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(upres.UpresError):
        upres.upscale_file(tmp_path / "a.png", tmp_path / f"{'x' * 300}.png", model="bicubic")


def test_an_image_of_16_bits_with_transparency_comes_back_as_pillow_has_it():
    deep = Image.fromarray(np.array([[0, 1000], [1000, 65535]], np.uint16))
    deep.info["transparency"] = 1000
    with pytest.warns(UserWarning, match="16-bit gray with transparency: it has 8 bits"):
        made = upres.load("bicubic", scale=2).upscale(deep)
    assert (made.mode, made.size) == ("LA", (4, 4))
    assert np.asarray(made)[[0, -1], [0, -1], 1].min() > 128
    assert np.asarray(made)[0, -1, 1] < 128


@pytest.mark.parametrize("model", ["bicubic", "edsr-light"])
def test_subclasses_of_arrays_are_arrays_and_masks_are_refused(pixels, model):
    doubled = upres.load(model, scale=2, device="cpu")
    gray = pixels[..., 0]
    made = doubled.upscale(gray.view(np.matrix))
    np.testing.assert_array_equal(made, doubled.upscale(gray))
    with pytest.raises(upres.InputError, match=r"a masked array; give x\.filled"):
        doubled.upscale(np.ma.masked_greater(gray, 100))


def test_half_floats_are_no_reason_to_warn(doubled, pixels):
    made = doubled.upscale((pixels / 255).astype(np.float16))
    assert made.dtype == np.float16


def test_soft_masks_keep_what_is_large(doubled):
    """Most of a softmax is next to nothing, which does not make 1 a value for missing ones."""
    generator = np.random.default_rng(0)
    mask = np.full((48, 48, 1), 1e-16, np.float32)
    mask[20:28, 20:28] = generator.random((8, 8, 1), np.float32)
    clean = np.where(mask < 1e-6, np.float32(0), mask)
    np.testing.assert_allclose(doubled.upscale(mask), doubled.upscale(clean), atol=1e-4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: upres.Upscaler(model=None), "None is no model"),
        (lambda: upres.load(b"edsr-light"), "is no model"),
        (lambda: upres.Upscaler(goal="4"), "a scale of '4'"),
        (lambda: upres.load(scale=2, tile=True), "a tile of True"),
        (lambda: upres.Goal(width=1920.0), "width 1920.0; give a whole number of pixels"),
        (lambda: upres.Goal(megapixels="8"), "megapixels '8'; give a number"),
        (lambda: upres.Upscaler(max_memory="2G"), "max_memory '2G'; give a number of bytes"),
    ],
)
def test_what_is_no_setting_is_refused_at_once(make, words):
    with pytest.raises(upres.UsageError, match=words):
        make()


def test_goals_and_paths_are_taken_as_they_come(pixels):
    path = local_path(load_manifest().family("edsr-light")[0])
    made = upres.Upscaler(model=path, goal=2).upscale(pixels)
    np.testing.assert_array_equal(made, upres.load(path, scale=2).upscale(pixels))
    wide = upres.Upscaler("bicubic", upres.Goal(width=100)).upscale(pixels)
    assert wide.shape[1] == 100


@pytest.mark.parametrize(
    "tensor", [torch.zeros(3, 8, 8).to_sparse(), torch.zeros(3, 8, 8, device="meta")]
)
def test_tensors_without_pixels_are_refused(doubled, tensor):
    with pytest.raises(upres.InputError, match="dense"):
        doubled.upscale(tensor)


def test_an_image_that_ends_too_early_is_refused(doubled, photo):
    data = io.BytesIO()
    Image.fromarray(photo).save(data, "JPEG")
    half = Image.open(io.BytesIO(data.getvalue()[: len(data.getvalue()) // 2]))
    with pytest.raises(upres.InputError, match="the image is damaged"):
        doubled.upscale(half)


def test_a_file_says_which_model_it_got_and_may_go_into_a_folder(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "in.jpg", quality=70)
    (tmp_path / "out").mkdir()
    with pytest.warns(UserWarning, match="JPEG of quality 70: model photo"):
        made = upres.upscale_file(tmp_path / "in.jpg", tmp_path / "out", scale=2)
    assert made == tmp_path / "out" / "in-x2.jpg"
    assert made.is_file()


def test_progress_belongs_to_its_own_picture(pixels):
    """Of two threads that share a model."""
    model = upres.load("edsr-light", scale=2, device="cpu")
    told = [[], []]
    go = threading.Barrier(2)

    def work(index):
        made = model.pipeline(np.tile(pixels, (1, 1 + index, 1)))
        go.wait()
        made.run(lambda done, total: told[index].append((done, total)))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    for one in told:
        done = [share for share, _ in one]
        assert done == sorted(done)
        assert done[-1] == pytest.approx(one[-1][1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(upres.UsageError, match="upres doctor"):
        upres.load(device="cuda")


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this CPU has no bf16")
def test_bf16_is_close_to_fp32(doubled, pixels):
    half = upres.load("edsr-light", scale=2, precision="bf16", device="cpu").upscale(pixels)
    difference = np.abs(half.astype(int) - doubled.upscale(pixels))
    assert difference.max() <= 3
    assert difference.mean() < 0.3


@pytest.mark.skipif(cpu_has_bfloat16(), reason="this CPU has bf16")
def test_bf16_is_refused_where_it_would_crawl():
    with pytest.raises(upres.UsageError, match="bf16 is not computed natively"):
        upres.load("edsr-light", scale=2, precision="bf16", device="cpu")


def test_kernels_need_no_network_and_reach_any_size(pixels):
    from upres.imaging.resize import Resampler

    result = upres.load("lanczos", scale=2.5).upscale(pixels / 255)
    expected = Resampler(30, 75, "lanczos").apply(pixels / 255, 0)
    expected = Resampler(40, 100, "lanczos").apply(expected, 1).clip(0, 1)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_files(tmp_path, pixels):
    source = tmp_path / "a.png"
    Image.fromarray(pixels).save(source, dpi=(300, 300))
    target = upres.upscale_file(source, scale=2)
    assert target == tmp_path / "a-x2.png"
    with Image.open(target) as result:
        assert result.size == (80, 60)
    with pytest.raises(upres.OutputError, match="exists"):
        upres.upscale_file(source, scale=2)
    upres.upscale_file(source, scale=2, overwrite=True)
    before = source.read_bytes()
    with pytest.raises(upres.OutputError, match="the picture itself"):
        upres.upscale_file(source, source, scale=2, overwrite=True)
    assert source.read_bytes() == before
    with pytest.warns(UserWarning, match=r"a\..*: the resolution cannot be kept in this WEBP"):
        other = upres.upscale_file(str(source), str(tmp_path / "b.webp"), scale=3, model="bicubic")
    with Image.open(other) as result:
        assert (result.format, result.size) == ("WEBP", (120, 90))


def test_several_files_with_one_network(tmp_path, pixels, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        upres.api, "load_published", lambda *a: loaded.append(a) or load_published(*a)
    )
    (tmp_path / "out").mkdir()
    upscaler = upres.Upscaler("edsr-light", upres.Goal(long_side=90))
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(tmp_path / name)
        made = upscaler.upscale_file(tmp_path / name, tmp_path / "out")
        assert made == tmp_path / "out" / f"{name[0]}-90x68.png"
        with Image.open(made) as result:
            assert result.size == (90, 68)
    assert len(loaded) == 1
    with pytest.raises(upres.UsageError, match="a quality of 0"):
        upscaler.upscale_file(tmp_path / "a.png", quality=0)


def test_errors_are_one_family_and_travel_between_processes():
    import pickle

    assert {getattr(upres, n).exit_code for n in upres.__all__ if n.endswith("Error")} == set(
        range(1, 9)
    )
    error = upres.InputError("a.png is empty", "get it again")
    assert str(error) == "a.png is empty; get it again"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.next_step) == (str(error), "get it again")


def test_a_kernel_has_no_ensemble():
    with pytest.raises(UsageError, match="an ensemble of model bicubic, which has no network"):
        upres.Upscaler("bicubic", ensemble=True)


@pytest.mark.parametrize("alpha", [1.2, -0.3])
def test_floats_are_cut_to_their_range_in_all_channels(alpha):
    colours = np.random.default_rng(0).random((20, 30, 3), np.float32)
    same = np.full((20, 30, 1), alpha, np.float32)
    varied = np.linspace(-0.4, 1.4, 30, dtype=np.float32)[None, :, None].repeat(20, 0)
    for opacity in (same, varied):
        pixels = np.concatenate([colours * 1.4 - 0.2, opacity], axis=2)
        made = upres.Upscaler("bicubic", 2).upscale(pixels)
        assert 0 <= made.min() <= made.max() <= 1


def test_an_image_that_was_turned_has_its_resolution_turned(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=tags, dpi=(100, 200))
    Image.new("RGB", (30, 20)).save(tmp_path / "b.jpg", exif=tags)  # none is stated
    bicubic = upres.Upscaler("bicubic", 2)
    for name in ("a.jpg", "b.jpg"):
        bicubic.upscale_file(tmp_path / name, tmp_path / f"{name}.png")
        with Image.open(tmp_path / name) as image, Image.open(tmp_path / f"{name}.png") as file:
            made = bicubic.upscale(image)
            assert made.size == file.size == (40, 60)
            assert made.info.get("dpi") == pytest.approx(file.info.get("dpi"), abs=0.1)


def test_warnings_name_the_line_that_called(photo, monkeypatch):
    monkeypatch.setattr(pipeline.Pipeline, "notes", property(lambda self: ["told"]))
    small = photo[:8, :8]
    upscaler = upres.Upscaler("bicubic", 2)
    for picture in (small, torch.from_numpy(small).permute(2, 0, 1), Image.fromarray(small)):
        with pytest.warns(UserWarning, match="told") as told:
            upscaler.upscale(picture)
        assert [warning.filename for warning in told] == [__file__]
