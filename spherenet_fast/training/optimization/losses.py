"""Losses on errors divided by the scale of the labels."""

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


def total_loss(config: LossConfig, energy_error: Tensor, forces_error: Tensor | None) -> Tensor:
    """energy_weight * loss of energy_error [B, T] + forces_weight * loss of forces_error [N, 3] (None: no forces).

    energy_error is [n] where some targets have no label.
    """
    loss = config.energy_weight * error_loss(config.energy, energy_error)
    if forces_error is None:
        return loss
    return loss + config.forces_weight * error_loss(config.forces, forces_error)
