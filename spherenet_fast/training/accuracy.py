"""Errors of a potential, in the units of the labels."""

import math

import torch
from torch import Tensor

from ..data.loader import evaluation_loader
from ..data.molecules import Batch, Molecules
from ..data.targets import FREE_ATOMS
from ..data.units import conversion
from .potential import Potential
from .references import composition


class ErrorSum:
    """Adds up errors batch by batch, without waiting for a GPU until `means` is asked for.

    Args:
        names: T names of targets; one more column is called "forces" where errors of forces are added.
    """

    def __init__(self, names):
        self.names = list(names)
        self.clear()

    def clear(self) -> None:
        """Forget everything added."""
        self.absolute = self.square = None
        self.counts = (0, 0)

    def state(self) -> dict:
        """The sums, for a checkpoint."""
        return {"absolute": self.absolute, "square": self.square, "counts": list(self.counts)}

    def load(self, state: dict) -> None:
        """Go on from what `state` returned."""
        self.absolute, self.square, self.counts = state["absolute"], state["square"], tuple(state["counts"])

    def add(self, error: Tensor, forces_error: Tensor | None = None) -> None:
        """Take errors of targets [B, T] and, where there are forces, of forces [N, 3]."""
        parts = [error.detach().double()]
        if forces_error is not None:
            parts.append(forces_error.detach().double().reshape(-1, 1))
        absolute = torch.cat([part.abs().sum(0) for part in parts])
        square = torch.cat([part.square().sum(0) for part in parts])
        self.absolute = absolute if self.absolute is None else self.absolute.to(absolute.device) + absolute
        self.square = square if self.square is None else self.square.to(square.device) + square
        self.counts = (self.counts[0] + len(error), self.counts[1] + (0 if len(parts) == 1 else parts[1].numel()))

    def means(self, scale: Tensor | None = None) -> tuple[dict[str, float], dict[str, float]]:
        """Mean absolute and root mean square error by name; errors times `scale` [T] (forces: its only number)."""
        if self.absolute is None:
            return {}, {}
        columns, count = len(self.absolute), len(self.names)
        numbers = torch.tensor([self.counts[0]] * count + [self.counts[1]] * (columns - count), dtype=torch.float64)
        factor = torch.ones(count, dtype=torch.float64) if scale is None else scale.cpu()
        factor = torch.cat([factor, factor[: columns - count]])
        absolute = self.absolute.cpu() / numbers * factor
        square = (self.square.cpu() / numbers).sqrt() * factor
        names = self.names + ["forces"] * (columns - count)
        return dict(zip(names, absolute.tolist(), strict=True)), dict(zip(names, square.tolist(), strict=True))


def prediction_errors(potential: Potential, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Prediction minus label: targets [B, T], and forces [N, 3] where `batch` has them."""
    if batch.forces is None:
        return potential(batch) - batch.y, None
    energy, forces = potential.energy_and_forces(batch)
    return energy - batch.y, forces - batch.forces


def evaluate(potential: Potential, molecules: Molecules, indices: Tensor, batch_size: int = 32):
    """Mean absolute and root mean square errors over the molecules `indices`: two dicts by name of target.

    `molecules` must have the potential's targets and units (`Molecules.choose`); forces are compared where it has them.
    """
    device = potential.scale.device
    errors = ErrorSum(potential.names)
    with torch.no_grad():
        for batch in evaluation_loader(molecules, indices, batch_size):
            errors.add(*prediction_errors(potential, batch.to(device)))
    return errors.means()


def spreads(molecules: Molecules, indices: Tensor) -> dict[str, float]:
    """Standard deviation of every target; of U0, U, H and G without the energies of the free atoms, as is usual."""
    y = molecules.y[indices].clone()
    counts = composition(molecules, indices)
    for column, (name, unit) in enumerate(zip(molecules.names, molecules.units, strict=True)):
        if name in FREE_ATOMS and unit is not None:
            for element, energy in FREE_ATOMS[name].items():
                y[:, column] -= counts[:, element] * energy * conversion("Hartree", unit)
    return dict(zip(molecules.names, y.std(0, correction=0).tolist(), strict=True))


def standardised(mae: dict[str, float], spread: dict[str, float]) -> tuple[float, float]:
    """The two numbers that sum up many targets in the literature on QM9.

    std. MAE = mean over targets of MAE / standard deviation; logMAE = mean of log(MAE / standard deviation).
    """
    ratios = [mae[name] / spread[name] for name in spread]
    return sum(ratios) / len(ratios), sum(map(math.log, ratios)) / len(ratios)


def error_table(potential: Potential, mae: dict[str, float], rmse: dict[str, float]) -> str:
    """The errors as lines of text, one per target, with units."""
    units = potential.all_units()
    rows = [(name, f"{mae[name]:.5g}", f"{rmse[name]:.5g}", units[name] or "as in the data") for name in mae]
    rows = [("target", "MAE", "RMSE", "unit")] + rows
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}" for row in rows)
