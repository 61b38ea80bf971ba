"""What was measured, as tables for people and as JSON, CSV and Markdown for others."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from upres.benchmark.published import PUBLISHED, published
from upres.benchmark.quality import Row, Settings
from upres.benchmark.statistics import Gain, gains
from upres.version import __version__

# Which published system a model of ours is measured beside.
COUNTERPART = {
    "bicubic": "bicubic",
    "edsr-base": "EDSR-baseline",
    "edsr-baseline": "EDSR-baseline",
    "edsr-paper": "EDSR",
    "srcnn": "SRCNN",
    "srresnet": "SRResNet",
    "vdsr": "VDSR",
}


@dataclass(frozen=True)
class Report:
    """Everything that a run found.

    Attributes:
        rows: one for each model, set and scale.
        failures: what could not be measured, and why.
        machine: where it ran.
        given: sets and scales, and for how many of how many pictures the low-resolution one came
            with it.
    """

    settings: Settings
    rows: tuple[Row, ...]
    failures: tuple[str, ...]
    machine: str
    given: tuple[tuple[str, int, int, int], ...] = ()

    @property
    def protocol(self) -> str:
        """How it was measured, in words."""
        made = "LR by MATLAB's imresize"
        some = [one for one in self.given if one[2]]
        if some and all(came == pictures for _, _, came, pictures in self.given):
            made = "LR as it came with the pictures"
        elif some:
            named = (
                f"{name} x{scale}" + (f" ({came} of {pictures})" if came < pictures else "")
                for name, scale, came, pictures in some
            )
            made += f", but as it came with the pictures of {', '.join(named)}"
        return f"{self.settings}, {made}"

    @property
    def columns(self) -> list[tuple[str, int]]:
        """Sets and scales, in the order they were measured."""
        return list(dict.fromkeys((row.set, row.scale) for row in self.rows))

    @property
    def models(self) -> list[str]:
        """In the order they were measured."""
        return list(dict.fromkeys(row.model for row in self.rows))

    @property
    def gains(self) -> list[Gain]:
        """Differences between models, and how sure they are."""
        return gains(self.rows)

    def row(self, model: str, column: tuple[str, int]) -> Row | None:
        """What was found for a model on a set at a scale."""
        return next((r for r in self.rows if (r.model, r.set, r.scale) == (model, *column)), None)


def matrix(report: Report) -> tuple[list[str], list[list[str]]]:
    """Models by sets and scales: PSNR / SSIM, the best marked *, then published figures."""
    head = ["PSNR / SSIM", *(f"{name} x{scale}" for name, scale in report.columns)]
    best = {
        column: max(r.psnr for r in report.rows if (r.set, r.scale) == column)
        for column in report.columns
    }
    rows = []
    for model in report.models:
        cells = []
        for column in report.columns:
            row = report.row(model, column)
            if row is None:
                cells.append("")
                continue
            mark = "*" if row.psnr == best[column] and len(report.models) > 1 else ""
            cells.append(f"{row.psnr:.2f} / {row.ssim:.4f}{mark}")
        rows.append([model, *cells])
    if report.settings.published:
        for system in PUBLISHED:
            figures = [published(system, *column) for column in report.columns]
            if any(figure is not None for figure in figures):
                cells = ["" if figure is None else f"{figure:.2f}" for figure in figures]
                rows.append([f"{system} (published)", *cells])
    return head, rows


def details(report: Report) -> tuple[list[str], list[list[str]]]:
    """One line for each model, set and scale, with everything but the pictures."""
    head = ["set", "model", "PSNR", "SSIM", "gain over bicubic (95 %)", "published"]
    head += ["consistency", "parameters", "s/MP"]
    by_row = {(g.model, g.set, g.scale): g for g in report.gains if g.over == "bicubic"}
    rows = []
    for row in report.rows:
        found = by_row.get((row.model, row.set, row.scale))
        beside = None
        if report.settings.published:
            beside = published(COUNTERPART.get(row.model, ""), row.set, row.scale)
        rows.append(
            [
                f"{row.set} x{row.scale}",
                row.model,
                f"{row.psnr:.3f}",
                f"{row.ssim:.4f}",
                "" if found is None else _gain(found),
                "" if beside is None else f"{beside:.2f}",
                f"{row.consistency:.1f} dB",
                f"{row.parameters:,}" if row.parameters else "",
                f"{row.seconds_per_megapixel:.2f}",
            ]
        )
    return head, rows


def _gain(found: Gain) -> str:
    sure = f" ({found.low:+.2f} to {found.high:+.2f})" if found.pictures > 1 else ""
    return f"{found.mean:+.2f}{sure}"


def pictures(report: Report) -> tuple[list[str], list[list[str]]]:
    """One line for each picture, set and scale: PSNR / SSIM of every model."""
    head = ["picture", *report.models]
    rows = []
    for column in report.columns:
        found = [report.row(model, column) for model in report.models]
        some = next(row for row in found if row is not None)
        for i, image in enumerate(some.images):
            cells = [
                "" if row is None else f"{row.images[i].psnr:.2f} / {row.images[i].ssim:.4f}"
                for row in found
            ]
            rows.append([f"{column[0]} x{column[1]} {image.name}", *cells])
    return head, rows


def as_json(report: Report, indent: int | None = 1) -> str:
    """``{"protocol": ..., "rows": [{"model", "set", "scale", "psnr", "ssim", "images"}]}``.

    Args:
        indent: spaces a level; None makes one line.
    """
    rows: list[dict[str, Any]] = [
        {
            "model": row.model,
            "set": row.set,
            "scale": row.scale,
            "psnr": row.psnr,
            "ssim": row.ssim,
            "consistency": row.consistency,
            "parameters": row.parameters,
            "seconds_per_megapixel": row.seconds_per_megapixel,
            "images": [asdict(image) for image in row.images],
        }
        for row in report.rows
    ]
    whole = {
        "protocol": report.protocol,
        "version": __version__,
        "machine": report.machine,
        "rows": rows,
        "gains": [_without_nan(asdict(gain)) for gain in report.gains],
        "failures": list(report.failures),
    }
    return json.dumps(whole, indent=indent) + "\n"


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN."""
    return {key: None if value != value else value for key, value in values.items()}


def as_csv(report: Report) -> str:
    """One line for each picture and model, with the protocol."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    told = ("psnr", "ssim", "consistency", "seconds", "protocol")
    writer.writerow(["model", "set", "scale", "picture", *told])
    for row in report.rows:
        for image in row.images:
            values = (image.psnr, image.ssim, image.consistency, image.seconds)
            writer.writerow([row.model, row.set, row.scale, image.name, *values, report.protocol])
    return file.getvalue()


def as_markdown(report: Report) -> str:
    """The tables, with the protocol and the machine."""
    parts = [
        "# Quality",
        f"{report.protocol}. upres {__version__}, {report.machine}.",
        *(_markdown_table(*table(report)) for table in (matrix, details)),
    ]
    if report.failures:
        parts.append("Not measured: " + "; ".join(report.failures))
    return "\n\n".join(parts) + "\n"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in cells] for cells in lines)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in escaped)
