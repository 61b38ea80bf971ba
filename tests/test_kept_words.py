"""Words beside the pixels that are told twice, in old ways, or by counting pixels."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from upres.imaging.encoder import encode
from upres.imaging.fidelity import compare
from upres.imaging.holding import stripped
from upres.imaging.metadata import updated_exif, updated_xmp
from upres.imaging.picture import Picture
from upres.imaging.profiles import to_srgb
from upres.imaging.reader import read_picture
from upres.imaging.tiff_writer import TiffPages

PIXELS = np.full((16, 24, 3), 90, np.uint8)
X, Y, UNIT = 0x011A, 0x011B, 0x0128


def saved(form, pixels=PIXELS, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def tiff(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, metadata=None, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("stated", "dpi"),
    [
        ({X: 300.0, Y: 300.0, UNIT: 2}, (300, 300)),
        ({X: 300.0, Y: 300.0}, (300, 300)),  # inches where nothing is said (Exif 2.32)
        ({X: 300.0, Y: 150.0, UNIT: 2}, (300, 150)),
        ({X: 100.0, Y: 100.0, UNIT: 3}, (254, 254)),
        ({X: 1.0, Y: 1.0, UNIT: 1}, None),
        ({UNIT: 2}, None),
    ],
)
def test_a_jpeg_has_the_resolution_that_its_exif_states(stated, dpi):
    exif = Image.Exif()
    exif.update(stated)
    picture = read_picture(saved("JPEG", exif=exif))
    assert picture.dpi == (dpi and pytest.approx(dpi))
    # Of its header, if that states one.
    assert read_picture(saved("JPEG", exif=exif, dpi=(72, 72))).dpi == (72, 72)


def test_a_bmp_states_no_resolution_that_nobody_stated():
    data, _ = encode(Picture(PIXELS, "PNG"), "BMP")
    assert struct.unpack_from("<2i", data, 38) == (0, 0)
    data, _ = encode(Picture(PIXELS, "PNG", dpi=(300, 300)), "BMP")
    assert struct.unpack_from("<2i", data, 38) == (11811, 11811)  # a metre


def test_without_metadata_the_resolution_stays_that_stood_in_exif_alone(tmp_path, upres):
    exif = Image.Exif()
    exif.update({X: 300.0, Y: 200.0, UNIT: 2, 0x0112: 6, 0x013B: "somebody"})
    (tmp_path / "a.webp").write_bytes(saved("WEBP", exif=exif))
    done = upres("a.webp", "-m", "bicubic", "-s", "2", "--strip-metadata", "-o", "a.tif")
    assert done.returncode == 0, done.stderr
    made = read_picture(tmp_path / "a.tif")
    assert made.dpi == pytest.approx((200, 300))
    assert made.exif is None
    assert stripped(read_picture(saved("WEBP"))).dpi is None


def test_all_comments_of_a_gif_are_read():
    """Those before each frame, and the one behind the last."""

    def comment(text):
        return b"!\xfe" + bytes([len(text)]) + text + b"\0"

    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (10, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=100)
    data = buffer.getvalue()
    # Before the control of each frame.
    first, second = (i for i in range(len(data)) if data[i : i + 3] == b"!\xf9\x04")
    parts = [data[:first], comment(b"one"), data[first:second], comment(b"two")]
    # One of them again, as some programs write it with each frame; and a byte between blocks.
    data = b"".join([*parts, comment(b"one"), b"\0", data[second:-1], comment(b"three"), b";"])
    picture = read_picture(data)
    assert picture.comments == (b"one", b"two", b"three")
    again = read_picture(encode(picture, "GIF")[0])
    (item,) = (item for item in compare(picture, again) if item.name == "comment")
    assert item.state == "kept"


def test_a_no_data_value_that_a_file_cannot_hold_is_said():
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    tag = [(42113, 2, 0, "nan", False)]
    picture = read_picture(tiff(values, extratags=tag))
    _, notes = encode(picture, "PNG")
    assert "the no-data value cannot be kept in this PNG" in notes
    assert not any("place" in note for note in notes)
    # Of white that is zero the value is another number, and still there is no place.
    inverted = tiff(
        np.zeros((8, 8), np.uint8),
        extratags=[(42113, 2, 0, "3", False)],
        photometric="miniswhite",
    )
    picture = read_picture(inverted)
    assert any("no-data" in note for note in picture.notes)
    assert encode(picture, "PNG")[1] == []


@pytest.mark.parametrize("nbytes", [100, 5_000_000_000])
def test_the_rules_of_interoperability_stand_in_a_tiff_of_any_size(tmp_path, nbytes):
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0x9286: b"ASCII\0\0\0hello", 0xA005: {1: "R98", 2: b"0100"}})
    block = exif.tobytes()
    picture = Picture(PIXELS, "JPEG", exif=block)
    with (tmp_path / "a.tif").open("w+b") as file, TiffPages(file, nbytes) as pages:
        pages.add(picture, PIXELS.shape, PIXELS.dtype, [PIXELS], block, None)
    with Image.open(tmp_path / "a.tif") as image:
        tags = image.getexif()
        assert tags.get_ifd(0xA005) == {1: "R98", 2: b"0100"}
        directory = ImageFileDirectory_v2(tags.head, group=0x8769)
        image.fp.seek(tags[0x8769])
        directory.load(image.fp)
    long = TiffTags.LONG8 if nbytes > 4e9 else TiffTags.LONG
    assert directory.tagtype[0xA005] == long
    (item,) = (i for i in compare(picture, read_picture(tmp_path / "a.tif")) if i.name == "EXIF")
    assert item.state == "kept"


def test_exif_with_a_tag_that_nobody_can_read_costs_no_tiff():
    block = struct.pack("<4sIHHHI4sI", b"II*\0", 8, 1, 262, 3, 2, b"\2\0\2\0", 0)
    picture = Picture(PIXELS, "JPEG", exif=b"Exif\0\0" + block)
    data, notes = encode(picture, "TIFF")
    assert notes == ["EXIF cannot be kept in this TIFF"]
    np.testing.assert_array_equal(read_picture(data).pixels, PIXELS)


def test_pages_that_agree_on_a_no_data_value_that_is_no_number_keep_it():
    values = np.linspace(0, 1, 512, dtype=np.float32).reshape(2, 16, 16)
    picture = read_picture(
        tiff(values, extratags=[(42113, 2, 0, "nan", False)], photometric="minisblack")
    )
    assert len(picture.frames) == 2
    assert np.isnan(picture.no_data)
    assert not picture.notes


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_size_in_the_directory_of_interoperability_follows(order):
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    ifd0 = struct.pack(order + "HHHIII", 1, 0x8769, 4, 1, 26, 0)
    exif = struct.pack(order + "HHHIII", 1, 0xA005, 4, 1, 44, 0)
    rules = struct.pack(order + "H", 3)
    rules += struct.pack(order + "HHI4s", 1, 2, 4, b"R98\0")
    rules += struct.pack(order + "HHIHH", 0x1001, 3, 1, 24, 0)
    rules += struct.pack(order + "HHII", 0x1002, 4, 1, 16) + bytes(4)
    block = b"Exif\0\0" + head + ifd0 + exif + rules
    made = Image.Exif()
    made.load(updated_exif(block, 70_000, 64))
    assert made.get_ifd(0xA005) == {1: "R98", 0x1001: 70_000, 0x1002: 64}
    assert updated_exif(block[:-20], 48, 32) == block[:-20]  # cut: carried as it is


def test_what_a_panorama_is_worth_showing_follows():
    packet = (
        b'<x GPano:CroppedAreaImageWidthPixels="100" GPano:CroppedAreaImageHeightPixels="50" '
        b'GPano:LargestValidInteriorRectLeft="10" GPano:LargestValidInteriorRectTop="5" '
        b'GPano:LargestValidInteriorRectWidth="80" GPano:LargestValidInteriorRectHeight="40"/>'
    )
    assert updated_xmp(packet, 400, 100) == (
        b'<x GPano:CroppedAreaImageWidthPixels="400" GPano:CroppedAreaImageHeightPixels="100" '
        b'GPano:LargestValidInteriorRectLeft="40" GPano:LargestValidInteriorRectTop="10" '
        b'GPano:LargestValidInteriorRectWidth="320" GPano:LargestValidInteriorRectHeight="80"/>'
    )


def test_where_the_units_of_imagej_begin_follows(tmp_path, upres):
    words = "ImageJ=1.53t\nunit=um\nxorigin=12.5\nyorigin=-8\nmin=0\n"
    values = np.arange(24 * 16, dtype=np.uint16).reshape(16, 24) * 100
    (tmp_path / "cells.tif").write_bytes(
        tiff(values, description=words, resolution=(5, 5), resolutionunit=1)
    )
    done = upres("cells.tif", "-m", "bicubic", "-s", "2", "-o", "out.tif")
    assert done.returncode == 0, done.stderr
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        said = file.pages.first.description
    assert said.split() == words.replace("12.5", "25").replace("-8", "-16").split()


def test_parts_of_a_webp_or_gif_that_no_writer_takes_are_said():
    webp = saved("WEBP", exif=Image.Exif().tobytes(), xmp=b"<x/>")
    assert not read_picture(webp).notes
    webp += b"C2PA" + struct.pack("<I", 3) + b"abc\0" + b"\x1b[2J" + struct.pack("<I", 0)
    webp = webp[:4] + struct.pack("<I", len(webp) - 8) + webp[8:]
    webp += b"HERE" + struct.pack("<I", 0)  # which is behind its end
    assert read_picture(webp).notes == ("WebP chunks C2PA are not carried over",)
    gif = saved("GIF", PIXELS[..., 0], comment=b"a comment")
    assert not read_picture(gif).notes
    own = b"!\xff\x0bMGKIPTC0000\3abc\0"
    gif = gif[:-1] + own + b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0;"
    assert read_picture(gif).notes == ("GIF extensions MGKIPTC0000 are not carried over",)


def test_a_damaged_profile_is_said():
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    note = "the colour profile is damaged and is left out"
    jpeg = saved("JPEG", icc_profile=icc)
    assert note not in read_picture(jpeg).notes
    at = jpeg.index(b"ICC_PROFILE\0") + 12
    picture = read_picture(jpeg[:at] + b"\x01\x02" + jpeg[at + 2 :])  # the first of two
    assert picture.icc is None
    assert note in picture.notes


ADOBE = b"""<x photoshop:ICCProfile="Adobe RGB (1998)" photoshop:ColorMode="%d">
<exif:ColorSpace>65535</exif:ColorSpace></x>"""
SRGB = b"""<x photoshop:ICCProfile="sRGB IEC61966-2.1" photoshop:ColorMode="3">
<exif:ColorSpace>1</exif:ColorSpace></x>"""


def test_colours_that_became_srgb_are_called_so():
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 65535
    picture = Picture(PIXELS, "JPEG", icc=icc, exif=exif.tobytes(), xmp=ADOBE % 3)
    made = to_srgb(picture)
    assert made.xmp == SRGB
    again = Image.Exif()
    again.load(made.exif)
    assert again.get_ifd(0x8769)[0xA001] == 1
    assert read_picture(saved("JPEG", xmp=ADOBE % 3)).xmp == ADOBE % 3
    buffer = io.BytesIO()
    inks = Image.new("CMYK", (8, 8), (10, 90, 30, 0))
    inks.save(buffer, "JPEG", xmp=ADOBE % 4, exif=exif)
    picture = read_picture(buffer.getvalue())
    assert picture.kind == "CMYK"
    assert picture.xmp == SRGB


def test_colours_that_gamma_and_chromaticities_tell_are_not_called_srgb():
    adobe = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
    not_converted = "colours are told by gamma and chromaticities, which are not converted"
    for words in ({"gamma": 1.0}, {"gamma": 1 / 2.2, "chromaticities": adobe}):
        assert to_srgb(Picture(PIXELS, "PNG", **words)).notes == (not_converted,)
    for words in ({"gamma": 0.45455}, {"gamma": 1.0, "intent": 0}, {}):
        notes = to_srgb(Picture(PIXELS, "PNG", **words)).notes
        assert notes == ("no profile: colours are taken as sRGB",)
