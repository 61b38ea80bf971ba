"""Animations: GIF, APNG, WebP and AVIF, by Pillow, in 8 bits."""

import io
from collections.abc import Sequence
from typing import Any

from upres.imaging import avif, gif
from upres.imaging.fit import Fit
from upres.imaging.formats import check_size
from upres.imaging.holding import check_frames, held_exif, lost
from upres.imaging.metadata import updated_exif, updated_xmp
from upres.imaging.parameters import Encoding, pillow_image, save_options
from upres.imaging.picture import Picture, alike
from upres.imaging.png import with_chunks

_LONGEST = 655_350  # milliseconds that a frame of a GIF lasts


def encode_animation(
    picture: Picture, file_format: str, encoding: Encoding
) -> tuple[bytes, list[str]]:
    """The bytes of a file with all frames, and notes on what the format cannot hold.

    Raises:
        OutputError: frames of different sizes, or of a size that the format does not hold.
        Whatever Pillow's encoders stumble over.
    """
    height, width = picture.frames[0].pixels.shape[:2]
    check_size(file_format, width, height)
    check_frames(picture, file_format)
    frames = alike(picture.frames)
    channels = frames[0].pixels.shape[2]
    by_type = {
        dtype: Fit(file_format, dtype, channels, encoding.background, still=False)
        for dtype in dict.fromkeys(frame.pixels.dtype for frame in frames)
    }
    gray_as_colour = any(fit.gray_as_colour for fit in by_type.values())
    notes = lost(picture, file_format, encoding.quality, gray_as_colour=gray_as_colour)
    timing = _timing(picture, file_format)
    durations = [frame.duration or 0 for frame in picture.frames]
    if file_format == "GIF" and timing["duration"] != durations:
        notes.append("frames last whole hundredths of a second, as a GIF holds them")
    if file_format == "AVIF" and picture.loop != 0:
        notes.append("an animation in AVIF is played for ever")
    images = [
        pillow_image(by_type[frame.pixels.dtype](frame.pixels), file_format) for frame in frames
    ]
    exif = updated_exif(held_exif(picture, file_format), width, height)
    xmp = updated_xmp(picture.xmp, width, height, turned=picture.turned)
    file = io.BytesIO()
    images[0].save(
        file,
        file_format,
        save_all=True,
        append_images=images[1:],
        **timing,
        **save_options(picture, file_format, exif, xmp, encoding.quality),
    )
    if file_format == "AVIF":
        avif.mend(file, picture, exif)
    elif file_format == "GIF" and xmp:
        gif.add_xmp(file, xmp)
    data = file.getvalue()
    if file_format == "PNG":
        data = with_chunks(data, picture, exif, xmp)
    said = (note for fit in by_type.values() for note in fit.notes)
    return data, list(dict.fromkeys([*notes, *said]))


def _timing(picture: Picture, file_format: str) -> dict[str, Any]:
    timing: dict[str, Any] = {
        "duration": [frame.duration or 0 for frame in picture.frames],
    }
    if file_format == "GIF":
        timing["duration"] = in_hundredths(timing["duration"])
    if file_format == "AVIF":  # Pillow's encoder takes whole milliseconds only
        timing["duration"] = [round(duration) for duration in timing["duration"]]
    if picture.loop is not None and file_format == "GIF":
        if picture.loop != 1:  # that often without a word
            timing["loop"] = min(max(0, picture.loop - 1), 0xFFFF)
    elif picture.loop is not None:
        timing["loop"] = min(picture.loop, 0xFFFF)
    elif file_format in ("PNG", "WEBP"):
        timing["loop"] = 1  # 0 would be for ever
    disposals = [frame.disposal for frame in picture.frames]
    if file_format == "GIF":
        # What is transparent must be cleared before the next frame where nothing else is said.
        usual = 2 if picture.alpha else 0
        # Frames are whole pictures, so none needs what was there before it (3), and Pillow, which
        # writes differences, would take them from another picture than viewers do.
        back = 2 if picture.alpha else 1
        if picture.alpha and picture.format != "GIF":
            disposals = [None] * len(disposals)  # what stays in a GIF, no frame makes transparent
        timing["disposal"] = [{None: usual, 3: back}.get(d, d) for d in disposals]
    elif file_format == "PNG":
        # Frames are whole pictures, each in place of the one before. With any other disposal,
        # Pillow leaves out frames that equal what it takes for the canvas.
        timing |= {"disposal": 0, "blend": 0}
    return timing


def in_hundredths(durations: Sequence[float]) -> list[float]:
    """Milliseconds as a GIF holds them: tens, up to 65,535 of them.

    What is rounded off one frame goes to the next, so that the animation lasts as long, but for
    those under 20 ms: shorter ones are played for 100 ms by most programs. What is in tens already
    stays.
    """
    if all(duration % 10 == 0 and duration <= _LONGEST for duration in durations):
        return list(durations)
    made: list[float] = []
    due = 0.0
    for duration in durations:
        due += duration
        made.append(max(20, min(_LONGEST, 10 * round(due / 10))))
        due -= made[-1]
    return made
