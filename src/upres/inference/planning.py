"""Which tiles a picture is cut into on a device: geometry, and memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

from upres.errors import UsageError
from upres.inference.device import Target, free_memory
from upres.inference.sizes import is_whole
from upres.inference.tiling import Grid
from upres.memory import PROCESS
from upres.networks import Network
from upres.networks.chain import ChainNetwork

# The core of a tile where memory does not say otherwise, in input pixels. Streamed tiles keep
# few rows of activations, so they are large and the halo hardly counts.
_STREAMED_CORE = 2048
_CPU_CORE = 512
_CUDA_CORE = 2048
SMALLEST_CORE = 32
# What tiles may take at most, and the shares of the free memory that are never exceeded.
_CPU_BUDGET = 2**31
_CPU_SHARE, _CUDA_SHARE = 0.25, 0.6
# What a band of tiles, from the left side to the right, may take of the host's memory: its input,
# its result, and the copy that is written.
_BAND_BUDGET = {"cpu": 2**29, "mps": 2**29, "cuda": 2**31}
_LOWEST_BAND = 64
_LOWEST_ASKED = 8  # rows, where the user says how much memory there is
# The least that --max-memory may be, and what tiles and a band of them may take of what is left.
LEAST_MEMORY = 2**30
_TILES_SHARE, _BAND_SHARE = 1 / 2, 1 / 3
_CUDA_BATCH = 8
# Numbers alive at the peak. No tensor is more than two thirds of them, and so has fewer than 2^31
# elements, beyond which convolutions on CUDA are slow or missing.
_CUDA_VALUES = 3 * 2**30


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


def check_max_memory(max_memory: int | None) -> None:
    """See that a process can keep to it.

    Raises:
        UsageError: it is less than a process takes.
    """
    if max_memory is not None and not is_whole(max_memory):
        raise UsageError(f"max_memory {max_memory!r}", "give a number of bytes, such as 2 * 10**9")
    if max_memory is not None and max_memory < LEAST_MEMORY:
        raise UsageError(
            f"--max-memory {max_memory / 2**30:.2g} GiB is less than the program itself takes",
            "give at least 1G",
        )


def is_streamed(network: Network, target: Target) -> TypeGuard[ChainNetwork]:
    """Whether rows flow through all layers, which is for chains of layers on the CPU."""
    return target.device.type == "cpu" and isinstance(network, ChainNetwork)


def tile_budget(target: Target, max_memory: int | None) -> tuple[float, str]:
    """Bytes that tiles may take on the target, and why, for people."""
    free = free_memory(target.device)
    why = f"{free / 2**30:.1f} GiB are free"
    if target.device.type == "cuda":
        return _CUDA_SHARE * free, why
    budget = min(_CPU_BUDGET, _CPU_SHARE * free)
    if max_memory is not None and _TILES_SHARE * (max_memory - PROCESS) < budget:
        budget = _TILES_SHARE * (max_memory - PROCESS)
        why = f"of --max-memory {max_memory / 2**30:.2g} GiB"
    return budget, why


def plan_tiles(
    network: Network,
    scale: int,
    target: Target,
    size: tuple[int, int],
    tile: int | None,
    *,
    bytes_per_pixel: float,
    values: int,
    fixed_bytes: Callable[[int, int], float] = lambda _height, _width: 0.0,
    bytes_per_row: float = 0.0,
    bytes_per_result: float = 0.0,
    max_memory: int | None = None,
    bands: int = 1,
) -> TilePlan:
    """Choose tiles from the picture, the model, the device and the number format; free memory can
    only make them smaller.

    Args:
        size: height and width of the stage's input.
        tile: side of the core that the user asks for, 0 for no tiles, None to choose.
        bytes_per_pixel, values, fixed_bytes: of a tile with its halo; see ``Executor``.
        bytes_per_row: of the host's memory, for each row that a band of tiles reads.
        bytes_per_result: the same for the result of a row, which those of the halo have not.
        max_memory: bytes that the process may take, or None.
        bands: how many there are at once, in a chain of networks.

    Raises:
        UsageError: the tiles that the user asks for take more than that, or are too large for CUDA.
    """
    halo = network.halo(scale)
    height, width = size
    cuda = target.device.type == "cuda"
    streamed = is_streamed(network, target)

    def needs(grid: Grid) -> float:
        high, wide = _padded(grid)
        return high * wide * bytes_per_pixel + fixed_bytes(high, wide)

    def most(grid: Grid) -> int:
        """Tiles of which a batch can be made."""
        high, wide = _padded(grid)
        return min(_CUDA_BATCH, _CUDA_VALUES // (values * high * wide)) if cuda else 1

    usual = _STREAMED_CORE if streamed else _CUDA_CORE if cuda else _CPU_CORE
    budget, why = tile_budget(target, max_memory)
    band = float(_BAND_BUDGET[target.device.type])
    if max_memory is not None:
        band = min(band, _BAND_SHARE * (max_memory - PROCESS) / bands)

    def banding(low: int) -> float:
        """Bytes of a band of so many rows."""
        return (low + 2 * halo) * bytes_per_row + low * bytes_per_result

    def banded(core: int) -> Grid:
        """Tiles that are low where their band would take more than its share, and very low only
        where that keeps to it: what their halos take they cannot save."""
        low = core
        while low > _LOWEST_BAND and banding(low) > band:
            low //= 2
        if max_memory is not None and banding(_LOWEST_ASKED) <= band:
            while banding(low) > band:
                low //= 2
        return Grid(height, width, core, halo, low if low < core else 0)

    if tile is not None:
        grid = banded(tile)
        if cuda and not most(grid):
            raise UsageError(
                f"--tile {tile} makes tensors of 2^31 elements or more, which CUDA does not take",
                "omit --tile, or give a smaller one",
            )
        if max_memory is not None and not cuda and needs(grid) > max_memory - PROCESS:
            raise UsageError(
                f"--tile {tile} takes {needs(grid) / 2**30:.1f} GiB, more than --max-memory leaves",
                "omit --tile, or give a smaller one",
            )
        return TilePlan(grid, *_batched(needs(grid), budget, most(grid)), "")
    while usual > SMALLEST_CORE and not most(Grid(height, width, usual, halo)):
        usual //= 2
    core, note = usual, ""
    while core > SMALLEST_CORE:
        if needs(Grid(height, width, core, halo)) <= budget:
            break
        core //= 2
        if cuda or budget < _CPU_BUDGET:
            note = f"tiles of {core} instead of {usual} because {why}"
    grid = banded(core)
    return TilePlan(grid, *_batched(needs(grid), budget, most(grid)), note)


def _batched(one: float, budget: float, most: int) -> tuple[int, int]:
    """How many tiles run at once, and the bytes they take."""
    batch = max(1, min(most, int(budget // one)))
    return batch, int(one) * batch


def _padded(grid: Grid) -> tuple[int, int]:
    """Height and width of the largest tile with its halo."""
    high, wide = (
        min(length, max(b - a for a, b in spans) + 2 * grid.halo)
        for length, spans in ((grid.height, grid.rows), (grid.width, grid.columns))
    )
    return high, wide
