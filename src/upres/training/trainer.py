"""The training loop, on one page."""

import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch

from upres.errors import ResourceError
from upres.training.clock import Clock, ticking
from upres.training.learner import Learner
from upres.training.resume import resumed, save, try_to_save, try_to_write
from upres.training.run import Outcome, Position, Run
from upres.training.schedule import rate_factor
from upres.training.steps import steps_for

# So many are tried, each with a lower rate; the next loss that is not finite ends the run.
ROLLBACKS = 3
_SLOWER = 0.5
# A rate that many single failures made so small teaches nothing more.
_SLOWEST = _SLOWER**12
# Training lasts at least so many times as long as the measurement before it.
_VALIDATION_SHARE = 9


def train(run: Run) -> Outcome:
    """Train to the end, or until ``stop``; the folder then holds the last state.

    Raises:
        ResourceError: the loss was not finite too often.
        WeightsError: the checkpoint to resume is missing, damaged, or of another recipe.
    """
    with ticking() as clock:
        return _train(run, clock)


def _train(run: Run, clock: Clock) -> Outcome:
    recipe, processes = run.recipe, run.processes
    # What one that sees whole pictures teaches lies in the store.
    teaching = run.teacher if recipe.teacher.sees == "patches" else None
    teacher = teaching.model.network if teaching else None
    learner = Learner(run.model.network, recipe, run.device, teacher)
    kept = replace(run.model, network=learner.kept)
    position = Position()
    if run.resume:
        run, position = resumed(run, learner)
    learner.forward = processes.wrap(learner.network, run.device)
    steps = steps_for(learner, run.store, single_process=processes.count == 1)
    global_batch = recipe.data.batch * processes.count
    share = slice(recipe.data.batch * processes.rank, recipe.data.batch * (processes.rank + 1))
    good = (position, deepcopy(learner.state()))
    started = clock.now() - position.seconds
    validated = saved = clock.now()
    wait, rate = run.validate_every, 0.0
    meter = _Meter(run.device, clock)

    while True:
        now = clock.now()
        if (pause := clock.pause()) > 0 and processes.first:
            run.watch.event("pause", {"step": position.step, "seconds": round(pause, 1)})
        position = replace(position, seconds=now - started)
        late = now - meter.begun > run.report_seconds or now - validated > wait
        mine = (run.progress_at(position), float(late))
        progress, due, stopped = processes.as_first_or_any(mine, run.stop())
        ends = progress >= 1.0 or stopped > 0
        if meter.count > 0 and (due or ends or position.step % run.report_every == 0):
            loss = processes.mean(float(meter.loss) / meter.count)
            if not (math.isfinite(loss) and learner.finite()):
                position = _roll_back(run, learner, good, position)
                steps.forget()
                started = clock.now() - position.seconds
                meter = _Meter(run.device, clock)
                continue
            position = replace(position, rollbacks=0)
            good = (position, deepcopy(learner.state()))
            if processes.first:
                run.watch.steps(_report(run, position, meter, loss, rate))
            meter = _Meter(run.device, clock)
        if ends:
            break
        validates = processes.first and now - validated > wait  # then it was due
        # It may last, and a signal waits for its end.
        if validates or (processes.first and clock.now() - saved > run.save_every):
            try_to_save(run, *good)
            saved = clock.now()
        if validates:
            begun = clock.now()
            quality = run.watch.validate(position.step, kept, learner.dtype)
            try_to_write(run, kept, position, quality)
            validated = clock.now()
            wait = max(run.validate_every, _VALIDATION_SHARE * (validated - begun))
            meter = _Meter(run.device, clock)

        begun, data_before = clock.now(), steps.seconds_in_data
        batch = run.sampler.batch(position.step, global_batch, share)
        places = run.store.places(batch)
        meter.seconds_in_data += clock.now() - begun
        rate = recipe.optimiser.rate * position.slowed
        rate *= rate_factor(recipe.schedule, progress, position.step)
        learner.prepare(rate, position.step)
        meter.loss += steps.make(places, batch.scale)
        meter.seconds_in_data += steps.seconds_in_data - data_before
        position = replace(position, step=position.step + 1)
        meter.count += 1

    unsaved = try_to_save(run, position, learner.state()) if processes.first else None
    processes.wait()
    finished = bool(progress >= 1.0)
    return Outcome(run, kept, position, finished, unsaved)


class _Meter:
    """Loss and speed since it was made."""

    def __init__(self, device: torch.device, clock: Clock) -> None:
        self.loss = torch.zeros((), device=device)
        self.count, self.seconds_in_data = 0, 0.0
        self.clock, self.begun = clock, clock.now()

    @property
    def seconds(self) -> float:
        return self.clock.now() - self.begun

    def speed(self, patches: int) -> dict[str, float]:
        seconds = self.seconds
        return {
            "steps_per_second": self.count / seconds,
            "patches_per_second": self.count * patches / seconds,
            # A pause within the cutting of patches is in one of both.
            "data_share": min(1.0, self.seconds_in_data / seconds),
        }


def _report(
    run: Run, position: Position, meter: "_Meter", loss: float, rate: float
) -> dict[str, Any]:
    return {
        "step": position.step,
        "loss": loss,
        "rate": rate,
        "progress": run.progress_at(position),
        "seconds": position.seconds,
        **meter.speed(run.recipe.data.batch * run.processes.count),
        "seconds_left": _left(run, position, meter),
    }


def _left(run: Run, position: Position, meter: "_Meter") -> float:
    """Seconds to the end, at the present speed."""
    if run.minutes is not None:
        return 60 * run.minutes - position.seconds
    return (run.recipe.steps - position.step) * meter.seconds / meter.count


def _roll_back(
    run: Run, learner: Learner, good: tuple[Position, dict[str, Any]], now: Position
) -> Position:
    """Return to the last good state with a lower rate, or give up."""
    then, state = good
    learner.load_state(state)
    position = replace(
        then, slowed=then.slowed * _SLOWER ** (now.rollbacks + 1), rollbacks=now.rollbacks + 1
    )
    if position.rollbacks > ROLLBACKS or position.slowed < _SLOWEST:
        if run.processes.first:
            save(run, replace(then, slowed=position.slowed), state)
        raise ResourceError(
            f"the loss was not finite again and again, with ever lower rates, the last time around "
            f"step {now.step}; the state of step {then.step} is saved",
            f"--resume goes on from there with {position.slowed:.2g} of the rate; or begin again "
            "with a lower --rate or --set precision=fp32",
        )
    if run.processes.first:
        run.watch.event(
            "rollback",
            {"step": now.step, "back_to": then.step, "rate_factor": position.slowed},
        )
    return position
