"""One self-contained HTML page: tables, plots, and pictures to look at before and after."""

import base64
import io
import json
import math
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from upres.benchmark.quality import Example
from upres.benchmark.report import Report, details, matrix
from upres.data.detail import CELL, detail_map

_BUDGET = 20_000_000  # bytes of pictures, before base64 adds a third
_LARGEST, _SMALLEST = 4096, 64
TRUTH = "truth"


@dataclass
class Shown:
    """One picture in the page: the same piece of it by every model.

    Attributes:
        box: left, top, right, bottom in output pixels.
        size: width and height of the whole picture.
        layers: lossless WebP files by model: what is compared is what models made.
    """

    name: str
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    layers: dict[str, bytes] = field(default_factory=dict)


class Gallery:
    """Collects pictures while they are measured, and keeps them small.

    Args:
        layers: how many there will be: pictures times models, and the truths. The more there are,
            the smaller a piece of each is kept, so that the page stays under 30 MB.
    """

    def __init__(self, layers: int) -> None:
        self.share = _BUDGET // max(1, layers)
        self.shown: dict[tuple[str, int, str], Shown] = {}

    def seen(
        self, model: str, dataset: str, scale: int, one: Example, made: NDArray[np.uint8]
    ) -> None:
        """A model made this of an example; see ``quality.Seen``."""
        self.add(model, dataset, scale, one.name, made, one.high)

    def add(
        self,
        model: str,
        dataset: str,
        scale: int,
        name: str,
        made: NDArray[np.uint8],
        truth: NDArray[np.uint8] | None,
        icc: bytes | None = None,
    ) -> None:
        """Keep a piece of H x W x 3 pixels, the same piece for every model.

        Args:
            icc: the RGB profile of the colours; without one they are sRGB.
        """
        key = (dataset, scale, name)
        if key not in self.shown:
            left, top, right, bottom = self._box(made if truth is None else truth)
            height, width = made.shape[:2]
            self.shown[key] = Shown(
                f"{dataset} x{scale} {name}" if dataset else name,
                (left, top, right, bottom),
                (width, height),
            )
        shown = self.shown[key]
        left, top, right, bottom = shown.box
        shown.layers[model] = _webp(made[top:bottom, left:right], icc)
        if truth is not None and TRUTH not in shown.layers:
            shown.layers[TRUTH] = _webp(truth[top:bottom, left:right])

    def _box(self, pixels: NDArray[np.uint8]) -> tuple[int, int, int, int]:
        """The piece with the most detail, as large as its share allows."""
        height, width = pixels.shape[:2]
        detail = detail_map(pixels)
        row, column = np.unravel_index(int(detail.argmax()), detail.shape)
        # Smooth pictures take a byte a pixel or less, detailed ones two and more.
        side = min(_LARGEST, max(_SMALLEST, int(math.sqrt(self.share))))
        while True:
            h, w = min(side, height), min(side, width)
            top = min(max(0, int(row) * CELL + CELL // 2 - h // 2), height - h)
            left = min(max(0, int(column) * CELL + CELL // 2 - w // 2), width - w)
            size = len(_webp(pixels[top : top + h, left : left + w]))
            if size <= self.share or max(h, w) <= _SMALLEST:
                return left, top, left + w, top + h
            side = max(_SMALLEST, int(0.95 * max(h, w) * min(1.0, math.sqrt(self.share / size))))


def page(report: Report | None, gallery: Gallery, *, title: str, protocol: str) -> str:
    """The page; without a report, pictures alone."""
    figures: dict[tuple[str, int, str], dict[str, list[float]]] = {}
    for row in report.rows if report else ():
        for image in row.images:
            found = figures.setdefault((row.set, row.scale, image.name), {})
            found[row.model] = [image.psnr, image.ssim]
    pictures = []
    for key, shown in gallery.shown.items():
        left, top, right, bottom = shown.box
        width, height = right - left, bottom - top
        note = f"Shown: {width} x {height} of {shown.size[0]} x {shown.size[1]}."
        layers = [name for name in shown.layers if name != TRUTH]
        layers += [TRUTH] if TRUTH in shown.layers else []
        pictures.append(
            {
                "name": shown.name,
                "width": width,
                "height": height,
                "note": "" if (width, height) == shown.size else note,
                "layers": [[name, _uri(shown.layers[name])] for name in layers],
                "figures": figures.get(key, {}),
            }
        )
    data = {
        "title": title,
        "protocol": protocol,
        "tables": _tables(report) if report else [],
        "pictures": pictures,
        "plots": _plots(report) if report else [],
    }
    # "</" would end the script element that carries the data, and "<!--" hide its end.
    text = json.dumps(data).replace("<", "\\u003c")
    template = (files("upres.benchmark") / "page.html").read_text(encoding="utf-8")
    return template.replace("/*DATA*/", text)


def _tables(report: Report) -> list[dict[str, Any]]:
    made = []
    for title, make in (("Quality", matrix), ("In detail", details)):
        head, rows = make(report)
        made.append({"title": title, "head": head, "rows": rows})
    if report.failures:
        rows = [[failure] for failure in report.failures]
        made.append({"title": "Not measured", "head": ["what, and why"], "rows": rows})
    return made


def _plots(report: Report) -> list[dict[str, Any]]:
    made = []
    for column in report.columns:
        rows = [row for model in report.models if (row := report.row(model, column))]
        where = f"{column[0]} x{column[1]}"
        best = max(rows, key=lambda row: row.psnr)
        base = report.row("bicubic", column)
        gains = []
        if base is not None and best is not base:
            gains = [
                {"name": a.name, "gain": a.psnr - b.psnr}
                for a, b in zip(best.images, base.images, strict=True)
            ]
        made.append(
            {
                "title": f"{where}: PSNR in dB",
                "points": [
                    {"model": r.model, "seconds": r.seconds_per_megapixel, "psnr": r.psnr}
                    for r in rows
                ],
                "gains_title": f"{where}: {best.model} over bicubic, dB",
                "gains": gains,
            }
        )
    return made


def _webp(pixels: NDArray[np.uint8], icc: bytes | None = None) -> bytes:
    data = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.save(data, "WEBP", lossless=True, method=2, icc_profile=icc)
    return data.getvalue()


def _uri(data: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(data).decode("ascii")
