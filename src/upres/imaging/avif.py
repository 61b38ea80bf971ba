"""AVIF: what Pillow does not write, 10 and 12 bits (libvips does) and code points."""

import io
import re
import struct
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base as Tag

from upres.imaging.limits import limit_lifted
from upres.imaging.metadata import EXIF_HEAD
from upres.imaging.picture import Picture
from upres.imaging.vips import vips


def encode_deep(
    pixels: NDArray[np.uint16], about: Picture, quality: int, exif: bytes | None, xmp: bytes | None
) -> bytes:
    """The bytes of a file of 10 bits a channel, if the picture had 10, else of 12.

    Args:
        pixels: H x W x C; gray is stored as colour.
        about: its profile is written.
        quality: 1 to 100.
        exif, xmp: as they shall stand in the file; EXIF of less than 64 kB.

    Raises:
        pyvips.Error: the encoder refuses.
    """
    pyvips = vips()

    if pixels.shape[2] <= 2:
        pixels = np.concatenate([pixels[..., :1]] * 3 + [pixels[..., 1:]], axis=2)
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="rgb16")
    space = room(exif) if exif else None
    for name, block in (("icc-profile", about.icc), ("exif", space), ("xmp", xmp)):
        if block:
            image.set_type(pyvips.GValue.blob_type, f"{name}-data", block)
    data: bytes = image.heifsave_buffer(
        compression="av1",
        Q=quality,
        bitdepth=10 if about.bits == 10 else 12,
        subsample_mode="off",
    )
    return _put_in(data, exif) if exif else data


def put_code_points(file: BinaryIO, cicp: tuple[int, ...]) -> None:
    """Say what the colours mean in a file that Pillow wrote, which says sRGB.

    Args:
        file: readable, writable and seekable; its matrix stays, since the pixels were coded by it.
        cicp: as ``Picture`` has it.
    """
    file.seek(0)
    for stated in re.finditer(b"colrnclx", file.read().partition(b"mdat")[0]):
        file.seek(stated.end())
        file.write(struct.pack(">HH", *cicp[:2]))
    file.seek(0, io.SEEK_END)


def put_exif(file: BinaryIO, exif: bytes) -> None:
    """Put a block in the place of the ``room`` for it in a file that Pillow wrote.

    Args:
        file: readable, writable and seekable.
    """
    file.seek(0)
    data = _put_in(file.read(), exif)
    file.seek(0)
    file.write(data)


# libvips and Pillow write EXIF anew: one with a resolution that nobody measured, the other with
# tags of other types and without a thumbnail, both without what they do not know. So they get a
# block that is as long at least, and ours takes its place.


def room(exif: bytes) -> bytes:
    """A block that is as long as this one at least, and stays as it is."""
    tags = Image.Exif()
    tags.get_ifd(Tag.ExifOffset)[Tag.MakerNote] = b"\0" * len(exif)
    return tags.tobytes()


def _put_in(data: bytes, exif: bytes) -> bytes:
    with limit_lifted(), Image.open(io.BytesIO(data)) as image:
        written = image.info["exif"].removeprefix(EXIF_HEAD)
    block = exif.removeprefix(EXIF_HEAD)
    if data.count(written) != 1 or len(block) > len(written):
        raise ValueError("the encoder wrote EXIF in another way than is known")
    # Zeros after the end of a block mean nothing.
    return data.replace(written, block.ljust(len(written), b"\0"))


def mend(file: BinaryIO, about: Picture, exif: bytes | None) -> None:
    """Put into a file what Pillow's writer does not write as it is told."""
    if about.cicp:
        put_code_points(file, about.cicp)
    if exif:
        put_exif(file, exif)
