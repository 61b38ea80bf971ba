"""Files as other programs write them, off the beaten track: read right, or what is lost is said."""

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin
from PIL.ExifTags import Base as Tag

from upres.errors import InputError
from upres.imaging.encoder import encode
from upres.imaging.fidelity import compare
from upres.imaging.picture import Frame, Picture
from upres.imaging.profiles import to_srgb
from upres.imaging.reader import read_metadata, read_picture, read_size
from upres.imaging.streaming import open_streamed
from upres.imaging.tiff_rare import libvips_reads
from upres.imaging.tiff_tags import BANDS_LEFT_OUT

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RAMP = np.arange(10 * 20 * 3, dtype=np.uint16).reshape(10, 20, 3) * 109


def tiff(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **{"photometric": "rgb"} | options)
    return buffer.getvalue()


def saved(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels, colour, *chunks, after=b""):
    """A PNG of uint8 or uint16 pixels with these chunks before, and others after them."""
    bits = 8 * pixels.dtype.itemsize
    height, width = pixels.shape[:2]
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), *chunks, chunk(b"IDAT", data), after)
    ) + chunk(b"IEND", b"")


# Numbers of other types, and channels that lie apart


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "uint32", "int64", "uint64", "float64"])
def test_numbers_of_other_types_become_floats_and_that_is_said(kind, channels):
    low = -100 if np.dtype(kind).kind != "u" else 0
    made = np.arange(20 * 30 * channels).reshape(20, 30, channels) % 200 + low
    data = tiff(made.astype(kind), photometric="rgb" if channels == 3 else "minisblack")
    picture = read_picture(data)
    np.testing.assert_array_equal(picture.pixels, made.astype(np.float32), strict=True)
    assert picture.notes == (f"pixels of the type {kind} become float32",)
    facts = read_metadata(data)
    assert (facts.pixels.dtype, facts.channels) == (np.float32, channels)
    out, notes = encode(picture, "TIFF")
    assert not notes
    np.testing.assert_array_equal(read_picture(out).pixels, picture.pixels)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize(
    ("photometric", "channels", "colours"),
    [("minisblack", 2, 1), ("minisblack", 5, 1), ("rgb", 3, 3), ("rgb", 4, 3), ("rgb", 5, 3)],
)
def test_channels_that_lie_apart(photometric, channels, colours, kind, compression, tile):
    made = np.random.default_rng(0).integers(0, 120, (channels, 20, 30)).astype(kind)
    options = {"planarconfig": "separate", "compression": compression, "tile": tile}
    more = ["unspecified"] * (channels - colours)
    data = tiff(made, photometric=photometric, extrasamples=more, **options)
    picture = read_picture(data)
    np.testing.assert_array_equal(picture.pixels, np.moveaxis(made, 0, -1))
    assert picture.bands == channels - colours


def test_transparency_that_lies_apart(tmp_path):
    made = np.random.default_rng(0).integers(0, 65536, (2, 200, 300)).astype(np.uint16)
    options = {"planarconfig": "separate", "extrasamples": ["unassalpha"]}
    data = tiff(made, photometric="minisblack", **options)
    np.testing.assert_array_equal(read_picture(data).pixels, np.moveaxis(made, 0, -1))
    path = tmp_path / "apart.tif"
    path.write_bytes(data)
    assert open_streamed(path, at_least=0) is None


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("colours", [1, 3])
def test_colours_that_were_multiplied_by_transparency(colours, kind, planar):
    top = {"uint8": 255, "uint16": 65535, "float32": 1}[kind]
    alpha = np.linspace(1, top, 20 * 30).reshape(20, 30, 1).astype(kind)
    alpha[0] = 0
    multiplied = (alpha * np.linspace(0, 1, 30)[None, :, None].repeat(colours, 2)).astype(kind)
    made = np.concatenate([multiplied, alpha], axis=2)
    data = tiff(
        made if planar == "contig" else np.moveaxis(made, -1, 0),
        photometric="rgb" if colours == 3 else "minisblack",
        planarconfig=planar,
        extrasamples=["assocalpha"],
    )
    pixels = read_picture(data).pixels
    np.testing.assert_array_equal(pixels[..., -1:], alpha)
    expected = multiplied[1:] / alpha[1:] * top
    tolerance = 1.01 if top > 1 else 1e-6
    np.testing.assert_allclose(pixels[1:, :, :-1], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("compression", ["deflate", "lzw", "packbits", "zstd", "lzma", "lerc"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_compressions(channels, kind, compression, tile):
    """libvips knows fewer than Pillow and tifffile, and makes black tiles of the others."""
    made = np.random.default_rng(0).integers(0, 120, (20, 30, channels)).astype(kind)
    space = "rgb" if channels == 3 else "minisblack"
    options = {"photometric": space, "compression": compression, "tile": tile}
    for big in (False, True):
        data = tiff(made, bigtiff=big, **options)
        np.testing.assert_array_equal(read_picture(data).pixels, made)


def test_a_compression_is_not_streamed_that_libvips_does_not_know(tmp_path):
    made = np.random.default_rng(0).integers(0, 120, (20, 30, 3)).astype(np.uint8)
    path = tmp_path / "in.tif"
    path.write_bytes(tiff(made, compression="zstd", tile=(16, 16)))
    assert open_streamed(path, at_least=0) is None
    path.write_bytes(tiff(made, compression="lzw", tile=(16, 16)))
    assert open_streamed(path, at_least=0) is not None


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (np.zeros((20, 30), np.int16), {"photometric": "minisblack"}),
        # Pillow would read the colours alone.
        (np.zeros((20, 30, 4), np.uint8), {"extrasamples": ["unspecified"]}),
    ],
)
def test_a_compression_without_its_decoder_is_said(tmp_path, pixels, options):
    path = tmp_path / "in.tif"
    path.write_bytes(tiff(pixels, compression=50000, **options))
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from pathlib import Path; from upres.imaging.reader import read_picture\n"
        "read_picture(Path('in.tif'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False
    )
    assert b"InputError: in.tif is compressed in a way" in done.stderr
    assert b"install imagecodecs" in done.stderr


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [2, 4, 6, 10, 12, 14])
def test_depths(bits, channels):
    made = np.arange(20 * 30 * channels).reshape(20, 30, channels) % 2**bits
    space = "rgb" if channels == 3 else "minisblack"
    kind = np.uint8 if bits < 8 else np.uint16
    data = tiff(made.astype(kind), photometric=space, bitspersample=bits)
    pixels = read_picture(data).pixels
    assert pixels.dtype == kind
    expected = made / (2**bits - 1) * np.iinfo(kind).max
    assert np.abs(pixels - expected).max() <= 0.5


def test_a_big_tiff_with_the_highest_byte_first_is_refused_by_name():
    data = tiff(np.zeros((20, 30, 3), np.uint8), bigtiff=True, byteorder=">")
    with pytest.raises(InputError, match="highest byte first"):
        read_picture(data)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_gray_of_a_png_of_few_bits(bits):
    values = np.arange(20 * 32).reshape(20, 32) % 2**bits
    wide = np.unpackbits(values.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :]
    rows = np.packbits(wide.reshape(20, -1), axis=1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = struct.pack(">IIBBBBB", 32, 20, bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"tRNS", b"\0\1"), chunk(b"IDAT", data), chunk(b"IEND", b"")
    made = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    pixels = read_picture(made).pixels
    np.testing.assert_array_equal(pixels[..., 0], values * (255 // (2**bits - 1)))
    np.testing.assert_array_equal(pixels[..., 1], np.where(values == 1, 0, 255))


def test_white_is_zero_in_channels_that_lie_apart():
    made = np.random.default_rng(0).integers(0, 65536, (2, 20, 30)).astype(np.uint16)
    options = {"planarconfig": "separate", "extrasamples": ["unspecified"]}
    picture = read_picture(tiff(made, photometric="miniswhite", **options))
    np.testing.assert_array_equal(picture.pixels[..., 0], 65535 - made[0])


# Depth


def test_much_metadata_hides_no_depth_of_jpeg_2000():
    white = np.full((8, 8, 3), 65535, np.uint16)
    data = imagecodecs.jpeg2k_encode(white, level=0, reversible=True, codecformat="jp2")
    at = data.index(b"jp2c") - 4
    words = b"<a>" + b" " * 6000 + b"\xff\x51</a>"
    data = data[:at] + struct.pack(">I", 8 + len(words)) + b"xml " + words + data[at:]
    picture = read_picture(data)
    assert picture.bits == 16
    assert (picture.pixels == 65535).all()


def test_a_large_profile_hides_no_depth_of_avif():
    icc = SRGB + bytes(9000)
    icc = struct.pack(">I", len(icc)) + icc[4:]
    data, _ = encode(Picture(RAMP, "AVIF", "RGB", bits=10, icc=icc), "AVIF")
    picture = read_picture(data)
    assert (picture.bits, picture.pixels.dtype) == (10, np.uint16)


def test_deep_frames_of_an_animation_stay_frames():
    def frame(number, value):
        pixels = np.full((4, 4, 3), value, ">u2").reshape(4, -1)
        raw = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
        control = struct.pack(">IIIIIHHBB", number, 4, 4, 0, 0, 100, 1000, 0, 0)
        return chunk(b"fcTL", control), raw

    (first, one), (second, two) = frame(0, 0), frame(1, 65535)
    head = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"acTL", struct.pack(">II", 2, 0))
    data += first + chunk(b"IDAT", one) + second + chunk(b"fdAT", struct.pack(">I", 2) + two)
    picture = read_picture(data + chunk(b"IEND", b""))
    assert [int(f.pixels.max()) for f in picture.frames] == [0, 255]
    assert [f.duration for f in picture.frames] == [100, 100]
    assert "more than 8 bits a channel are read as 8" in picture.notes


@pytest.mark.parametrize("order", ["<", ">"])
def test_white_that_is_zero_in_16_bits(order):
    data = tiff(np.array([[0, 1000, 65535]], np.uint16), photometric="miniswhite", byteorder=order)
    assert read_picture(data).pixels[0, :, 0].tolist() == [65535, 64535, 0]


def test_white_of_12_bits_is_white():
    values = np.array([[0, 1, 2048, 4095]], np.uint16)
    wanted = [0, 16, 32776, 65535]
    jp2 = imagecodecs.jpeg2k_encode(
        np.repeat(values, 4, 0), level=0, reversible=True, codecformat="jp2", bitspersample=12
    )
    assert read_picture(jp2).pixels[0, :, 0].tolist() == wanted
    packed = tiff(values, photometric="minisblack", bitspersample=12)
    assert read_picture(packed).pixels[0, :, 0].tolist() == wanted


# Channels


def test_channels_beside_colours_that_become_others_are_left_out():
    values = np.random.default_rng(0).integers(0, 255, (6, 7, 5)).astype(np.uint8)
    inks = {"photometric": "separated", "planarconfig": "contig"}
    picture = read_picture(tiff(values, extrasamples=["unspecified"], **inks))
    assert (picture.kind, picture.channels, picture.bands) == ("CMYK", 3, 0)
    assert BANDS_LEFT_OUT in picture.notes
    alone = read_picture(tiff(values[..., :4], **inks))
    np.testing.assert_array_equal(picture.pixels, alone.pixels)


def test_premultiplied_gray_and_floats_are_divided_once():
    gray = np.full((2, 2, 2), (10000, 32768), np.uint16)
    data = tiff(gray, photometric="minisblack", extrasamples=["assocalpha"], planarconfig="contig")
    assert abs(int(read_picture(data).pixels[0, 0, 0]) - 20000) <= 1
    floats = np.full((2, 2, 4), (0.1, 0.2, 0.3, 0.5), np.float32)
    data = tiff(floats, extrasamples=["assocalpha"])
    np.testing.assert_allclose(read_picture(data).pixels[0, 0], (0.2, 0.4, 0.6, 0.5), atol=1e-5)


def test_a_gray_value_that_is_transparent():
    pixels = np.array([[[0], [1000], [65535]]], np.uint16)
    picture = read_picture(png(pixels, 0, chunk(b"tRNS", struct.pack(">H", 1000))))
    assert picture.pixels[0].tolist() == [[0, 65535], [1000, 0], [65535, 65535]]
    line = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    picture = read_picture(saved(line, "PNG", transparency=1))
    assert picture.pixels[0].tolist() == [[0, 255], [255, 0]]


def test_a_file_with_much_beside_its_pixels_keeps_their_depth(tmp_path):
    """Photoshop's layers: libvips' own limit of 50 MB would be met, and 16 bits be read as 8."""
    layers = np.random.default_rng(0).bytes(30_000_000)
    data = tiff(RAMP, extratags=[(37724, 7, len(layers), layers, True)])
    np.testing.assert_array_equal(read_picture(data).pixels, RAMP)
    (tmp_path / "a.tif").write_bytes(data)
    streamed = open_streamed(tmp_path / "a.tif", at_least=0)
    assert streamed is not None
    np.testing.assert_array_equal(streamed.pixels.reader().read(0, 10), RAMP)


def test_a_badly_declared_tag_is_left_out_and_the_others_stay():
    tags = [(Tag.Orientation, 1, 1, 6, True), (Tag.Make, 2, 0, "Maker", True)]
    picture = read_picture(tiff(RAMP, extratags=tags, metadata=None))
    exif = Image.Exif()
    exif.load(picture.exif)
    assert exif[Tag.Make] == "Maker"
    assert Tag.Orientation not in exif
    assert "of EXIF Orientation cannot be read and is left out" in picture.notes
    assert sorted(picture.pixels.shape) == sorted(RAMP.shape)


# In JFIF's segment: no unit, and so many pixels for as many across and down.
SQUARE, OBLONG = b"\x00\x00\x01\x00\x01", b"\x00\x00\x10\x00\x0b"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (png(RAMP, 2, chunk(b"pHYs", struct.pack(">IIB", 3, 2, 0))), "2:3"),
        (png(RAMP, 2, chunk(b"pHYs", struct.pack(">IIB", 2, 2, 0))), ""),
        (saved(Image.new("RGB", (9, 9)), "JPEG"), ""),
        (saved(Image.new("RGB", (9, 9)), "JPEG").replace(SQUARE, OBLONG, 1), "11:16"),
    ],
)
def test_pixels_that_are_not_square_are_said(data, said):
    notes = [note for note in read_picture(data).notes if "square" in note]
    told = f"pixels that are not square ({said}) are taken for square ones"
    assert notes == ([told] if said else [])


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF"])
def test_an_animation_is_not_decoded_to_see_whether_it_is_read_by_rows(tmp_path, form, monkeypatch):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    path = tmp_path / f"a.{form.lower()}"
    frames[0].save(path, form, save_all=True, append_images=frames[1:], duration=100)
    monkeypatch.setattr("upres.imaging.streaming.read_metadata", None)
    assert open_streamed(path, at_least=0) is None


# Pages


def pages(*pictures, **options):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for pixels, turn in pictures:
            tags = [(274, 3, 1, turn, True)]
            file.write(pixels, photometric="rgb", extratags=tags, metadata=None, **options)
    return buffer.getvalue()


def test_each_deep_page_is_turned_by_its_own_word():
    picture = read_picture(pages((RAMP, 1), (RAMP, 6)))
    first, second = (frame.pixels for frame in picture.frames)
    np.testing.assert_array_equal(first, RAMP)
    np.testing.assert_array_equal(second, np.rot90(RAMP, -1))


def test_a_deep_page_that_only_pillow_reads_is_turned_once():
    picture = read_picture(pages((RAMP, 6), compression="zstd"))
    assert picture.pixels.shape == (20, 10, 3)


GRAY = {"photometric": "minisblack"}
PAGES = {
    "RGB": (RAMP.astype(np.uint8), {}),
    "16-bit RGB": (RAMP, {}),
    "float RGB": (RAMP.astype(np.float32), {}),
    "16-bit gray": (RAMP[..., 0], GRAY),
    "16-bit gray, alpha": (RAMP[..., :2], GRAY | {"extrasamples": ["unassalpha"]}),
    "int16": (RAMP[..., 0].astype(np.int16), GRAY),
    "float64": (RAMP[..., 0].astype(np.float64), GRAY),
    "planar": (np.moveaxis(RAMP[..., :2], -1, 0), GRAY | {"planarconfig": "separate"}),
    "1-bit": (RAMP[..., 0] > 9000, GRAY),
}


@pytest.mark.parametrize("first", PAGES)
def test_pages_of_any_kinds_beside_each_other(first):
    """Pillow gives up on a file at the first page that it does not know."""
    buffer = io.BytesIO()
    chosen = [PAGES[first], *PAGES.values()]
    with tifffile.TiffWriter(buffer) as file:
        for made, options in chosen:
            options = {"photometric": "rgb", "planarconfig": "contig"} | options
            if made.ndim == 2:
                del options["planarconfig"]
            more = {} if options.get("planarconfig") != "separate" else {"extrasamples": [2]}
            file.write(made, metadata=None, **options, **more)
    picture = read_picture(buffer.getvalue())
    assert len(picture.frames) == len(read_metadata(buffer.getvalue()).frames) == len(chosen)
    for frame, (made, options) in zip(picture.frames, chosen, strict=True):
        wanted = np.moveaxis(made, 0, -1) if options.get("planarconfig") == "separate" else made
        wanted = wanted[..., None] if wanted.ndim == 2 else wanted
        if made.dtype == bool:
            wanted = np.uint8(255) * wanted
        elif made.dtype.kind == "i" or made.dtype == np.float64:
            wanted = wanted.astype(np.float32)
        np.testing.assert_array_equal(frame.pixels, wanted, strict=True)
    out, _ = encode(picture, "TIFF")
    for frame, again in zip(picture.frames, read_picture(out).frames, strict=True):
        np.testing.assert_array_equal(frame.pixels, again.pixels, strict=True)


def test_pages_that_are_alike_are_read_together():
    """Stacks of floats: one by one they took the square of their number."""
    rng = np.random.default_rng(0)
    stack = [rng.random((9, 14)).astype(np.float32) for _ in range(4)]
    other = rng.integers(0, 2**16, (9, 14, 3), np.uint16)
    written = [*stack[:3], other, other // 2, stack[3], stack[0][:5]]
    turns = [1, 6, 3, 1, 8, 1, 1]
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for made, turn in zip(written, turns, strict=True):
            kind = "rgb" if made.ndim == 3 else "minisblack"
            tags = [(274, 3, 1, turn, True)]
            file.write(made, photometric=kind, extratags=tags, metadata=None)
    picture = read_picture(buffer.getvalue())
    quarters = {1: 0, 3: 2, 6: -1, 8: 1}
    for frame, made, turn in zip(picture.frames, written, turns, strict=True):
        wanted = np.rot90(made.reshape(*made.shape[:2], -1), quarters[turn])
        np.testing.assert_array_equal(frame.pixels, wanted, strict=True)


def test_one_damaged_page_of_many_is_said(tmp_path):
    path = tmp_path / "stack.tif"
    rng = np.random.default_rng(0)
    stack = rng.random((5, 40, 40)).astype(np.float32)
    with tifffile.TiffWriter(path) as file:
        for made in stack:
            file.write(made, compression="deflate", metadata=None)
    with tifffile.TiffFile(path) as file:
        place = file.pages[3].dataoffsets[0]
    np.testing.assert_array_equal(read_picture(path).frames[4].pixels[..., 0], stack[4])
    data = bytearray(path.read_bytes())
    data[place : place + 40] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_picture(path)


def test_a_file_that_states_no_bits_has_one(tmp_path):
    """The default of TIFF 6.0, which scanned pages rely on."""
    black = np.tile(np.arange(64) % 7 < 3, (32, 1))
    path = tmp_path / "scan.tif"
    tifffile.imwrite(path, black, photometric="minisblack", metadata=None)
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<H", 258), struct.pack("<H", 65000), 1))
    wanted = np.uint8(255) * black[..., None]
    picture = read_picture(path)
    assert picture.bits == 1
    np.testing.assert_array_equal(picture.pixels, wanted)
    with tifffile.TiffFile(path) as file:
        tags = {tag.code: tag.value for tag in file.pages[0].tags}
    assert Tag.BitsPerSample not in tags
    assert not libvips_reads(tags)


def test_colours_of_one_bit_are_refused():
    """tifffile does not even read those that it wrote."""
    with pytest.raises(InputError, match="3 channels of the type bool"):
        read_picture(tiff(RAMP > 9000))


def test_a_smaller_copy_that_stands_first_is_not_the_picture(tmp_path):
    path = tmp_path / "camera.tif"
    large = np.tile(RAMP, (3, 3, 1))
    with tifffile.TiffWriter(path) as file:
        file.write(RAMP, photometric="rgb", subfiletype=1, metadata=None)
        file.write(large, photometric="rgb", metadata=None)
    assert read_size(path) == (60, 30)
    np.testing.assert_array_equal(read_picture(path).pixels, large)
    # It reads whichever page stands first.
    assert open_streamed(path, at_least=1) is None


@pytest.mark.parametrize("form", ["PNG", "WEBP", "AVIF"])
def test_pages_of_many_kinds_become_frames_of_one(form):
    frames = tuple(Frame(PAGES[name][0].reshape(10, 20, -1)) for name in list(PAGES)[:5])
    picture = Picture(frames[0].pixels, "TIFF", frames=frames)
    out, notes = encode(picture, form)
    again = read_picture(out)
    assert len(again.frames) == len(frames)
    assert {frame.pixels.shape for frame in again.frames} == {(10, 20, 4)}
    assert f"16 bits become 8, which is what {form} holds" in notes
    assert "floats become 8 bits, and what is outside 0 to 1 is clipped" in notes


def test_a_profile_stands_in_pages_that_it_is_for():
    gray = (np.full((8, 9), 90, np.uint8), GRAY)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for made, options in (PAGES["RGB"], gray):
            options = {"photometric": "rgb"} | options
            file.write(made, metadata=None, iccprofile=SRGB, **options)
    picture = read_picture(buffer.getvalue())
    assert "the colour profile is left out of pages that it is not for" in picture.notes
    out, _ = encode(picture, "TIFF")
    with tifffile.TiffFile(io.BytesIO(out)) as file:
        assert [page.tags.get(34675) is not None for page in file.pages] == [True, False]


# Cameras' raw files, and what lies below a page


def raw(below, colours=32803, *, big=False):
    """A small picture, and what a sensor counted: below it or behind it."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=big) as file:
        small = (RAMP // 256).astype(np.uint8)
        file.write(small, photometric="rgb", subfiletype=1, subifds=int(below), metadata=None)
        # Types whose channels are known to tifffile: what a sensor has are no colours to it.
        counted = RAMP if colours == 34892 else RAMP[..., 0]
        file.write(counted, photometric=colours, subfiletype=0, metadata=None)
    return buffer.getvalue()


RAW = {
    "dng": raw(below=True),
    "a linear dng": raw(below=True, colours=34892),
    "a large dng": raw(below=True, big=True),
    "pef": raw(below=False),
    "raf": b"FUJIFILMCCD-RAW 0201FF",
    "cr2": b"II*\0\x10\0\0\0CR\x02\0" + bytes(20),
    "cr3": b"\0\0\0\x18ftypcrx \0\0\0\1",
    "orf": b"IIRO\x08\0\0\0" + bytes(20),
    "rw2": b"IIU\0\x18\0\0\0" + bytes(20),
}


@pytest.mark.parametrize("kind", RAW)
def test_raw_files_are_no_pictures_yet(kind, tmp_path):
    path = tmp_path / "photo.tif"
    path.write_bytes(RAW[kind])
    for read in (read_picture, read_metadata, read_size):
        with pytest.raises(InputError, match="raw file") as caught:
            read(path)
    assert "darktable" in caught.value.next_step


@pytest.mark.parametrize("big", [False, True])
def test_smaller_copies_below_a_page_are_said(big):
    buffer = io.BytesIO()
    large = np.tile(RAMP, (3, 3, 1))
    with tifffile.TiffWriter(buffer, ome=True, bigtiff=big) as file:
        file.write(large, photometric="rgb", subifds=1)
        file.write(large[::2, ::2], photometric="rgb", subfiletype=1)
    picture = read_picture(buffer.getvalue())
    np.testing.assert_array_equal(picture.pixels, large)
    assert "smaller copies and masks of pages are left out" in picture.notes


def below(places, *, big=False):
    """A TIFF that names directories below its page, true or not."""
    kind = (16 if big else 4, len(places), places[0] if len(places) == 1 else places)
    data = tiff(RAMP, bigtiff=big, extratags=[(65000, *kind, True)])
    assert data.count(struct.pack("<HH", 65000, kind[0])) == 1
    return data.replace(struct.pack("<HH", 65000, kind[0]), struct.pack("<HH", 330, kind[0]))


@pytest.mark.parametrize("place", [0, 1, 10**9, 4_000_000_000, 2**63, 2**64 - 1])
def test_a_page_is_read_whatever_lies_below_it(place):
    picture = read_picture(below([place], big=place >= 2**32))
    np.testing.assert_array_equal(picture.pixels, RAMP)
    assert picture.notes == ()


def test_a_thousand_directories_below_take_no_memory():
    data = below(list(range(8, 8 + 300_000, 3)))
    tracemalloc.start()
    try:
        np.testing.assert_array_equal(read_picture(data).pixels, RAMP)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(data)
    finally:
        tracemalloc.stop()


def test_a_larger_picture_below_a_small_one_is_said(tmp_path):
    path = tmp_path / "small-first.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(RAMP, photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        file.write(np.tile(RAMP, (3, 3, 1)), photometric="rgb", metadata=None)
    picture = read_picture(path)
    assert picture.notes == ("a larger picture below the first page, 60 x 30, is not read",)
    # A file's only page is streamed whatever it calls itself.
    tifffile.imwrite(path, RAMP, photometric="rgb", subfiletype=1, metadata=None)
    assert open_streamed(path, at_least=1) is not None


def test_the_limit_counts_every_page(tmp_path):
    data = pages((RAMP[:4, :4], 1), (np.zeros((200, 200, 3), np.uint16), 1), compression="deflate")
    with pytest.raises(InputError, match="over the limit of 1,000"):
        read_picture(data, max_pixels=1000)


# Words


@pytest.mark.parametrize("words", ["© 2024 Müller, 東京".encode(), "José".encode("latin-1")])
def test_texts_stay_the_bytes_they_were(words):
    data = tiff(
        (RAMP // 256).astype(np.uint8), extratags=[(33432, 2, len(words) + 1, words + b"\0")]
    )
    picture = read_picture(data)
    for form in ("TIFF", "JPEG", "PNG"):
        made, _ = encode(picture, form)
        assert words in made
        again, _ = encode(read_picture(made), "TIFF")
        assert words in again


@pytest.mark.parametrize("order", ["<", ">"])
def test_iptc_in_32_bit_numbers(order):
    records = b"\x1c\x02\x78\x00\x07caption" + b"\x1c\x02\x05\x00\x02ab"
    padded = records + b"\0" * (-len(records) % 4)
    numbers = struct.unpack(f"{order}{len(padded) // 4}I", padded)
    data = tiff(
        (RAMP // 256).astype(np.uint8),
        byteorder=order,
        extratags=[(33723, 4, len(numbers), numbers)],
    )
    assert read_picture(data).iptc == records


def test_words_behind_the_pixels_are_read_without_the_pixels(monkeypatch):
    data = png((RAMP // 256).astype(np.uint8), 2, after=chunk(b"tEXt", b"Title\0behind"))
    assert read_picture(data).texts == ((b"tEXt", b"Title\0behind"),)
    wide = PngImagePlugin.PngImageFile.load

    def load(self):
        assert self.size == (1, 1)
        return wide(self)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    assert read_metadata(data).texts == ((b"tEXt", b"Title\0behind"),)


def test_parts_of_files_that_nobody_carries_are_named():
    pixels = (RAMP // 256).astype(np.uint8)
    hints = chunk(b"iDOT", b"\0" * 28), chunk(b"tIME", b"\x07\xea\1\1\0\0\0")
    assert read_picture(png(pixels, 2, *hints)).notes == ()
    data = png(pixels, 2, *hints, chunk(b"caBX", b"signed"), after=chunk(b"prVt", b"own"))
    said = ("PNG chunks caBX, prVt are not carried over",)
    assert read_picture(data).notes == read_metadata(data).notes == said
    extra = b"".join(
        b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(body)) + body
        for marker, body in ((0xE2, b"urn:own:gains\0\1"), (0xEB, b"JP\0\1"), (0xEC, b"Ducky\0"))
    )
    data = saved(Image.fromarray(pixels), "JPEG", extra=extra, icc_profile=SRGB, exif=Image.Exif())
    said = ("JPEG segments APP11, APP2 (urn:own:gains) are not carried over",)
    assert read_picture(data).notes == read_metadata(data).notes == said


def test_damaged_texts_of_a_png_are_carried_too():
    pixels = (RAMP // 256).astype(np.uint8)
    texts = ((b"zTXt", b"Comment\0\0no zlib"), (b"tEXt", b"nothing"), (b"iTXt", b"Comment\0"))
    picture = read_picture(png(pixels, 2, *(chunk(*text) for text in texts)))
    made, _ = encode(picture, "PNG")
    assert read_picture(made).texts == picture.texts == texts
    assert {item.state for item in compare(picture, read_metadata(made))} == {"kept"}


def test_a_profile_hides_no_lossless_webp():
    image = Image.fromarray((RAMP // 256).astype(np.uint8))
    options = {"lossless": True, "icc_profile": SRGB}
    assert read_picture(saved(image, "WEBP", **options)).lossless
    assert read_picture(
        saved(image, "WEBP", save_all=True, append_images=[image.rotate(180)], **options)
    ).lossless
    assert not read_picture(saved(image, "WEBP", icc_profile=SRGB)).lossless


@pytest.mark.parametrize("form", ["TIFF", "AVIF", "JPEG"])
def test_damaged_exif_costs_no_picture(form):
    image = Image.fromarray((RAMP // 256).astype(np.uint8))
    picture = read_picture(saved(image, "JPEG", exif=b"Exif\0\0 garbage that is no EXIF"))
    made, notes = encode(picture, form)
    assert read_picture(made).pixels.shape == (10, 20, 3)
    assert any(note.startswith("EXIF ") for note in notes) == (form != "JPEG")


def test_a_comment_in_latin_1_is_read():
    image = Image.fromarray((RAMP // 256).astype(np.uint8))
    picture = read_picture(saved(image, "JPEG", comment="Grüße".encode("latin-1")))
    made, _ = encode(picture, "PNG")
    with Image.open(io.BytesIO(made)) as image:
        assert image.text == {"Comment": "Grüße"}


def test_all_comments_of_a_jpeg_are_kept():
    comments = (b"first", "zweitens Grün".encode(), b"third\0")
    image = Image.fromarray((RAMP // 256).astype(np.uint8))
    extra = b"".join(b"\xff\xfe" + struct.pack(">H", len(c) + 2) + c for c in comments)
    picture = read_picture(saved(image, "JPEG", extra=extra))
    assert picture.comments == comments
    again = read_picture(encode(picture, "JPEG")[0])
    assert again.comments == comments
    assert {item.name: item.state for item in compare(picture, again)}["comment"] == "kept"
    made = encode(picture, "PNG")[0]
    for text in (b"first", b"zweitens Gr\xfcn", b"third"):
        assert chunk(b"tEXt", b"Comment\0" + text) in made
    with Image.open(io.BytesIO(encode(picture, "GIF")[0])) as image:
        assert image.info["comment"] == b"\n".join(comments)


def test_a_resolution_that_jpeg_cannot_count_is_said():
    image = Image.fromarray((RAMP // 256).astype(np.uint8))
    picture = read_picture(saved(image, "TIFF", dpi=(100_000, 100_000)))
    made, notes = encode(picture, "JPEG")
    assert notes == ["the resolution cannot be kept in this JPEG"]
    assert read_picture(made).dpi is None


# Animations


def animation(form, *, disposal=None, loop=None, alpha=False):
    """Three frames; the third shows what the second covered."""
    plain = np.zeros((8, 8, 4 if alpha else 3), np.uint8)
    plain[..., -1] = 255
    patched = plain.copy()
    patched[2:4, 2:4, 0] = 200
    moved = patched.copy()
    moved[4:6, 4:6, 1] = 200
    found = tuple(Frame(p, 40.0, disposal) for p in (plain, patched, moved))
    return Picture(plain, form, "RGB", frames=found, loop=loop)


def test_animations_become_avif():
    made, _ = encode(animation("GIF"), "AVIF")
    assert len(read_picture(made).frames) == 3


@pytest.mark.parametrize("alpha", [False, True])
def test_frames_that_restore_what_was_before(alpha):
    picture = animation("GIF", disposal=3, alpha=alpha)
    made, _ = encode(picture, "GIF")
    with Image.open(io.BytesIO(made)) as found:
        for index, frame in enumerate(picture.frames):
            found.seek(index)
            shown = np.asarray(found.convert("RGB")).astype(int)
            assert np.abs(shown - frame.pixels[..., :3]).max() <= 8


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("stored", ["uint8", "uint16", "colour", "float32"])
def test_tiles_that_are_not_stored_are_empty(tmp_path, compression, stored):
    """As GDAL writes them with SPARSE_OK."""
    shape = (40, 48, 3) if stored == "colour" else (40, 48)
    values = np.random.default_rng(0).integers(1, 200, shape)
    values = values.astype("uint8" if stored == "colour" else stored)
    path, kind = tmp_path / "sparse.tif", "rgb" if stored == "colour" else "minisblack"
    tiled = {"tile": (16, 16), "metadata": None}
    tifffile.imwrite(path, values, photometric=kind, compression=compression, **tiled)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = file.pages[0].tags[name]
            tag.overwrite((*tag.value[:4], 0, *tag.value[5:]))
    values[16:32, 16:32] = 0
    np.testing.assert_array_equal(read_picture(path).pixels.squeeze(), values)


@pytest.mark.parametrize("form", ["GIF", "PNG"])
@pytest.mark.parametrize("disposal", [None, 1, 2, 3])
def test_frames_show_what_they_showed(form, disposal):
    """In another format, whatever that one did between them."""
    base, clear = np.full((8, 8, 4), 255, np.uint8), np.zeros((8, 8, 4), np.uint8)
    base[0, 0] = 0  # Pillow clears a GIF to what is transparent in the frame before
    other = base.copy()
    other[2:4, 2:4, 0] = 0
    moved = clear.copy()
    moved[4:6, 4:6] = 255
    shown = (base, other, base, other, moved, clear, base)
    frames = tuple(Frame(p, 40.0, disposal) for p in shown)
    for source in {"GIF", "PNG", "WEBP"} - {form}:
        made, _ = encode(Picture(base, source, "RGB", frames=frames), form)
        with Image.open(io.BytesIO(made)) as found:
            assert found.n_frames == len(shown)
            for index, frame in enumerate(shown):
                found.seek(index)
                got = np.asarray(found.convert("RGBA")).astype(int)
                seen = frame[..., 3] > 0
                assert ((got[..., 3] > 127) == seen).all()
                assert np.abs(got - frame)[seen].max(initial=0) <= 8


def test_what_plays_once_plays_once():
    made, _ = encode(animation("GIF"), "WEBP")
    with Image.open(io.BytesIO(made)) as found:
        assert found.info["loop"] == 1


# Pages


def test_a_thumbnail_before_a_page_that_pillow_does_not_know():
    """Its pixels are the page's, and what cameras tell there is kept."""
    buffer = io.BytesIO()
    inks = np.random.default_rng(0).integers(0, 255, (30, 40, 5)).astype(np.uint8)
    page = {"photometric": "separated", "extrasamples": ["unassalpha"], "metadata": None}
    told = [(0x010F, 2, 0, "Nikon", True), (700, 1, 4, b"<x/>", True)]
    with tifffile.TiffWriter(buffer) as file:
        small = np.full((8, 8, 3), 9, np.uint8)
        file.write(small, photometric="rgb", subfiletype=1, metadata=None, extratags=told)
        file.write(inks, planarconfig="contig", **page)
    picture = read_picture(buffer.getvalue())
    assert (picture.kind, picture.pixels.shape[:2]) == ("CMYK", (30, 40))
    assert picture.pixels.std() > 10
    assert b"Nikon" in picture.exif
    assert picture.xmp == b"<x/>"


@pytest.mark.parametrize("kind", [1, 2, 7])
def test_xmp_declared_as_anything(kind):
    packet = b"<x:xmpmeta/>"
    value = packet.decode() if kind == 2 else packet
    count = 0 if kind == 2 else len(packet)
    picture = read_picture(tiff(RAMP, extratags=[(700, kind, count, value, True)], metadata=None))
    assert picture.xmp.rstrip(b"\0") == packet


def test_a_later_page_in_a_compression_that_pillow_does_not_know():
    buffer = io.BytesIO()
    small = RAMP.astype(np.uint8)
    with tifffile.TiffWriter(buffer) as file:
        file.write(small, photometric="rgb", metadata=None)
        file.write(small[::-1], photometric="rgb", compression="lerc", metadata=None)
    first, second = (frame.pixels for frame in read_picture(buffer.getvalue()).frames)
    np.testing.assert_array_equal(first, small)
    np.testing.assert_array_equal(second, small[::-1])


def test_pages_with_profiles_of_their_own_are_said_and_floats_are_not_converted():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(RAMP.astype(np.uint8), photometric="rgb", iccprofile=SRGB, metadata=None)
        file.write(RAMP / np.float32(65535), photometric="rgb", metadata=None)
    picture = read_picture(buffer.getvalue())
    assert "pages have colour profiles of their own: all get the first one's" in picture.notes
    converted = to_srgb(picture)
    assert "floats are not converted to sRGB" in converted.notes
    np.testing.assert_array_equal(converted.frames[1].pixels, picture.frames[1].pixels)
