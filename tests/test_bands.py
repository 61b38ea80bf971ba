"""Channels beyond colour and transparency, and numbers that stand for missing ones: what
satellites and scanners write into TIFFs."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import ImageCms

from tests.test_georeference import geotiff
from upres.api import Upscaler, upscale_file
from upres.data.rgb import read_rgb
from upres.imaging.encoder import encode
from upres.imaging.fidelity import compare
from upres.imaging.picture import NO_DATA_LEFT_OUT
from upres.imaging.profiles import to_srgb
from upres.imaging.reader import read_metadata, read_picture
from upres.imaging.streaming import open_streamed
from upres.imaging.tiff_tags import BANDS_LEFT_OUT
from upres.inference.ranges import Range
from upres.inference.rows import ArrayRows, OpaqueColours
from upres.inference.sizes import Goal

NO_DATA = 42113
RAINBOW = np.arange(3 * 256, dtype=np.uint16).reshape(3, 256) * 80
TOP = {"uint8": 255, "uint16": 65535, "float32": 1.0}
LAYOUTS = [
    ("rgb", ["unspecified"]),
    ("rgb", ["unspecified", "unassalpha", "unspecified"]),
    ("rgb", ["unassalpha", "unspecified"]),
    ("minisblack", ["unspecified"]),
    ("minisblack", ["unspecified"] * 7),
    ("minisblack", ["unspecified", "unassalpha"]),
]


def bands(channels, kind="uint16", size=(20, 30), seed=0):
    """Channels of noise over ramps of different ranges."""
    rng = np.random.default_rng(seed)
    ramps = np.linspace(0.1, 0.8, size[1])[None, :, None] * np.linspace(0.2, 1, channels)
    made = ramps + 0.1 * rng.random((*size, channels))
    return (made * TOP[kind]).astype(kind)


def tiff(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **{"planarconfig": "contig"} | options)
    return buffer.getvalue()


def enlarged(picture, **options):
    return Upscaler("edsr-light", Goal(scale=2), **options).picture(picture).pixels


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(("photometric", "more"), LAYOUTS)
def test_all_channels_are_read_and_written_in_their_order(
    photometric, more, kind, compression, planar
):
    colours = 3 if photometric == "rgb" else 1
    made = bands(colours + len(more), kind)
    data = tiff(
        made if planar == "contig" else np.moveaxis(made, -1, 0),
        photometric=photometric,
        extrasamples=more,
        planarconfig=planar,
        compression=compression,
    )
    picture, facts = read_picture(data), read_metadata(data)
    np.testing.assert_array_equal(picture.pixels, made, strict=True)
    kinds = tuple({"unspecified": "band", "unassalpha": "alpha"}[kind] for kind in more)
    for about in (picture, facts):
        assert (about.extra, about.bands) == (kinds, more.count("unspecified"))
        assert about.channels == colours + more.count("unassalpha")
        assert about.kind == ("RGB" if colours == 3 else "gray")
        assert not about.notes
    assert facts.pixels.shape[2] == picture.pixels.shape[2]
    out, notes = encode(picture, "TIFF")
    assert not notes
    np.testing.assert_array_equal(read_picture(out).pixels, made, strict=True)
    with tifffile.TiffFile(io.BytesIO(out)) as file:
        assert [int(kind) for kind in file.pages[0].extrasamples] == [
            {"unspecified": 0, "unassalpha": 2}[kind] for kind in more
        ]
        assert file.pages[0].photometric.name.lower() == photometric


@pytest.mark.parametrize("more", [["assocalpha", "unspecified"], ["unspecified", "assocalpha"]])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_colours_are_divided_by_their_alpha_and_bands_are_not(kind, more):
    made = bands(5, kind)
    alpha = 3 + more.index("assocalpha")
    made[..., alpha] = TOP[kind] / 2
    pixels = read_picture(tiff(made, photometric="rgb", extrasamples=more)).pixels
    np.testing.assert_array_equal(pixels[..., 3:], made[..., 3:])
    wanted = made[..., :3] / (made[..., alpha : alpha + 1] / TOP[kind])
    near, most = (1e-6, np.inf) if kind == "float32" else (1, TOP[kind])
    np.testing.assert_allclose(pixels[..., :3], np.minimum(wanted, most), rtol=0, atol=near)


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_a_band_becomes_what_it_becomes_alone(kind):
    made = bands(6, kind) if kind == "uint16" else bands(6, kind) * np.float32(900) - 50
    made[3:8, 4:9, 4] = 0
    data = tiff(made, photometric="rgb", extrasamples=["unspecified", "unassalpha", "unspecified"])
    result = enlarged(read_picture(data))
    for index in (3, 5):
        alone = read_picture(tiff(made[..., index], photometric="minisblack", planarconfig=None))
        np.testing.assert_array_equal(result[..., index], enlarged(alone)[..., 0])
    plain = np.concatenate([made[..., :3], made[..., 4:5]], axis=2)
    usual = enlarged(read_picture(tiff(plain, photometric="rgb", extrasamples=["unassalpha"])))
    np.testing.assert_array_equal(result[..., [0, 1, 2, 4]], usual)


def test_the_program_keeps_bands_and_place(tmp_path, upres):
    made = bands(8)
    path = tmp_path / "scene.tif"
    geotiff(path, made, extrasamples=["unspecified"] * 5, planarconfig="contig")
    done = upres(path, "-s", "2", "-o", "large.tif", "--report-fidelity", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    (event,) = [e for e in events if e["event"] == "done"]
    states = {item["name"]: item["state"] for item in event["fidelity"]}
    assert {"pixels", "place"} < set(states)
    assert set(states.values()) == {"kept"}
    assert event["notes"] == []
    # Pillow would tell its log, which is stderr, that it cannot read so many channels.
    assert b"amples" not in done.stderr
    result = read_picture(tmp_path / "large.tif")
    assert (result.pixels.shape, result.bands) == ((40, 60, 8), 5)


def test_rows_of_many_channels_are_written_as_they_come(tmp_path, upres):
    made = bands(5, size=(1350, 1260))
    made[200:600, 300:500, 4] = 0
    path = tmp_path / "scene.tif"
    path.write_bytes(tiff(made, photometric="rgb", extrasamples=["unspecified", "unassalpha"]))
    assert open_streamed(path, at_least=2**24).extra == ("band", "alpha")
    whole = Upscaler("bicubic", Goal(scale=1.1)).picture(read_picture(path)).pixels
    options = ("-s", "1.1", "-m", "bicubic", "--max-memory", "1G")
    upres(path, *options, "-o", "rows.tif")
    rows = read_picture(tmp_path / "rows.tif")
    assert rows.extra == ("band", "alpha")
    np.testing.assert_array_equal(rows.pixels, whole)
    done = upres(path, *options, "-o", "rows.png")
    assert BANDS_LEFT_OUT.encode() in done.stderr
    pixels = read_picture(tmp_path / "rows.png").pixels
    np.testing.assert_array_equal(pixels, whole[..., [0, 1, 2, 4]])


def test_other_formats_hold_colours_and_that_is_said(tmp_path):
    path = tmp_path / "scene.tif"
    path.write_bytes(tiff(bands(4, "uint8"), photometric="rgb", extrasamples=["unspecified"]))
    with pytest.warns(UserWarning, match=BANDS_LEFT_OUT):
        made = upscale_file(path, tmp_path / "scene.png", model="edsr-light", scale=2)
    source, written = read_picture(path), read_picture(made)
    assert written.pixels.shape == (40, 60, 3)
    np.testing.assert_array_equal(written.pixels, enlarged(source.without_bands()))
    (item,) = [item for item in compare(source, written) if item.name == "pixels"]
    assert (item.state, item.before, item.after) == ("changed", "RGB, 1 more", "RGB")
    np.testing.assert_array_equal(read_rgb(path), source.pixels[..., :3])


def test_pages_with_the_same_bands_keep_them(tmp_path):
    path = tmp_path / "pages.tif"
    for kinds in (["unspecified"], ["unspecified", "unspecified"]):
        with tifffile.TiffWriter(path) as file:
            for more in (["unspecified"], kinds):
                made = bands(3 + len(more), "uint8")
                file.write(made, photometric="rgb", extrasamples=more, metadata=None)
        picture = read_picture(path)
        same = len(kinds) == 1
        assert [f.pixels.shape[2] for f in picture.frames] == ([4, 4] if same else [3, 3])
        assert (BANDS_LEFT_OUT in picture.notes) != same
        if same:
            out, _ = encode(picture, "TIFF")
            again = read_picture(out)
            assert again.extra == ("band",)
            for one, other in zip(picture.frames, again.frames, strict=True):
                np.testing.assert_array_equal(one.pixels, other.pixels)


def test_colours_are_converted_and_bands_are_not():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made = bands(5, "uint8")
    picture = read_picture(
        tiff(
            made,
            photometric="rgb",
            extrasamples=["unspecified", "unassalpha"],
            iccprofile=profile,
        )
    )
    converted = to_srgb(picture)
    np.testing.assert_array_equal(converted.pixels[..., 3:], made[..., 3:])
    np.testing.assert_allclose(converted.pixels[..., :3], made[..., :3], rtol=0, atol=1)


# Numbers that stand for missing ones


def scene(no_data, value, kind="uint16", channels=3, size=(60, 80)):
    """A GeoTIFF whose left corner is missing, and a mask of what is."""
    made = bands(channels, kind, size)
    missing = np.add.outer(np.arange(size[0]), np.arange(size[1])) < 40
    made[missing] = value
    buffer = io.BytesIO()
    more = {} if channels == 3 else {"extrasamples": ["unspecified"] * (channels - 3)}
    geotiff(buffer, made, planarconfig="contig", tags=[(NO_DATA, 2, 0, str(no_data), True)], **more)
    return buffer.getvalue(), missing


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("model", ["edsr-light", "bicubic"])
def test_missing_numbers_stay_and_touch_nothing(model, kind):
    results = []
    for value in (0, TOP[kind]):
        data, missing = scene(value, value, kind)
        picture = read_picture(data)
        made = Upscaler(model, Goal(scale=2)).picture(picture).pixels
        holes = np.repeat(np.repeat(missing, 2, 0), 2, 1)
        # Missing where it was, and nowhere else.
        np.testing.assert_array_equal((made == value).all(axis=2), holes)
        results.append(made[~holes])
    # The number that stands for them has touched no value.
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("factor", [1.3, 2.7, 3])
def test_what_is_missing_stays_where_it_was_at_any_factor(factor):
    data, missing = scene(0, 0)
    made = Upscaler("bicubic", Goal(scale=factor)).picture(read_picture(data)).pixels
    # The old pixel that the middle of each new one lies in.
    near = [
        np.floor((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(made.shape[:2], missing.shape, strict=True)
    ]
    np.testing.assert_array_equal((made == 0).all(axis=2), missing[np.ix_(*near)])


def test_each_band_has_holes_of_its_own():
    data, missing = scene(0, 0, channels=5)
    picture = read_picture(data)
    pixels = picture.pixels.copy()
    pixels[30:40, 60:70, 4] = 0  # missing in one band
    made = enlarged(replace(picture, pixels=pixels))
    holes = np.repeat(np.repeat(missing, 2, 0), 2, 1)
    np.testing.assert_array_equal(made[..., 3] == 0, holes)
    assert (made[60:80, 120:140, 4] == 0).all()
    assert (made[60:80, 120:140, 3] > 0).all()


def test_one_colour_that_happens_to_be_the_number_is_a_colour():
    data, _ = scene(0, 0, "uint8")
    picture = read_picture(data)
    pixels = picture.pixels.copy()
    pixels[30:40, 60:70] = (0, 0, 200)
    made = enlarged(replace(picture, pixels=pixels))
    assert (made[62:78, 122:138, 2] > 150).all()


def test_no_value_becomes_the_number_that_stands_for_missing_ones():
    data, missing = scene(0, 0, "uint8")
    picture = read_picture(data)
    pixels = picture.pixels.copy()
    pixels[~missing] = (1, 1, 1)
    pixels[30:40, 60:70] = 255  # a network's or kernel's undershoot beside it reaches 0
    for model in ("bicubic", "edsr-light"):
        made = Upscaler(model, Goal(scale=2)).picture(replace(picture, pixels=pixels)).pixels
        holes = np.repeat(np.repeat(missing, 2, 0), 2, 1)
        np.testing.assert_array_equal((made == 0).all(axis=2), holes)


def test_numbers_that_no_pixel_can_have_mean_nothing():
    plain, _ = scene(-9999, 0)
    for no_data in (0.5, 70000, "nan"):
        other, _ = scene(no_data, 0)
        np.testing.assert_array_equal(enlarged(read_picture(plain)), enlarged(read_picture(other)))


def test_a_no_data_value_needs_no_place():
    made = bands(1, size=(30, 40))
    made[:5, :5] = 77
    data = tiff(
        made[..., 0],
        photometric="minisblack",
        planarconfig=None,
        extratags=[(NO_DATA, 2, 0, "77", True)],
        metadata=None,
    )
    picture = read_picture(data)
    assert not picture.notes
    result = enlarged(picture)
    assert (result[:10, :10] == 77).all()
    assert (result == 77).sum() == 100
    out, notes = encode(replace(picture, pixels=result), "TIFF")
    assert not notes
    assert read_picture(out).no_data == 77


def test_missing_numbers_of_a_picture_read_by_rows(tmp_path):
    data, _ = scene(0, 0, channels=4, size=(150, 90))
    path = tmp_path / "scene.tif"
    path.write_bytes(data)
    streamed = open_streamed(path, at_least=1)
    upscaler = Upscaler("edsr-light", Goal(scale=2), tile=40)
    made = upscaler.pipeline_of(streamed).run()
    np.testing.assert_array_equal(made, upscaler.picture(read_picture(path)).pixels)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (np.full((20, 30), 7, np.uint8), {"photometric": "palette", "colormap": RAINBOW}),
        (np.full((20, 30, 3), 7, np.uint16), {"bitspersample": 12}),
        (np.full((20, 30, 4), 7, np.uint8), {"photometric": "separated"}),
    ],
)
def test_a_no_data_value_of_other_numbers_is_left_out(pixels, options):
    buffer = io.BytesIO()
    geotiff(buffer, pixels, tags=[(NO_DATA, 2, 0, "7", True)], **options)
    picture = read_picture(buffer.getvalue())
    assert NO_DATA_LEFT_OUT in picture.notes
    assert picture.no_data is None
    assert picture.place is not None
    out, _ = encode(picture, "TIFF")
    assert read_picture(out).place == picture.place


@pytest.mark.parametrize("more", [{}, {"extratags": [(274, 3, 1, 3, True)]}])
@pytest.mark.parametrize("count", [1, 2])
def test_missing_numbers_of_turned_pictures_and_of_pages(count, more):
    made = bands(1, "float32", size=(30, 40))[..., 0]
    made[:5, :5] = -9999
    tags = [(NO_DATA, 2, 0, "-9999", True), *more.get("extratags", ())]
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for _ in range(count):
            file.write(made, photometric="minisblack", extratags=tags, metadata=None)
    picture = read_picture(buffer.getvalue())
    made = Upscaler("edsr-light", Goal(scale=2)).picture(picture)
    results = [frame.pixels for frame in made.frames] or [made.pixels]
    assert len(results) == count
    for result in results:
        hole = result[-10:, -10:] if more else result[:10, :10]  # orientation 3: half a turn
        assert (hole == -9999).all()
        assert (result == -9999).sum() == 100
        assert (result[result != -9999] > -0.1).all()


def test_white_that_is_zero_has_another_no_data_value():
    made = bands(1, "uint8")[..., 0]
    data = tiff(
        made,
        photometric="miniswhite",
        planarconfig=None,
        extratags=[(NO_DATA, 2, 0, "0", True)],
        metadata=None,
    )
    picture = read_picture(data)
    assert picture.no_data is None
    assert NO_DATA_LEFT_OUT in picture.notes


@pytest.mark.parametrize(
    "no_data", [0.5, 0.0, -9999.0, 3.4028234663852886e38, -3.4028234663852886e38]
)
def test_the_number_beside_is_another_one(no_data):
    bounds = Range(np.dtype(np.float32), no_data)
    beside = bounds.outward(np.full((1, 1, 1), no_data, np.float32))
    assert np.isfinite(beside).all()
    assert beside != np.float32(no_data)


# Numbers that networks were not trained on


@pytest.fixture(scope="module")
def light():
    return Upscaler("edsr-light", Goal(scale=2), precision="fp32")


def file_of(pixels):
    """Gray, RGB or RGBA."""
    colours = {"photometric": "rgb" if pixels.shape[2] > 2 else "minisblack"}
    return tiff(pixels, **colours, extrasamples=["unassalpha"] if pixels.shape[2] == 4 else [])


def upscaled(light, pixels):
    """What becomes of the pixels of a file."""
    return light.picture(read_picture(file_of(pixels))).pixels


@pytest.mark.parametrize("factor", [1e-2, 1e-5, 300.0, 1e7])
def test_floats_come_out_alike_however_small_or_large_they_are(light, photo, factor):
    values = photo[40:80, 60:100].astype(np.float32) / 255
    same = upscaled(light, values)
    made = upscaled(light, values * np.float32(factor)) / np.float32(factor)
    assert np.abs(made - same).max() < 0.03
    assert abs(made.mean() - values.mean()) < 0.002


@pytest.mark.parametrize("top", [100, 1000, 4095])
def test_little_of_sixteen_bits_is_enough(light, photo, top):
    """Microscopes and satellites store 10 or 12 bits in 16."""
    values = np.rint(photo[40:80, 60:100] * (top / 255)).astype(np.uint16)
    made = upscaled(light, values)
    assert made.dtype == np.uint16
    assert abs(made.mean() - values.mean()) < 0.003 * top
    same = light.upscale(photo[40:80, 60:100]).astype(float)
    assert np.abs(made / (top / 255) - same).max() < 8 + 255 / top


def test_one_value_stays_that_value(light):
    for value in (np.uint16(300), np.float32(1e-6), np.float32(0), np.float32(7e5)):
        made = upscaled(light, np.full((20, 20, 3), value))
        np.testing.assert_array_equal(made, np.full((40, 40, 3), value))


def test_streamed_pictures_have_the_same_range(light, photo, tmp_path):
    values = photo[:180, :100].astype(np.uint16) + np.uint16(500)
    path = tmp_path / "in.tif"
    path.write_bytes(file_of(values))
    streamed = open_streamed(path, at_least=1)
    made = np.concatenate(list(light.pipeline(streamed.pixels).strips()))
    np.testing.assert_array_equal(made, upscaled(light, values))


def test_colours_that_nobody_sees_say_nothing_of_the_range(light, photo):
    values = photo[40:80, 60:100].astype(np.float32) / 255
    opaque = np.ones((40, 40, 1), np.float32)
    opaque[:8, :8] = 0
    loud = np.where(opaque > 0, values, np.float32(1e6))
    quiet = np.where(opaque > 0, values, np.float32(0))
    made, want = (
        upscaled(light, np.concatenate([colours, opaque], 2)) for colours in (loud, quiet)
    )
    np.testing.assert_allclose(made[20:], want[20:], atol=1e-5)


@pytest.mark.parametrize("top", [255.0, 65535.0])
def test_floats_of_transparency_may_go_up_to_any_number(photo, top):
    upscaler = Upscaler("bicubic", Goal(scale=2))
    values = photo[40:80, 60:100].astype(np.float32) / 255
    alpha = np.linspace(0, 1, 40, dtype=np.float32)[:, None, None] * np.ones(
        (40, 40, 1), np.float32
    )
    one, many = (
        upscaler.picture(read_picture(file_of(np.concatenate([values, alpha * t], 2)))).pixels
        for t in (np.float32(1), np.float32(top))
    )
    np.testing.assert_allclose(many[..., 3] / top, one[..., 3], atol=1e-5)


def test_missing_transparency_does_not_spread(photo):
    upscaler = Upscaler("bicubic", Goal(scale=2))
    pixels = np.concatenate([photo[40:80, 60:100] / 255, np.ones((40, 40, 1))], 2)
    pixels = pixels.astype(np.float32)
    pixels[5, 5, 3], pixels[30, 30, 3] = np.nan, 0.5
    made = upscaler.picture(read_picture(file_of(pixels))).pixels
    assert np.isnan(made).sum() == 4


@pytest.mark.parametrize("fill", [1e20, 9.96921e36])
def test_what_lies_absurdly_far_from_the_rest_is_missing(light, photo, fill):
    values = photo[40:80, 60:100, :1].astype(np.float32) + 200
    holed = values.copy()
    holed[:6, :6] = fill
    pipeline = light.pipeline_of(read_picture(file_of(holed)))
    assert any("treated as missing" in note for note in pipeline.notes)
    assert not light.pipeline_of(read_picture(file_of(values))).notes
    made, want = pipeline.run(), upscaled(light, values)
    assert (made[:12, :12] == np.float32(fill)).all()
    assert np.abs(made[40:] - want[40:]).max() < 2


def test_hidden_colours_are_filled_alike_in_blocks_of_columns(monkeypatch):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (90, 300, 4)).astype(np.uint8)
    pixels[..., 3] = 255 * (rng.random((90, 300)) > 0.9) * (np.arange(300) < 200)
    whole = OpaqueColours(ArrayRows(pixels)).read(20, 60)
    monkeypatch.setattr(OpaqueColours, "_COLUMNS", 32)
    np.testing.assert_array_equal(OpaqueColours(ArrayRows(pixels)).read(20, 60), whole)


def test_bands_never_become_transparency():
    picture = read_picture(tiff(bands(4, "uint8"), photometric="rgb", extrasamples=["unspecified"]))
    out, notes = encode(picture, "PNG")
    assert BANDS_LEFT_OUT in notes
    assert read_picture(out).channels == 3


def test_a_colour_may_be_missing_alone_in_floats():
    made = bands(3, "float32", size=(60, 120)) * np.float32(2)
    made[:, 60:, 0] = np.nan
    picture = read_picture(tiff(made, photometric="rgb", metadata=None))
    for model in ("bicubic", "edsr-light"):
        result = Upscaler(model, Goal(scale=2)).picture(picture).pixels
        assert np.isnan(result[:, 120:, 0]).all()
        assert np.isfinite(result[..., 1:]).all()
        usual = np.repeat(np.repeat(made, 2, 0), 2, 1)[..., 1:]
        assert np.abs(result[..., 1:] - usual)[:, 200:].mean() < 0.1


def test_a_no_data_value_beyond_float32_is_left_out():
    made = bands(1, "float32")[..., 0].astype(np.float64)
    made[:3, :3] = lowest = -1.7976931348623157e308
    data = tiff(
        made,
        photometric="minisblack",
        planarconfig=None,
        extratags=[(NO_DATA, 2, 0, str(lowest), True)],
        metadata=None,
    )
    picture = read_picture(data)
    assert NO_DATA_LEFT_OUT in picture.notes
    result = enlarged(picture)
    assert np.isinf(result).sum() == 36
    assert (result[np.isfinite(result)] > -0.1).all()
