"""Metadata as other programs write it: in PNG's texts, behind pixels, too large, badly declared."""

import io
import re
import struct
import time
import zlib
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, TiffImagePlugin, TiffTags
from PIL.ExifTags import Base as Tag
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from upres.errors import InputError
from upres.imaging.decoding import from_pil
from upres.imaging.encoder import encode
from upres.imaging.metadata import EXIF_HEAD, updated_exif, updated_xmp
from upres.imaging.picture import Frame, Picture
from upres.imaging.png import packed
from upres.imaging.profiles import srgb_profile, to_srgb
from upres.imaging.reader import read_metadata, read_picture, read_size
from upres.imaging.turning import upright

RECORDS = b"\x1c\x02\x69\x00\x08Headline"
GRAY = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30, 1) * 100


def tiff(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def png(pixels=GRAY[..., 0] // 256, **texts):
    """A PNG with texts, by Pillow."""
    words = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        words.add_text(f"Raw profile type {key}", text, zip=True)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG", pnginfo=words)
    return buffer.getvalue()


def raw_profile(name, data):
    digits = "\n".join(re.findall(".{1,72}", data.hex()))
    return f"\n{name}\n{len(data):8}\n{digits}\n"


def exif_block():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    return exif.tobytes()


def test_iptc_among_photoshops_resources_in_a_png():
    """As ExifTool writes it: a name of two words, and more than one resource."""
    other = b"8BIM\x04\x25\0\0" + struct.pack(">I", 3) + b"abc\0"
    ours = b"8BIM\x04\x04\x03abc" + struct.pack(">I", len(RECORDS)) + RECORDS + b"\0"
    picture = read_picture(png(iptc=raw_profile("IPTC profile", other + ours)))
    assert picture.iptc == RECORDS
    assert read_picture(png(iptc=raw_profile("iptc", RECORDS))).iptc == RECORDS
    assert read_picture(png(iptc=raw_profile("iptc", other))).iptc is None
    for kind in ("PNG", "JPEG", "TIFF"):
        assert read_picture(encode(picture, kind)[0]).iptc == RECORDS


@pytest.mark.parametrize("name", ["exif", "APP1"])
def test_exif_in_a_pngs_text(name):
    block = exif_block()
    picture = read_picture(png(**{name: raw_profile("generic profile", block)}))
    assert (picture.turned, picture.pixels.shape[:2]) == (6, (30, 20))
    assert picture.exif == EXIF_HEAD + block.removeprefix(EXIF_HEAD)
    assert picture.texts == ()


def test_what_is_no_exif_is_not_taken_for_it():
    packet = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"
    picture = read_picture(png(APP1=raw_profile("generic profile", packet)))
    assert (picture.exif, picture.xmp) == (None, b"<x:xmpmeta/>")


@pytest.mark.parametrize(("unit", "dpi"), [(2, 300), (3, 762), (1, None)])
def test_a_resolution_in_exif_alone_gets_into_a_tiff(unit, dpi):
    tags = Image.Exif()
    tags.update({Tag.XResolution: 300.0, Tag.YResolution: 300.0, Tag.ResolutionUnit: unit})
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "WEBP", exif=tags.tobytes())
    made, _ = encode(read_picture(buffer.getvalue()), "TIFF")
    assert read_picture(made).dpi == (dpi and pytest.approx((dpi, dpi)))


def test_what_a_tiff_says_and_no_writer_takes_is_named(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    tags = [(50255, 3, 1, 4, True), (297, 3, 2, (1, 9), True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels, extratags=tags, metadata=None, photometric="rgb")
    (note,) = read_picture(tmp_path / "a.tif").notes
    assert note == "TIFF tags 297 (PageNumber), 50255 (Annotations) are not carried over"


@pytest.mark.parametrize("depth", [8, 16])
def test_what_stands_behind_the_pixels_of_a_png_is_read(depth):
    deep = np.repeat(GRAY, 3, axis=2) if depth == 16 else np.repeat(GRAY // 257, 3, 2)
    deep = deep.astype(np.uint16 if depth == 16 else np.uint8)
    data, _ = encode(Picture(deep, "PNG", "RGB"), "PNG")
    end = packed(b"IEND", b"")
    exif = packed(b"eXIf", exif_block().removeprefix(EXIF_HEAD))
    xmp = packed(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta/>")
    behind = packed(b"\x1b[2J", b"") + b"and whatever else"
    for read in (read_picture, read_metadata):
        picture = read(data.removesuffix(end) + exif + xmp + end + behind)
        assert (picture.turned, picture.xmp) == (6, b"<x:xmpmeta/>")
        assert picture.exif is not None
        assert not picture.notes
    assert read_size(data.removesuffix(end) + exif + end) == (GRAY.shape[0], GRAY.shape[1])
    odd = read_picture(data.removesuffix(end) + packed(b"\x1b[2J", b"") + end)
    assert odd.notes == (r"PNG chunks \x1b[2J are not carried over",)


def test_a_profile_of_more_than_a_megabyte():
    noise = np.random.default_rng(0).integers(0, 256, 1_500_000, np.uint8).tobytes()
    icc = srgb_profile() + noise
    picture = Picture(np.zeros((9, 9, 3), np.uint8), "PNG", "RGB", icc=icc, iptc=noise[:700_000])
    again = read_picture(encode(picture, "PNG")[0])
    assert (again.icc, again.iptc) == (picture.icc, picture.iptc)


@pytest.mark.parametrize("text", ["-3.4028234663852886e+38", "-3.40282347e+38"])
def test_the_least_float_in_any_spelling_stands_for_missing_ones(text):
    pixels = np.full((12, 12), -np.finfo(np.float32).max, np.float32)
    pixels[4:] = 300
    picture = read_picture(tiff(pixels, extratags=[(42113, 2, 0, text, True)]))
    assert picture.no_data == float(text)
    assert not any("no-data" in note for note in picture.notes)


def test_missing_values_of_pages_and_of_stripped_files_stay_missing():
    tag = [(42113, 2, 0, "-9999", True)]
    pages = np.full((2, 12, 12), -9999, np.float32)
    pages[:, 4:] = 300
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for page in pages:
            writer.write(page, extratags=tag, contiguous=False, metadata=None)
    picture = read_picture(buffer.getvalue())
    assert len(picture.frames) == 2
    assert not any("42113" in note for note in picture.notes)
    for kept in (picture, read_picture(tiff(pages[0], extratags=tag)).stripped()):
        assert read_picture(encode(kept, "TIFF")[0]).no_data == -9999


def test_a_pointer_to_nothing_behind_the_last_page():
    data = bytearray(tiff(GRAY[..., 0], byteorder="<"))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    for nowhere in (len(data) - 3, len(data) + 10_000, 9):
        struct.pack_into("<I", data, first + 2 + 12 * count, nowhere)
        picture = read_picture(bytes(data))
        np.testing.assert_array_equal(picture.pixels, GRAY)
        assert not picture.frames


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_lab_whose_channels_lie_apart(compression):
    lab = np.zeros((3, 16, 16), np.uint8)
    lab[0], lab[1], lab[2] = 150, 20, 226  # a and b have signs: 20 and -30
    options = {"photometric": "cielab", "compression": compression}
    apart = read_picture(tiff(lab, planarconfig="separate", **options)).pixels
    together = np.ascontiguousarray(np.moveaxis(lab, 0, -1))
    beside = read_picture(tiff(together, planarconfig="contig", **options)).pixels
    top = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
    difference = apart / top[apart.dtype] - beside / top[beside.dtype]
    assert np.abs(difference).max() < 0.02


def test_a_tag_that_nobody_can_write_costs_exif_and_not_the_picture():
    directory = ImageFileDirectory_v2(ifh=b"II*\0\x08\0\0\0", group=0x8825)
    directory.tagtype[2] = 7  # the latitude as bytes of no type
    directory[2] = b"abcdefgh"
    gps = directory.tobytes(26)
    head = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x8825, 4, 1, 26, 0)
    picture = Picture(np.zeros((9, 9, 3), np.uint8), "JPEG", exif=EXIF_HEAD + head + gps)
    data, notes = encode(picture, "TIFF")
    assert notes == ["EXIF cannot be kept in this TIFF"]
    assert read_picture(encode(picture, "JPEG")[0]).exif == picture.exif
    assert read_picture(data).pixels.shape == (9, 9, 3)


def test_exif_in_avif_stays_byte_for_byte():
    """With a thumbnail, which Pillow would leave out, and tags of types that it would change."""
    block = bytearray(exif_block())
    order = "<" if block[len(EXIF_HEAD) :][:2] == b"II" else ">"
    thumbnail = struct.pack(f"{order}HHHIHHI", 1, 0x0103, 3, 1, 6, 0, 0)
    (first,) = struct.unpack_from(f"{order}I", block, len(EXIF_HEAD) + 4)
    (count,) = struct.unpack_from(f"{order}H", block, len(EXIF_HEAD) + first)
    end = len(EXIF_HEAD) + first + 2 + 12 * count
    struct.pack_into(f"{order}I", block, end, len(block) - len(EXIF_HEAD))
    exif = bytes(block) + thumbnail
    picture = Picture(np.zeros((40, 50, 3), np.uint8), "JPEG", exif=exif)
    again = read_picture(encode(picture, "AVIF")[0]).exif
    want = updated_exif(exif, 50, 40)
    assert again[: len(want)] == want
    assert not again[len(want) :].strip(b"\0")


def test_sizes_in_xmp_are_those_of_the_picture():
    packet = b"""<a tiff:ImageWidth="8" exif:PixelYDimension='7'><exif:PixelXDimension>8</exif:"""
    want = b"""<a tiff:ImageWidth="16" exif:PixelYDimension='14'><exif:PixelXDimension>16</exif:"""
    assert updated_xmp(packet, 16, 14) == want


def test_a_panorama_stays_the_same_part_of_the_sphere():
    packet = b"""<a GPano:FullPanoWidthPixels="800" GPano:FullPanoHeightPixels="400"
    GPano:CroppedAreaLeftPixels="100" GPano:CroppedAreaTopPixels="50"
    GPano:CroppedAreaImageWidthPixels="600" GPano:CroppedAreaImageHeightPixels="300"/>"""
    sizes = (b"800", b"400", b"100", b"50", b"600", b"300")
    want = packet
    for number in sizes:
        want = want.replace(b'"%s"' % number, b'"!%d"' % (2 * int(number)))
    assert updated_xmp(packet, 1200, 600) == want.replace(b"!", b"")


@pytest.mark.parametrize(("unit", "per"), [("CENTIMETER", 100.0), ("INCH", 254.0)])
def test_the_size_of_a_pixel_in_imagejs_own_units(unit, per):
    data = tiff(
        GRAY[..., 0],
        resolution=(per, per),
        resolutionunit=unit,
        description="ImageJ=1.54\nunit=cm\n",
        metadata=None,
    )
    picture = read_picture(data)
    large = replace(picture, pixels=np.repeat(np.repeat(picture.pixels, 2, 0), 2, 1))
    with tifffile.TiffFile(io.BytesIO(encode(large, "TIFF")[0])) as file:
        tags = file.pages.first.tags
        assert tags["ResolutionUnit"].value.name == unit
        assert tags["XResolution"].value[0] / tags["XResolution"].value[1] == 2 * per


def test_the_transparent_value_of_gray_pngs_is_seen_from_python_too():
    def chunked(bits, rows):
        head = struct.pack(">IIBBBBB", 16, len(rows), bits, 0, 0, 0, 0)
        body = zlib.compress(b"".join(b"\0" + row for row in rows))
        parts = [packed(b"IHDR", head), packed(b"tRNS", b"\0\x05")]
        parts += [packed(b"IDAT", body), packed(b"IEND", b"")]
        return Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(parts)))

    deep, few = (b"\0\x05" * 16, b"\x70\0" * 16), (b"\x55" * 8, b"\xaa" * 8)
    for bits, (clear, other) in ((16, deep), (4, few)):
        image = chunked(bits, [clear] * 8 + [other] * 8)
        told = dict(image.info)
        pixels = from_pil(image).pixels
        assert image.info == told
        assert pixels.shape == (16, 16, 2)
        assert pixels[0, 0, 1] == 0
        assert pixels[15, 0, 1] > 0


# What other formats carry


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
def test_inks_are_the_same_colours_in_every_depth(depth, alpha):
    inks = np.zeros((16, 16, 5 if alpha else 4), np.uint8)
    inks[:] = (200, 30, 60, 20, 255)[: inks.shape[2]]
    deep = inks if depth == 8 else inks.astype(np.uint16) * 257
    extra = {"extrasamples": ["unassalpha"]} if alpha else {}
    picture = read_picture(tiff(deep, photometric="separated", **extra))
    assert picture.pixels.dtype == (np.uint8 if depth == 8 else np.uint16)
    assert picture.icc is None
    assert "CMYK without a usable profile becomes RGB by formula" in picture.notes
    top = np.iinfo(picture.pixels.dtype).max
    want = [(255 - ink) * (255 - 20) / 255**2 for ink in (200, 30, 60)]
    assert np.abs(picture.pixels[0, 0, :3] / top - want).max() < 1.5 / 255


def test_what_exif_cannot_keep_in_a_tiff_is_said():
    exif = Image.Exif()
    exif[0x013C], exif[0xC4A5], exif[0x4746] = "computer", b"PrintIM", "four"
    exif.get_ifd(0x8769)[0xA005] = 1234
    picture = Picture(np.zeros((9, 9, 3), np.uint8), "JPEG", exif=exif.tobytes())
    data, notes = encode(picture, "TIFF")
    assert notes == ["of EXIF PrintImageMatching cannot be kept in this TIFF"]
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = file.pages.first.tags
        assert tags["HostComputer"].value == "computer"
        assert "ExifTag" not in tags or "InteroperabilityTag" not in tags["ExifTag"].value


def test_a_video_behind_a_jpeg_is_said():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(buffer, "JPEG")
    assert not read_picture(buffer.getvalue()).notes
    (note,) = read_picture(buffer.getvalue() + b"\0\0\0\x18ftypmp42" + bytes(5000)).notes
    assert note == "5,012 bytes behind the picture, such as a phone's video, are left out"


def test_a_resolution_that_nobody_stated_is_none():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "JPEG", exif=exif_block())
    assert read_picture(buffer.getvalue()).dpi is None
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "JPEG", dpi=(300, 300))
    assert read_picture(buffer.getvalue()).dpi == (300, 300)


def test_the_profile_of_a_jpeg_2000():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(buffer, "JPEG2000")
    data, icc = buffer.getvalue(), srgb_profile()
    at = data.index(b"colr") - 4
    (size,) = struct.unpack_from(">I", data, at)
    box = struct.pack(">I4sBBB", 11 + len(icc), b"colr", 2, 0, 0) + icc
    around = data.index(b"jp2h") - 4
    (whole,) = struct.unpack_from(">I", data, around)
    changed = bytearray(data[:at] + box + data[at + size :])
    struct.pack_into(">I", changed, around, whole + len(box) - size)
    assert read_picture(bytes(changed)).icc == icc


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_images_that_share_a_directory_are_read(kind, photometric, tmp_path):
    """As ImageJ writes stacks above 4 GB, whatever their bytes' order."""
    made = (np.arange(3 * 20 * 30).reshape(3, 20, 30) % 200).astype(kind)
    data = tiff(made, imagej=True, truncate=True, photometric=photometric, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert len(file.pages) == 1
    picture = read_picture(data)
    inverted = photometric == "miniswhite" and kind != "float32"
    expected = np.iinfo(kind).max - made if inverted else made
    assert len(picture.frames) == 3
    for frame, one in zip(picture.frames, expected, strict=True):
        np.testing.assert_array_equal(frame.pixels[..., 0], one)
    assert not any("not read" in note for note in picture.notes)
    facts = read_metadata(data)
    assert len(facts.frames) == 3
    assert "only the first of 3 pages is kept" in read_picture(data, frames=False).notes
    with pytest.raises(InputError, match="30 x 20 pixels in one of 3 frames, over the limit"):
        read_picture(data, max_pixels=3 * 20 * 30 - 1)
    again = read_picture(encode(picture, "TIFF")[0])
    for frame, one in zip(again.frames, expected, strict=True):
        np.testing.assert_array_equal(frame.pixels[..., 0], one)


def test_what_a_tiff_says_of_its_primaries_is_said_to_be_lost():
    white = [(318, 5, 2, (3127, 10000, 3290, 10000), True)]
    (note,) = read_picture(tiff(GRAY[..., 0], extratags=white, metadata=None)).notes
    assert note == "TIFF tags 318 (WhitePoint) are not carried over"


def test_images_without_directories_are_said():
    """Where the file has no bytes for them."""
    text = "ImageJ=1.54\nimages=3\nslices=3\n"
    picture = read_picture(tiff(GRAY[..., 0], description=text, metadata=None))
    assert "2 images that ImageJ put behind the first are not read" in picture.notes


def test_a_frame_of_a_gif_that_stands_out_is_cut():
    one, two = (Image.fromarray(np.full((12, 12), v, np.uint8)) for v in (10, 200))
    buffer = io.BytesIO()
    one.save(buffer, "GIF", save_all=True, append_images=[two], duration=50)
    data = bytearray(buffer.getvalue())
    second = data.rindex(b"\x2c")
    struct.pack_into("<HH", data, second + 1, 3, 0)
    frames = read_picture(bytes(data)).frames
    assert [frame.pixels.shape[:2] for frame in frames] == [(12, 12)] * 2


def test_avif_is_played_for_ever_and_that_is_said():
    frames = tuple(Frame(np.full((16, 16, 3), v, np.uint8), 100.0) for v in (0, 200))
    picture = Picture(frames[0].pixels, "GIF", frames=frames)
    data, notes = encode(picture, "AVIF")
    assert "an animation in AVIF is played for ever" in notes
    again = read_picture(data)
    assert again.loop == 0
    assert encode(again, "AVIF")[1] == []
    assert read_picture(encode(again, "WEBP")[0]).loop == 0


# What counts pixels of the original


def told_exif(orientation=1, subject=(30, 20), order="<"):
    """EXIF of a stored picture of 60 x 40, as a camera writes it."""
    tags = Image.Exif()
    tags.endian = order
    tags[0x0112] = orientation
    tags[0x010E] = "as it was"
    tags.get_ifd(0x8769).update(
        {
            0xA001: 65535, 0xA002: 60, 0xA003: 40, 0x9214: subject,
            0xA20E: TiffImagePlugin.IFDRational(4000, 3), 0xA20F: TiffImagePlugin.IFDRational(2000),
        }
    )  # fmt: skip
    return tags.tobytes()


def inner(exif):
    tags = Image.Exif()
    tags.load(exif)
    return dict(tags.get_ifd(0x8769))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("turned", range(1, 9))
@given(x=st.integers(0, 59), y=st.integers(0, 39))
def test_the_subject_stays_on_its_pixel_and_the_sensor_its_size(turned, order, x, y):
    stored = np.zeros((40, 60, 1), np.uint8)
    stored[y, x] = 1
    shown = upright(stored, turned)
    high, wide = shown.shape[:2]
    # Sixteen times as large, the middle of the pixel is on it whatever is rounded.
    before = told_exif(turned, (x, y, 6, 4), order)
    tags = inner(updated_exif(before, 16 * wide, 16 * high))
    there = np.argwhere(np.kron(shown[..., 0], np.ones((16, 16))))
    (top, left), (bottom, right) = there.min(0), there.max(0) + 1
    assert left <= tags[0x9214][0] <= right
    assert top <= tags[0x9214][1] <= bottom
    assert tags[0x9214][2:] == ((96, 64) if turned <= 4 else (64, 96))
    size = tags[0xA002] / tags[0xA20E], tags[0xA003] / tags[0xA20F]
    sensor = (60 * 3 / 4000, 40 / 2000)
    assert size == pytest.approx(sensor if turned <= 4 else sensor[::-1])


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("subject", [(61, 20), (30, 1511), (61, 1511, 8, 8)])
def test_a_subject_beyond_the_stated_size_is_left(turned, subject):
    """Of a program that changed the size and not the subject."""
    after = inner(updated_exif(told_exif(turned, subject), 600, 400))[0x9214]
    below_zero = (turned in (2, 3, 7, 8) and subject[0] > 60) or (
        turned in (3, 4, 6, 7) and subject[1] > 40
    )
    assert (after == subject) == below_zero


def test_xmp_that_never_ends_takes_no_time():
    packet = b"<mwg-rs:AppliedToDimensions stDim:w='1' " * 50_000
    began = time.monotonic()
    assert updated_xmp(packet, 8, 8) == packet
    assert time.monotonic() - began < 20


def test_a_subject_without_a_size_to_compare_it_with_stays():
    tags = Image.Exif()
    tags.get_ifd(0x8769).update({0x9214: (3, 4), 0xA20E: TiffImagePlugin.IFDRational(5)})
    before = tags.tobytes()
    assert updated_exif(before, 100, 100) == before


def test_sizes_beyond_a_short_become_long():
    after = inner(updated_exif(told_exif(), 70_000, 46_667))
    assert (after[0xA002], after[0xA003]) == (70_000, 46_667)
    assert after[0x9214] == (35_000, 23_334)


def test_colours_that_were_converted_are_said_to_be_srgb():
    data = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(
        data, "JPEG", exif=told_exif(), icc_profile=srgb_profile()
    )
    converted = to_srgb(read_picture(data.getvalue()))
    assert inner(converted.exif)[0xA001] == 1
    assert inner(read_picture(data.getvalue()).exif)[0xA001] == 65535


REGIONS = (
    b'<x:xmpmeta><rdf:Description xmpTPg:NPages="1"><xmpTPg:MaxPageSize stDim:w="8" stDim:h="11"/>'
    b'<mwg-rs:Regions><mwg-rs:AppliedToDimensions stDim:w="60" stDim:h="40" stDim:unit="pixel"/>'
    b"</mwg-rs:Regions></rdf:Description></x:xmpmeta>"
)


def test_regions_apply_to_the_new_size():
    want = REGIONS.replace(b'w="60"', b'w="240"').replace(b'h="40"', b'h="160"')
    assert updated_xmp(REGIONS, 240, 160) == want
    elements = REGIONS.replace(
        b' stDim:w="60" stDim:h="40" stDim:unit="pixel"/>',
        b' rdf:parseType="Resource"><stDim:w>60</stDim:w><stDim:h>40</stDim:h>'
        b"</mwg-rs:AppliedToDimensions>",
    )
    assert b"<stDim:w>240</stDim:w><stDim:h>160</stDim:h>" in updated_xmp(elements, 240, 160)


def test_regions_of_a_turned_picture_are_left_and_told():
    for turned, told in ((1, False), (6, True)):
        data = io.BytesIO()
        Image.new("RGB", (60, 40)).save(data, "JPEG", exif=told_exif(turned), xmp=REGIONS)
        made, notes = encode(read_picture(data.getvalue()), "JPEG")
        assert ("regions in XMP, such as faces, are not turned with the picture" in notes) == told
        assert (b'stDim:w="60"' in read_picture(made).xmp) is True


def test_a_makers_notes_that_move_are_told():
    tags = Image.Exif()
    tags.get_ifd(0x8769)[0x927C] = b"offsets of its own"
    picture = Picture(np.zeros((8, 8, 3), np.uint8), "JPEG", exif=EXIF_HEAD + tags.tobytes()[6:])
    note = "EXIF is written anew: places that the maker's notes name may be wrong"
    assert note in encode(picture, "TIFF")[1]
    assert note not in encode(picture, "JPEG")[1]


def test_words_of_later_pages_are_told():
    def stack(*words):
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as file:
            for text in words:
                file.write(np.zeros((8, 8), np.uint8), description=text, metadata=None)
        return read_picture(buffer.getvalue()).notes

    note = "pages have texts, dates or EXIF of their own: all get the first one's"
    assert note in stack("one", "two")
    assert note not in stack("one", "one")
    assert note not in stack("ImageJ=1.11a\nimages=2", None)


def test_the_xmp_of_a_jpeg_2000_is_read():
    data = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(data, "JPEG2000")
    plain = data.getvalue()

    def uuid(kind, body):
        return struct.pack(">I", 24 + len(body)) + b"uuid" + bytes.fromhex(kind) + body

    packet = b"<x:xmpmeta>here</x:xmpmeta>"
    picture = read_picture(plain + uuid("be7acfcb97a942e89c71999491e3afac", packet))
    assert (picture.xmp, picture.notes) == (packet, ())
    assert read_picture(encode(picture, "PNG")[0]).xmp == packet
    other = read_picture(plain + uuid("b14bf8bd083d4b43a5ae8cd7d5a6ce03", b"GeoJP2"))
    assert other.xmp is None
    assert other.notes == ("JPEG 2000 boxes uuid are not carried over",)


@pytest.mark.parametrize(("form", "plays"), [("GIF", 4), ("PNG", 3), ("WEBP", 3)])
def test_a_gif_says_how_often_it_is_repeated_and_others_how_often_they_are_played(form, plays):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = io.BytesIO()
    frames[0].save(data, form, save_all=True, append_images=frames[1:], duration=100, loop=3)
    picture = read_picture(data.getvalue())
    assert picture.loop == plays
    for other in ("GIF", "PNG", "WEBP"):
        assert read_picture(encode(picture, other)[0]).loop == plays
    often = replace(picture, loop=65_536)  # a GIF's largest number
    assert [read_picture(encode(often, f)[0]).loop for f in ("GIF", "WEBP")] == [65_536, 65_535]
    once = replace(picture, loop=1)
    assert read_picture(encode(once, "GIF")[0]).loop is None  # as it is without a word


def test_what_photoshop_says_beside_iptc_is_told():
    def resource(number, data):
        head = struct.pack(">4sHHI", b"8BIM", number, 0, len(data))
        return head + data + b"\0" * (len(data) % 2)

    unsaid = resource(1034, b"\0") + resource(1036, b"a thumbnail") + resource(1028, RECORDS)
    said = resource(1034, b"\1") + resource(1035, b"https://a.b") + resource(2000, b"a path")
    said += resource(1028, RECORDS)
    pixels = np.zeros((16, 16, 3), np.uint8)
    plain = io.BytesIO()
    Image.fromarray(pixels).save(plain, "JPEG")
    note = "1 of Photoshop's paths and Photoshop's copyright flag and Photoshop's URL left out"
    for block, notes in ((unsaid, ()), (said, (note,))):
        body = b"Photoshop 3.0\0" + block
        segment = b"\xff\xed" + struct.pack(">H", 2 + len(body)) + body
        data = plain.getvalue()
        assert read_picture(data[:2] + segment + data[2:]).notes == notes
        for code in (1, 7):  # both are in use
            words = [(34377, code, len(block), block, True)]
            tagged = tiff(pixels, extratags=words, metadata=None)
            assert read_picture(tagged).notes == notes
            assert read_picture(tagged).iptc == RECORDS


def types_in(path, group):
    """Of the tags of EXIF's or GPS's directory in a TIFF, but for the size."""
    data = path.read_bytes()
    tags = Image.Exif()
    tags.load(data)
    offset = tags[group]
    directory = ImageFileDirectory_v2(data[:8], group=group)
    file = io.BytesIO(data)
    file.seek(offset)
    directory.load(file)
    return {tag: directory.tagtype[tag] for tag in dict(directory) if tag not in (0xA002, 0xA003)}


def test_a_tiff_has_exif_with_its_types_and_what_windows_and_cameras_add(tmp_path, upres):
    """Ratings and titles stand in the file's own directory; the rules of interoperability, which
    alone tell that a camera's colours are Adobe RGB, behind EXIF."""
    exif = Image.Exif()
    exif[0x010F], exif[0x4746], exif[0x9C9B] = "maker", 4, "title".encode("utf-16le")
    exif.get_ifd(0x8769).update(
        {0x9000: b"0232", 0x9286: b"ASCII\0\0\0hello", 0xA301: b"\1", 0x8827: 200}
    )
    exif.get_ifd(0x8769)[0xA005] = {1: "R03", 2: b"0100"}
    exif.get_ifd(0x8825)[0x1B] = b"ASCII\0\0\0GPS"
    photo = tmp_path / "photo.jpg"
    Image.fromarray(np.full((20, 24, 3), 90, np.uint8)).save(photo, exif=exif)
    done = upres(photo, "--scale", 2, "--model", "bicubic", "-o", tmp_path / "out.tif")
    assert done.returncode == 0, done.stderr
    assert b"cannot be kept" not in done.stderr
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        tags = file.pages.first.tags
        assert (tags["Rating"].value, int(tags["Rating"].dtype)) == (4, 3)
        assert tags["XPTitle"].valuebytecount == 10
        assert types_in(tmp_path / "out.tif", 0x8769) == {
            0x8827: TiffTags.SHORT,
            0xA005: TiffTags.LONG,
            **dict.fromkeys((0x9000, 0x9286, 0xA301), TiffTags.UNDEFINED),
        }
    # And back again, where everything is in one block.
    done = upres(
        tmp_path / "out.tif", "--scale", 2, "--model", "bicubic", "-o", tmp_path / "out.jpg"
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "out.jpg") as back:
        again = back.getexif()
        block = tmp_path / "block.tif"  # which is what a block of EXIF is
        block.write_bytes(back.info["exif"].removeprefix(EXIF_HEAD))
        assert types_in(block, 0x8769)[0x9286] == TiffTags.UNDEFINED
        assert again[0x4746] == 4
        assert again[0x9C9B] == "title".encode("utf-16le")
        assert again.get_ifd(0x8769)[0x9286] == b"ASCII\0\0\0hello"
        assert again.get_ifd(0xA005) == {1: "R03", 2: b"0100"}
        assert again.get_ifd(0x8825)[0x1B] == b"ASCII\0\0\0GPS"
