"""HEIC, which phones and cameras make, by pillow-heif: an extra, since its wheels hold libraries
under the LGPL and GPL. It is read and not written."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upres.errors import InputError
from upres.imaging import filefacts
from upres.imaging.containers import reopened
from upres.imaging.metadata import orientation
from upres.imaging.picture import Picture, divided, stretched

# ISO/IEC 23008-12, annex B: pictures and sequences of pictures that HEVC compressed.
_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_ANY_CODEC = {b"mif1", b"msf1"}


@dataclass(frozen=True)
class Heic:
    """A file that is open.

    Attributes:
        image: its main picture, as pillow-heif has it.
        count: how many pictures it holds.
    """

    image: Any
    count: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        width, height = self.image.size
        return int(width), int(height)


def is_heic(source: Path | bytes) -> bool:
    """Whether a file says so in its first box (ISO/IEC 14496-12, 4.3)."""
    with reopened(source) as file:
        head = file.read(8)
        if head[4:] != b"ftyp":
            return False
        brands = file.read(min(int.from_bytes(head[:4], "big"), 256) - 8)
    compatible = {brands[at : at + 4] for at in range(8, len(brands) - 3, 4)}
    main = brands[:4]
    return main in _BRANDS or (main in _ANY_CODEC and not compatible.isdisjoint(_BRANDS))


def open_heic(source: Path | bytes, name: str) -> Heic:
    """Read what a file says about itself; pixels are not decoded yet.

    Args:
        name: of the file, for people.

    Raises:
        InputError: pillow-heif is missing.
        ValueError, RuntimeError, EOFError, SyntaxError: it is damaged.
    """
    if importlib.util.find_spec("pillow_heif") is None:
        raise InputError(
            f"{name} is HEIC, which needs pillow-heif",
            "pip install 'upres[heic]', or export it as JPEG or TIFF",
        )
    import pillow_heif

    data = source if isinstance(source, bytes) else source.read_bytes()
    found = pillow_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    return Heic(found[found.primary_index], len(found))


def decode_heic(file: Heic, *, pixels: bool = True) -> Picture:
    """The main picture, upright: the file itself says how it is turned, and its EXIF is not asked
    (ISO/IEC 23008-12, 6.5.10 and annex A.2.4).

    Args:
        pixels: False leaves them out; only their number of channels and type are right then.

    Raises:
        ValueError, RuntimeError, EOFError: it is damaged.
    """
    image, info = file.image, file.image.info
    bits, mode = int(info["bit_depth"]), image.mode.partition(";")[0]
    gray = mode[0] in "LI"
    channels = (1 if gray else 3) + image.has_alpha
    if pixels:
        made = _pixels(image, channels, bits)
    else:
        made = np.empty((0, 0, channels), np.uint16 if bits > 8 else np.uint8)
    raw, icc = info.get("exif"), info.get("icc_profile") or None
    exif, xmp = filefacts.exif_bytes(raw), info.get("xmp") or None
    stated = info.get("nclx_profile")
    cicp = None
    if stated and not icc:
        points = stated["color_primaries"], stated["transfer_characteristics"]
        cicp = filefacts.unusual_colours(*map(int, points))
    return Picture(
        pixels=made,
        format="HEIC",
        kind="gray" if gray else "RGB",
        bits=bits,
        turned=orientation(exif, xmp),
        icc=icc,
        exif=exif,
        xmp=xmp,
        cicp=cicp,
        notes=tuple(_left_out(file)),
    )


def _pixels(image: Any, channels: int, bits: int) -> NDArray[Any]:
    made: NDArray[Any] = np.asarray(image)
    made = made.reshape(*made.shape[:2], channels)
    if bits > 8:
        made = stretched(made, bits)
    if image.premultiplied_alpha:
        made = divided(made, channels - 1, channels - 1)
    return made


def _left_out(file: Heic) -> list[str]:
    """What stands beside the main picture, in words."""
    info, notes = file.image.info, []
    if file.count > 1:
        notes.append(f"only the main one of {file.count} pictures is read")
    # Types are URNs or URLs, whose last parts say what it is.
    beside = [kind.replace("/", ":").rpartition(":")[2] for kind in info.get("aux", ())]
    if info.get("depth_images"):
        beside.append("depth")
    if beside:
        notes.append(f"what belongs to the main picture ({', '.join(beside)}) is left out")
    if others := {str(block.get("type")) for block in info.get("metadata", ())}:
        notes.append(f"metadata of the types {', '.join(sorted(others))} are not carried over")
    return notes
