"""What a potential predicts of labeled molecules, beside the labels."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...data.loader import evaluation_loader
from ...data.molecules import Molecules
from ...plots.errors import Compared
from ..metrics import Errors, ErrorSum, predicted, stress_errors
from ..potential import Potential


class Predictions(NamedTuple):
    """Predictions and labels of B molecules with ΣN atoms, in the units of the potential.

    Attributes:
        indices: [B] of the molecules in their data.
        n_atoms: [B]. z: [ΣN] atomic numbers.
        y, y_label: [B, T] float64; a label that is missing is NaN.
        references: [B, T] float64, the part of y that is the sum of the energies of the elements and the mean.
        forces, forces_label: [ΣN, 3], or None where the molecules have no forces.
        free: [ΣN] bool, the atoms whose forces count.
        stress, stress_label: [B, 3, 3], or None where the molecules have no stress.
    """

    indices: Tensor
    n_atoms: Tensor
    z: Tensor
    y: Tensor
    y_label: Tensor
    references: Tensor
    forces: Tensor | None
    forces_label: Tensor | None
    free: Tensor
    stress: Tensor | None = None
    stress_label: Tensor | None = None

    def errors(self, potential: Potential) -> Errors:
        """Mean errors of every target, and of the forces on free atoms."""
        total = ErrorSum.of(potential)
        total.add(self.y - self.y_label, self.forces_error, ~self.y_label.isnan(), self.stress_error)
        return total.means()

    @property
    def forces_error(self) -> Tensor | None:
        """[n, 3] float64, of the free atoms."""
        return None if self.forces is None else (self.forces - self.forces_label).double()[self.free]

    @property
    def stress_error(self) -> Tensor | None:
        """[b, 6] float64, of the structures with a label."""
        return None if self.stress is None else stress_errors(self.stress.double(), self.stress_label.double())

    def compared(self, potential: Potential) -> list[Compared]:
        """Every target and the forces with a label, to be drawn; targets without the potential's reference energies."""
        units = {name: unit or "as in the data" for name, unit in potential.all_units().items()}
        found = []
        for column, name in enumerate(potential.names):
            known = ~self.y_label[:, column].isnan()
            label, prediction = ((y - self.references)[known, column].numpy() for y in (self.y_label, self.y))
            if known.any():
                found.append(Compared(f"{name} less references", units[name], label, prediction))
        if self.forces is not None and self.free.any():
            label, prediction = (part[self.free].flatten().numpy() for part in (self.forces_label, self.forces))
            found.append(Compared("forces", units["forces"], label, prediction))
        if self.stress is not None:
            known = ~self.stress_label.isnan().flatten(1).any(1)
            label, prediction = (part[known].flatten().numpy() for part in (self.stress_label, self.stress))
            found += [Compared("stress", units["stress"], label, prediction)] if known.any() else []
        return found


def predictions(potential: Potential, molecules: Molecules, indices: Tensor, batch_size: int = 32) -> Predictions:
    """Predict the molecules `indices` [B], which have the potential's targets and units (`Molecules.choose`).

    Forces are predicted where the molecules have them.
    """
    device = potential.scale.device
    rows: list[tuple[Tensor, ...]] = []
    with torch.no_grad():
        for batch in evaluation_loader(molecules, indices, batch_size):
            fixed = torch.zeros_like(batch.z, dtype=torch.bool) if batch.fixed is None else batch.fixed
            there = batch.to(device)
            references = potential.offset(there, batch.num_graphs)
            found = (part.cpu() for part in (references, *predicted(potential, there)))
            labels = [label for label in (batch.forces, batch.stress) if label is not None]
            rows.append((batch.z, batch.y, ~fixed, *labels, *found))
    z, y_label, free, *rest = (torch.cat(parts) for parts in zip(*rows, strict=True))
    count = len(rest) // 2 - 1  # of labels; as many slopes follow the references and targets
    (references, y, *slopes), labels = rest[count:], rest[:count]
    forces_label, stress_label = (*labels, None, None)[:2]
    forces, stress = (*slopes, None, None)[:2]
    counts = molecules.n_atoms[indices]
    return Predictions(indices, counts, z, y, y_label, references, forces, forces_label, free, stress, stress_label)


def mean(members: list[Predictions]) -> Predictions:
    """The mean of several potentials' predictions of the same molecules."""
    first = members[0]
    names = [name for name in ("y", "references", "forces", "stress") if getattr(first, name) is not None]
    return first._replace(
        **{name: torch.stack([getattr(member, name) for member in members]).mean(0) for name in names}
    )
