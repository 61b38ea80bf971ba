"""HEIC, written by pillow-heif: read to the number, with what stands beside the pixels."""

import importlib.util
import io
import json

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, ImageOps

from upres.errors import InputError, OutputError
from upres.imaging.encoder import encode
from upres.imaging.heic import is_heic
from upres.imaging.reader import read_metadata, read_picture, read_size

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF/></x:xmpmeta>"
NOISE = np.random.default_rng(0).integers(0, 2**12, (40, 62, 4), np.uint16)


def heic(pixels, mode, *, beside=(), info=None):
    """A file without loss."""
    size = pixels.shape[1::-1]
    made = pillow_heif.from_bytes(mode, size, np.ascontiguousarray(pixels).tobytes())
    made.info.update(info or {})
    for other in beside:
        made.add_frombytes("RGB", other.shape[1::-1], other.tobytes())
    buffer = io.BytesIO()
    made.save(buffer, quality=-1, chroma=444, matrix_coefficients=0)
    return buffer.getvalue()


def exif_with(orientation):
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = orientation, "A maker"
    return tags.tobytes()


BYTES = (NOISE // 16).astype(np.uint8)


@pytest.mark.parametrize(
    ("mode", "pixels"), [("L", BYTES[..., :1]), ("RGB", BYTES[..., :3]), ("RGBA", BYTES)]
)
def test_eight_bits_are_read_to_the_number(mode, pixels):
    picture = read_picture(heic(pixels, mode))
    np.testing.assert_array_equal(picture.pixels, pixels, strict=True)
    assert (picture.format, picture.bits, picture.notes) == ("HEIC", 8, ())
    assert picture.kind == ("gray" if mode == "L" else "RGB")


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [3, 4])
def test_more_bits_reach_from_black_to_white(bits, channels):
    pixels = NOISE[..., :channels] >> (12 - bits)
    pixels[0, 0], pixels[0, 1] = 0, 2**bits - 1
    picture = read_picture(heic(pixels, f"RGB{'A' * (channels == 4)};{bits}"))
    exact = pixels / (2**bits - 1) * 65535
    assert picture.pixels.dtype == np.uint16
    assert picture.bits == bits
    assert np.abs(picture.pixels - exact).max() <= 0.5 + 1e-9
    assert (picture.pixels[0, 0] == 0).all()
    assert (picture.pixels[0, 1] == 65535).all()


def test_colours_multiplied_by_alpha_are_divided():
    alpha = np.full((40, 62, 1), 128, np.uint8)
    plain = BYTES[..., :3]
    multiplied = np.rint(plain * (128 / 255)).astype(np.uint8)
    picture = read_picture(heic(np.concatenate([multiplied, alpha], 2), "RGBa"))
    assert np.abs(picture.pixels[..., :3].astype(int) - plain).max() <= 1
    np.testing.assert_array_equal(picture.pixels[..., 3:], alpha)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_once_and_by_the_file(orientation, tmp_path):
    """A phone states the turn twice: in its boxes, and in EXIF."""
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(heic(BYTES[..., :3], "RGB", info={"exif": exif_with(orientation)}))
    image = Image.fromarray(BYTES[..., :3])
    image.getexif()[0x0112] = orientation
    wanted = ImageOps.exif_transpose(image)
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, np.asarray(wanted))
    assert read_size(path) == wanted.size
    assert picture.turned == orientation
    out, _ = encode(picture, "JPEG")
    with Image.open(io.BytesIO(out)) as image:
        assert image.size == wanted.size
        assert dict(image.getexif()) == {0x0112: 1, 0x010F: "A maker"}


def test_what_stands_beside_the_pixels_is_kept():
    info = {"exif": exif_with(1), "xmp": XMP, "icc_profile": SRGB, "icc_profile_type": "prof"}
    data = heic(BYTES[..., :3], "RGB", info=info)
    for picture in (read_picture(data), read_metadata(data)):
        assert (picture.icc, picture.xmp, picture.cicp) == (SRGB, XMP, None)
        assert picture.exif == b"Exif\0\0" + exif_with(1).removeprefix(b"Exif\0\0")
        assert picture.channels == 3
    again = read_picture(encode(read_picture(data), "PNG")[0])
    assert (again.icc, again.xmp, again.exif) == (SRGB, XMP, picture.exif)


def test_wide_colours_are_said_in_the_result_too():
    pixels = pillow_heif.from_bytes("RGB;10", (62, 40), (NOISE[..., :3] >> 2).tobytes())
    buffer = io.BytesIO()
    pixels.save(buffer, color_primaries=9, transfer_characteristics=16)
    picture = read_picture(buffer.getvalue())
    assert picture.cicp == (9, 16, 0, 1)
    assert read_picture(encode(picture, "PNG")[0]).cicp == (9, 16, 0, 1)


def test_a_profile_for_other_colours_is_left_out():
    info = {"icc_profile": SRGB, "icc_profile_type": "prof"}
    picture = read_picture(heic(BYTES[..., :1], "L", info=info))
    assert picture.icc is None
    assert picture.notes == ("the colour profile is for another kind of picture and is left out",)


def test_what_is_no_xmp_is_said():
    picture = read_picture(heic(BYTES[..., :3], "RGB", info={"xmp": b'{"a": 1}'}))
    assert picture.xmp is None
    assert picture.notes == ("metadata of the types mime are not carried over",)


def test_what_belongs_to_the_main_picture_is_said():
    light = {"max_content_light_level": 1000, "max_pic_average_light_level": 400}
    info = {"content_light_level": light}
    data = heic(BYTES[..., :3], "RGB", info=info).replace(b"mif1", b"tmap", 1)
    beside = "a gain map for HDR, how bright it is and was seen"
    (note,) = read_picture(data).notes
    assert note == f"what belongs to the main picture ({beside}) is left out"


def test_exif_alone_turns_nothing():
    data = heic(BYTES[..., :3], "RGB", info={"exif": exif_with(6)})
    picture = read_picture(data.replace(b"irot", b"free"))
    np.testing.assert_array_equal(picture.pixels, BYTES[..., :3])
    assert picture.turned == 1


def test_other_pictures_called_heic_become_what_their_results_are_called(upres, tmp_path):
    Image.fromarray(BYTES[..., :3]).save(tmp_path / "a.heic", "JPEG")
    done = upres("a.heic", "--model", "bicubic", "-s", "2")
    assert (done.returncode, done.stdout) == (0, b"a-x2.png\n")
    with Image.open(tmp_path / "a-x2.png") as image:
        assert image.format == "PNG"


def test_the_main_one_of_several_is_read():
    other = np.zeros((20, 20, 3), np.uint8)
    picture = read_picture(heic(BYTES[..., :3], "RGB", beside=[other, other]))
    np.testing.assert_array_equal(picture.pixels, BYTES[..., :3])
    assert picture.notes == ("only the main one of 3 pictures is read",)


def test_other_brands_of_the_same_container():
    box = b"\0\0\0\x1cftyp"
    assert is_heic(box + b"mif1\0\0\0\0mif1heicmiaf")
    assert not is_heic(box + b"mif1\0\0\0\0mif1avifmiaf")
    assert not is_heic(box + b"avif\0\0\0\0mif1avifmiaf")
    assert not is_heic(b"\0\0\0\x01ftyp")


def test_damage_and_size_are_said():
    data = heic(BYTES[..., :3], "RGB")
    with pytest.raises(InputError, match="damaged"):
        read_picture(data[: len(data) // 2])
    with pytest.raises(InputError, match="over the limit of 1,000"):
        read_picture(data, max_pixels=1000)


def test_what_is_missing_is_said(monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pillow_heif" else there(name)
    )
    with pytest.raises(InputError, match="needs pillow-heif") as caught:
        read_picture(heic(BYTES[..., :3], "RGB"))
    assert "install pillow-heif" in caught.value.next_step


def test_results_are_png_or_what_their_names_say(upres, tmp_path):
    data = heic(BYTES[..., :3], "RGB", info={"exif": exif_with(6)})
    for name in ("photos/a.HEIC", "photos/b.hif", "named.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    plain = ("--model", "bicubic", "-s", "2")
    assert upres("photos/a.HEIC", "named.jpg", *plain).returncode == 0
    assert upres("batch", "photos", "-o", "large", *plain).returncode == 0
    made = upres("-", *plain, data=data)
    for source, form in (
        (tmp_path / "photos/a-x2.png", "PNG"),
        (tmp_path / "large/a.png", "PNG"),
        (tmp_path / "large/b.png", "PNG"),
        (tmp_path / "named-x2.jpg", "JPEG"),
        (io.BytesIO(made.stdout), "PNG"),
    ):
        with Image.open(source) as image:
            assert (image.format, image.size) == (form, (80, 124))
    refused = upres("photos/a.HEIC", "-o", "b.heic", *plain)
    assert refused.returncode == OutputError.exit_code
    assert b"is read and not written; use .png" in refused.stderr


def test_what_failed_for_want_of_the_extra_is_tried_again_with_it(upres, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.heic").write_bytes(heic(BYTES[..., :3], "RGB"))
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "there = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: (\n"
        "    None if name == 'pillow_heif' else there(name, *more)\n"
        ")\n"
    )
    run = ("batch", "in", "-o", "out", "-s", 2, "-m", "bicubic", "--json")

    def ends(env):
        """How often it was made, failed, and failed before and is not tried again."""
        done = upres(*run, env=env)
        last = json.loads(done.stdout.decode().splitlines()[-1])
        return [last[name] for name in ("done", "failed", "failed_before")], done.stderr

    without = {"PYTHONPATH": str(tmp_path)}
    assert b"not read: install pillow-heif" in upres("doctor", env=without).stdout
    counts, said = ends(without)
    assert counts == [0, 1, 0]
    assert b"install pillow-heif in upres's environment" in said
    assert ends(without)[0] == [0, 0, 1]
    assert ends({})[0] == [1, 0, 0]
