"""Make docs/before-after.jpg: a part of scikit-image's chelsea (a photograph by Stéfan van der
Walt, CC0), enlarged four times by bicubic and by the default model."""

from pathlib import Path

from PIL import Image
from skimage import data

import upres

# Of the result: left, top, right, bottom.
PART = (400, 240, 840, 540)
GAP = 8

photo = Image.fromarray(data.chelsea())  # type: ignore[no-untyped-call]
parts = [upres.load(model, scale=4).upscale(photo).crop(PART) for model in ("bicubic", "auto")]
both = Image.new("RGB", (2 * parts[0].width + GAP, parts[0].height), "white")
both.paste(parts[0], (0, 0))
both.paste(parts[1], (parts[0].width + GAP, 0))
both.save(Path(__file__).with_name("before-after.jpg"), quality=90, optimize=True)
