"""Losses on errors divided by the scale of the labels."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import LossConfig


def error_loss(kind: str, error: Tensor) -> Tensor:
    """The mean loss of `error` (any shape; [N, 3] for "norm"): a scalar, 0 of no errors.

    "l1" mean |e|; "mse" mean e^2; "huber" as "mse" / 2 below 1, then linear; "norm" mean length of the rows.
    """
    if error.numel() == 0:
        return error.sum()
    if kind == "l1":
        return error.abs().mean()
    if kind == "mse":
        return error.square().mean()
    if kind == "huber":
        return F.huber_loss(error, torch.zeros_like(error))
    # The gradient of a length is undefined at 0; the small addition makes it 0 there and changes no other digit.
    return (error.square().sum(-1) + 1e-12).sqrt().mean()


def loss_parts(
    config: LossConfig, energy_error: Tensor, forces_error: Tensor | None, stress_error: Tensor | None = None
) -> list[tuple[Tensor, int]]:
    """The weighted losses of energies and, where there are any, of forces and stress, each with its number of errors.

    energy_error: [B, T], or [n] where some targets have no label. forces_error: [N, 3], or None: no forces.
    stress_error: [b, 6], or None; its loss is of the kind of the forces', "norm" over the six.
    """
    parts = [(config.energy_weight * error_loss(config.energy, energy_error), energy_error.numel())]
    if forces_error is not None:
        parts.append((config.forces_weight * error_loss(config.forces, forces_error), forces_error.numel()))
    if stress_error is not None:
        parts.append((config.stress_weight * error_loss(config.forces, stress_error), stress_error.numel()))
    return parts


def total_loss(
    config: LossConfig, energy_error: Tensor, forces_error: Tensor | None, stress_error: Tensor | None = None
) -> Tensor:
    """The sum of `loss_parts`, without their numbers."""
    return sum(loss for loss, _ in loss_parts(config, energy_error, forces_error, stress_error))


class MeanLoss:
    """The loss of many batches together: of each part the mean over all errors, in whatever batch they are."""

    def __init__(self):
        self.sums: list[Tensor | float] = []
        self.counts: list[int] = []

    def add(self, parts: list[tuple[Tensor, int]]) -> None:
        """Take the `loss_parts` of a batch."""
        self.sums, self.counts = self.sums or [0.0] * len(parts), self.counts or [0] * len(parts)
        for number, (loss, count) in enumerate(parts):
            self.sums[number] = self.sums[number] + loss.detach() * count
            self.counts[number] += count

    def take(self, total: Callable = lambda values: values) -> float:
        """The loss of what was added, which is then forgotten. A part without errors is 0.

        total: makes of lists of sums and counts those of all processes together.
        """
        sums, counts = total([self.sums, self.counts])
        found = sum(float(part) / max(count, 1) for part, count in zip(sums, counts, strict=True))
        self.sums, self.counts = [], []
        return found
