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
        structures: as they are at the start.
        cutoff: Å.
    """

    def __init__(self, structures: Sequence[Atoms], cutoff: float):
        self.structures, self.cutoff = structures, cutoff
        self._batch = torch.repeat_interleave(
            torch.arange(len(structures)), torch.tensor([len(atoms) for atoms in structures])
        )
        self._bound = np.isfinite(self._nearest())
        self._positions, self._cells, self._slack = self._places(), self._boxes(), 0.0

    def check(self) -> None:
        """Raises NotPhysical for structures that have moved."""
        # Two atoms come apart by at most twice what one has moved: until then nobody needs to be looked for.
        moved = np.abs(self._places() - self._positions).max()  # along one axis: less than sqrt(3) times more in space
        if 4 * moved < self._slack and (self._boxes() == self._cells).all():
            return
        nearest = self._nearest()
        if len(lost := np.flatnonzero(self._bound & np.isinf(nearest))):
            number = int(self._batch[lost[0]])
            atom = int(lost[0] - np.searchsorted(self._batch, number))
            name = f"{named(number, self.structures)}atom {atom} ({self.structures[number].symbols[atom]})"
            raise NotPhysical(f"{name} has flown apart: nobody is within {self.cutoff:g} Å of it")
        self._slack = float(self.cutoff - nearest[self._bound].max()) if self._bound.any() else np.inf
        self._positions, self._cells = self._places(), self._boxes()

    def _places(self) -> np.ndarray:
        """[N, 3] Å."""
        return np.concatenate([atoms.positions for atoms in self.structures])

    def _boxes(self) -> np.ndarray:
        """[B, 3, 3] Å."""
        return np.array([atoms.cell.array for atoms in self.structures])

    def _nearest(self) -> np.ndarray:
        """[N] Å, distance of the nearest neighbor; infinite where none is within the cutoff."""
        pos, cell, pbc = torch.from_numpy(self._places()), None, None
        if any(atoms.pbc.any() for atoms in self.structures):
            cell = torch.from_numpy(self._boxes())
            pbc = torch.from_numpy(np.array([atoms.pbc for atoms in self.structures]))
        graph = radius_graph(pos, self._batch, self.cutoff, cell, pbc)
        length = edge_vectors(pos, graph, self._batch, cell).norm(dim=1)
        nearest = torch.full((len(pos),), torch.inf, dtype=pos.dtype)
        return nearest.scatter_reduce(0, graph.edge_index[1], length, "amin").numpy()


def check_temperature(structures: Sequence[Atoms], wanted: float) -> None:
    """Raises NotPhysical for a kinetic temperature above HOTTEST or ten times the one that is wanted, in K."""
    limit = max(HOTTEST, 10 * wanted)
    for number, atoms in enumerate(structures):
        if not (temperature := atoms.get_temperature()) <= limit:
            text = f"the kinetic temperature is {temperature:.0f} K, above {limit:g}"
            raise NotPhysical(f"{named(number, structures)}{text}")


def named(number: int, structures: Sequence[Atoms]) -> str:
    """How a message about one of several structures begins."""
    return f"structure {number}: " if len(structures) > 1 else ""
