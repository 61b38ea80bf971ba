"""Promise 3: what is not pixels comes out as it went in, or a note says what changed."""

import contextlib
import io
import os
import struct
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin

from upres.errors import InputError, OutputError, ResourceError, UpresError
from upres.imaging.encoder import encode
from upres.imaging.formats import FORMATS, check_size, format_of
from upres.imaging.metadata import orientation, updated_exif, updated_xmp
from upres.imaging.parameters import Encoding
from upres.imaging.picture import Frame, Picture
from upres.imaging.reader import read_picture, read_size
from upres.imaging.streaming import open_streamed
from upres.imaging.writer import check_target, write_file

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif_with(turn, **extra):
    exif = Image.Exif()
    exif[0x0112] = turn
    exif[0x010F] = "Maker"
    ifd = exif.get_ifd(0x8769)
    ifd[0xA002], ifd[0xA003] = 40, 30
    ifd[0x9003] = "2020:01:02 03:04:05"
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


@pytest.fixture
def image(photo):
    return Image.fromarray(photo[100:130, 100:140])


def again(data, kind, scale=2):
    """Through the reader, enlarged by repetition, through the writer, opened by Pillow."""
    picture = read_picture(data)
    pixels = picture.pixels.repeat(scale, 0).repeat(scale, 1)
    out, notes = encode(Picture(**{**vars(picture), "pixels": pixels}), kind)
    return picture, Image.open(io.BytesIO(out)), [*picture.notes, *notes]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read_by_content_and_written(image, kind, tmp_path):
    path = tmp_path / "misnamed.xyz"
    path.write_bytes(saved(image, kind, quality=95))
    picture = read_picture(path)
    assert picture.format == kind
    assert picture.pixels.shape == (30, 40, 3)
    assert read_size(path) == (40, 30)
    data, _ = encode(picture, kind)
    with Image.open(io.BytesIO(data)) as result:
        assert (result.format, result.size) == (kind, (40, 30))
        error = np.abs(np.asarray(result.convert("RGB")).astype(int) - np.asarray(image))
    assert error.mean() < (12 if kind == "GIF" else 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_lossless_formats_are_lossless(image, kind):
    data, notes = encode(read_picture(saved(image, kind)), kind)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(image))
    assert notes == []


def test_lossless_webp_stays_lossless_and_lossy_stays_small(image):
    lossless = read_picture(saved(image, "WEBP", lossless=True))
    data, _ = encode(lossless, "WEBP")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(image))
    lossy = read_picture(saved(image, "WEBP", quality=80))
    assert not lossy.lossless
    assert len(encode(lossy, "WEBP")[0]) < len(data)
    assert b"VP8L" in encode(lossy, "WEBP", Encoding(100))[0]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_applied_and_reset(image, kind, turn):
    data = saved(image, kind, exif=exif_with(turn))
    with Image.open(io.BytesIO(data)) as original:
        expected = ImageOps.exif_transpose(original).convert("RGB")
    picture, result, _ = again(data, kind, scale=1)
    np.testing.assert_array_equal(picture.pixels, np.asarray(expected))
    assert read_size(data) == expected.size
    assert result.size == expected.size
    assert ImageOps.exif_transpose(result).size == result.size
    assert result.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_profile_exif_and_resolution_are_carried_over(image, kind):
    options = {"icc_profile": SRGB, "exif": exif_with(1)}
    if kind in ("JPEG", "PNG", "TIFF"):
        options["dpi"] = (300, 300)
    _, result, notes = again(saved(image, kind, **options), kind)
    assert result.info["icc_profile"] == SRGB
    exif = result.getexif()
    assert exif[0x010F] == "Maker"
    assert exif.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
    assert exif.get_ifd(0x8825)[1] == "N"
    if kind in ("JPEG", "PNG", "TIFF"):
        assert [round(float(v)) for v in result.info["dpi"]] == [300, 300]
    if kind != "TIFF":
        assert (exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003]) == (80, 60)
    assert notes == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_xmp_is_carried_over_and_its_orientation_applied(image, kind):
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options = {"pnginfo": info}
    else:
        options = {"tiffinfo": {700: XMP}} if kind == "TIFF" else {"xmp": XMP}
    _, result, _ = again(saved(image, kind, **options), kind)
    assert result.size == (60, 80)
    packet = result.info.get("xmp") or result.info.get("XML:com.adobe.xmp")
    packet = packet.encode() if isinstance(packet, str) else packet
    assert packet.startswith(b'<x:xmpmeta xmlns:x="adobe:ns:meta/">')
    assert b'Orientation="6"' not in packet


def gif_with(data, *extensions):
    """A GIF with application extensions behind its table of colours."""
    start = 13 + (3 << (data[10] & 7) + 1)
    blocks = b"".join(b"!\xff\x0b" + name + body for name, body in extensions)
    return b"GIF89a" + data[6:start] + blocks + data[start:]


def in_blocks(data):
    cut = [data[at : at + 255] for at in range(0, len(data), 255)]
    return b"".join(bytes((len(part),)) + part for part in cut) + b"\0"


@pytest.mark.parametrize("frames", [1, 3])
def test_a_gif_carries_xmp_and_tells_of_its_profile(image, frames):
    # The end that the specification wants, without which readers of blocks get lost.
    magic = bytes([1, *range(255, -1, -1), 0])
    xmp = XMP.replace(b'"6"', b'"1"')
    more = {"save_all": True, "append_images": [image.rotate(9), image.rotate(90)][: frames - 1]}
    made = gif_with(
        saved(image, "GIF", **more),
        (b"ICCRGBG1012", in_blocks(SRGB)),
        (b"XMP DataXMP", xmp + magic),
    )
    picture = read_picture(made)
    assert (picture.xmp, picture.icc, len(picture.frames) or 1) == (xmp, SRGB, frames)
    data, notes = encode(picture, "GIF")
    assert b"!\xff\x0bXMP DataXMP" + xmp + magic in data
    assert "the colour profile cannot be kept in this GIF" in notes
    written = read_picture(data)
    assert (written.xmp, len(written.frames) or 1) == (xmp, frames)
    assert Image.open(io.BytesIO(data)).info["version"] == b"GIF89a"


def test_xmp_in_blocks_is_found_in_a_gif(image):
    made = gif_with(saved(image, "GIF"), (b"XMP DataXMP", in_blocks(XMP)))
    picture = read_picture(made)
    assert (picture.xmp, picture.turned) == (XMP, 1)


def test_tiff_carries_exif_and_xmp_together(image):
    tags = Image.Exif()
    tags.load(exif_with(1))
    tags[700] = XMP.replace(b'"6"', b'"1"')
    data = saved(image, "TIFF", exif=tags)
    _, result, notes = again(data, "TIFF")
    exif = result.getexif()
    assert exif[0x010F] == "Maker"
    assert exif.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
    assert b"xmpmeta" in bytes(exif[700])
    assert notes == []


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        ("BMP", "the colour profile and EXIF and XMP"),
        ("GIF", "the colour profile and EXIF and the resolution"),
        ("JPEG2000", "the colour profile and EXIF and XMP and the resolution"),
        ("WEBP", "the resolution"),
        ("AVIF", "the resolution"),
        ("JPEG", None),
        ("PNG", None),
        ("TIFF", None),
    ],
)
def test_metadata_that_a_format_cannot_hold_is_said(image, kind, lost):
    source = saved(image, "JPEG", exif=exif_with(1), icc_profile=SRGB, dpi=(300, 300), xmp=XMP)
    _, notes = encode(read_picture(source), kind)
    said = [note for note in notes if "cannot be kept" in note]
    assert said == ([f"{lost} cannot be kept in this {kind}"] if lost else [])


GRAY = b"\0" * 16 + b"GRAY" + b"\0" * 108


@pytest.mark.parametrize(("background", "kept"), [((255, 0, 0), False), ((9, 9, 9), True)])
def test_a_profile_for_gray_stays_with_gray(background, kept):
    about = Picture(np.full((8, 9, 2), 128, np.uint8), "PNG", icc=GRAY)
    data, notes = encode(about, "JPEG", Encoding(background=background))
    made = Image.open(io.BytesIO(data))
    assert made.mode == ("L" if kept else "RGB")
    assert made.info.get("icc_profile") == (GRAY if kept else None)
    assert any("the profile is for gray" in note for note in notes) == (not kept)


@pytest.mark.parametrize(
    ("durations", "made"),
    [
        ([33] * 6, [30, 40, 30, 30, 40, 30]),  # 198 ms, as 200
        ([16, 16, 16], [20, 20, 20]),
        ([10, 0, 50], [10, 0, 50]),  # as they may be in a GIF
        ([1_000_000, 5], [655_350, 344_660]),
    ],
)
def test_a_gif_lasts_as_long_as_hundredths_allow(photo, durations, made):
    frames = tuple(
        Frame(photo[10 * i : 10 * i + 20, :30], float(lasts)) for i, lasts in enumerate(durations)
    )
    picture = Picture(frames[0].pixels, "WEBP", frames=frames, loop=0)
    data, notes = encode(picture, "GIF")
    with Image.open(io.BytesIO(data)) as gif:
        told = []
        for index in range(gif.n_frames):
            gif.seek(index)
            told.append(gif.info.get("duration", 0))
    assert told == made
    assert any("whole hundredths of a second" in note for note in notes) == (made != durations)


def test_gif_keeps_what_is_transparent(image):
    rgba = image.convert("RGBA")
    rgba.paste((0, 0, 0, 0), (0, 0, 20, 30))
    data, notes = encode(read_picture(saved(rgba, "PNG")), "GIF")
    result = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert (result[:, :20, 3] == 0).all()
    assert (result[:, 20:, 3] == 255).all()
    assert any("partial transparency" in note for note in notes)


def test_tags_that_no_writer_takes_are_said(image):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[42112] = "<GDALMetadata/>"
    tags.tagtype[42112] = 2
    picture = read_picture(saved(image, "TIFF", tiffinfo=tags))
    assert any("42112 (GDAL_METADATA) are not carried" in note for note in picture.notes)


def test_resolution_turns_with_the_picture_and_is_not_made_up(image):
    turned = read_picture(saved(image, "JPEG", exif=exif_with(6), dpi=(300, 150)))
    assert turned.dpi == (150, 300)
    assert read_picture(saved(image, "TIFF")).dpi is None


def test_exif_too_long_for_jpeg_is_left_out_and_said(image):
    picture = read_picture(saved(image, "PNG", exif=exif_with(1)))
    long = Picture(picture.pixels, "PNG", exif=picture.exif + bytes(70_000))
    _, notes = encode(long, "JPEG")
    assert notes == ["EXIF cannot be kept in this JPEG"]


def test_a_profile_for_other_pixels_is_left_out_and_said(image):
    gray = read_picture(saved(image.convert("L"), "PNG", icc_profile=SRGB))
    assert gray.icc is None
    assert any("another kind of picture" in note for note in gray.notes)


def test_a_thumbnail_that_was_not_turned_is_no_longer_pointed_to():
    before = bytearray(exif_with(6))
    start = before.index(b"\x01\x12") if b"MM" in before[:8] else before.index(b"\x12\x01")
    assert start > 0
    order = ">" if before[6:8] == b"MM" else "<"
    (ifd,) = struct.unpack_from(order + "I", before, 10)
    (count,) = struct.unpack_from(order + "H", before, 6 + ifd)
    end = 6 + ifd + 2 + 12 * count
    struct.pack_into(order + "I", before, end, 999)
    assert struct.unpack_from(order + "I", updated_exif(bytes(before), 8, 8), end) == (0,)
    upright = updated_exif(bytes(before), 8, 8)
    struct.pack_into(order + "I", before := bytearray(upright), end, 999)
    assert struct.unpack_from(order + "I", updated_exif(bytes(before), 8, 8), end) == (999,)


def test_exif_keeps_every_other_byte_where_it_was():
    """Maker's notes point to absolute places: nothing may move."""
    before = exif_with(6)
    after = updated_exif(before, 80, 60)
    assert len(after) == len(before)
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 3
    assert orientation(before) == 6
    assert orientation(after) == 1


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"Exif\0\0II*\0", b"Exif\0\0MM\0*", b"MM\0*"])
)
def test_damaged_exif_is_carried_and_never_raises(tail, head):
    data = head + tail
    assert 1 <= orientation(data) <= 8
    result = updated_exif(data, 10, 10)
    assert len(result or b"") == len(data)
    updated_xmp(data, 10, 10)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "PA", "1", "I;16"])
def test_pixel_modes_become_gray_or_colour_with_or_without_alpha(mode, image):
    channels = {"L": 1, "1": 1, "I;16": 1, "LA": 2, "RGB": 3, "P": 3, "RGBA": 4, "PA": 4}[mode]
    if mode == "I;16":
        deep = np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50
        source = Image.fromarray(deep)
    elif mode == "PA":
        source = image.convert("P").convert("PA")
    else:
        source = image.convert(mode)
    kind = "TIFF" if mode in ("PA",) else "PNG"
    picture = read_picture(saved(source, kind))
    assert picture.channels == channels
    assert picture.bits == {"I;16": 16, "1": 1}.get(mode, 8)
    data, notes = encode(picture, "PNG")
    back = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(back.reshape(picture.pixels.shape), picture.pixels)
    assert bool(notes) == (mode in ("1", "P", "PA"))  # what becomes of a bit or a palette is said
    if mode == "I;16":
        np.testing.assert_array_equal(picture.pixels[..., 0], deep)


def test_transparent_palettes_and_colour_keys_become_alpha(image):
    palette = image.convert("P")
    picture = read_picture(saved(palette, "PNG", transparency=palette.getpixel((0, 0))))
    assert picture.channels == 4
    assert picture.pixels[0, 0, 3] == 0
    keyed = read_picture(saved(image, "PNG", transparency=image.getpixel((0, 0))))
    assert keyed.pixels[0, 0, 3] == 0


def test_gray_palettes_are_gray(image):
    assert read_picture(saved(image.convert("L").convert("P"), "GIF")).channels == 1


def test_cmyk_goes_through_its_profile_or_says_that_it_has_none(image):
    picture = read_picture(saved(image.convert("CMYK"), "JPEG"))
    assert picture.channels == 3
    assert any("CMYK" in note for note in picture.notes)
    assert np.abs(picture.pixels.astype(int) - np.asarray(image)).mean() < 6


def test_an_unusable_cmyk_profile_is_said_and_dropped(image):
    picture = read_picture(saved(image.convert("CMYK"), "TIFF", icc_profile=SRGB))
    assert any("profile cannot be used" in note for note in picture.notes)
    assert picture.icc is None


def test_lab_becomes_srgb_and_says_so(image):
    lab = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    picture = read_picture(saved(lab, "TIFF"))
    assert np.abs(picture.pixels.astype(int) - np.asarray(image)).mean() < 3
    assert picture.icc is not None
    assert any("LAB becomes RGB" in note for note in picture.notes)


def test_frames_and_bits_that_a_format_cannot_hold_are_said(image):
    animated = saved(image, "GIF", save_all=True, append_images=[ImageOps.invert(image)])
    picture = read_picture(animated)
    assert len(picture.frames) == 2
    _, notes = encode(picture, "JPEG")
    assert "only the first of 2 frames is kept in JPEG" in notes
    assert not read_picture(animated, frames=False).frames


def test_what_a_format_cannot_hold_is_said(image):
    rgba = image.convert("RGBA")
    rgba.putalpha(0)
    data, notes = encode(read_picture(saved(rgba, "PNG")), "JPEG")
    assert any("transparency" in note for note in notes)
    assert np.asarray(Image.open(io.BytesIO(data))).min() > 250
    deep = Picture(np.full((8, 8, 1), 32896, np.uint16), "PNG")
    data, notes = encode(deep, "JPEG")
    assert any("16 bits become 8" in note for note in notes)
    assert np.asarray(Image.open(io.BytesIO(data))).mean() == pytest.approx(128, abs=1)


def test_quality_changes_the_size(image):
    picture = read_picture(saved(image, "PNG"))
    for kind in ("JPEG", "WEBP", "AVIF"):
        assert len(encode(picture, kind, Encoding(20))[0]) < len(encode(picture, kind)[0])


def test_jpeg_keeps_full_colour_resolution(image):
    data, _ = encode(read_picture(saved(image, "PNG")), "JPEG")
    with Image.open(io.BytesIO(data)) as result:
        assert {layer[1:3] for layer in result.layer} == {(1, 1)}


@pytest.mark.parametrize(
    ("kind", "limit"), [("WEBP", 16383), ("JPEG", 65500), ("AVIF", 32768), ("GIF", 65535)]
)
def test_sides_beyond_a_formats_limit_are_refused(kind, limit):
    check_size(kind, limit, 1)
    with pytest.raises(OutputError, match=f"at most {limit} pixels"):
        check_size(kind, 1, limit + 1)


def test_an_avif_that_its_decoder_would_refuse_is_refused_before():
    check_size("AVIF", 16384, 16384)
    with pytest.raises(OutputError, match="AVIF of up to 268 megapixels"):
        check_size("AVIF", 16385, 16384)


def test_exif_gets_into_an_avif_of_any_size(image, monkeypatch):
    exif = Image.Exif()
    exif[271] = "maker"
    source = read_picture(saved(image, "JPEG", exif=exif.tobytes()))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    made, _ = encode(source, "AVIF")
    assert b"maker" in made


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc")  # noqa: PTH110
def test_a_file_is_closed_before_it_takes_its_place(tmp_path):
    """Windows renames no file that is open."""

    def ready(part):
        for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                assert os.readlink(f"/proc/self/fd/{fd}") != str(part)  # noqa: PTH115

    write_file(tmp_path / "x.bin", b"data", overwrite=True, ready=ready)
    assert (tmp_path / "x.bin").read_bytes() == b"data"


def test_a_bmp_of_more_than_4_gb_is_refused_before_anything_is_computed():
    check_size("BMP", 32_768, 43_690)
    with pytest.raises(OutputError, match="BMP holds at most 4 GB"):
        check_size("BMP", 32_769, 43_690)


def test_formats_are_chosen_by_suffix():
    assert format_of(Path("a.JPG")) == "JPEG"
    assert format_of(Path("a.b.tiff")) == "TIFF"
    with pytest.raises(OutputError, match=r"'\.doc'"):
        format_of(Path("a.doc"))


def test_bad_files_are_refused_in_one_line(tmp_path, image):
    cases = {
        "empty.png": b"",
        "text.jpg": b"hello, I am no picture at all",
        "cut.jpg": saved(image.resize((200, 200)), "JPEG")[:900],
        "cut.png": saved(image.resize((200, 200)), "PNG")[:900],
        "header.png": saved(image, "PNG")[:30],
    }
    for name, data in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputError, match=name) as raised:
            read_picture(path)
        assert "\n" not in str(raised.value)
    for path, why in ((tmp_path, "is a folder"), (tmp_path / "no.png", "does not exist")):
        with pytest.raises(InputError, match=why):
            read_picture(path)
    with pytest.raises(InputError, match="cannot be opened"):
        read_picture(Path("a\0b.png"))


def test_bombs_are_refused_from_the_header(tmp_path):
    """A PNG that says it is 50,000 x 50,000, in 57 bytes."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    import zlib

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    )
    with pytest.raises(InputError, match="over the limit of 1,000,000,000"):
        read_picture(data)
    with pytest.raises(InputError, match="over the limit of 99"):
        read_picture(saved(Image.new("L", (10, 10)), "PNG"), max_pixels=99)
    # Few enough pixels, but far too many for so few bytes.
    little = data[:16] + struct.pack(">II", 10_000, 10_000) + data[24:]
    little = little[:29] + struct.pack(">I", zlib.crc32(little[12:29])) + little[33:]
    with pytest.raises(InputError, match=r"claims 10000 x 10000 pixels in 5\d bytes"):
        read_picture(little)
    with pytest.raises(InputError, match="damaged"):
        read_picture(little, max_pixels=10**9)  # whoever says so is believed


def test_a_blank_scan_is_no_bomb():
    """The back of a page that was scanned in duplex: 35 megapixels in 3 kilobytes."""
    page = saved(Image.new("1", (4960, 7016), 1), "TIFF", compression="group4")
    assert len(page) < 4000
    picture = read_picture(page)
    assert (picture.width, picture.height, picture.channels) == (4960, 7016, 1)
    assert picture.pixels.min() == 255


def test_channels_count_where_a_file_claims_too_much(tmp_path):
    path = tmp_path / "many.tif"
    few = np.zeros((8, 8, 64), np.uint8)
    tifffile.imwrite(path, few, planarconfig="contig", photometric="rgb", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[name].overwrite(4000)
    with pytest.raises(InputError, match=r"claims 1,024,000,000 numbers in .* bytes.*--max-pixels"):
        read_picture(path)


def test_blank_pages_are_no_bombs():
    """The densest honest files: deflate at its best."""
    blank = saved(Image.new("L", (8000, 8000), 255), "PNG")
    assert len(blank) * 500 < 8000 * 8000
    assert read_picture(blank).width == 8000


def animated(made, form):
    frames = [Image.fromarray(np.roll(made, shift, 1)) for shift in (0, 3, 6)]
    return saved(frames[0], form, save_all=True, append_images=frames[1:], duration=40)


def heic(made):
    buffer = io.BytesIO()
    pillow_heif.from_bytes("RGB", made.shape[1::-1], made.tobytes()).save(buffer)
    return buffer.getvalue()


SEEDS = {}
OTHERS = {
    "deep PNG": lambda made: encode(Picture(made.astype(np.uint16) * 257, "PNG"), "PNG")[0],
    "deep TIFF": lambda made: encode(Picture(made.astype(np.uint16) * 257, "TIFF"), "TIFF")[0],
    "float TIFF": lambda made: encode(Picture(made.astype(np.float32) / 255, "TIFF"), "TIFF")[0],
    "animated GIF": lambda made: gif_with(animated(made, "GIF"), (b"XMP DataXMP", in_blocks(XMP))),
    "APNG": lambda made: animated(made, "PNG"),
    "animated WebP": lambda made: animated(made, "WEBP"),
    "pages": lambda made: animated(made, "TIFF"),
    "palette": lambda made: saved(Image.fromarray(made).quantize(64), "TIFF"),
    "CMYK": lambda made: saved(Image.fromarray(made).convert("CMYK"), "JPEG"),
    "HEIC": heic,
}


def _seed(kind):
    """A small file: of a format, or of one of the kinds that go other ways through the reader."""
    if kind not in SEEDS:
        rng = np.random.default_rng(0)
        made = rng.integers(0, 256, (24, 31, 3), np.uint8)
        picture = Image.fromarray(made)
        if kind in OTHERS:
            SEEDS[kind] = OTHERS[kind](made)
        else:
            turned = kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
            SEEDS[kind] = saved(picture, kind, **({"exif": exif_with(6)} if turned else {}))
    return SEEDS[kind]


@st.composite
def mutated(draw):
    """A small file of any format with bytes changed, cut out, doubled or cut off."""
    data = bytearray(_seed(draw(st.sampled_from(sorted([*FORMATS, *OTHERS])))))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        action = draw(st.sampled_from(["change", "drop", "double", "end", "number"]))
        length = draw(st.integers(1, 16))
        if action == "change":
            data[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif action == "drop":
            del data[place : place + length]
        elif action == "double":
            data[place:place] = data[place : place + length]
        elif action == "end":
            del data[place:]
        else:
            data[place : place + 4] = draw(
                st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
            )
    return bytes(data)


@given(st.lists(mutated(), min_size=40, max_size=40))
def test_damaged_files_never_bring_a_traceback(tmp_path_factory, files):
    """At least a thousand files in `make test`, sixteen thousand in `make soak`."""
    path = tmp_path_factory.getbasetemp() / "mutated"
    for data in files:
        with contextlib.suppress(UpresError):
            picture = read_picture(data, max_pixels=10**6)
            assert picture.pixels.ndim == 3
            assert picture.pixels.shape[2] in (1, 2, 3, 4)
        path.write_bytes(data)
        with contextlib.suppress(UpresError):
            streamed = open_streamed(path, at_least=1, max_pixels=10**6)
            rows = 0 if streamed is None else sum(map(len, streamed.pixels.blocks()))
            assert streamed is None or rows == streamed.height


def test_writing_is_atomic_and_keeps_what_exists(tmp_path):
    path = tmp_path / "a.png"
    write_file(path, b"one", overwrite=False)
    with pytest.raises(OutputError, match="exists"):
        write_file(path, b"two", overwrite=False)
    assert path.read_bytes() == b"one"
    write_file(path, b"two", overwrite=True)
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("upres.imaging.writer.os.fsync", full)
    with pytest.raises(ResourceError, match="No space left"):
        write_file(path, b"new" * 1000, overwrite=True)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_impossible_targets_are_found_before_the_work(tmp_path):
    (tmp_path / "there.png").write_bytes(b"x")
    for path, why in (
        (tmp_path / "there.png", "exists"),
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "a.png", "not a folder"),
        (tmp_path / ("n" * 300 + ".png"), "cannot be written"),
        (tmp_path / "a\0.png", "cannot be written"),
    ):
        with pytest.raises(OutputError, match=why):
            check_target(path, overwrite=False)
    check_target(tmp_path / "there.png", overwrite=True)
    check_target(tmp_path / "new.png", overwrite=False)


def test_a_file_without_permission_says_so(tmp_path, monkeypatch):
    """Faked, since tests may run as root, who may read everything."""
    path = tmp_path / "a.png"
    path.write_bytes(b"x")

    def refused(self, *args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(InputError, match="Permission denied"):
        read_picture(path)


def test_reading_leaves_pillows_own_limit_alone(image):
    before = Image.MAX_IMAGE_PIXELS
    read_picture(saved(image, "PNG"))
    with pytest.raises(InputError, match="not a picture"):
        read_picture(b"nothing")
    assert before == Image.MAX_IMAGE_PIXELS
