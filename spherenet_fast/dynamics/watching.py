"""What ends a run: energies and forces that are not finite, atoms that fly apart, a temperature that cannot be."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError, all_changes

from ..calculators.ase import SphereNetCalculator
from ..calculators.committee import Committee
from ..graph import edge_vectors, radius_graph
from .settings import HOTTEST


class NotPhysical(FloatingPointError):
    """The atoms have come where no further step makes sense."""


class CheckedCalculator(Calculator):
    """Another calculator, all of whose results are computed at once and have to be finite.

    At once, because forces that come with a stress are rounded otherwise than those without: what is asked for, and in
    which order, then changes no bit of a run.

    Args:
        stress: whether the stress is wanted.
        name: of the calculator in trajectories.

    Raises:
        NotPhysical: in `calculate`; also where the calculator fails, by an error that says so.
    """

    def __init__(self, calculator: Calculator, stress: bool, name: str = "spherenet_fast"):
        super().__init__()
        self.calculator, self.stress, self._name = calculator, stress, name
        # of other packages, as a step without convergence; in our own calculators an error is a bug
        own = isinstance(calculator, SphereNetCalculator | Committee)
        self._failures: tuple[type[Exception], ...] = (CalculatorError,) if own else (RuntimeError,)
        wanted = ["energy", "free_energy", "forces", *(["stress"] if stress else [])]
        self.implemented_properties = [name for name in wanted if name in calculator.implemented_properties]

    def _get_name(self) -> str:
        return self._name

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        if not np.isfinite(self.atoms.positions).all():
            raise NotPhysical("positions are not finite")
        try:
            self.calculator.calculate(self.atoms, self.implemented_properties, system_changes)
        except self._failures as error:
            raise NotPhysical(f"the calculator failed: {' '.join(str(error).split())}") from error
        results = {name: self.calculator.results[name] for name in self.implemented_properties}
        for name, value in results.items():
            if not np.isfinite(value).all():
                raise NotPhysical(f"{name} {'are' if name == 'forces' else 'is'} not finite")
        self.results = results


class Good(NamedTuple):
    """Where the atoms were after a step that passed all checks."""

    positions: np.ndarray  # [N, 3] Å
    momenta: np.ndarray  # [N, 3]
    cell: np.ndarray  # [3, 3] Å
    results: dict[str, Any]

    @classmethod
    def of(cls, atoms: Atoms) -> "Good":
        return cls(atoms.get_positions(), atoms.get_momenta(), atoms.cell.array.copy(), dict(atoms.calc.results))

    def put(self, atoms: Atoms) -> None:
        """Bring the atoms, and the results of their calculator, back to where they were."""
        atoms.set_cell(self.cell, scale_atoms=False)
        atoms.set_positions(self.positions, apply_constraint=False)
        atoms.set_momenta(self.momenta, apply_constraint=False)
        atoms.calc.atoms, atoms.calc.results = atoms.copy(), dict(self.results)


class Neighborhoods:
    """Whether every atom that had a neighbor within a cutoff, that of the model, at the start has one.

    Args:
        atoms: as they are at the start.
        cutoff: Å.
    """

    def __init__(self, atoms: Atoms, cutoff: float):
        self.cutoff = cutoff
        self._bound = np.isfinite(self._nearest(atoms))
        self._positions, self._cell, self._slack = atoms.get_positions(), atoms.cell.array.copy(), 0.0

    def check(self, atoms: Atoms) -> None:
        """Raises NotPhysical."""
        # Two atoms come apart by at most twice what one has moved: until then nobody needs to be looked for.
        moved = np.abs(atoms.positions - self._positions).max()  # along one axis: less than sqrt(3) times more in space
        if 4 * moved < self._slack and (atoms.cell.array == self._cell).all():
            return
        nearest = self._nearest(atoms)
        lost = np.flatnonzero(self._bound & np.isinf(nearest))
        if len(lost):
            atom = int(lost[0])
            raise NotPhysical(
                f"atom {atom} ({atoms.symbols[atom]}) has flown apart: nobody is within {self.cutoff:g} Å of it"
            )
        self._slack = float(self.cutoff - nearest[self._bound].max()) if self._bound.any() else np.inf
        self._positions, self._cell = atoms.get_positions(), atoms.cell.array.copy()

    def _nearest(self, atoms: Atoms) -> np.ndarray:
        """[N] Å, distance of the nearest neighbor; infinite where none is within the cutoff."""
        pos = torch.from_numpy(atoms.get_positions())
        cell = pbc = None
        if atoms.pbc.any():
            cell, pbc = torch.from_numpy(atoms.cell.array.copy()), torch.from_numpy(atoms.pbc.copy())
        graph = radius_graph(pos, None, self.cutoff, cell, pbc)
        length = edge_vectors(pos, graph, None, cell).norm(dim=1)
        nearest = torch.full((len(pos),), torch.inf, dtype=pos.dtype)
        return nearest.scatter_reduce(0, graph.edge_index[1], length, "amin").numpy()


def check_temperature(atoms: Atoms, wanted: float) -> None:
    """Raises NotPhysical for a kinetic temperature above HOTTEST or ten times the one that is wanted, in K."""
    limit = max(HOTTEST, 10 * wanted)
    if not (temperature := atoms.get_temperature()) <= limit:
        raise NotPhysical(f"the kinetic temperature is {temperature:.0f} K, above {limit:g}")
