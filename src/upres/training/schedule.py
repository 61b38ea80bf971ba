"""The learning rate over a run."""

import math

from upres.training.recipe import ScheduleRecipe


def rate_factor(schedule: ScheduleRecipe, progress: float, step: int) -> float:
    """What the recipe's rate is multiplied with.

    Args:
        progress: how much of the run is over, 0..1, by steps or by time.
        step: from 0; the warm-up counts steps.
    """
    if schedule.kind == "cosine":
        factor = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    elif schedule.kind == "multistep":
        factor = schedule.factor ** sum(progress >= m for m in schedule.milestones)
    else:
        factor = 1.0
    return factor * min(1.0, (step + 1) / max(1, schedule.warmup))
