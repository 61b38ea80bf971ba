"""Every kind of picture in every format, with everything that can stand beside the pixels.

docs/fidelity.md is made from what these tests find: ``python -m tests.test_fidelity`` writes it.
"""

import io
import re
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image, ImageCms, ImageOps

from upres.api import Upscaler
from upres.errors import InputError
from upres.imaging.avif import put_code_points
from upres.imaging.encoder import encode
from upres.imaging.fidelity import compare
from upres.imaging.georeference import GeoReference
from upres.imaging.parameters import Encoding
from upres.imaging.picture import Picture
from upres.imaging.png import write_png
from upres.imaging.profiles import srgb_profile, to_srgb
from upres.imaging.reader import read_metadata, read_picture
from upres.inference.sizes import Goal

DOCS = Path(__file__).parent.parent / "docs" / "fidelity.md"
SIZE = (24, 36)  # height and width


def profile(space, primaries=None, gamma=2.2):
    """A small ICC profile of version 2: matrix and curve, or a curve for gray."""

    def fixed(x):
        return struct.pack(">i", round(x * 65536))

    def xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    name = b"upres test\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + b"\0" * 78
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz((0.9642, 1, 0.8249))}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        for letter, values in zip(b"rgb", primaries, strict=True):
            tags[bytes([letter]) + b"XYZ"] = xyz(values)
            tags[bytes([letter]) + b"TRC"] = curve
    table, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        place = 128 + 4 + 12 * len(tags) + len(body)
        table += tag + struct.pack(">II", place, len(data))
        body += data + b"\0" * (-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", 0, b"\0" * 4, 0x02400000, b"mntr", space, b"XYZ ")
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + b"".join(map(fixed, (0.9642, 1, 0.8249)))
    whole = head.ljust(128, b"\0") + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


# Primaries in the connection space, adapted to D50 (SMPTE RP 431, Adobe RGB (1998)).
P3 = profile(
    b"RGB ", ((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841))
)
ADOBE = profile(
    b"RGB ", ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
)
GRAY = profile(b"GRAY")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def cmyk_profile():
    return pyvips.Image.profile_load("cmyk")


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="1" dc:title="x"/></x:xmpmeta>'
MORE_XMP = tuple(
    b"http://ns.adobe.com/xmp/extension/\0" + b"0123456789ABCDEF" * 2 + place + b"<x:more/>"
    for place in (b"\0\0\0\x12\0\0\0\0", b"\0\0\0\x12\0\0\0\x09")
)
# BT.2020 and PQ, of RGB.
PQ = (9, 16, 0, 1)
TEXTS = (
    (b"tEXt", b"Title\0a title"),
    (b"tEXt", b"Title\0and another"),
    (b"iTXt", b"Author\0\0\0de\0Urheber\0" + "Ünï ☃".encode()),
    (b"zTXt", b"Long\0\0" + zlib.compress(b"words " * 100)),
)
IPTC = b"\x1c\x02\x05\x00\x05Title\x1c\x02\x50\x00\x04Name"


def exif(orientation=1):
    tags = Image.Exif()
    tags[0x010F], tags[0x0112] = "Maker", orientation
    tags.get_ifd(0x8769)[0x829A] = 0.01
    gps = tags.get_ifd(0x8825)
    gps[1], gps[2] = "N", (48.0, 8.0, 14.0)
    return tags.tobytes()


# Sources


@dataclass(frozen=True)
class Kind:
    """A kind of pixels: channels, type, and how a file comes to hold them.

    Attributes:
        mode: Pillow's, or "" for what Pillow does not write.
        formats: that hold it.
        becomes: what reading makes of it where that is something else.
        bands: channels beside them that are neither colour nor transparency.
    """

    mode: str
    formats: str
    channels: int
    dtype: type = np.uint8
    becomes: str = ""
    bands: int = 0


KINDS = {
    "1-bit": Kind("1", "PNG TIFF BMP", 1, becomes="gray"),
    "palette": Kind("P", "PNG TIFF BMP GIF", 3, becomes="RGB"),
    "palette, transparent": Kind("P", "PNG GIF", 4, becomes="RGBA"),
    "gray": Kind("L", "JPEG PNG TIFF BMP GIF JPEG2000 WEBP AVIF", 1),
    "gray, alpha": Kind("LA", "PNG TIFF JPEG2000", 2),
    "RGB": Kind("RGB", "JPEG PNG WEBP TIFF BMP AVIF JPEG2000", 3),
    "RGBA": Kind("RGBA", "PNG WEBP TIFF AVIF JPEG2000", 4),
    "CMYK": Kind("CMYK", "JPEG TIFF", 3, becomes="sRGB"),
    "Lab": Kind("LAB", "TIFF", 3, becomes="sRGB"),
    "12-bit RGB": Kind("", "AVIF", 3, np.uint16),
    "12-bit RGBA": Kind("", "AVIF", 4, np.uint16),
    "16-bit gray": Kind("I;16", "PNG TIFF JPEG2000", 1, np.uint16),
    "16-bit gray, alpha": Kind("", "PNG TIFF JPEG2000", 2, np.uint16),
    "16-bit RGB": Kind("", "PNG TIFF JPEG2000", 3, np.uint16),
    "16-bit RGBA": Kind("", "PNG TIFF JPEG2000", 4, np.uint16),
    "16-bit RGB, infrared": Kind("", "TIFF", 3, np.uint16, bands=1),
    "float gray": Kind("F", "TIFF", 1, np.float32),
    "float RGB": Kind("", "TIFF", 3, np.float32),
    "float RGBA": Kind("", "TIFF", 4, np.float32),
}
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF", "GIF", "JPEG2000")
LOSSLESS = ("PNG", "TIFF", "BMP", "JPEG2000")
CELLS = [(name, f) for name, kind in KINDS.items() for f in FORMATS if f in kind.formats.split()]


def pixels(kind):
    """A picture with smooth and hard parts, in the kind's type."""
    height, width = SIZE
    y, x = np.mgrid[:height, :width]
    planes = [x / (width - 1), y / (height - 1), ((x // 6 + y // 6) % 2) * 0.8, (x > 8) * 1.0]
    chosen = {1: (0,), 2: (0, 3), 3: (0, 1, 2), 4: (0, 1, 2, 3)}[kind.channels + kind.bands]
    values = np.stack([planes[i] for i in chosen], axis=2)
    if kind.dtype == np.float32:
        return values.astype(np.float32)
    return np.rint(values * np.iinfo(kind.dtype).max).astype(kind.dtype)


def source(name, form, **extra):
    """The bytes of a file, and where it is known what its pixels are."""
    kind = KINDS[name]
    made = pixels(kind)
    buffer = io.BytesIO()
    if not kind.mode:
        if form == "PNG":
            write_png(buffer, Picture(made, "PNG"), SIZE[1], SIZE[0], [made], None, None)
        elif form == "JPEG2000":
            buffer.write(imagecodecs.jpeg2k_encode(made, level=0, codecformat="jp2"))
        elif form == "AVIF":
            image = pyvips.Image.new_from_array(made).copy(interpretation="rgb16")
            buffer.write(image.heifsave_buffer(compression="av1", bitdepth=12, Q=95))
        else:
            extra = ["unassalpha"] if kind.channels in (2, 4) else ["unspecified"] * kind.bands
            tifffile.imwrite(
                buffer,
                made,
                photometric="minisblack" if kind.channels == 2 else "rgb",
                planarconfig="contig",
                metadata=None,
                extrasamples=extra,
            )
        return buffer.getvalue(), None if form == "AVIF" else made
    image = Image.fromarray(made[..., 0] if kind.channels == 1 else made)
    if name == "palette, transparent":
        indexed = image.convert("RGB").quantize(200)
        extra["transparency"] = indexed.getpixel((0, 0))
        image = indexed
    elif name == "palette":
        image = image.quantize(200)
    elif kind.mode not in (image.mode, "I;16"):
        image = image.convert(kind.mode)
    if form in ("JPEG", "WEBP", "AVIF"):
        extra.setdefault("quality", 95)
    image.save(buffer, form, **extra)
    known = made if kind.mode == image.mode and form in LOSSLESS and not kind.becomes else None
    return buffer.getvalue(), known


def doubled(data, form, **options):
    """What the program does: read, enlarge, write; the picture read, the bytes, the notes."""
    picture = read_picture(data)
    made = Upscaler("bicubic", Goal(scale=2), **options).picture(picture)
    out, notes = encode(made, form)
    return picture, made, out, (*picture.notes, *notes)


# Pixels


@pytest.mark.parametrize(("name", "form"), CELLS)
def test_pixels_come_out_as_what_they_were(name, form):
    kind = KINDS[name]
    data, known = source(name, form)
    picture, made, out, notes = doubled(data, form)
    assert picture.pixels.dtype == kind.dtype
    stored_as_colour = form in ("WEBP", "AVIF") and name == "gray"
    assert picture.channels == (3 if stored_as_colour and form == "WEBP" else kind.channels)
    if known is not None:
        np.testing.assert_array_equal(picture.pixels, known)
    again = read_picture(out)
    assert again.format == form
    assert (again.height, again.width) == (2 * SIZE[0], 2 * SIZE[1])
    assert again.pixels.dtype == kind.dtype
    if form in LOSSLESS and again.channels == made.channels:
        np.testing.assert_array_equal(again.pixels, made.pixels)
    elif form != "GIF":
        most = 1 if made.channels <= 2 else 3
        a, b = again.pixels[..., :most].astype(float), made.pixels[..., :most].astype(float)
        visible = made.pixels[..., -1] > 200 if made.alpha else np.ones(a.shape[:2], bool)
        assert np.abs(a - b)[visible].mean() < (6 if kind.dtype == np.uint8 else 6 * 257)
    # What is not as it was is said, and nothing else is.
    said = " ".join(notes)
    changed = again.channels != picture.channels or again.kind != picture.kind
    assert (changed or (form == "GIF" and kind.channels > 1)) == bool(notes), notes
    if kind.becomes == "sRGB":
        assert "RGB" in said
        assert again.icc is None or again.icc[16:20] == b"RGB "


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("model", ["bicubic", "edsr-light"])
def test_sixteen_bits_go_through_at_full_precision(form, model):
    """A ramp of 1/65535 steps keeps more levels than 8 bits have."""
    ramp = np.linspace(20000, 21000, 60).astype(np.uint16)
    made = np.repeat(np.tile(ramp, (40, 1))[..., None], 3, axis=2)
    buffer = io.BytesIO()
    write_png(buffer, Picture(made, "PNG"), 60, 40, [made], None, None)
    picture = read_picture(buffer.getvalue())
    out, _ = encode(Upscaler(model, Goal(scale=2)).picture(picture), form)
    again = read_picture(out).pixels
    assert again.dtype == np.uint16
    inner = again[16:-16, 16:-16]
    assert len(np.unique(inner)) > 60
    assert (
        np.abs(
            inner.astype(int)
            - np.interp(np.arange(16, 104), np.arange(60) * 2 + 0.5, ramp)[None, :, None]
        ).mean()
        < 120
    )


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif_keeps_its_depth_and_what_is_beside_it(bits):
    made = pixels(KINDS["12-bit RGBA"])
    image = pyvips.Image.new_from_array(made).copy(interpretation="rgb16")
    data = image.heifsave_buffer(compression="av1", bitdepth=bits, Q=99, subsample_mode="off")
    picture = read_picture(data)
    assert picture.bits == bits
    # Full range, to within a step or two of the file's.
    assert (picture.pixels.min(), picture.pixels.max()) == (0, 65535)
    assert np.abs(picture.pixels[..., 0].astype(int) - made[..., 0]).mean() < 3 * 2 ** (16 - bits)
    full = replace(picture, icc=P3, exif=exif(), xmp=XMP)
    out, notes = encode(full, "AVIF")
    assert not notes
    again = read_picture(out)
    assert (again.bits, again.icc, again.pixels.dtype) == (bits, P3, np.uint16)
    assert all(item.state == "kept" for item in compare(full, read_metadata(out)))
    with Image.open(io.BytesIO(out)) as reopened:
        tags = reopened.getexif()
        assert set(tags) == {0x010F, 0x0112, 0x8769, 0x8825}  # nothing made up
        assert tags.get_ifd(0x8825)[2] == (48.0, 8.0, 14.0)
        assert dict(tags.get_ifd(0x8769)) == {0x829A: 0.01}


@pytest.mark.parametrize("length", [10, 3000, 60_000])
def test_deep_avif_carries_exif_byte_for_byte(length):
    tags = Image.Exif()
    tags[0x010F] = "Maker"
    tags.get_ifd(0x8769)[0x927C] = bytes(i % 251 for i in range(length))
    tags.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + b"x" * 50
    block = tags.tobytes()
    picture = Picture(pixels(KINDS["16-bit RGB"]), "PNG", bits=12, exif=block)
    out, notes = encode(picture, "AVIF")
    assert not notes
    assert (
        (read_picture(out).exif or b"")
        .removeprefix(b"Exif\0\0")
        .startswith(block.removeprefix(b"Exif\0\0"))
    )
    _, notes = encode(replace(picture, exif=block + bytes(70_000)), "AVIF")
    assert notes == ["EXIF cannot be kept in this AVIF"]


def test_sixteen_bits_in_avif_are_said_to_become_twelve():
    made = Picture(pixels(KINDS["16-bit RGB"]), "PNG", bits=16)
    out, notes = encode(made, "AVIF")
    assert notes == ["16 bits become 12, which is what AVIF holds"]
    assert read_picture(out).bits == 12


def test_twelve_bits_stay_twelve_in_jpeg_2000():
    made = pixels(KINDS["16-bit RGB"]) >> 4
    data = imagecodecs.jpeg2k_encode(made, level=0, codecformat="jp2", bitspersample=12)
    picture = read_picture(data)
    assert (picture.bits, picture.pixels.max()) == (12, 65535)
    out, notes = encode(picture, "JPEG2000")
    assert not notes
    assert read_picture(out).bits == 12
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(out), made)


def test_without_the_extra_deep_jpeg_2000_is_refused(monkeypatch):
    """Rather than read by Pillow, where white becomes black."""
    made = pixels(KINDS["16-bit RGB"])
    data = imagecodecs.jpeg2k_encode(made, level=0, codecformat="jp2")
    monkeypatch.setattr("upres.imaging.jpeg2000.available", lambda: False)
    with pytest.raises(InputError, match="install imagecodecs in upres's environment"):
        read_picture(data)


def test_damaged_deep_jpeg_2000_is_an_input_error():
    data = imagecodecs.jpeg2k_encode(pixels(KINDS["16-bit RGB"]), level=0, codecformat="jp2")
    with pytest.raises(InputError, match="damaged"):
        read_picture(data[: len(data) // 2])


@pytest.mark.parametrize("form", ["PNG", "WEBP", "AVIF", "GIF"])
def test_deep_pages_become_frames_of_8_bits(form):
    page = pixels(KINDS["16-bit RGB"])
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.stack([page, page[::-1]]), photometric="rgb")
    out, notes = encode(read_picture(buffer.getvalue()), form)
    assert f"16 bits become 8, which is what {form} holds" in notes
    assert "the 2 pages become frames of an animation; .tif keeps them as pages" in notes
    assert len(read_picture(out).frames) == 2


def test_deep_files_of_other_programs_are_read_exactly():
    """OpenCV and tifffile write them, so that our writers are not tested by themselves."""
    import cv2

    rng = np.random.default_rng(0)
    for channels in (1, 3, 4):
        made = rng.integers(0, 65536, (20, 30, channels), np.uint16)
        bgr = made[..., [2, 1, 0, 3][:channels]] if channels > 1 else made
        data = cv2.imencode(".png", bgr)[1].tobytes()
        np.testing.assert_array_equal(read_picture(data).pixels, made)
    for compression in (None, "zlib", "lzw"):
        made = rng.integers(0, 65536, (20, 30, 3), np.uint16)
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, made, photometric="rgb", compression=compression)
        np.testing.assert_array_equal(read_picture(buffer.getvalue()).pixels, made)


def test_our_deep_files_are_read_exactly_by_other_programs():
    import cv2

    made = np.random.default_rng(1).integers(0, 65536, (20, 30, 4), np.uint16)
    png, _ = encode(Picture(made, "PNG"), "PNG")
    read = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read[..., [2, 1, 0, 3]], made)
    tiff, _ = encode(Picture(made, "TIFF"), "TIFF")
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(tiff)), made)


def test_premultiplied_colours_are_divided():
    alpha = np.full((8, 8, 1), 32768, np.uint16)
    colours = np.full((8, 8, 3), 16384, np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        np.concatenate([colours, alpha], axis=2),
        photometric="rgb",
        extrasamples=["assocalpha"],
    )
    picture = read_picture(buffer.getvalue())
    assert np.abs(picture.pixels[..., :3].astype(int) - 32768).max() <= 2


# Floats


def test_floats_keep_their_range_and_their_holes():
    elevation = np.linspace(-430.0, 8848.0, 24 * 36, dtype=np.float32).reshape(24, 36)
    elevation[5:8, 10:14] = np.nan
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, elevation)
    for model in ("bicubic", "edsr-light"):
        picture = read_picture(buffer.getvalue())
        out, notes = encode(Upscaler(model, Goal(scale=2)).picture(picture), "TIFF")
        again = tifffile.imread(io.BytesIO(out))
        assert (again.dtype, again.shape) == (np.float32, (48, 72))
        assert not notes
        holes = np.isnan(again)
        np.testing.assert_array_equal(holes, np.isnan(np.repeat(np.repeat(elevation, 2, 0), 2, 1)))
        expected = np.asarray(
            Image.fromarray(np.nan_to_num(elevation, nan=elevation[4, 12])).resize(
                (72, 48), Image.Resampling.BICUBIC
            )
        )
        assert np.abs(again - expected)[~holes].mean() < 0.01 * 9278


@pytest.mark.parametrize(
    ("no_data", "stated"),
    [(-9999.0, True), (-3.4028234663852886e38, True), (-3.4028234663852886e38, False)],
)
def test_values_that_stand_for_missing_ones_are_holes(no_data, stated):
    elevation = np.linspace(100.0, 200.0, 24 * 36, dtype=np.float32).reshape(24, 36, 1)
    elevation[5:8, 10:14] = no_data
    tags = {34735: (1, 1, 0, 0)} | ({42113: f"{no_data}\0"} if stated else {})
    place, value = GeoReference(tags, 36, 24), no_data if stated else None
    picture = Picture(elevation, "TIFF", place=place, no_data=value)
    for model in ("bicubic", "edsr-light"):
        made = Upscaler(model, Goal(scale=2)).picture(picture).pixels
        holes = made == np.float32(no_data)
        missing = elevation == np.float32(no_data)
        np.testing.assert_array_equal(holes, missing.repeat(2, 0).repeat(2, 1))
        assert made[~holes].min() > 90
        assert made[~holes].max() < 210


def test_floats_between_0_and_1_are_left_as_they_are():
    data, _ = source("float RGB", "TIFF")
    _, result, _, _ = doubled(data, "TIFF")
    expected = Upscaler("bicubic", Goal(scale=2)).upscale(pixels(KINDS["float RGB"]))
    np.testing.assert_array_equal(result.pixels, expected, strict=True)
    assert result.pixels.dtype == np.float32


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_floats_in_a_format_of_integers_say_what_is_clipped(form):
    wide = np.linspace(-1, 2, 24 * 36, dtype=np.float32).reshape(24, 36, 1)
    wide[0, 0] = np.nan
    data, notes = encode(Picture(wide, "TIFF"), form)
    again = read_picture(data)
    assert any("outside 0 to 1 is clipped" in note for note in notes)
    assert again.pixels.dtype == (np.uint16 if form == "PNG" else np.uint8)
    assert again.pixels.min() < 3
    assert again.pixels.max() == np.iinfo(again.pixels.dtype).max


# Transparency


@pytest.mark.parametrize("alpha", ["bicubic", "network"])
def test_what_lies_under_transparency_never_bleeds(alpha):
    made = np.zeros((40, 40, 4), np.uint8)
    made[..., 0] = 255  # red that nobody sees
    made[10:30, 10:30] = (0, 0, 255, 255)
    for model in ("bicubic", "edsr-light"):
        out = Upscaler(model, Goal(scale=2), alpha=alpha).upscale(made)
        seen = out[..., 3] > 8
        assert out[seen][:, 0].max() < 40
        assert seen[24:56, 24:56].all()
        assert not seen[:14].any()


def test_the_network_draws_transparency_sharper_than_bicubic():
    y, x = np.mgrid[:64, :64]
    disc = np.clip(20.5 - np.hypot(y - 31.5, x - 31.5), 0, 1)
    made = np.dstack([np.full((64, 64, 3), 128), disc * 255]).astype(np.uint8)
    edges = [
        Upscaler("edsr-light", Goal(scale=2), alpha=alpha).upscale(made)[..., 3]
        for alpha in ("bicubic", "network")
    ]
    partial = [np.count_nonzero((edge > 12) & (edge < 243)) for edge in edges]
    assert partial[1] < partial[0]


def test_a_background_for_formats_without_transparency():
    made = np.zeros((16, 16, 4), np.uint8)
    data, notes = encode(Picture(made, "PNG"), "BMP", Encoding(background=(10, 200, 30)))
    assert (read_picture(data).pixels == (10, 200, 30)).all()
    assert "BMP holds no transparency: the picture is laid on #0ac81e" in notes
    gray, _ = encode(Picture(made[..., :2], "PNG"), "BMP", Encoding(background=(9, 9, 9)))
    assert (read_picture(gray).pixels == 9).all()


# Textures


@pytest.mark.parametrize("model", ["bicubic", "lanczos", "edsr-light"])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_texture_that_wraps_goes_on_without_a_seam(model, channels):
    made = np.random.default_rng(2).integers(0, 256, (40, 56, channels), np.uint8)
    one = Upscaler(model, Goal(scale=2), precision="fp32", wrap=True).upscale(made)
    many = Upscaler(model, Goal(scale=2), precision="fp32").upscale(np.tile(made, (3, 3, 1)))
    middle = many[80:160, 112:224].astype(int)
    assert np.abs(one[..., :3].astype(int) - middle[..., :3]).max() <= 1
    without = Upscaler(model, Goal(scale=2), precision="fp32").upscale(made)
    assert np.abs(without.astype(int) - middle).max() > 5


# Beside the pixels

HELD = {
    "profile": {"JPEG", "PNG", "WEBP", "TIFF", "AVIF"},
    "EXIF": {"JPEG", "PNG", "WEBP", "TIFF", "AVIF"},
    "XMP": {"JPEG", "PNG", "WEBP", "TIFF", "AVIF", "GIF"},
    "extended XMP": {"JPEG"},
    "IPTC": {"JPEG", "PNG", "TIFF"},
    "resolution": {"JPEG", "PNG", "TIFF", "BMP"},
    "texts": {"PNG"},
    "gamma": {"PNG"},
    "cICP": {"PNG", "AVIF"},
    "comment": {"JPEG", "PNG", "GIF"},
}
SAID = {
    "profile": "the colour profile",
    "resolution": "the resolution",
    "texts": "texts",
    "comment": "the comment",
}


def full_jpeg():
    """A file with everything that a JPEG holds."""
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + b"\0" * (len(IPTC) % 2)
    segments = [(0xE1, part) for part in MORE_XMP] + [(0xED, b"Photoshop 3.0\0" + resource)]
    buffer = io.BytesIO()
    image = Image.fromarray(pixels(KINDS["RGB"]))
    image.save(
        buffer,
        "JPEG",
        quality=95,
        icc_profile=P3,
        exif=exif(),
        xmp=XMP,
        dpi=(300, 150),
        comment=b"hello",
        extra=b"".join(
            struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments
        ),
    )
    return buffer.getvalue()


def full_png():
    """A file with everything that a PNG holds, without a profile so that gamma counts."""
    made = pixels(KINDS["RGB"])
    about = Picture(
        made, "PNG", iptc=IPTC, texts=TEXTS, gamma=1 / 1.8, intent=1, cicp=PQ, dpi=(300, 150)
    )
    buffer = io.BytesIO()
    write_png(buffer, about, SIZE[1], SIZE[0], [made], exif(), XMP)
    return buffer.getvalue()


def full_tiff():
    made = pixels(KINDS["16-bit RGB"])
    about = Picture(made, "TIFF", icc=ADOBE, exif=exif(), xmp=XMP, iptc=IPTC, dpi=(300, 150))
    return encode(about, "TIFF")[0]


FULL = {"JPEG": full_jpeg, "PNG": full_png, "TIFF": full_tiff}


def states(data, form):
    picture, _, out, notes = doubled(data, form)
    return {i.name: i.state for i in compare(picture, read_metadata(out))}, notes, out


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("origin", FULL)
def test_everything_beside_the_pixels_is_kept_or_said(origin, form):
    found, notes, _ = states(FULL[origin](), form)
    said = " ".join(notes)
    for name, holders in HELD.items():
        if name not in found:
            continue
        if form in holders:
            assert found[name] == "kept", name
        else:
            assert found[name] == "lost", name
            assert SAID.get(name, name) in said


@pytest.mark.parametrize("origin", FULL)
def test_the_sources_hold_what_they_should(origin):
    """Or the test before would prove nothing."""
    picture = read_picture(FULL[origin]())
    assert picture.iptc == IPTC
    assert picture.xmp == XMP
    assert b"Maker" in (picture.exif or b"")
    assert picture.dpi == pytest.approx((300, 150), abs=0.02)
    assert (picture.icc is None) == (origin == "PNG")
    if origin == "PNG":
        assert picture.texts == TEXTS
        assert picture.cicp == PQ
        assert (picture.gamma, picture.intent) == (pytest.approx(1 / 1.8, abs=1e-5), 1)
    if origin == "JPEG":
        assert picture.comments == (b"hello",)
        assert picture.xmp_more == MORE_XMP


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("icc", [SRGB, P3, ADOBE], ids=["sRGB", "P3", "Adobe RGB"])
def test_profiles_are_kept_and_pixels_stay_in_them(form, icc):
    buffer = io.BytesIO()
    Image.fromarray(pixels(KINDS["RGB"])).save(buffer, form, icc_profile=icc, quality=95)
    picture, made, out, notes = doubled(buffer.getvalue(), form)
    assert picture.icc == icc == read_picture(out).icc
    expected = Upscaler("bicubic", Goal(scale=2)).upscale(picture.pixels)
    np.testing.assert_array_equal(made.pixels, expected)
    assert not notes


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_gray_profiles_are_kept_on_gray(form):
    buffer = io.BytesIO()
    Image.fromarray(pixels(KINDS["gray"])[..., 0]).save(buffer, form, icc_profile=GRAY)
    _, _, out, notes = doubled(buffer.getvalue(), form)
    assert read_picture(out).icc == GRAY
    assert not notes


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile(form):
    buffer = io.BytesIO()
    image = Image.fromarray(pixels(KINDS["RGB"])).convert("CMYK")
    image.save(buffer, form, icc_profile=cmyk_profile())
    picture, _, out, notes = doubled(buffer.getvalue(), form)
    assert any("CMYK becomes RGB in the sRGB profile" in note for note in notes)
    assert read_picture(out).icc == picture.icc != cmyk_profile()
    buffer.seek(0)
    with Image.open(buffer) as again:
        srgb = ImageCms.createProfile("sRGB")
        own = io.BytesIO(cmyk_profile())
        expected = ImageCms.profileToProfile(again, own, srgb, outputMode="RGB")
    np.testing.assert_allclose(picture.pixels.astype(int), np.asarray(expected), atol=1)


def test_cmyk_of_16_bits_goes_through_its_profile():
    ink = np.asarray(Image.fromarray(pixels(KINDS["RGB"])).convert("CMYK"))
    found = []
    for made in (ink, ink.astype(np.uint16) * 257):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, made, photometric="separated", iccprofile=cmyk_profile())
        found.append(read_picture(buffer.getvalue()))
    assert found[1].pixels.dtype == np.uint16
    assert found[0].icc == found[1].icc
    np.testing.assert_allclose(found[1].pixels / 257, found[0].pixels, atol=2)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_applied_once_and_gps_stays(form, turn):
    buffer = io.BytesIO()
    image = Image.fromarray(pixels(KINDS["RGB"]))
    image.save(buffer, form, exif=exif(turn), quality=95)
    picture, made, out, _ = doubled(buffer.getvalue(), form)
    assert (made.width > made.height) == (turn < 5)
    again = read_picture(out)
    assert again.turned == 1
    np.testing.assert_allclose(again.pixels, made.pixels, atol=0 if form in ("PNG", "TIFF") else 60)
    with Image.open(io.BytesIO(out)) as reopened:
        tags = reopened.getexif()
        assert tags.get(0x0112, 1) == 1
        assert tags.get_ifd(0x8825)[2] == (48.0, 8.0, 14.0)
    (item,) = [i for i in compare(picture, read_metadata(out)) if i.name == "EXIF"]
    assert item.state == "kept"


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_of_deep_files(turn):
    made = pixels(KINDS["16-bit RGBA"])
    png, tiff = io.BytesIO(), io.BytesIO()
    write_png(png, Picture(made, "PNG"), SIZE[1], SIZE[0], [made], exif(turn), None)
    tags = [(0x0112, 3, 1, turn, False)]
    tifffile.imwrite(tiff, made, photometric="rgb", extrasamples=["unassalpha"], extratags=tags)
    plain = Image.fromarray((made[..., :3] // 257).astype(np.uint8))
    plain.getexif()[0x0112] = turn
    expected = np.asarray(ImageOps.exif_transpose(plain))
    for data in (png.getvalue(), tiff.getvalue()):
        picture = read_picture(data)
        assert picture.turned == turn
        np.testing.assert_array_equal(picture.pixels[..., :3] // 257, expected)


def test_stripping_leaves_colours_and_size_alone():
    picture = read_picture(full_jpeg()).stripped()
    again = read_picture(encode(picture, "JPEG")[0])
    assert (again.exif, again.xmp, again.iptc, again.comments) == (None, None, None, ())
    assert again.icc == P3
    assert again.dpi == (300, 150)


def test_conversion_to_srgb_is_what_littlecms_makes_of_it():
    made = pixels(KINDS["RGB"])
    done = to_srgb(Picture(made, "PNG", icc=ADOBE))
    expected = ImageCms.profileToProfile(
        Image.fromarray(made), io.BytesIO(ADOBE), ImageCms.createProfile("sRGB"), renderingIntent=1
    )
    assert np.abs(done.pixels.astype(int) - np.asarray(expected).astype(int)).max() <= 2
    named = ImageCms.getProfileDescription(io.BytesIO(done.icc))
    assert "sRGB" in named
    deep = to_srgb(Picture(made.astype(np.uint16) * 257, "PNG", icc=ADOBE))
    assert deep.pixels.dtype == np.uint16
    # At the edge of the gamut 8 bits are coarse.
    assert np.abs(deep.pixels / 257 - done.pixels).mean() < 0.3
    bare = to_srgb(Picture(made, "PNG"))
    assert bare.pixels is made
    assert "no profile" in bare.notes[-1]


# Frames


def animation(form, *, transparent=False, count=5):
    frames = []
    for index in range(count):
        made = np.zeros((20, 30, 4), np.uint8)
        made[..., 3] = 0 if transparent else 255
        made[4:16, 2 + 4 * index : 10 + 4 * index] = (255, 40 * index, 0, 255)
        frames.append(Image.fromarray(made if transparent else made[..., :3]))
    times = [100, 40, 250, 70, 120][:count]
    buffer = io.BytesIO()
    extra = {"disposal": 2} if form == "GIF" and transparent else {}
    if form == "WEBP":
        extra["lossless"] = True
    frames[0].save(
        buffer, form, save_all=True, append_images=frames[1:], duration=times, loop=3, **extra
    )
    return buffer.getvalue(), times


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
@pytest.mark.parametrize("transparent", [False, True])
def test_animations_keep_every_frame_and_their_timing(form, transparent):
    data, times = animation(form, transparent=transparent)
    picture, made, out, _ = doubled(data, form)
    assert [f.duration for f in picture.frames] == times
    again = read_picture(out)
    assert len(again.frames) == 5
    assert [f.duration for f in again.frames] == times
    assert again.loop == picture.loop == (4 if form == "GIF" else 3)  # a GIF counts repeats
    for frame, wanted in zip(again.frames, made.frames, strict=True):
        got, want = frame.pixels.astype(int), wanted.pixels.astype(int)
        if got.shape[2] != want.shape[2]:
            got, want = got[..., :3], want[..., :3]
        seen = want[..., 3:] > 160 if want.shape[2] == 4 else np.ones((*want.shape[:2], 1), bool)
        assert (np.abs(got - want)[..., :3] * seen).mean() < 6
        if want.shape[2] == 4:
            assert ((got[..., 3] > 127) == (want[..., 3] > 127)).mean() > 0.99


def disposals(data):
    """Of a GIF's frames, by the bytes of its graphic control extensions (GIF89a, section 23)."""
    return [data[at.start() + 3] >> 2 & 7 for at in re.finditer(rb"\x21\xf9\x04", data)]


@pytest.mark.parametrize("disposal", [0, 1, 2])
def test_disposal_is_kept(disposal):
    frames = [Image.new("RGBA", (20, 20), (0, 0, 0, 0)) for _ in range(3)]
    for index, frame in enumerate(frames):
        frame.paste((255, 0, 0, 255), (0, 0, 6 + 5 * index, 20))  # grows, so all can be kept
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=50, disposal=disposal
    )
    _, _, out, _ = doubled(buffer.getvalue(), "GIF")
    assert disposals(buffer.getvalue()) == disposals(out) == 3 * [disposal]


def test_equal_frames_are_computed_once(monkeypatch):
    frame = Image.fromarray(pixels(KINDS["RGB"]))
    buffer = io.BytesIO()
    other = frame.point(lambda v: 255 - v)
    frame.save(buffer, "PNG", save_all=True, append_images=[other, frame, other], duration=50)
    picture = read_picture(buffer.getvalue())
    assert len(picture.frames) == 4
    upscaler = Upscaler("bicubic", Goal(scale=2))
    runs = []
    make = Upscaler.pipeline
    monkeypatch.setattr(Upscaler, "pipeline", lambda *a, **k: runs.append(1) or make(*a, **k))
    made = upscaler.picture(picture)
    assert len(runs) == 2
    np.testing.assert_array_equal(made.frames[1].pixels, made.frames[3].pixels)


@pytest.mark.parametrize("deep", [False, True])
def test_pages_keep_their_sizes(deep):
    dtype = np.uint16 if deep else np.uint8
    top = np.iinfo(dtype).max
    pages = [np.full((10 + i, 20, 3), top // (i + 1), dtype) for i in range(3)]
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for page in pages:
            writer.write(page, photometric="rgb", metadata=None)
    picture, _, out, notes = doubled(buffer.getvalue(), "TIFF")
    assert not notes
    assert not picture.animated
    again = read_picture(out)
    assert [f.pixels.shape for f in again.frames] == [(20, 40, 3), (22, 40, 3), (24, 40, 3)]
    for frame, page in zip(again.frames, pages, strict=True):
        assert frame.pixels.dtype == dtype
        assert (frame.pixels == page[0, 0, 0]).all()


@pytest.mark.parametrize("form", ["png", "webp", "gif", "avif"])
def test_pages_of_different_sizes_are_refused_before_the_work(upres, tmp_path, form):
    pages = [Image.new("RGB", (20, 30 + i)) for i in range(2)]
    pages[0].save(tmp_path / "in.tif", save_all=True, append_images=pages[1:])
    done = upres("in.tif", "-s", 2, "-m", "bicubic", "-o", f"out.{form}")
    assert done.returncode == 4
    assert b"cannot hold pages of different sizes; write .tif" in done.stderr
    assert not (tmp_path / f"out.{form}").exists()


@pytest.mark.parametrize("origin", ["WEBP", "AVIF", "PNG"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_exif_goes_from_every_format_to_every_other(origin, form):
    buffer = io.BytesIO()
    Image.fromarray(pixels(KINDS["RGB"])).save(buffer, origin, exif=exif())
    picture = read_picture(buffer.getvalue())
    out, notes = encode(picture, form)
    assert not notes
    with Image.open(io.BytesIO(out)) as written:
        assert written.getexif().get(0x010F) == "Maker"


def test_an_apng_for_programs_without_animations_keeps_its_animation():
    data, _ = animation("PNG", count=3)
    frames = [f.pixels for f in read_picture(data).frames]
    buffer = io.BytesIO()
    still = Image.new("RGB", (30, 20), "blue")
    still.save(
        buffer,
        "PNG",
        save_all=True,
        default_image=True,
        append_images=[Image.fromarray(f) for f in frames],
        duration=80,
    )
    picture = read_picture(buffer.getvalue())
    assert len(picture.frames) == 3
    assert any("still picture" in note for note in picture.notes)


def wide_avif(**options):
    """A file of 8 bits that says BT.2020 and PQ."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(KINDS["RGB"])).save(buffer, "AVIF", subsampling="4:4:4", **options)
    put_code_points(buffer, PQ)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["AVIF", "PNG"])
def test_what_colours_mean_in_an_avif_is_kept(form):
    more = [Image.new("RGB", (SIZE[1], SIZE[0]))]
    for options in ({}, {"save_all": True, "append_images": more}):
        picture = read_picture(wide_avif(**options))
        assert picture.cicp == PQ
        out, notes = encode(picture, form)
        assert not notes
        assert read_metadata(out).cicp == PQ


def test_what_colours_mean_is_not_lost_without_a_word():
    picture = read_picture(wide_avif())
    for form in ("JPEG", "WEBP", "TIFF"):
        assert encode(picture, form)[1] == [
            f"what the colours mean (cICP) cannot be kept in this {form}"
        ]
    deep = replace(picture, pixels=picture.pixels.astype(np.uint16) * 257, bits=10)
    assert any("cICP" in note for note in encode(deep, "AVIF")[1])
    assert any("cICP" in note for note in to_srgb(picture).notes)
    buffer = io.BytesIO()
    Image.fromarray(picture.pixels).save(buffer, "AVIF")
    assert read_picture(buffer.getvalue()).cicp is None  # sRGB
    assert read_picture(wide_avif(icc_profile=P3)).cicp is None  # the profile says it
    nonsense = io.BytesIO(wide_avif())
    put_code_points(nonsense, (300, 16, 0, 1))
    assert read_picture(nonsense.getvalue()).cicp is None
    both = to_srgb(replace(picture, icc=P3))
    # The date in its header is not today's: the same command makes the same bytes.
    assert srgb_profile()[24:36] == bytes.fromhex("07d000010001000000000000")
    assert (both.icc, both.cicp) == (srgb_profile(), None)


# The command


def test_the_command_reports_item_by_item(upres, tmp_path):
    path = tmp_path / "in.jpg"
    path.write_bytes(full_jpeg())
    done = upres("in.jpg", "-s", "2", "-m", "bicubic", "-o", "out.webp", "--report-fidelity")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stderr.decode().splitlines()]
    assert ["profile", "kept"] in [line[:2] for line in lines]
    assert ["IPTC", "lost"] in [line[:2] for line in lines]
    done = upres("in.jpg", "-s", "2", "-m", "bicubic", "-o", "b.jpg", "--report-fidelity", "--json")
    import json

    (event,) = [json.loads(line) for line in done.stdout.decode().splitlines()]
    found = {item["name"]: item["state"] for item in event["fidelity"]}
    assert found["IPTC"] == found["XMP"] == found["EXIF"] == found["comment"] == "kept"


def test_the_command_strips_converts_and_lays_on(upres, tmp_path):
    (tmp_path / "in.jpg").write_bytes(full_jpeg())
    done = upres(
        "in.jpg", "-s", "2", "-m", "bicubic", "-o", "a.png", "--strip-metadata",
        "--convert-profile", "srgb",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    a = read_picture(tmp_path / "a.png")
    assert a.exif is None
    assert a.icc not in (None, P3)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    done = upres("clear.png", "-s", "2", "-o", "b.bmp", "--background", "#102030")
    assert (read_picture(tmp_path / "b.bmp").pixels == (16, 32, 48)).all()
    done = upres("clear.png", "--background", "nocolour")
    assert done.returncode == 2
    assert done.stderr.decode().count("\n") == 1
    done = upres("clear.png", "-s", "2.5", "--wrap")
    assert done.returncode == 2
    assert b"whole factor" in done.stderr


# The page


def page():
    """docs/fidelity.md, from what is found now."""
    lines = ["| pixels | " + " | ".join(FORMATS) + " |", "|---" * (len(FORMATS) + 1) + "|"]
    said = {}  # notes, by their numbers
    for name, kind in KINDS.items():
        cells = []
        for form in FORMATS:
            if form not in kind.formats.split():
                cells.append("")
                continue
            data, _ = source(name, form)
            _, _, _, notes = doubled(data, form)
            numbers = [said.setdefault(note, len(said) + 1) for note in notes]
            cells.append(f"note {', '.join(map(str, numbers))}" if notes else "kept")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "Notes:", "", *(f"{number}. {note}" for note, number in said.items())]
    beside = ["| beside the pixels | " + " | ".join(FORMATS) + " |"]
    beside.append("|---" * (len(FORMATS) + 1) + "|")
    found = {}
    for form in FORMATS:
        for make in FULL.values():
            for name, state in states(make(), form)[0].items():
                found.setdefault(name, {}).setdefault(form, state)
    for name in HELD:
        words = [found[name].get(form, "") for form in FORMATS]
        beside.append(f"| {name} | " + " | ".join(words) + " |")
    text = DOCS.read_text()
    for mark, table in (("pixels", lines), ("beside", beside)):
        begin, end = f"<!-- {mark} -->\n", f"\n<!-- end of {mark} -->"
        head, rest = text.split(begin)
        text = head + begin + "\n".join(table) + end + rest.split(end)[1]
    return text


def test_the_page_says_what_is_so():
    assert page() == DOCS.read_text(), "run python -m tests.test_fidelity"


if __name__ == "__main__":
    DOCS.write_text(page())
