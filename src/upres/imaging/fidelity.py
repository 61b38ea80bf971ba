"""What became of everything in a file: kept, changed or lost, item by item."""

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageCms
from PIL.ExifTags import IFD
from PIL.ExifTags import Base as Tag

from upres.imaging.metadata import (
    COUNTING_PIXELS,
    EXIF_IFD,
    GPS_IFD,
    comment_text,
    updated_xmp,
)
from upres.imaging.picture import Picture
from upres.imaging.png import COMMENT_KEY, keyword_of, text_of
from upres.imaging.tiff_exif import interoperability

State = Literal["kept", "changed", "lost", "added"]
# Rounding to whole dots an inch, or to dots a metre.
_DPI_TOLERANCE = 0.51
# Orientation and dimensions become other ones, and with them what counts pixels; the pointers to
# directories, and to a thumbnail that is not turned, move.
_EXIF_VOLATILE = {
    *(Tag.Orientation, Tag.ExifImageWidth, Tag.ExifImageHeight, Tag.ExifInteroperabilityOffset),
    *(Tag.JpegIFOffset, Tag.JpegIFByteCount, EXIF_IFD, GPS_IFD),
    *COUNTING_PIXELS,
}


@dataclass(frozen=True)
class Item:
    """One thing that a file holds.

    Attributes:
        before, after: for people; empty where there is nothing.
    """

    name: str
    state: State
    before: str
    after: str


def compare(source: Picture, written: Picture) -> list[Item]:
    """All that either file holds.

    Args:
        source: as it was read; its pixels are not looked at.
        written: as it is read again from what was written.
    """
    pairs: list[tuple[str, Any, Any, str, str]] = [
        ("format", source.format, written.format, source.format, written.format),
        ("pixels", *_both(_pixels, source, written)),
        (
            "bits",
            *_both(lambda p: f"{p.bits}{' (float)' if p.bits == 32 else ''}", source, written),
        ),
        ("profile", source.icc, written.icc, _profile(source.icc), _profile(written.icc)),
        ("EXIF", _exif(source.exif), _exif(written.exif), *_sizes(source.exif, written.exif)),
        ("XMP", *_both(_xmp, source, written)[:2], *_sizes(source.xmp, written.xmp)),
        (
            "extended XMP",
            source.xmp_more,
            written.xmp_more,
            *_sizes(b"".join(source.xmp_more), b"".join(written.xmp_more)),
        ),
        ("IPTC", source.iptc, written.iptc, *_sizes(source.iptc, written.iptc)),
        ("resolution", *_resolutions(source, written)),
        ("size of a pixel", *_calibrations(source, written)),
        ("place", *_places(source, written)),
        ("no-data value", *_both(_missing, source, written)),
        ("gamma", *_both(_gamma, source, written)),
        ("cICP", *_both(lambda p: " ".join(map(str, p.cicp or ())), source, written)),
        ("texts", _wordings(source), _wordings(written), _texts(source), _texts(written)),
        ("comment", *_both(_comment, source, written)[:2], *_both(_said, source, written)[:2]),
        ("frames", *_both(lambda p: str(len(p.frames)) if p.frames else "", source, written)),
        ("duration", *_both(_seconds, source, written)),
        ("timing", *_both(_timing, source, written)),
        ("loop", *_both(lambda p: _loop(p) if p.animated else "", source, written)),
    ]
    items = [
        Item(name, _state(a, b), before, after)
        for name, a, b, before, after in pairs
        if before or after
    ]
    if source.turned > 1:
        items.append(Item("orientation", "changed", str(source.turned), "1, pixels turned"))
    return items


def _state(before: Any, after: Any) -> State:
    if before == after:
        return "kept"
    return "lost" if not after else "changed" if before else "added"


def _both(describe: Any, source: Picture, written: Picture) -> tuple[str, str, str, str]:
    before, after = describe(source), describe(written)
    return before, after, before, after


def _pixels(picture: Picture) -> str:
    bands = f", {picture.bands} more" if picture.bands else ""
    return picture.kind + (" with transparency" if picture.alpha else "") + bands


def _profile(icc: bytes | None) -> str:
    if not icc:
        return ""
    try:
        profile = ImageCms.getOpenProfile(io.BytesIO(icc))
        return ImageCms.getProfileDescription(profile).strip() or f"{len(icc)} bytes"
    except (ImageCms.PyCMSError, OSError):
        return f"{len(icc)} bytes"


def _exif(block: bytes | None) -> Any:
    """Tags and values, wherever they lie."""
    if not block:
        return None
    tags = Image.Exif()
    try:
        tags.load(block)
        found = {code: value for code, value in tags.items() if code not in _EXIF_VOLATILE}
        for pointer in (EXIF_IFD, GPS_IFD):
            part = tags.get_ifd(pointer)
            found[pointer] = {c: v for c, v in part.items() if c not in _EXIF_VOLATILE}
        found[IFD.Interop] = interoperability(tags)
    except Exception:  # noqa: BLE001 - whatever damaged EXIF makes Pillow raise
        return block
    return {code: value for code, value in found.items() if value != {}} or None


def _xmp(picture: Picture) -> Any:
    """Without what is another number in every other size."""
    return updated_xmp(picture.xmp, 0, 0)


def _sizes(before: bytes | None, after: bytes | None) -> tuple[str, str]:
    return tuple(f"{len(x)} bytes" if x else "" for x in (before, after))  # type: ignore[return-value]


def _resolutions(source: Picture, written: Picture) -> tuple[Any, Any, str, str]:
    a, b = source.dpi, written.dpi
    shown = [f"{x[0]:.4g} x {x[1]:.4g} dpi" if x else "" for x in (a, b)]
    if a and b and all(abs(x - y) < _DPI_TOLERANCE for x, y in zip(a, b, strict=True)):
        b = a
    return a, b, shown[0], shown[1]


def _calibrations(source: Picture, written: Picture) -> tuple[Any, Any, str, str]:
    """The same size of all is kept."""
    a, b = source.calibration, written.calibration
    shown = [f"1/{c.per_unit[0]:.6g} x 1/{c.per_unit[1]:.6g}" if c else "" for c in (a, b)]
    same = (
        a
        and b
        and a.unit == b.unit
        and np.allclose(a.enlarged(b.width, b.height), b.per_unit, rtol=1e-6)
    )
    return a, a if same else b, shown[0], shown[1]


def _places(source: Picture, written: Picture) -> tuple[Any, Any, str, str]:
    """The same place in another number of pixels is kept."""
    a, b = source.place, written.place
    shown = ["GeoTIFF" if place and place.is_somewhere else "" for place in (a, b)]
    same = a and b and a.enlarged(b.width, b.height) == b.tags
    return a, a if same else b, shown[0], shown[1]


def _missing(picture: Picture) -> str:
    return "" if picture.no_data is None else f"{picture.no_data:.9g}"


def _gamma(picture: Picture) -> str:
    if picture.icc:
        return ""  # a profile stands above them
    words = []
    if picture.gamma:
        words.append(f"1/{1 / picture.gamma:.2f}")
    if picture.intent is not None:
        words.append("sRGB")
    if picture.chromaticities:
        words.append("chromaticities")
    return ", ".join(words)


def _wordings(picture: Picture) -> list[tuple[bytes, bytes]]:
    """Texts of a PNG, among which it keeps a comment, without that."""
    return [chunk for chunk in picture.texts if keyword_of(chunk) != COMMENT_KEY]


def _texts(picture: Picture) -> str:
    return ", ".join(keyword_of(chunk) for chunk in _wordings(picture))


def _comments(picture: Picture) -> list[str]:
    texts = [text_of(chunk) for chunk in picture.texts if keyword_of(chunk) == COMMENT_KEY]
    return [*map(comment_text, picture.comments), *texts]


def _comment(picture: Picture) -> str:
    """Lines of all: a GIF is written with one that holds them."""
    return "\n".join(_comments(picture))


def _said(picture: Picture) -> str:
    return "; ".join(_comments(picture))[:40]


def _seconds(picture: Picture) -> str:
    if not picture.animated:
        return ""
    return f"{sum(frame.duration or 0 for frame in picture.frames) / 1000:.2f} s"


def _timing(picture: Picture) -> str:
    if not picture.animated:
        return ""
    # A GIF's clock ticks in hundredths of a second.
    times = [f"{round(frame.duration or 0)}" for frame in picture.frames]
    return ", ".join(times[:6]) + (", ..." if len(times) > 6 else "") + " ms"


def _loop(picture: Picture) -> str:
    if picture.loop in (None, 1):
        return "once"
    return f"{picture.loop} times" if picture.loop else "for ever"
