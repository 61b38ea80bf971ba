"""One process, or several that torchrun started and that share each batch."""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import nn

from upres.errors import UsageError
from upres.networks import Network


@dataclass(frozen=True)
class Processes:
    """Attributes:
    rank: which one this is; the first alone writes and reports.
    count: how many there are.
    local_rank: which accelerator of its machine is its own.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def wrap(self, network: Network, device: torch.device) -> Any:
        """What averages gradients over all processes, or the network itself."""
        if self.count == 1:
            return network
        devices = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            network, device_ids=devices, find_unused_parameters=network.splits_layers
        )

    def any(self, value: bool) -> bool:
        """Whether one of the processes says so."""
        return self.mean(float(value)) > 0

    def as_first_or_any(self, values: tuple[float, ...], flag: bool) -> tuple[float, ...]:
        """The first process's values, and behind them whether one of all raises the flag."""
        if self.count == 1:
            return (*values, float(flag))
        mine = values if self.first else (0.0,) * len(values)
        tensor = torch.tensor((*mine, float(flag)), dtype=torch.float64)
        torch.distributed.all_reduce(tensor)
        return tuple(tensor.tolist())

    def mean(self, value: float) -> float:
        """The mean of all processes' values."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        torch.distributed.all_reduce(tensor)
        return float(tensor) / self.count

    def wait(self) -> None:
        """Until all are here."""
        self.mean(0.0)

    def close(self) -> None:
        """Leave the group."""
        if self.count > 1:
            torch.distributed.destroy_process_group()


def process_count() -> int:
    """How many torchrun started, or 1."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device_type: str) -> Processes:
    """The group that torchrun set up (RANK, WORLD_SIZE, LOCAL_RANK), or one process alone.

    Raises:
        UsageError: this machine has fewer GPUs than processes.
    """
    count = process_count()
    if count == 1:
        return Processes()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device_type == "cuda":
        there = torch.cuda.device_count()
        if local_rank >= there:
            raise UsageError(
                f"{local_rank + 1} processes or more, and {there} GPUs on this machine",
                f"give torchrun --nproc-per-node {there}, or --device cpu",
            )
        torch.cuda.set_device(local_rank)
    # Numbers that steer the loop go through gloo, so that they never wait for an accelerator.
    backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
    # The others wait while the first one decodes pictures or measures, which may take hours.
    torch.distributed.init_process_group(backend, timeout=timedelta(days=2))
    return Processes(torch.distributed.get_rank(), count, local_rank)
