"""Harmonic vibrations from the exact Hessian, and the thermochemistry that ASE makes of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms
from ase.optimize import BFGS
from ase.thermochemistry import HarmonicThermo, IdealGasThermo
from ase.vibrations import VibrationsData

from ..calculators.ase import SphereNetCalculator
from ..data.formats.ase_files import fixed_atoms
from .structures import bare, largest_force
from .watching import CheckedCalculator

# eV/Å. Frequencies are defined where no force is. Forces of this size move a soft mode (50 1/cm) by some 1/cm, those of
# a structure from another method easily by a hundred.
LARGEST_FORCE = 0.05
GEOMETRIES = {3: "monatomic", 5: "linear", 6: "nonlinear"}  # by the motions of the whole


class Modes(NamedTuple):
    """The vibrations of a structure.

    Attributes:
        atoms: the structure, with a calculator. energy: eV. fmax: eV/Å, the largest force on an atom that vibrates.
        data: of ASE, with all 3 M modes of the M atoms that vibrate.
        rigid: numbers of those modes in `data` that move or turn the whole.
        vibrating: the others'.
        geometry: "monatomic", "linear" or "nonlinear" molecule; None of what repeats or is held in place.
    """

    atoms: Atoms
    energy: float
    fmax: float
    data: VibrationsData
    rigid: np.ndarray
    vibrating: np.ndarray
    geometry: str | None

    def energies(self) -> np.ndarray:
        """Of the vibrations, eV, ascending, imaginary ones negative."""
        energies = self.data.get_energies()[self.vibrating]
        return energies.real - np.abs(energies.imag)

    def frequencies(self) -> np.ndarray:
        """Of the vibrations, 1/cm, ascending, imaginary ones negative."""
        return self.energies() / units.invcm

    def zero_point_energy(self) -> float:
        """eV, of the modes that are not imaginary."""
        return 0.5 * float(np.clip(self.energies(), 0, None).sum())


def vibrations(
    calculator: SphereNetCalculator,
    structure: Atoms,
    indices: Sequence[int] | None = None,
    relax: bool = False,
    fmax: float = 1e-3,
    steps: int = 500,
    batch_size: int | None = None,
) -> Modes:
    """The harmonic vibrations of a structure.

    Of a whole molecule the motions of the whole are projected out of the Hessian, of a whole cell its translation, so
    that what is left of a small force does not mix into the soft modes.

    Args:
        calculator: of a model in float64, if soft modes count.
        indices: of the atoms that vibrate; default: all that no FixAtoms of the structure holds.
        relax: first, by BFGS, in at most so many `steps`, to forces below `fmax`, eV/Å.
        batch_size: see `GraphNetwork3D.hessian`.

    Raises:
        ValueError: there is no such atom, the relaxation does not converge, or a force is above LARGEST_FORCE.
        NotPhysical: energies or forces are not finite.
    """
    atoms = bare(structure)
    atoms.set_momenta(None)
    moving = _moving(atoms, indices)
    atoms.calc = CheckedCalculator(calculator, stress=False)
    if relax:
        atoms.set_constraint(FixAtoms([atom for atom in range(len(atoms)) if atom not in moving]))
        if not BFGS(atoms, logfile=None).run(fmax=fmax, steps=steps):
            left = largest_force(atoms.get_forces()[moving])
            raise ValueError(f"--relax: expected forces below {fmax:g} eV/Å after {steps} steps, got {left:.3g}")
    atoms.set_constraint()
    largest = largest_force(atoms.get_forces()[moving])
    if largest > LARGEST_FORCE:
        raise ValueError(
            f"the structure: expected forces of at most {LARGEST_FORCE:g} eV/Å, without which there are no harmonic "
            f"frequencies, got {largest:.3g}; --relax relaxes it first"
        )
    whole = len(moving) == len(atoms)
    masses = atoms.get_masses()[moving]
    rigid = _motions_of_the_whole(atoms, masses) if whole else np.zeros((0, 3 * len(moving)))
    hessian = calculator.get_hessian(atoms, None if whole else moving, batch_size)
    data = VibrationsData(atoms, _projected(hessian, rigid, masses), indices=moving)
    order = np.argsort(np.abs(data.get_energies()), kind="stable")
    geometry = GEOMETRIES[len(rigid)] if whole and not atoms.pbc.any() else None
    found = [np.sort(part) for part in (order[: len(rigid)], order[len(rigid) :])]
    return Modes(atoms, float(atoms.get_potential_energy()), largest, data, *found, geometry)


def thermochemistry(
    modes: Modes, temperature: float = 298.15, pressure: float = 1e5, symmetry_number: int = 1, spin: float = 0
) -> dict[str, float]:
    """{quantity: eV, or eV/K of the entropy}: of a molecule as an ideal gas, of anything else of its vibrations alone.

    Args:
        temperature: K. pressure: Pa, of the ideal gas.
        symmetry_number: rotations that bring the molecule onto itself. spin: of all electrons: 0.5 of a radical.

    Raises:
        ValueError: a mode is imaginary.
    """
    energies = modes.energies()
    if (energies < 0).any():
        raise ValueError(f"thermochemistry: expected a minimum, got {int((energies < 0).sum())} imaginary modes")
    if modes.geometry is None:
        thermo = HarmonicThermo(energies, potentialenergy=modes.energy)
        return {
            "internal energy U": thermo.get_internal_energy(temperature, verbose=False),
            "entropy S": thermo.get_entropy(temperature, verbose=False),
            "Helmholtz energy F": thermo.get_helmholtz_energy(temperature, verbose=False),
        }
    gas = IdealGasThermo(
        energies, modes.geometry, potentialenergy=modes.energy, atoms=modes.atoms, symmetrynumber=symmetry_number,
        spin=spin,
    )  # fmt: skip
    return {
        "enthalpy H": gas.get_enthalpy(temperature, verbose=False),
        "entropy S": gas.get_entropy(temperature, pressure, verbose=False),
        "Gibbs energy G": gas.get_gibbs_energy(temperature, pressure, verbose=False),
    }


def _moving(atoms: Atoms, indices: Sequence[int] | None) -> np.ndarray:
    if indices is None:
        moving = np.flatnonzero(~fixed_atoms(atoms))
    else:
        moving = np.unique(np.asarray(indices, dtype=np.int64))
    if not len(moving) or moving.min() < 0 or moving.max() >= len(atoms):
        raise ValueError(f"--atoms: expected numbers from 0 to {len(atoms) - 1}, got {moving.tolist() or 'none'}")
    return moving


def _motions_of_the_whole(atoms: Atoms, masses: np.ndarray) -> np.ndarray:
    """[3, 5 or 6, 3 N]: an orthonormal basis of translations and, of a molecule, rotations, weighted by mass."""
    weights = np.sqrt(masses)[:, None]
    away = atoms.positions - atoms.get_center_of_mass()
    axes = np.eye(3)
    motions = [(weights * axis).ravel() for axis in axes]
    if not atoms.pbc.any():
        motions += [(weights * np.cross(axis, away)).ravel() for axis in axes]
    _, sizes, basis = np.linalg.svd(np.array([motion / np.sqrt(masses.sum()) for motion in motions]))
    # Å: an extension across the axis of a relaxed linear molecule is far below, a bent one's far above
    return basis[: int((sizes > 0.01).sum())]


def _projected(hessian: np.ndarray, rigid: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """[N, 3, N, 3] without the part in the directions of `rigid` [R, 3 N]."""
    if not len(rigid):
        return hessian
    weights = np.repeat(np.sqrt(masses), 3)
    others = np.eye(len(weights)) - rigid.T @ rigid
    weighted = hessian.reshape(len(weights), -1) / np.outer(weights, weights)
    return (others @ weighted @ others * np.outer(weights, weights)).reshape(hessian.shape)
