"""One training step, launched piece by piece, or on CUDA recorded once and replayed.

A small network's step is hundreds of kernels of a few microseconds each; launching them from
Python takes longer than they do. A CUDA graph launches them all at once.
"""

import os
import time
from collections import deque
from typing import Protocol

import torch
from torch import Tensor

from upres.errors import ResourceError
from upres.inference.engine import is_out_of_memory
from upres.training.learner import Learner
from upres.training.patches import PatchStore

GRAPHS = "UPRES_CUDA_GRAPHS"  # an environment variable: 0 records nothing


class Steps(Protocol):
    """Makes training steps.

    Attributes:
        seconds_in_data: time spent on cutting patches, as far as it is spent apart.
    """

    seconds_in_data: float

    def make(self, places: Tensor, scale: int) -> Tensor:
        """Cut the patches, learn from them; the loss, before the step."""
        ...

    def forget(self) -> None:
        """The learner's tensors were replaced."""
        ...


def steps_for(learner: Learner, store: PatchStore, *, single_process: bool) -> Steps:
    """The fastest way that this device, this number of processes and UPRES_CUDA_GRAPHS allow."""
    if single_process and store.resident and os.environ.get(GRAPHS) != "0":
        return RecordedSteps(learner, store)
    return PlainSteps(learner, store)


class PlainSteps:
    """Every operation is launched as it comes."""

    def __init__(self, learner: Learner, store: PatchStore) -> None:
        self.learner, self.store = learner, store
        self.seconds_in_data = 0.0

    def make(self, places: Tensor, scale: int) -> Tensor:
        """See ``Steps``."""
        begun = time.monotonic()
        low, high = self.store.cut(places, scale)
        self.seconds_in_data += time.monotonic() - begun
        loss = self.learner.gradients(low, high, scale)
        self.learner.update()
        return loss

    def forget(self) -> None:
        """Nothing is kept."""


class RecordedSteps:
    """A CUDA graph for each scale: cropping, network, loss, gradients, optimiser, average."""

    # Before it is recorded a step runs a few times, so that every library has chosen its
    # algorithms and the optimiser has its state. These are steps like any others.
    _WARMUP_STEPS = 3
    _AHEAD = 3  # steps that the device is behind at most

    def __init__(self, learner: Learner, store: PatchStore) -> None:
        self.plain = PlainSteps(learner, store)
        self.stream = torch.cuda.Stream(store.device)  # type: ignore[no-untyped-call]
        self.seconds_in_data = 0.0  # cutting is part of what is recorded
        self.made: dict[int, int] = {}
        self.recorded: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self.ahead: deque[torch.cuda.Event] = deque()

    def make(self, places: Tensor, scale: int) -> Tensor:
        """See ``Steps``."""
        made = self.made[scale] = self.made.get(scale, 0) + 1
        if made <= self._WARMUP_STEPS:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                loss = self.plain.make(places, scale)
            torch.cuda.current_stream().wait_stream(self.stream)
            return loss
        if scale not in self.recorded:
            inputs = places.clone()
            # The recorded backward pass must make the gradients anew, not add to these.
            for optimiser in self.plain.learner.optimisers:
                optimiser.zero_grad(set_to_none=True)
            graph, loss = self._record(inputs, scale)
            self.recorded[scale] = graph, inputs, loss
        graph, inputs, loss = self.recorded[scale]
        inputs.copy_(places, non_blocking=True)
        graph.replay()
        # CUDA would take hundreds of steps ahead, and neither the clock nor a signal would be
        # where the device is.
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        self.ahead.append(done)
        if len(self.ahead) > self._AHEAD:
            self.ahead.popleft().synchronize()
        return loss

    def _record(self, inputs: Tensor, scale: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """The graph of a step, and where it leaves the loss.

        Raises:
            ResourceError: something in it cannot be recorded here.
        """
        graph = torch.cuda.CUDAGraph()
        # A stream of its own: what libraries keep for a stream, one graph could take from another.
        stream = torch.cuda.Stream(self.plain.store.device)  # type: ignore[no-untyped-call]
        try:
            with torch.cuda.graph(graph, stream=stream):
                return graph, self.plain.make(inputs, scale)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            # What CUDA is left in is not certain, so that this run cannot go on without.
            why = str(error).partition("\n")[0]
            raise ResourceError(
                f"a training step cannot be recorded as a CUDA graph ({why})",
                f"set {GRAPHS}=0 to train without",
            ) from error

    def forget(self) -> None:
        """Record again: a graph knows its tensors by their addresses."""
        self.made.clear()
        self.recorded.clear()
