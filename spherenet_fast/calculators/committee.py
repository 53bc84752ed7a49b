"""Several potentials of one energy: their mean, and how far they are apart."""

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator

from ..nn.framework import GraphNetwork3D
from ..pretrained import is_name
from ..training.potential import Potential
from .ase import SphereNetCalculator


class Committee(Calculator):
    """The mean of potentials that were trained from different seeds, or on different parts of the data.

    Every result (energy, forces, stress, ...) is the mean over the members, and has its variance over them beside it,
    divided by their number: ``results["energy_var"]`` (eV^2), ``results["forces_var"]`` ([N, 3], eV^2/Å^2), ... A large
    variance says that a structure is unlike the training data; a small one does not say that the mean is right.

    Args:
        potentials: checkpoints, potentials or models, or calculators, at least one; or the folder of
            `spherenet-fast train --seeds`.
        options: of all of them, as `SphereNetCalculator` takes them: device, dtype, unit, ...

    Examples::

        atoms.calc = Committee("runs/mine")
        atoms.calc = Committee(["runs/seed0/best.ckpt", "runs/seed1/best.ckpt", "runs/seed2/best.ckpt"])
        atoms.get_forces()
        atoms.calc.results["forces_var"].sum(1).max() ** 0.5  # eV/Å, of the atom on which they agree the least

    Raises:
        ValueError: there is no potential, or none in the folder; or see `SphereNetCalculator`.
    """

    def __init__(
        self,
        potentials: Iterable[Potential | GraphNetwork3D | Calculator | str | PathLike] | str | PathLike,
        **options: Any,
    ) -> None:
        super().__init__()
        if isinstance(potentials, str | PathLike):
            potentials = members(potentials)
        self.members = [
            potential if isinstance(potential, Calculator) else SphereNetCalculator(potential, **options)
            for potential in potentials
        ]
        if not self.members:
            raise ValueError("potentials: expected at least one, got none")
        shared = [
            name
            for name in SphereNetCalculator.implemented_properties
            if all(name in member.implemented_properties for member in self.members)
        ]
        self.implemented_properties = [*shared, *(f"{name}_var" for name in shared if name != "free_energy")]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        wanted = [name.removesuffix("_var") for name in properties]
        for member in self.members:
            member.reset()  # some keep the results of another structure
            member.calculate(self.atoms, wanted, system_changes)
        means, variances = _statistics([member.results for member in self.members])
        self.results = means | variances

    def evaluate(
        self, structures: Iterable[Atoms], properties: Iterable[str] = ("energy", "forces"), batch_size: int = 32
    ) -> list[Atoms]:
        """`SphereNetCalculator.evaluate` of all members: copies of the structures with the means as results.

        The variances are in ``atoms.info``, those of atoms in ``atoms.arrays``, under the names that `results` has.
        """
        structures, properties, found = list(structures), list(properties), []
        evaluated = [member.evaluate(structures, properties, batch_size) for member in self.members]
        for copies in zip(*evaluated, strict=True):
            atoms = copies[0]
            means, variances = _statistics([copy.calc.results for copy in copies])
            atoms.calc = SinglePointCalculator(atoms, **means)
            for name, value in variances.items():
                (atoms.arrays if name in ("energies_var", "forces_var") else atoms.info)[name] = value
            found.append(atoms)
        return found


def members(path: str | PathLike) -> list[Path]:
    """The checkpoints of the committee in a folder, seed0/best.ckpt, seed1/best.ckpt, ...; another checkpoint alone.

    Raises ValueError for a folder without.
    """
    path = Path(path)
    if is_name(path) or not path.is_dir():
        return [path]
    found = {int(folder.name[4:]): folder for folder in path.glob("seed*") if folder.name[4:].isdecimal()}
    checkpoints = [folder / "best.ckpt" for _, folder in sorted(found.items()) if (folder / "best.ckpt").is_file()]
    if not checkpoints:
        raise ValueError(
            f"{path}: expected the file of a checkpoint, or a folder with seed0/best.ckpt, ..., got a folder"
        )
    return checkpoints


def _statistics(results: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Means {name: value} and variances {name_var: value} of what all `results` have."""
    means, variances = {}, {}
    for name in results[0]:
        if all(name in result for result in results):
            first = results[0][name]
            away = np.stack([result[name] - first for result in results])  # energies are large, and differ by little
            means[name] = first + away.mean(0)
            if name != "free_energy":  # the same number as the energy
                variances[f"{name}_var"] = away.var(0)
    return means, variances


def spread(structures: Sequence[Atoms]) -> str:
    """In words, how far the potentials are apart on structures that `Committee.evaluate` returned."""
    energies = np.sqrt([atoms.info["energy_var"] for atoms in structures])
    worst = int(energies.argmax())
    words = f"energy {1000 * energies.mean():.3g} meV (structure {worst}: {1000 * energies[worst]:.3g})"
    if all("forces_var" in atoms.arrays for atoms in structures):
        forces = np.concatenate([np.sqrt(atoms.arrays["forces_var"]).ravel() for atoms in structures])
        words += f", forces {1000 * forces.mean():.3g} meV/Ang (at most {1000 * forces.max():.3g})"
    return f"{words}, standard deviations"
