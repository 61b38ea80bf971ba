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
from upres.imaging.metadata import orientation
from upres.imaging.picture import Picture, divided, stretched
from upres.imaging.profiles import NOT_FITTING, fits
from upres.imaging.sources import reopened

# ISO/IEC 23008-12, annex B: pictures and sequences of pictures that HEVC compressed.
_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_ANY_CODEC = {b"mif1", b"msf1"}
_GAIN_MAP = b"tmap"
# pillow-heif calls any text of a MIME type XMP.
_XMP_SIGNS = (b"<x:xmpmeta", b"<rdf:RDF", b"<?xpacket")
_LIGHT = (
    "content_light_level",
    "mastering_display_colour_volume",
    "ambient_viewing_environment",
    "nominal_diffuse_white_luminance",
)


@dataclass(frozen=True)
class Heic:
    """A file that is open.

    Attributes:
        image: its main picture, as pillow-heif has it.
        count: how many pictures it holds.
        turned: whether it says that the picture is to be turned.
        gain_map: whether it holds a map of how much brighter HDR is (ISO 21496-1).
    """

    image: Any
    count: int
    turned: bool
    gain_map: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        width, height = self.image.size
        return int(width), int(height)

    @property
    def pixel_bytes(self) -> int:
        """Of a decoded pixel, as libheif holds it and as an array."""
        depth = 2 if int(self.image.info["bit_depth"]) > 8 else 1
        colours = 1 if self.image.mode[0] in "LI" else 3
        return 2 * (colours + bool(self.image.has_alpha)) * depth


def available() -> bool:
    """Whether the extra "heic" is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def is_heic(source: Path | bytes) -> bool:
    """Whether a file says so in its first box (ISO/IEC 14496-12, 4.3)."""
    with reopened(source) as file:
        main, *compatible = _brands(file.read(256)) or [b""]
    return main in _BRANDS or (main in _ANY_CODEC and not _BRANDS.isdisjoint(compatible))


def _brands(head: bytes) -> list[bytes]:
    """The main one, and those that it is compatible with."""
    if head[4:8] != b"ftyp":
        return []
    box = head[8 : max(8, int.from_bytes(head[:4], "big"))]
    return [box[:4], *(box[at : at + 4] for at in range(8, len(box) - 3, 4))]


def open_heic(source: Path | bytes, name: str) -> Heic:
    """Read what a file says about itself; pixels are not decoded yet.

    Args:
        name: of the file, for people.

    Raises:
        InputError: pillow-heif is missing.
        ValueError, RuntimeError, EOFError, SyntaxError: it is damaged.
    """
    if not available():
        raise InputError(
            f"{name} is HEIC, which needs pillow-heif",
            "install pillow-heif in upres's environment, or export it as JPEG or TIFF",
        )
    import pillow_heif

    data = source if isinstance(source, bytes) else source.read_bytes()
    found = pillow_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    stated = data.partition(b"mdat")[0]
    return Heic(
        image=found[found.primary_index],
        count=len(found),
        turned=b"irot" in stated or b"imir" in stated,
        gain_map=_GAIN_MAP in _brands(data[:256]),
    )


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
    exif, xmp, notes = filefacts.exif_bytes(info.get("exif")), info.get("xmp"), _left_out(file)
    if not _is_xmp(xmp):
        xmp = None
    stated, icc = info.get("nclx_profile"), info.get("icc_profile") or None
    cicp = None
    if stated and not icc:
        points = stated["color_primaries"], stated["transfer_characteristics"]
        cicp = filefacts.unusual_colours(*map(int, points))
    if icc and not fits(icc, channels):
        notes.append(NOT_FITTING)
        icc = None
    return Picture(
        pixels=made,
        format="HEIC",
        kind="gray" if gray else "RGB",
        bits=bits,
        turned=orientation(exif, xmp) if file.turned else 1,
        icc=icc,
        exif=exif,
        xmp=xmp,
        cicp=cicp,
        notes=tuple(notes),
    )


def _pixels(image: Any, channels: int, bits: int) -> NDArray[Any]:
    made: NDArray[Any] = np.asarray(image)
    made = made.reshape(*made.shape[:2], channels)
    if bits > 8:
        made = stretched(made, bits)
    if image.premultiplied_alpha:
        made = divided(made, channels - 1, channels - 1)
    return made


def _is_xmp(text: bytes | None) -> bool:
    return any(sign in (text or b"") for sign in _XMP_SIGNS)


def _left_out(file: Heic) -> list[str]:
    """What stands beside the main picture, in words."""
    info, notes = file.image.info, []
    if file.count > 1:
        notes.append(f"only the main one of {file.count} pictures is read")
    # Types are URNs or URLs, whose last parts say what it is.
    beside = [kind.replace("/", ":").rpartition(":")[2] for kind in info.get("aux", ())]
    if info.get("depth_images"):
        beside.append("depth")
    if file.gain_map:
        beside.append("a gain map for HDR")
    if any(name in info for name in _LIGHT):
        beside.append("how bright it is and was seen")
    if info.get("pixel_aspect_ratio", (1, 1)) not in ((1, 1), [1, 1]):
        beside.append("the shape of its pixels")
    if beside:
        notes.append(f"what belongs to the main picture ({', '.join(beside)}) is left out")
    others = {str(block.get("type")) for block in info.get("metadata", ())}
    if info.get("xmp") and not _is_xmp(info["xmp"]):
        others.add("mime")
    if others:
        notes.append(f"metadata of the types {', '.join(sorted(others))} are not carried over")
    return notes
