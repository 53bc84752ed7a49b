"""Exponential moving average of the weights."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """average <- decay average + (1 - decay) weights, after every optimizer step.

    The decay starts near 0 and rises as (1 + n) / (10 + n) to its final value, so that the first, random weights are
    forgotten early. The number of updates n is the optimizer's step, so nothing needs to be counted (or read back from
    a GPU) here.

    Args:
        parameters: (name, parameter) pairs to follow, as from ``model.named_parameters()``.
        decay: final decay, 0 to 1.
        start: {name: tensor} to continue from; None: the present weights.
    """

    def __init__(
        self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float, start: dict[str, Tensor] | None = None
    ):
        self.decay = decay
        self.parameters = dict(parameters)
        start = start or {}
        self.values = {name: start.get(name, p).detach().clone().to(p.device) for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after optimizer step number `step` (from 1) into the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(list(self.values.values()), list(self.parameters.values()), None)

    def swap(self) -> None:
        """Exchange weights and average; a second call restores them."""
        for name, parameter in self.parameters.items():
            parameter.data, self.values[name] = self.values[name], parameter.data
