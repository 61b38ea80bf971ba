"""How large a pixel is: what ImageJ, microscopes and tifffile write about it stays true."""

import io
import json

import numpy as np
import pytest
import tifffile

from upres.api import Upscaler
from upres.imaging.encoder import encode
from upres.imaging.fidelity import compare
from upres.imaging.reader import read_metadata, read_picture
from upres.inference.sizes import Goal

STACK = np.random.default_rng(0).integers(0, 60000, (3, 40, 60)).astype(np.uint16)


def written(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def enlarged(data, factor=2):
    picture = read_picture(data)
    out, notes = encode(Upscaler("bicubic", Goal(scale=factor)).picture(picture), "TIFF")
    return picture, out, notes


@pytest.mark.parametrize("factor", [1.5, 2])
def test_imagej_measures_the_same_length(factor):
    data = written(
        STACK, imagej=True, resolution=(4.5, 3.2), metadata={"axes": "ZYX", "unit": "um"}
    )
    picture, out, notes = enlarged(data, factor)
    assert not notes
    with tifffile.TiffFile(io.BytesIO(out)) as file:
        assert file.is_imagej
        assert file.imagej_metadata["unit"] == "um"
        assert file.asarray().shape == (3, round(40 * factor), round(60 * factor))
        assert [bool(page.description) for page in file.pages] == [True, False, False]
        for page in file.pages:
            x, y = (page.tags[code].value for code in (282, 283))
            assert (x[0] / x[1], y[0] / y[1]) == pytest.approx((4.5 * factor, 3.2 * factor))
            assert page.tags[296].value == 1
    (item,) = [i for i in compare(picture, read_metadata(out)) if i.name == "size of a pixel"]
    assert item.state == "kept"
    _, notes = encode(picture, "PNG")
    assert "the size of a pixel cannot be kept in this PNG" in notes


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
def test_a_microscopes_file_stays_one(kind):
    metadata = {
        "axes": "CYX",
        "PhysicalSizeX": 0.25,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": ["DAPI", "GFP", "RFP"]},
    }
    data = written(
        (STACK // 300).astype(kind), ome=True, photometric="minisblack", metadata=metadata
    )
    _, out, _ = enlarged(data)
    with tifffile.TiffFile(io.BytesIO(out)) as file:
        assert file.is_ome
        (series,) = file.series
        assert (series.kind, series.axes, series.shape) == ("ome", "CYX", (3, 80, 120))
        assert series.dtype == ("float32" if kind == "int16" else kind)
        told = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        assert (told["PhysicalSizeX"], told["PhysicalSizeY"]) == (0.125, 0.25)
        assert told["PhysicalSizeXUnit"] == "µm"
        assert [channel["Name"] for channel in told["Channel"]] == ["DAPI", "GFP", "RFP"]
        # It may have megabytes for thousands of planes, and stands once.
        assert out.count(b"<OME") == 1
        # A file that contradicts itself is read otherwise, as a stack of pages.
        np.testing.assert_array_equal(file.asarray(), [page.asarray() for page in file.pages])


def test_a_note_of_the_shape_goes_and_other_words_stay():
    shaped = written(STACK[0])
    with tifffile.TiffFile(io.BytesIO(shaped)) as file:
        assert json.loads(file.pages[0].description)["shape"] == [40, 60]
    for data, wanted in (
        (shaped, ""),
        (written(STACK[0], description='a "SizeX" of words', metadata=None), 'a "SizeX" of words'),
    ):
        _, out, _ = enlarged(data)
        with tifffile.TiffFile(io.BytesIO(out)) as file:
            assert file.pages[0].description == wanted
            assert file.series[0].shape == (80, 120)


def test_pages_of_several_sizes_have_no_common_size_of_a_pixel():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for side in (20, 30):
            file.write(STACK[0, :side, :side], metadata=None, resolution=(5, 5), resolutionunit=1)
    picture = read_picture(buffer.getvalue())
    assert picture.calibration is None
    assert "the size of a pixel is left out, since pages are of several sizes" in picture.notes


def test_a_turned_picture_has_its_pixels_turned():
    turned = [(274, 3, 1, 6, True)]
    more = {"resolution": (5, 4), "resolutionunit": 1, "extratags": turned, "metadata": None}
    picture, out, _ = enlarged(written(STACK[0], **more))
    assert (picture.width, picture.height) == (40, 60)
    with tifffile.TiffFile(io.BytesIO(out)) as file:
        tags = file.pages[0].tags
        assert (tags[282].value, tags[283].value) == ((8, 1), (10, 1))


@pytest.mark.parametrize("resolution", [(1, 1), (0, 5)])
def test_what_says_nothing_is_nothing(resolution):
    data = written(STACK[0], resolution=resolution, resolutionunit=1)
    assert read_picture(data).calibration is None
