"""What the tests of the engines share: a small potential in kcal/mol, ethanol, and a skewed cell of it."""

from ase import Atoms
from ase.build import molecule
from training_runs import untrained

from spherenet_fast.calculators import SphereNetCalculator
from spherenet_fast.calculators.evaluator import Evaluator


def small_potential():
    """Of H, C and O, in float64, with random energies in kcal/mol."""
    return untrained()[0]


def ethanol(seed=0) -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=seed)
    return atoms


def ethanol_crystal() -> Atoms:
    """One ethanol in a cell in which it sees its images; the vectors are those that OpenMM and LAMMPS take."""
    atoms = ethanol()
    atoms.set_cell([[4.6, 0, 0], [0.4, 4.4, 0], [0.3, 0.2, 5.0]])
    atoms.pbc = True
    return atoms


def with_calculator(atoms, potential):
    """A copy with the ASE calculator, whose results those of an engine have to be."""
    atoms = atoms.copy()
    atoms.calc = SphereNetCalculator(potential)
    return atoms


def counted(monkeypatch):
    """A list that grows by the number of structures with every evaluation of an engine."""
    calls, evaluate = [], Evaluator.__call__

    def call(self, z, pos, n_atoms, *arguments, **options):
        calls.append(len(n_atoms))
        return evaluate(self, z, pos, n_atoms, *arguments, **options)

    monkeypatch.setattr(Evaluator, "__call__", call)
    return calls
