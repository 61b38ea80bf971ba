"""What is applied to every picture of a run: networks in a row, made ready once."""

import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

import torch

from upres.imaging.resize import Kernel
from upres.inference.device import Target
from upres.inference.engine import executor_for, is_out_of_memory, own_modes
from upres.inference.executor import Executor, run_whole
from upres.inference.tiling import Cut
from upres.networks import Network

LEAST_PROBE = 32  # side of the smallest tile that time is estimated from

# A network draws sharper edges of transparency, and may ring along them; a bicubic cannot.
Alpha = Literal["bicubic", "network"]


@dataclass(frozen=True)
class Steps:
    """What is applied to every picture of a run.

    Attributes:
        networks: each with its scale, in order; none means the kernel does it all.
        kernel: of the last resize, where one is needed.
        name: of the models, for people.
        alpha: what enlarges transparency.
        wrap: whether the picture goes on at its other side, as textures do.
        max_memory: bytes that the process may take, or None.
    """

    networks: Sequence[tuple[Network, int]]
    kernel: Kernel
    target: Target
    _: KW_ONLY
    tile: int | None = None
    ensemble: bool = False
    name: str = ""
    alpha: Alpha = "bicubic"
    wrap: bool = False
    max_memory: int | None = None
    _executors: dict[int, Executor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _paces: dict[tuple[int, int], float] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def executor(self, index: int) -> Executor:
        """The executor of one of the networks, made ready once for all pictures."""
        if index not in self._executors:
            network, scale = self.networks[index]
            self._executors[index] = executor_for(network, scale, self.target, self.max_memory)
        return self._executors[index]

    def pace(self, index: int, side: int) -> float:
        """Seconds that one of the networks takes for a pixel of a tile so large, measured once for
        all pictures.

        Raises:
            RuntimeError, MemoryError: not even the smallest tile fits into memory.
        """
        if (index, side) not in self._paces:
            try:
                self._paces[index, side] = self._measured(self.executor(index), side)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or side <= LEAST_PROBE:
                    raise
                self._paces[index, side] = self.pace(index, side // 2)
        return self._paces[index, side]

    def _measured(self, executor: Executor, side: int) -> float:
        x = torch.rand(1, 3, side, side, device=self.target.device)
        with own_modes(self.target.device):
            run_whole(executor, x, Cut()).sum().item()  # makes kernels ready
            begun = time.perf_counter()
            run_whole(executor, x, Cut()).sum().item()
        return (time.perf_counter() - begun) / side**2
