"""``upres bench --speed``."""

from typing import TYPE_CHECKING

from upres.benchmark import speed
from upres.benchmark.session import machine, models_at
from upres.benchmark.workers import Setting, picture
from upres.cli.output import Output
from upres.errors import UsageError
from upres.weights.manifest import KERNELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from upres.api import Upscaler
    from upres.benchmark.session import Order

HEAD = ["model", "input", "run by", "on", "time", "spread", "MP/s", "times upres", "a tile", "peak"]


def measure(order: "Order", output: Output, sizes: str, rounds: int, threads: int | None) -> None:
    """Time every model at every scale and size, and say what was found.

    Raises:
        UsageError: ``sizes`` are no numbers.
    """
    megapixels = _numbers(sizes)
    output.note(f"{machine(order)}; each contender in its own process, warmed up, {rounds} rounds")
    rows, notes = [], []
    with output.progress() as progress:
        for scale in order.scales:
            for label, upscaler in models_at(order, scale, output.note, progress.transfer):
                setting = Setting(
                    upscaler.model, scale, order.device, order.precision, upscaler.ensemble, threads
                )
                timings = list(
                    speed.time_model(
                        label,
                        setting,
                        megapixels,
                        rounds,
                        # A kernel is no network, and the others know no ensemble.
                        alternatives=upscaler.model not in KERNELS and not upscaler.ensemble,
                        note=output.note,
                    )
                )
                ours = {t.megapixels: t for t in timings if t.contender == "upres"}
                for t in timings:
                    rows.append(_row(t, ours[t.megapixels]))
                    output.event(
                        event="timing", **vars(t), median=t.median, megapixels_per_second=t.rate
                    )
                notes.append(_about(label, scale, upscaler, list(ours.values()), output))
    if not output.json:
        output.table(HEAD, rows)
        output.text("".join(f"{note}\n" for note in notes if note))


def _row(t: speed.Timing, ours: speed.Timing) -> list[str]:
    return [
        f"{t.model} x{t.scale}",
        f"{t.megapixels:g} MP",
        t.contender,
        f"{t.device} {t.precision}",
        f"{t.median:.3f} s",
        f"{min(t.seconds):.3f} to {max(t.seconds):.3f}",
        f"{t.rate:.3f}",
        f"{t.median / ours.median:.2f}",
        f"{t.median / t.tiles:.3f} s" if t.tiles else "",
        f"{t.peak_memory / 2**30:.2f} GiB",
    ]


def _about(
    label: str, scale: int, upscaler: "Upscaler", ours: "Sequence[speed.Timing]", output: Output
) -> str:
    """How time grows with size, and how near the machine's ceilings it is."""
    pipeline = upscaler.pipeline(picture(0.001))
    steps = pipeline.steps
    device, dtype = steps.target.device, steps.target.dtype
    exponent = speed.exponent(ours)
    facts: dict[str, float | None] = {"exponent": exponent}
    said = [] if exponent is None else [f"time grows with size to the power {exponent:.2f}"]
    if steps.networks:
        network, _ = steps.networks[0]
        passes = 8 if upscaler.ensemble else 1
        a_second = ours[-1].rate * 1e6 * passes
        work, ceiling = (
            pipeline.models[0].executor.operations() * a_second,
            speed.matrix_ceiling(device, dtype),
        )
        facts |= {"operations_per_second": work, "matrix_ceiling": ceiling}
        said.append(
            f"{work / 1e9:.0f} GFLOP/s, {100 * work / ceiling:.0f} % of a large matrix product's"
        )
        if device.type == "cuda":
            moved = speed.traffic(network, scale, dtype) * a_second
            bandwidth = speed.copy_bandwidth(device)
            facts |= {"bytes_per_second": moved, "copy_bandwidth": bandwidth}
            said.append(
                f"{moved / 1e9:.0f} GB/s between layers, "
                f"{100 * moved / bandwidth:.0f} % of a copy's"
            )
    output.event(event="summary", model=label, scale=scale, **facts)
    return f"{label} x{scale}: {'; '.join(said)}" if said else ""


def _numbers(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found or not all(0.001 <= number <= 1000 for number in found):
        raise UsageError(f"--sizes takes megapixels, not {text!r}", "for example --sizes 0.25,1,4")
    return found
