"""The learning rate as a function of how far a run has come."""

import math

from ..config import Config, OptimizerConfig

WARMUP_SHARE = 0.1  # of max_time
FEW_STEPS = 300


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


def warmup(config: OptimizerConfig, step: int, clock: float) -> float:
    """How far the warm-up is at step number `step` (from 0), up to 1: the larger part of its steps and of its time.

    It takes `warmup_steps` steps, and where minutes are the budget at most the share WARMUP_SHARE of them: on a slow
    machine a warm-up of steps alone could last until the rate falls again. clock: the part of `max_time` that is gone,
    0 without; runs with `max_steps` alone do not depend on it.
    """
    return min(1.0, max((step + 1) / max(config.warmup_steps, 1), clock / WARMUP_SHARE))


def learning_rate(config: OptimizerConfig, step: int, used: float, clock: float = 0.0) -> float:
    """Learning rate of step number `step` (from 0) when `used` of the budget, and `clock` of its time, is gone.

    A linear rise during the warm-up, times: cosine, (1 + cos(pi used)) / 2, which ends at 0; step,
    step_factor ** (step // step_size); constant, 1.
    """
    rate = config.lr * warmup(config, step, clock)
    if config.schedule == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * used))
    if config.schedule == "step":
        return rate * config.step_factor ** (step // config.step_size)
    return rate


def shortcoming(config: Config, steps: int, minutes: float) -> str | None:
    """One line for a run that ended after too few steps to have learned much; None for others."""
    max_time = config.training.max_time
    clock = 0.0 if max_time is None else minutes / max_time
    if warmup(config.optimizer, steps - 1, clock) < 1:
        why = f"within its warm-up of {config.optimizer.warmup_steps} steps"
        remedy = "give it more steps, or lower optimizer.warmup_steps"
    elif steps < FEW_STEPS:
        why = "too few to learn much"
        remedy = "give it more steps"
        if clock >= 1:
            remedy = f"raise training.max_time ({max_time:g} min), or stop what else runs on this machine"
    else:
        return None
    return f"training ended after {steps} {'step' if steps == 1 else 'steps'}, {why}: {remedy}"
