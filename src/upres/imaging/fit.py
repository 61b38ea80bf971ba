"""Pixels in what a file format holds: its depth, with transparency or on a background."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upres.imaging.formats import FORMATS
from upres.imaging.picture import in_8_bits

# Formats that store gray as colour.
NO_GRAY = ("WEBP", "AVIF")


class Fit:
    """Rows in what a format holds: its depth, with transparency or on a background.

    Attributes:
        dtype, channels: of what it returns.
        gray_as_colour: whether the format will store three channels for one.
        notes: what is changed.
    """

    def __init__(
        self,
        file_format: str,
        dtype: np.dtype[Any],
        channels: int,
        background: tuple[int, int, int],
        *,
        still: bool,
    ) -> None:
        holds = FORMATS[file_format]
        self.notes: list[str] = []
        self.background = background
        depth: type[Any] = np.uint8
        if dtype == np.float32 and file_format == "TIFF":
            depth = np.float32
        elif dtype != np.uint8 and (holds.deep_colour or (holds.deep and channels == 1)):
            # Animations are Pillow's work, in 8 bits.
            depth = np.uint16 if still else np.uint8
        if dtype == np.float32 and depth != np.float32:
            bits = 8 * np.dtype(depth).itemsize
            self.notes.append(f"floats become {bits} bits, and what is outside 0 to 1 is clipped")
        elif dtype == np.uint16 and depth == np.uint8:
            self.notes.append(f"16 bits become 8, which is what {file_format} holds")
        self.dtype, self.channels = np.dtype(depth), channels
        self.flatten = channels in (2, 4) and not holds.alpha
        if self.flatten:
            red, green, blue = background
            named = {(255, 255, 255): "white", (0, 0, 0): "black"}.get(
                background, f"#{red:02x}{green:02x}{blue:02x}"
            )
            self.notes.append(
                f"{file_format} holds no transparency: the picture is laid on {named}"
            )
            self.gray = channels == 2 and red == green == blue
            self.channels = 1 if self.gray else 3
        self.gray_as_colour = (file_format in NO_GRAY and channels <= 2) or (
            file_format == "JPEG2000" and channels == 2 and depth == np.uint8
        )
        if file_format == "GIF" and channels > 1:
            self.notes.append("GIF holds 256 colours and no partial transparency")

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows x W x C."""
        if rows.dtype == np.float32 and self.dtype != np.float32:
            rows = np.rint(np.nan_to_num(rows, posinf=1).clip(0, 1) * np.iinfo(self.dtype).max)
        elif rows.dtype == np.uint16 and self.dtype == np.uint8:
            rows = in_8_bits(rows)
        rows = rows.astype(self.dtype, copy=False)
        if not self.flatten:
            return rows
        return flattened(rows, self.background[:1] if self.gray else self.background)


def flattened(rows: NDArray[Any], background: tuple[int, ...]) -> NDArray[Any]:
    """Colours on a background instead of with alpha, which is the last channel.

    Args:
        rows: h x W x 2 or 4, uint8 or uint16.
        background: one number for all colours or one for each, 0 to 255.
    """
    top = np.iinfo(rows.dtype).max
    alpha = rows[..., -1:].astype(np.float32) / top
    behind = np.array(background, np.float32) * (top / 255)
    mixed = rows[..., :-1] * alpha + behind * (1 - alpha)
    return np.rint(mixed).astype(rows.dtype)
