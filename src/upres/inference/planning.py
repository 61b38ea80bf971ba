"""Which tiles a picture is cut into on a device: geometry, and memory."""

from dataclasses import dataclass

from upres.inference.device import Target, free_memory
from upres.inference.tiling import Grid
from upres.networks import Network
from upres.networks.chain import ChainNetwork

# The core of a tile where memory does not say otherwise, in input pixels. Streamed tiles keep
# nothing but input and output, so they are large and the halo hardly counts.
_STREAMED_CORE = 2048
_CPU_CORE = 512
_CUDA_CORE = 512
SMALLEST_CORE = 32
# What tiles may take at most, and the share of the free memory that is never exceeded.
_CPU_BUDGET = 2**30
_CPU_SHARE = 0.25
_CUDA_SHARE = 0.6
_CUDA_BATCH = 8


@dataclass(frozen=True)
class TilePlan:
    """How a picture will be cut.

    Attributes:
        grid: the tiles.
        batch: tiles that run at once.
        memory: bytes that one batch is estimated to take.
        note: why the tiles are smaller than usual, or "".
    """

    grid: Grid
    batch: int
    memory: int
    note: str


def plan_tiles(
    network: Network,
    scale: int,
    target: Target,
    size: tuple[int, int],
    tile: int | None,
    *,
    bytes_per_pixel: float,
) -> TilePlan:
    """Choose tiles from the picture, the model, the device and the number format; free memory can
    only make them smaller.

    Args:
        size: height and width of the stage's input.
        tile: side of the core that the user asks for, 0 for no tiles, None to choose.
    """
    halo = network.halo(scale)
    height, width = size
    if tile is not None:
        grid = Grid(height, width, tile, halo)
        return TilePlan(grid, 1, int(_padded_pixels(grid) * bytes_per_pixel), "")
    cuda = target.device.type == "cuda"
    streamed = target.device.type == "cpu" and isinstance(network, ChainNetwork)
    usual = _STREAMED_CORE if streamed else _CUDA_CORE if cuda else _CPU_CORE
    free = free_memory(target.device)
    budget = _CUDA_SHARE * free if cuda else min(_CPU_BUDGET, _CPU_SHARE * free)
    core, note = usual, ""
    while core > SMALLEST_CORE:
        if _padded_pixels(Grid(height, width, core, halo)) * bytes_per_pixel <= budget:
            break
        core //= 2
        if cuda or budget < _CPU_BUDGET:
            note = f"tiles of {core} instead of {usual} because {free / 2**30:.1f} GiB are free"
    grid = Grid(height, width, core, halo)
    pixels = _padded_pixels(grid)
    batch = min(_CUDA_BATCH, max(1, int(budget // (pixels * bytes_per_pixel)))) if cuda else 1
    return TilePlan(grid, batch, int(pixels * bytes_per_pixel) * batch, note)


def _padded_pixels(grid: Grid) -> int:
    side = [
        min(length, max(b - a for a, b in spans) + 2 * grid.halo)
        for length, spans in ((grid.height, grid.rows), (grid.width, grid.columns))
    ]
    return side[0] * side[1]
