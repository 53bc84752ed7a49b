"""Where the forces of a run come from: a potential, a committee of them, or any calculator of ASE."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from ..calculators.ase import SphereNetCalculator
from ..calculators.committee import Committee
from ..calculators.evaluator import Evaluator
from ..training.potential import Potential
from .watching import NotPhysical, named

REACH = 6.0  # Å: an atom with nobody within it has left, whatever the calculator


class Forces(NamedTuple):
    """What `run_dynamics` moves atoms by.

    Attributes:
        calculator: gives energies (eV) and forces (eV/Å).
        identity: {option: value} of what a resumed run has to have in common with the one that it goes on with.
        reach: Å; an atom that had a neighbor within it and has none is gone.
        name: of the calculator in trajectories.
    """

    calculator: Calculator
    identity: dict
    reach: float = REACH
    name: str = "spherenet_fast"

    @classmethod
    def of_potential(cls, potential: Potential) -> "Forces":
        """Those of a potential of an energy whose unit is known."""
        dtype = str(next(potential.parameters()).dtype).removeprefix("torch.")
        identity = {"dtype": dtype, "checkpoint": potential.state()["digest"]}
        return cls(SphereNetCalculator(potential), identity, potential.model.cutoff)

    @classmethod
    def of_committee(cls, potentials: Sequence[Potential]) -> "Forces":
        """The mean of several, in the same order on a resume."""
        members = [cls.of_potential(potential) for potential in potentials]
        identity = {name: [member.identity[name] for member in members] for name in members[0].identity}
        committee = Committee([member.calculator for member in members])
        return cls(committee, identity, min(member.reach for member in members))


class JointCalculator(Calculator):
    """Energies and forces of structures that were `joined`, in one call of a potential, all of which have to be finite.

    What belongs to each structure, `share` gives it.

    Args:
        structures: those that were joined. They repeat in the same directions.
        stress: whether the stress is wanted.
        name: of the calculator in trajectories.

    Raises:
        NotPhysical: in `calculate`; names the structure.
    """

    implemented_properties = ["energy", "forces"]

    def __init__(self, potential: Potential, structures: Sequence[Atoms], stress: bool, name: str = "spherenet_fast"):
        super().__init__()
        self.structures, self.stress, self._name = structures, stress, name
        self._evaluate = Evaluator(potential)
        self._sizes = [len(atoms) for atoms in structures]
        self._structure = np.repeat(np.arange(len(structures)), self._sizes)  # [N], of each atom
        self._fixed: dict[str, Any] = {
            "z": torch.from_numpy(np.concatenate([atoms.numbers for atoms in structures]).astype(np.int64)),
            "n_atoms": torch.tensor(self._sizes),
            "cell": torch.from_numpy(np.array([atoms.cell.array for atoms in structures])),
            "pbc": torch.from_numpy(structures[0].pbc.copy()),
            "stress": stress,
        }

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        self._check("positions are", self.atoms.positions, self._structure)
        found = self._evaluate(pos=torch.from_numpy(self.atoms.positions), **self._fixed)
        each = np.arange(len(self.structures))
        results = {}
        for name, tensor, owner in zip(found._fields, found, (each, self._structure, each), strict=True):
            if tensor is not None:
                results[name] = tensor.cpu().numpy()
                self._check(f"{name} {'are' if name == 'forces' else 'is'}", results[name], owner)
        self.results = {"energy": results["energy"].sum(), "forces": results["forces"], "parts": results}

    def share(self) -> None:
        """Make the results those of the structures, too."""
        parts = self.results["parts"]
        forces = np.split(parts["forces"], np.cumsum(self._sizes)[:-1])
        for number, atoms in enumerate(self.structures):
            own = {"energy": float(parts["energy"][number]), "forces": forces[number]}
            if self.stress:
                own["stress"] = full_3x3_to_voigt_6_stress(parts["stress"][number])
            atoms.calc = SinglePointCalculator(atoms, **own, free_energy=own["energy"])
            atoms.calc.name = self._name

    def _check(self, text: str, values: np.ndarray, owner: np.ndarray) -> None:
        """owner: [rows], the structure of each row of `values`."""
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(1)
        if bad.any():
            raise NotPhysical(f"{named(int(owner[bad.argmax()]), self.structures)}{text} not finite")
