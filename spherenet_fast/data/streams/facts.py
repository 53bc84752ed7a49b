"""What is kept of every structure of a data set that is not: the facts that training asks for before the first step."""

from typing import Any, NamedTuple

import numpy as np
import torch

from ..checks import check_frames
from ..molecules import Molecules
from ..targets import canonical_target

NO_FORCES, NO_STRESS, NO_VOLUME = 1, 2, 4  # bits of the column "missing"
LABEL = "y_{}".format  # column of a target
# Columns of structures; of "elements" and "atoms", an entry for each element of each.
DTYPES = {
    "n_atoms": np.int64, "missing": np.uint8, "forces_square": np.float64, "free_atoms": np.int64,
    "first_element": np.int64, "elements": np.uint8, "atoms": np.int32,
}  # fmt: skip


class Facts(NamedTuple):
    """Facts about some structures: columns of numbers, and what they have."""

    columns: dict[str, np.ndarray]
    units: dict[str, str | None]
    has: frozenset[str]  # of "forces", "stress", "cell", "fixed"
    vectors: tuple[str, ...]
    notes: tuple[str, ...]


def facts_of(molecules: Molecules) -> Facts:
    """The facts of `molecules`, which have the names and units that the user states.

    Raises:
        ValueError: two atoms are at one place, a cell is flat, or forces or stress are infinite, or on some atoms only.
    """
    check_frames(molecules)
    count = len(molecules)
    structure = torch.repeat_interleave(torch.arange(count), molecules.n_atoms)
    free = torch.ones(len(structure)) if molecules.fixed is None else (~molecules.fixed).float()
    columns: dict[str, Any] = {"n_atoms": molecules.n_atoms}
    missing = np.zeros(count, np.uint8)
    square = torch.zeros(count, dtype=torch.float64)
    if molecules.forces is None:
        missing |= NO_FORCES
    else:
        forces, _ = molecules.forces_for_loss(1.0)  # zero where there is no label
        absent = molecules.missing((), True).get("forces", torch.zeros(0, dtype=torch.int64))
        missing[absent.numpy()] |= NO_FORCES
        free[molecules.atoms_of(absent)[0]] = 0.0
        square.index_add_(0, structure, forces.double().square().sum(1) * free)
    columns["forces_square"] = square
    columns["free_atoms"] = torch.zeros(count, dtype=torch.float64).index_add_(0, structure, free.double())
    if molecules.stress is None:
        missing |= NO_STRESS
    else:
        missing[molecules.stress.isnan().flatten(1).any(1).numpy()] |= NO_STRESS
        if (infinite := molecules.stress.isinf().flatten(1).any(1)).any():
            name = molecules.name(int(infinite.nonzero()[0]))
            raise ValueError(f"{name}: stress: expected finite labels, got others")
    missing[molecules.without_volume().numpy()] |= NO_VOLUME
    columns["missing"] = missing
    # an entry for each pair of structure and element, in the order of the structures
    pairs, atoms = np.unique(structure.numpy() * 256 + molecules.z.numpy(), return_counts=True)
    columns |= {"elements": pairs % 256, "atoms": atoms}
    columns["first_element"] = np.searchsorted(pairs, np.arange(count) * 256)
    columns = {name: np.asarray(values).astype(DTYPES[name]) for name, values in columns.items()}
    names = [canonical_target(name) for name in molecules.names]
    columns |= {LABEL(name): column for name, column in zip(names, molecules.y.numpy().T, strict=True)}
    has = {name for name in ("forces", "stress") if getattr(molecules, f"has_{name}")}
    has |= {name for name in ("cell", "fixed") if getattr(molecules, name) is not None}
    units = dict(zip(names, molecules.units, strict=True))
    return Facts(columns, units, frozenset(has), molecules.vectors, molecules.notes)
