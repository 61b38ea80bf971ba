"""GeoTIFF: an enlarged picture lies where the picture lay."""

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from upres.api import Upscaler
from upres.imaging.encoder import encode
from upres.imaging.fidelity import compare
from upres.imaging.georeference import GeoReference, read_georeference
from upres.imaging.reader import read_metadata, read_picture
from upres.imaging.streaming import open_streamed
from upres.inference.sizes import Goal

SCALE, TIEPOINTS, TRANSFORMATION, KEYS, TEXTS = 33550, 33922, 34264, 34735, 34737
AREA, POINT = 1, 2


def keys(raster):
    """A projected system, UTM zone 32 north, and what raster coordinates mean."""
    return (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, raster, 3072, 0, 1, 32632)


def world(tags, x, y, raster):
    """Coordinates on the Earth of a place in the picture, in pixels from its upper left corner."""
    if raster == POINT:
        x, y = x - 0.5, y - 0.5
    if TRANSFORMATION in tags:
        matrix = np.reshape(tags[TRANSFORMATION], (4, 4))
        return tuple((matrix @ [x, y, 0, 1])[:2])
    i, j, _, east, north, _ = tags[TIEPOINTS]
    across, down, _ = tags[SCALE]
    return east + (x - i) * across, north - (y - j) * down


@given(
    st.sampled_from([AREA, POINT]), st.booleans(), st.integers(1, 50), st.integers(1, 50),
    st.integers(1, 400), st.integers(1, 400), st.floats(-5, 5), st.floats(-5, 5),
)  # fmt: skip
def test_every_place_stays_where_it_is(raster, turned, w, h, wide, high, i, j):
    tags = {KEYS: keys(raster)}
    if turned:
        tags[TRANSFORMATION] = (7.0, 2.0, 0, 1e5, 1.5, -8.0, 0, 5e6, 0, 0, 1, 0, 0, 0, 0, 1.0)
    else:
        tags |= {SCALE: (10.0, 12.5, 0.0), TIEPOINTS: (i, j, 0.0, 500000.0, 4.6e6, 0.0)}
    made = GeoReference(tags, w, h).enlarged(wide, high)
    for x, y in ((0, 0), (w, h), (w / 2, h / 3)):
        there = world(made, x * wide / w, y * high / h, raster)
        assert there == pytest.approx(world(tags, x, y, raster), abs=1e-5)
    assert made[KEYS] == tags[KEYS]


def geotiff(path, pixels, *, tags=(), **more):
    extra = [
        *tags,
        (SCALE, 12, 3, (10.0, 10.0, 0.0), True),
        (TIEPOINTS, 12, 6, (0.0, 0.0, 0.0, 500000.0, 4600000.0, 0.0), True),
        (KEYS, 3, 16, keys(AREA), True),
        (TEXTS, 2, 0, "WGS 84|", True),
    ]
    options = {"photometric": "rgb"} | more
    tifffile.imwrite(path, pixels, extratags=extra, metadata=None, **options)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_geotiff_comes_out_as_one(tmp_path, dtype):
    path = tmp_path / "map.tif"
    geotiff(path, np.ones((20, 30, 3), dtype))
    picture = read_picture(path)
    assert not picture.notes
    out, notes = encode(Upscaler("bicubic", Goal(scale=4)).picture(picture), "TIFF")
    assert not notes
    with tifffile.TiffFile(io.BytesIO(out)) as file:
        tags = file.pages[0].tags
        assert tags[SCALE].value == (2.5, 2.5, 0.0)
        assert tags[TIEPOINTS].value == (0.0, 0.0, 0.0, 500000.0, 4600000.0, 0.0)
        assert tags[KEYS].value == keys(AREA)
        assert tags[TEXTS].value == "WGS 84|"
    (item,) = [i for i in compare(picture, read_metadata(out)) if i.name == "place"]
    assert item.state == "kept"
    _, notes = encode(picture, "PNG")
    assert "the place (GeoTIFF) cannot be kept in this PNG" in notes
    assert picture.stripped().place is None
    if dtype != np.float32:
        streamed = open_streamed(path, at_least=1)
        assert streamed.place == picture.place


def test_smaller_copies_of_a_page_are_no_pages(tmp_path):
    path = tmp_path / "cloud.tif"
    with tifffile.TiffWriter(path) as file:
        for size, kind in ((64, 0), (32, 1), (16, 1)):
            pixels = np.full((size, size, 3), size, np.uint8)
            file.write(pixels, photometric="rgb", subfiletype=kind, metadata=None)
    picture = read_picture(path)
    assert picture.pixels.shape == (64, 64, 3)
    assert not picture.frames
    assert picture.notes == ("smaller copies and masks of pages are left out",)


@pytest.mark.parametrize(
    "damage", [{SCALE: (1.0,)}, {KEYS: ("a",)}, {TIEPOINTS: (1.0, 2.0)}, {TEXTS: 5}]
)
def test_tags_that_make_no_sense_are_left_out(damage):
    tags = {KEYS: keys(AREA), SCALE: (1.0, 1.0, 0.0), TEXTS: "WGS 84|"}
    assert read_georeference(tags, 10, 10) is not None
    assert read_georeference({**tags, **damage}, 10, 10) is None
