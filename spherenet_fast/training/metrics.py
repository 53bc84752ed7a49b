"""Errors of a potential, in the units of the labels."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.loader import evaluation_loader
from ..data.molecules import Batch, Molecules
from ..data.targets import FREE_ATOMS
from ..data.units import conversion
from .distributed.processes import Processes
from .potential import Potential


class Errors(NamedTuple):
    """Errors by name of target, "forces" and "stress" among them where there are some."""

    mae: dict[str, float]  # mean absolute errors
    rmse: dict[str, float]  # root mean square errors
    within: dict[str, float]  # shares, 0 to 1, of errors within a limit (EwT), of targets; empty without a limit


class ErrorSum:
    """Adds up errors batch by batch, without waiting for a GPU until `means` is asked for.

    Args:
        names: T names of targets; further columns are called "forces" and "stress" where such errors are added.
        limits: [T]; errors up to them are counted, too; None: no limits.
    """

    def __init__(self, names, limits: Tensor | None = None):
        self.names, self.limits = list(names), limits
        self.clear()

    @classmethod
    def of(cls, potential: Potential, scaled: bool = False) -> "ErrorSum":
        """One for errors of the potential's targets, with its limit on them; `scaled`: errors over its scale."""
        threshold, unit = potential.ewt_threshold, potential.scale if scaled else torch.ones_like(potential.scale)
        return cls(potential.names, None if threshold is None else threshold / unit)

    def clear(self) -> None:
        """Forget everything added."""
        self.absolute = self.square = self.within = self.missing = None
        self.counts = (0, 0, 0)

    def state(self) -> dict:
        """The sums, for a checkpoint."""
        sums = {name: getattr(self, name) for name in ("absolute", "square", "within", "missing")}
        return {**sums, "counts": list(self.counts)}

    def load(self, state: dict) -> None:
        """Go on from what `state` returned."""
        self.absolute, self.square, self.within = (state[name] for name in ("absolute", "square", "within"))
        self.missing = state.get("missing")
        self.counts = (*state["counts"], 0)[:3]

    def add(
        self,
        error: Tensor,
        forces_error: Tensor | None = None,
        known: Tensor | None = None,
        stress_error: Tensor | None = None,
    ) -> None:
        """Take errors of targets [B, T] and, where there are any, of forces [n, 3] on some atoms and of stress [b, 6].

        known: [B, T] bool, the targets that have a label and so an error; None: all.
        """
        parts = [error.detach().double()]
        if known is not None:
            parts[0] = parts[0].masked_fill(~known, 0.0)
            missing = (~known).sum(0)
            self.missing = missing if self.missing is None else self.missing.to(missing.device) + missing
        slopes = [part for part in (forces_error, stress_error) if part is not None]  # no stress without forces
        parts += [part.detach().double().reshape(-1, 1) for part in slopes]
        absolute = torch.cat([part.abs().sum(0) for part in parts])
        square = torch.cat([part.square().sum(0) for part in parts])
        if self.limits is not None:
            self.limits = self.limits.to(error.device)
            within = parts[0].abs() <= self.limits
            within = (within if known is None else within & known).sum(0)
            self.within = within if self.within is None else self.within.to(within.device) + within
        self.absolute = absolute if self.absolute is None else self.absolute.to(absolute.device) + absolute
        self.square = square if self.square is None else self.square.to(square.device) + square
        numbers = (len(error), *(part.numel() for part in slopes), 0, 0)
        self.counts = tuple(before + number for before, number in zip(self.counts, numbers, strict=False))

    def means(self, scale: Tensor | None = None) -> Errors:
        """Means over everything added; errors times `scale` [T] (forces: its only number). NaN where nothing was."""
        if self.absolute is None:
            return Errors({}, {}, {})
        columns, count = len(self.absolute), len(self.names)
        slopes = ["forces", "stress"][: columns - count]
        numbers = torch.tensor([self.counts[0]] * count + list(self.counts[1 : 1 + len(slopes)]), dtype=torch.float64)
        if self.missing is not None:
            numbers[:count] -= self.missing.cpu()
        factor = torch.ones(count, dtype=torch.float64) if scale is None else scale.cpu()
        factor = torch.cat([factor, factor[:1].expand(len(slopes))])
        absolute = self.absolute.cpu() / numbers * factor
        square = (self.square.cpu() / numbers).sqrt() * factor
        names = self.names + slopes
        shares = [] if self.within is None else (self.within.cpu() / numbers[:count]).tolist()
        return Errors(
            dict(zip(names, absolute.tolist(), strict=True)),
            dict(zip(names, square.tolist(), strict=True)),
            dict(zip(self.names, shares, strict=False)),
        )


def stress_errors(stress: Tensor, label: Tensor) -> Tensor:
    """Prediction minus label [B, 3, 3] of the b structures that have one, as [b, 6]: xx, yy, zz, yz, xz, xy."""
    rows, columns = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)
    error = (stress - label)[:, rows, columns]
    return error[~error.isnan().any(1)] if label.isnan().any() else error


def label_counts(batch: Batch) -> tuple[int, int, int]:
    """How many errors of targets, of forces and of stress a batch has."""
    targets = batch.y.numel() if batch.known is None else int(batch.known.sum())
    forces = 0 if batch.forces is None else batch.of_free_atoms(batch.forces).numel()
    return targets, forces, 0 if batch.stress is None else stress_errors(batch.stress, batch.stress).numel()


def predicted(model, batch: Batch) -> tuple[Tensor, ...]:
    """Targets [B, T], and of what `batch` has labels forces [N, 3] and stress [B, 3, 3], by a potential or a model."""
    if batch.forces is None:
        return (model(batch),)
    return model.energy_and_forces(batch) if batch.stress is None else model.energy_forces_stress(batch)


def slope_errors(batch: Batch, slopes, scale: Tensor | float = 1.0) -> tuple[Tensor | None, Tensor | None]:
    """Of the forces and stress that `predicted` gives, less labels over `scale`: [n, 3], of free atoms, and [b, 6]."""
    forces, stress = (*slopes, None, None)[:2]
    return (
        None if forces is None else batch.of_free_atoms(forces - batch.forces / scale),
        None if stress is None else stress_errors(stress, batch.stress / scale),
    )


def prediction_errors(potential: Potential, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Prediction minus label: targets [B, T]; where `batch` has them forces [n, 3] of free atoms, and stress [b, 6].

    Of a target without a label the error is NaN.
    """
    targets, *slopes = predicted(potential, batch)
    return targets - batch.y, *slope_errors(batch, slopes)


def evaluate(
    potential: Potential,
    molecules: Molecules,
    indices: Tensor,
    batch_size: int = 32,
    processes: Processes | None = None,
) -> Errors:
    """Errors over the molecules `indices`, of which each of the `processes` predicts a share.

    `molecules` must have the potential's targets and units (`Molecules.choose`); forces are compared where it has them,
    on atoms that are not fixed.
    """
    device = potential.scale.device
    errors = ErrorSum.of(potential)
    processes = processes or Processes()
    with torch.no_grad():
        for batch in evaluation_loader(molecules, processes.share(indices), batch_size):
            batch = batch.to(device)
            error, forces_error, stress_error = prediction_errors(potential, batch)
            errors.add(error, forces_error, batch.known, stress_error)
    errors.load(processes.sum(errors.state()))
    return errors.means()


def print_unseen_elements(potential: Potential, molecules: Molecules, indices: Tensor) -> None:
    """Say which elements among the molecules `indices` were not in the training set, if any."""
    if unseen := potential.unseen_elements(torch.tensor(molecules.elements(indices))):
        print(f"not in the training set: {', '.join(unseen)}")


def spreads(molecules: Molecules, indices: Tensor) -> dict[str, float]:
    """Standard deviation of every target; of U0, U, H and G without the energies of the free atoms, as is usual."""
    y = molecules.labels(indices)
    counts = molecules.composition(indices)
    for column, (name, unit) in enumerate(zip(molecules.names, molecules.units, strict=True)):
        if name in FREE_ATOMS and unit is not None:
            for element, energy in FREE_ATOMS[name].items():
                y[:, column] -= counts[:, element] * energy * conversion("Hartree", unit)
    return {
        name: float(column[~column.isnan()].std(correction=0))
        for name, column in zip(molecules.names, y.T, strict=True)
    }


def standardized(mae: dict[str, float], spread: dict[str, float]) -> tuple[float, float]:
    """The two numbers that sum up many targets in the literature on QM9.

    std. MAE = mean over targets of MAE / standard deviation; logMAE = mean of log(MAE / standard deviation).
    """
    ratios = [mae[name] / spread[name] for name in spread]
    return sum(ratios) / len(ratios), sum(map(math.log, ratios)) / len(ratios)


def error_table(potential: Potential, errors: Errors) -> str:
    """The errors as lines of text, one per target, with units, and what is within a limit in per cent."""
    units = {name: unit or "as in the data" for name, unit in potential.all_units().items()}
    rows = [(name, f"{mae:.5g}", f"{errors.rmse[name]:.5g}", units[name]) for name, mae in errors.mae.items()]
    return "\n".join([aligned([("target", "MAE", "RMSE", "unit"), *rows]), *within_lines(potential, errors)])


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Rows of cells as lines of columns: all but the first and the last one to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *middle, last in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(middle, widths[1:-1], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells, last]).rstrip())
    return "\n".join(lines)


def within_lines(potential: Potential, errors: Errors) -> list[str]:
    """What is within a limit (EwT), a line for each target, if there is a limit."""
    units = {name: unit or "as in the data" for name, unit in potential.all_units().items()}
    return [
        f"{name}: {100 * share:.2f} % of the errors are within {potential.ewt_threshold:g} {units[name]}"
        for name, share in errors.within.items()
    ]
