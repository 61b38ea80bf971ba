"""Which tiles a picture is cut into on a device: geometry, and memory."""

from dataclasses import dataclass

from upres.errors import UsageError
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
# What a band of tiles, from the left side to the right, may take of the host's memory: its input,
# its result, and the copy that is written.
_BAND_BUDGET = 2**29
_LOWEST_BAND = 64
# What a process takes before any picture: the interpreter, torch, a network, its buffers.
_PROCESS = 800 * 2**20
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
    bytes_per_row: float = 0.0,
    max_memory: int | None = None,
) -> TilePlan:
    """Choose tiles from the picture, the model, the device and the number format; free memory can
    only make them smaller.

    Args:
        size: height and width of the stage's input.
        tile: side of the core that the user asks for, 0 for no tiles, None to choose.
        bytes_per_row: of the host's memory, for each row of a band of tiles.
        max_memory: bytes that the process may take, or None.

    Raises:
        UsageError: that is less than a process takes.
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
    band, why = float(_BAND_BUDGET), f"{free / 2**30:.1f} GiB are free"
    if max_memory is not None:
        left = max_memory - _PROCESS
        if left < _PROCESS / 8:
            raise UsageError(
                f"--max-memory {max_memory / 2**30:.2g} GiB is less than the program itself takes",
                "give at least 1G",
            )
        if not cuda and left / 3 < budget:
            budget, why = left / 3, f"of --max-memory {max_memory / 2**30:.2g} GiB"
        band = min(band, left / 3)
    core, note = usual, ""
    while core > SMALLEST_CORE:
        if _padded_pixels(Grid(height, width, core, halo)) * bytes_per_pixel <= budget:
            break
        core //= 2
        if cuda or budget < _CPU_BUDGET:
            note = f"tiles of {core} instead of {usual} because {why}"
    low = core
    while low > _LOWEST_BAND and (low + 2 * halo) * bytes_per_row > band:
        low //= 2
    grid = Grid(height, width, core, halo, low if low < core else 0)
    pixels = _padded_pixels(grid)
    batch = min(_CUDA_BATCH, max(1, int(budget // (pixels * bytes_per_pixel)))) if cuda else 1
    return TilePlan(grid, batch, int(pixels * bytes_per_pixel) * batch, note)


def _padded_pixels(grid: Grid) -> int:
    side = [
        min(length, max(b - a for a, b in spans) + 2 * grid.halo)
        for length, spans in ((grid.height, grid.rows), (grid.width, grid.columns))
    ]
    return side[0] * side[1]
