"""The learning rate as a function of how far a run has come."""

import math

from .config import OptimizerConfig


def progress(step: int, max_steps: int | None, minutes: float, max_time: float | None) -> float:
    """How much of the budget is used, 0 to 1: the larger part of the steps and of the minutes.

    With `max_time` the result, and so the learning rate, depends on the clock; runs with `max_steps` alone repeat
    exactly.
    """
    parts = [0.0]
    if max_steps is not None:
        parts.append(step / max_steps)
    if max_time is not None:
        parts.append(minutes / max_time)
    return min(max(parts), 1.0)


def learning_rate(config: OptimizerConfig, step: int, used: float) -> float:
    """Learning rate of step number `step` (from 0) when the part `used` of the budget is gone.

    A linear rise over the first `warmup_steps` steps, times: cosine, (1 + cos(pi used)) / 2, which ends at 0;
    step, step_factor ** (step // step_size); constant, 1.
    """
    rate = config.lr * min(1.0, (step + 1) / max(config.warmup_steps, 1))
    if config.schedule == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * used))
    if config.schedule == "step":
        return rate * config.step_factor ** (step // config.step_size)
    return rate
