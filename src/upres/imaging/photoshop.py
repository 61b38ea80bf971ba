"""Photoshop's image resources, in which JPEG, TIFF and some PNG have their IPTC (Adobe Photoshop's
file format: a signature, a number, a name, a size, all of even length)."""

import struct
from collections.abc import Iterable, Iterator
from typing import Any

_SIGNATURE = b"8BIM"
IPTC = 0x0404


def iptc_resource(iptc: bytes) -> bytes:
    """The resource without a name that holds these records."""
    head = _SIGNATURE + struct.pack(">HHI", IPTC, 0, len(iptc))
    return head + iptc + b"\0" * (len(iptc) % 2)


# Numbers of clipping paths.
_PATHS = range(2000, 2999)


# What else people say there: zeros where they do not.
_SAID = {1034: "copyright flag", 1035: "URL"}


def left_out(resources: Iterable[tuple[int, Any]]) -> str | None:
    """A note on resources that people make, and no writer here takes."""
    found = dict(resources)
    paths = sum(number in _PATHS for number in found)
    parts = [f"{paths} of Photoshop's paths"] if paths else []
    for number, what in _SAID.items():
        data = found.get(number)
        if isinstance(data, bytes) and data.strip(b"\0"):
            parts.append(f"Photoshop's {what}")
    return f"{' and '.join(parts)} left out" if parts else None


def resources_in(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Numbers and contents, as far as they can be told apart."""
    at = 0
    while raw[at : at + 4] == _SIGNATURE and len(raw) >= at + 12:
        number, name = struct.unpack_from(">HB", raw, at + 4)
        at += 6 + (name + 2) // 2 * 2
        size = int.from_bytes(raw[at : at + 4], "big")
        yield number, raw[at + 4 : at + 4 + size]
        at += 4 + size + size % 2


def without_resources(raw: bytes | None) -> bytes | None:
    """The IPTC among resources, or None if it is not among them; what are no resources is given
    back."""
    if raw is None or not raw.startswith(_SIGNATURE):
        return raw
    return next((data for number, data in resources_in(raw) if number == IPTC), None)


def iptc_bytes(raw: Any) -> bytes | None:
    """The records as bytes."""
    if isinstance(raw, tuple) and raw and isinstance(raw[0], bytes):
        raw = raw[0]
    return raw if isinstance(raw, bytes) and raw else None
