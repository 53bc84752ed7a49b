"""What the network does not have to learn: atomic energies, means, and the scale of the rest."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.molecules import Molecules
from ..data.streams.molecules import PART, StreamedMolecules
from ..data.targets import is_extensive
from ..nn.ranges import MAX_ATOMIC_NUMBER


class Normalization(NamedTuple):
    """target = shift + sum over atoms of elements[z] + scale * network.

    Attributes:
        elements: [T, 95] float64, contribution of an atom by atomic number.
        shift: [T] float64, once per molecule.
        scale: [T] float64, positive.
    """

    elements: Tensor
    shift: Tensor
    scale: Tensor


def check_normalization(names, units, elements: Tensor, shift: Tensor, scale: Tensor) -> None:
    """See that references and scale are finite float64 and fit the T targets `names`.

    Raises:
        ValueError: there is no target, or as many units, or `elements` is not [T, 95], `shift` or `scale` not [T], or
            a scale is not positive.
    """
    if not names or len(units) != len(names):
        raise ValueError(f"units: expected one for each of at least one target, got {len(units)} for {len(names)}")
    shapes = {"elements": (len(names), MAX_ATOMIC_NUMBER + 1), "shift": (len(names),), "scale": (len(names),)}
    for (name, shape), tensor in zip(shapes.items(), (elements, shift, scale), strict=True):
        if tensor.shape != shape or tensor.dtype != torch.float64:
            came = f"{tensor.dtype} {list(tensor.shape)}"
            raise ValueError(f"normalization: {name}: expected torch.float64 {list(shape)}, got {came}")
    if not (scale > 0).all():
        raise ValueError(f"normalization: scale: expected positive numbers, got {scale.min().item()}")


def fit_elements(counts: Tensor, y: Tensor) -> Tensor:
    """Least-squares contribution of every element to y [B] given counts [B, Z]: [Z] float64.

    Elements that never occur get 0. Of several solutions the smallest is taken: a single molecule's energy is shared
    out among its elements in proportion to their numbers of atoms, and the mean over its frames is met.
    """
    present = counts.any(0)
    elements = torch.zeros_like(counts[0])
    elements[present] = torch.linalg.lstsq(counts[:, present], y[:, None], driver="gelsd").solution[:, 0]
    return elements


def fit_normalization(
    molecules: Molecules | StreamedMolecules, train: Tensor, references: str = "auto", scale: str = "auto"
) -> Normalization:
    """Fit references and scale to the training molecules alone.

    Args:
        molecules: with the targets chosen.
        train: [B] indices of the training molecules.
        references: "elements" (a number per element), "mean" (a number per molecule), "none", or "auto": elements for
            extensive targets, the mean for intensive ones (gap, dipole moment, ...), which do not grow with the
            molecule although the network sums over atoms.
        scale: "auto": the root mean square of the forces if there are any, else the standard deviation of what the
            references leave; "none": 1. Forces on fixed atoms do not count.

    Labels that are missing do not count.

    Raises:
        ValueError: there are forces, but every atom is fixed; or a target has no label.
    """
    if isinstance(molecules, StreamedMolecules):
        return _fit_in_parts(molecules, train, references, scale)
    free_forces = None
    if molecules.forces is not None:
        batch = molecules[train]
        free_forces = batch.of_free_atoms(batch.forces)
        if len(free_forces) == 0:
            raise ValueError(
                f"data.forces: expected atoms that are not fixed, got {len(batch.z)} that are, in training"
            )
    counts = molecules.composition(train)
    y = molecules.y[train]
    elements = torch.zeros(len(molecules.names), MAX_ATOMIC_NUMBER + 1, dtype=torch.float64)
    shift = torch.zeros(len(molecules.names), dtype=torch.float64)
    known = ~y.isnan()
    for column, name in enumerate(molecules.names):
        rows = known[:, column]
        if not rows.any():
            raise ValueError(f"data.train: expected training molecules with a label {name!r}, got none")
        kind = _kind(references, name)
        if kind == "elements":
            elements[column] = fit_elements(counts[rows], y[rows, column])
        elif kind == "mean":
            shift[column] = y[rows, column].mean()
    rest = y - counts @ elements.T - shift
    if scale == "none":
        size = torch.ones_like(shift)
    elif free_forces is not None:
        size = free_forces.double().square().mean().sqrt().expand_as(shift)
    else:
        size = torch.stack([column[rows].std(correction=0) for column, rows in zip(rest.T, known.T, strict=True)])
    return Normalization(elements, shift, _or_one(size, y.nan_to_num(0.0).abs().amax(0)))


def _kind(references: str, name: str) -> str:
    return ("elements" if is_extensive(name) else "mean") if references == "auto" else references


def _or_one(size: Tensor, largest: Tensor) -> Tensor:
    """The scales [T], given the largest labels; 1 where identical labels (or a single molecule) leave nothing to scale,
    and where what is left is rounding of the fit."""
    return torch.where(size <= 1e-9 * largest, torch.ones_like(size), size)


def _fit_in_parts(molecules: StreamedMolecules, train: Tensor, references: str, scale: str) -> Normalization:
    """`fit_normalization` to what is known of all molecules, of which a part at a time is in memory.

    Equations of least squares are reduced by QR, part after part, to as many as there are unknowns.
    """
    parts = train.sort().values.split(PART)
    count = len(molecules.names)
    reduced = [torch.zeros(0, MAX_ATOMIC_NUMBER + 2, dtype=torch.float64)] * count
    number, total, largest = (torch.zeros(count, dtype=torch.float64) for _ in range(3))
    for part in parts:
        counts, y = molecules.composition(part), molecules.labels(part)
        known = ~y.isnan()
        number += known.sum(0)
        total += y.nan_to_num(0.0).sum(0)
        largest = torch.maximum(largest, y.nan_to_num(0.0).abs().amax(0))
        for column, name in enumerate(molecules.names):
            if _kind(references, name) == "elements":
                rows = known[:, column]
                equations = torch.cat([reduced[column], torch.cat([counts[rows], y[rows, column : column + 1]], 1)])
                reduced[column] = torch.linalg.qr(equations, "r").R
    elements = torch.zeros(count, MAX_ATOMIC_NUMBER + 1, dtype=torch.float64)
    shift = torch.zeros(count, dtype=torch.float64)
    for column, name in enumerate(molecules.names):
        if number[column] == 0:
            raise ValueError(f"data.train: expected training molecules with a label {name!r}, got none")
        if _kind(references, name) == "elements":
            elements[column] = fit_elements(reduced[column][:, :-1], reduced[column][:, -1])
        elif _kind(references, name) == "mean":
            shift[column] = total[column] / number[column]
    if scale == "none":
        return Normalization(elements, shift, torch.ones_like(shift))
    if molecules.has_forces:
        sums = [[float(values.sum()) for values in molecules.squared_forces(part)] for part in parts]
        square, atoms = map(sum, zip(*sums, strict=True))
        if atoms == 0:
            raise ValueError("data.forces: expected atoms that are not fixed, got none in training")
        return Normalization(elements, shift, _or_one(torch.full_like(shift, square / (3 * atoms)).sqrt(), largest))
    mean, square = torch.zeros_like(shift), torch.zeros_like(shift)
    for power in (1, 2):  # the variance around the mean, which may be much larger
        for part in parts:
            rest = molecules.labels(part) - molecules.composition(part) @ elements.T - shift
            if power == 1:
                mean += rest.nansum(0) / number
            else:
                square += (rest - mean).square().nansum(0)
    return Normalization(elements, shift, _or_one((square / number).sqrt(), largest))


def fit_to_predictions(molecules: Molecules, y: Tensor, forces: Tensor | None) -> Normalization:
    """The references and the scale with which what a network predicts comes closest to the labels, by least squares.

    The scale is that of the forces where there are any. A network that predicts the same for all has no scale of its
    own and gets that of `fit_normalization`.

    Args:
        molecules: with the targets chosen.
        y: [M, T] float64, what the network predicts for them.
        forces: [N, 3], as well; None: none.

    Raises:
        ValueError: see `fit_normalization`; or the predictions fall where the labels rise.
    """
    every, y = torch.arange(len(molecules)), y.masked_fill(molecules.y.isnan(), torch.nan)
    counts = molecules.composition(every)

    def without_references(y: Tensor) -> Tensor:
        fitted = fit_normalization(replace(molecules, y=y, forces=None), every)
        return y - counts @ fitted.elements.T - fitted.shift

    if forces is None:
        found, wanted = without_references(y), without_references(molecules.y)
    else:
        batch = molecules[every]
        found, wanted = (batch.of_free_atoms(rows).double().reshape(-1, 1) for rows in (forces, molecules.forces))
    square, product = found.square().nansum(0), (found * wanted).nansum(0)
    scale = torch.where(square > 0, product / square, fit_normalization(molecules, every).scale)
    if not (scale > 0).all():
        raise ValueError("model: expected predictions that rise with the labels, got others; was it trained on these?")
    return fit_normalization(replace(molecules, y=molecules.y - scale * y, forces=None), every)._replace(scale=scale)
