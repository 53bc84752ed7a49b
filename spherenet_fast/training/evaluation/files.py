"""Predictions and labels as files: a table, and structures."""

import csv
from io import StringIO

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.stress import full_3x3_to_voigt_6_stress

from ...data.molecules import Molecules
from ...data.targets import is_total_energy
from ...data.units import conversion
from ..potential import Potential
from .predictions import Predictions

LABEL = "REF_{}"  # what a label is called beside a prediction


def csv_text(potential: Potential, found: Predictions) -> str:
    """One line for each molecule: its number and formula; label, prediction and error of every target; of the forces
    the mean absolute and the largest error of a component. Cells of what has no label are empty.
    """
    units = potential.all_units()
    head = ["frame", "formula", "atoms"]
    for name in potential.names:
        head += [f"{name} {part}{_in(units[name])}" for part in ("label", "prediction", "error")]
    if found.forces is not None:
        head += [f"forces {part}{_in(units['forces'])}" for part in ("MAE", "largest error")]
    text = StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(head)
    counts = found.n_atoms.tolist()
    z, free = found.z.split(counts), found.free.split(counts)
    wrong = None if found.forces is None else (found.forces - found.forces_label).abs().split(counts)
    for row, index in enumerate(found.indices.tolist()):
        cells = [str(index), Atoms(z[row].numpy()).get_chemical_formula(), str(counts[row])]
        for label, prediction in zip(found.y_label[row].tolist(), found.y[row].tolist(), strict=True):
            known = label == label
            cells += [repr(label) if known else "", repr(prediction), repr(prediction - label) if known else ""]
        if wrong is not None:
            errors = wrong[row][free[row]]
            cells += [f"{float(errors.mean()):.6g}", f"{float(errors.max()):.6g}"] if len(errors) else ["", ""]
        writer.writerow(cells)
    return text.getvalue()


def _in(unit: str | None) -> str:
    return "" if unit is None else f" ({unit})"


def labeled_structures(potential: Potential, molecules: Molecules, found: Predictions) -> list[Atoms]:
    """The molecules with predictions and labels; a total energy of known unit, and its forces, in eV and eV/Å.

    Such an energy and forces are the results of a calculator, other targets are in ``atoms.info``, in the potential's
    unit; labels are called REF_energy, REF_forces, ... in ``atoms.info`` and ``atoms.arrays``. "frame" is the number in
    the data.
    """
    name, unit = potential.names[0], potential.units[0]
    energy = len(potential.names) == 1 and unit is not None and is_total_energy(name, unit)
    factor = conversion(unit, "eV") if energy else 1.0
    structures, first = [], 0
    for row, index in enumerate(found.indices.tolist()):
        batch, last = molecules[index], first + int(found.n_atoms[row])
        atoms = Atoms(batch.z.numpy(), batch.pos.double().numpy(), info={"frame": index})
        if batch.cell is not None and bool(batch.pbc.any()):
            atoms.set_cell(batch.cell[0].double().numpy())
            atoms.pbc = batch.pbc[0].numpy()
        free, results = found.free[first:last].numpy(), {}
        for target, prediction, label in zip(
            potential.names, found.y[row].tolist(), found.y_label[row].tolist(), strict=True
        ):
            if energy:
                results["energy"] = factor * prediction
            else:
                atoms.info[target] = prediction
            if label == label:
                atoms.info[LABEL.format("energy" if energy else target)] = factor * label
        if found.forces is not None:
            forces = factor * found.forces[first:last].double().numpy()
            if energy:
                results["forces"] = forces
            else:
                atoms.arrays["predicted_forces"] = forces
            if free.any():
                atoms.arrays[LABEL.format("forces")] = factor * found.forces_label[first:last].double().numpy()
            if free.any() and not free.all():
                atoms.set_constraint(FixAtoms(mask=~free))
        if energy and found.stress is not None:
            results["stress"] = full_3x3_to_voigt_6_stress(factor * found.stress[row].double().numpy())
            if not found.stress_label[row].isnan().any():
                stress = full_3x3_to_voigt_6_stress(factor * found.stress_label[row].double().numpy())
                atoms.info[LABEL.format("stress")] = stress
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)
        structures.append(atoms)
        first = last
    return structures
