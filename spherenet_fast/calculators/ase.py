"""SphereNet as an ASE calculator."""

import warnings
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from torch import nn

from .._devices import usable_device, usable_dtype
from ..data.molecules import Batch
from ..nn.framework import GraphNetwork3D
from ..training.potential import Potential
from ..training.results import check_structures, energy_factor, has_stress, packed, results, results_in_batches

_warned_paths: set[Any] = set()  # of Path
_warned_potentials: WeakSet[Any] = WeakSet()


class SphereNetCalculator(Calculator):
    """Energies (eV) and forces (eV/Å) of molecules and periodic cells, and the stress (eV/Å^3) of the latter.

    What was asked for once is computed in every later calculation, so that a loop which asks for the energy and then
    for the forces costs one calculation a step. The energies of the atoms ("energies", of models that are a sum over
    atoms) add up to the energy: each holds its element's reference energy, and an equal share of a shift.

    The stress is ASE's: xx, yy, zz, yz, xz, xy, positive under tension. Structures with an open direction have one too,
    of their whole cell, vacuum included, if its three vectors span a volume.

    Results do not depend on where a structure lies, nor on the cells in which its atoms do: positions are moved to the
    origin, or by whole cells, before they are rounded to the model's precision.

    The energy of a SphereNet with the paper's torsion (``model.torsion=paper``) jumps where one neighbor overtakes
    another as the reference of a torsion, or crosses the cutoff; no force belongs to a jump. In dynamics of
    paracetamol, in steps of 0.5 fs, single steps changed the total energy by up to 110 meV, and it drifted by 343
    meV/ps. Relaxations may not reach a small fmax. A UserWarning says so, once per potential; smooth torsions, the
    default, have no such jumps.

    Args:
        potential: a `Potential`; a checkpoint, as `Potential.load` takes it: a path (``best.ckpt`` of a training run),
            a name of pretrained weights, or hf://...; or a model.
        device: "cpu", "cuda", ...; default: where the potential is, the CPU for a checkpoint. A potential or model
            that is given is moved itself.
        unit: unit of the energy where the potential does not know its own (of a model: eV). It also states that the
            potential's target is the energy where that has another name.
        shift, scale: of a model: its energies are shift + scale * model(data). shift is a number for a structure
            (default 0) or {symbol: energy of an atom}; scale is positive (default 1).
        dtype: "float32" or "float64" (for Hessians, and relaxations to small forces), of the network, which is
            converted; default: the dtype of its weights.
        allow_unseen_elements: predict structures with elements that were not in the training set, too. Nothing was
            learned about these: their reference energies are 0, and what the network says of them is noise.

    Examples::

        atoms.calc = SphereNetCalculator("runs/ethanol/best.ckpt")
        atoms.calc = SphereNetCalculator("md17-ethanol")  # pretrained, comes with the package
        atoms.calc = SphereNetCalculator(model, shift={"C": -1029.0, "H": -13.6}, scale=0.7)  # of one's own loop
        atoms.calc = SphereNetCalculator(Potential.fit(model, train_data))  # the two from the data
        atoms.get_potential_energy()

    Raises:
        FileNotFoundError, ValueError: see `Potential.load`; or the potential predicts something else than one energy,
            or its unit is unknown. `calculate` raises ValueError for an element that was not in the training set, and
            PropertyNotImplementedError for the stress of a molecule, or of a cell without a volume, and for the
            energies of the atoms where the model is no sum over them.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]

    def __init__(
        self,
        potential: Potential | GraphNetwork3D | str | PathLike,
        device: str | torch.device | None = None,
        unit: str | None = None,
        *,
        shift: Any = None,
        scale: Any = None,
        dtype: str | torch.dtype | None = None,
        allow_unseen_elements: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        source = potential
        if isinstance(potential, GraphNetwork3D):
            shift, scale = 0.0 if shift is None else shift, 1.0 if scale is None else scale
            potential = source = Potential.wrap(potential, shift, scale, unit or "eV")
            unit = None
        elif shift is not None or scale is not None:
            raise ValueError("shift, scale: expected none but with a model, as a potential has its own, got some")
        if isinstance(potential, nn.Module) and not isinstance(potential, Potential):
            came = type(potential).__name__
            raise TypeError(f"potential: expected a Potential, a GraphNetwork3D or a path, got {came}")
        if not isinstance(potential, Potential):
            potential = Potential.load(potential, device or "cpu")
        elif device is not None:
            potential.to(usable_device(device))
        _warn_of_jumps(potential, source)
        if dtype is not None:
            potential.model.to(usable_dtype(dtype))  # reference energies stay float64
        self.potential = potential.eval()
        self.allow_unseen_elements = allow_unseen_elements
        if not potential.model.is_sum_over_atoms:
            self.implemented_properties = [name for name in self.implemented_properties if name != "energies"]
        self._factor = energy_factor(potential, unit)
        self._asked: set[str] = set()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        stressed = has_stress(self.atoms)
        if "stress" in properties and not stressed:
            raise PropertyNotImplementedError(
                "stress: expected atoms that repeat, in a cell of three vectors that span a volume, "
                f"got pbc {self.atoms.pbc.tolist()} and cell {self.atoms.cell.tolist()}"
            )
        self._check_elements(self.atoms)
        wanted = {*self._asked, *properties} - (set() if stressed else {"stress"})
        [found] = results(self.potential, [self.atoms], wanted, self._factor, recorded=True)
        self.results = found | {"free_energy": found["energy"]}  # nothing is left of another structure
        self._asked.update(found)

    def evaluate(
        self, structures: Iterable[Atoms], properties: Iterable[str] = ("energy", "forces"), batch_size: int = 32
    ) -> list[Atoms]:
        """Copies of structures with results, `batch_size` structures in each call of the model.

        properties: those of `implemented_properties` that are wanted; the stress comes with the structures that have
        one. Raises ValueError for another property, and for what `spherenet_fast.training.predict.predict` refuses.
        """
        structures, properties = list(structures), set(properties)
        if unknown := properties - set(self.implemented_properties):
            known = ", ".join(self.implemented_properties)
            raise ValueError(f"properties: expected some of {known}, got {', '.join(sorted(unknown))}")
        check_structures(self.potential, structures, allow_unseen_elements=self.allow_unseen_elements)
        found = results_in_batches(self.potential, structures, properties, self._factor, batch_size)
        copies = [atoms.copy() for atoms in structures]
        for copy, result in zip(copies, found, strict=True):
            copy.calc = SinglePointCalculator(copy, **result, free_energy=result["energy"])
        return copies

    def get_hessian(
        self, atoms: Atoms | None = None, indices: Sequence[int] | None = None, batch_size: int | None = None
    ) -> np.ndarray:
        """The exact second derivatives of the energy by the positions, [M, 3, M, 3] eV/Å^2, as VibrationsData takes it.

        indices: M atoms whose block is wanted, of a slab those of the adsorbate; default: all. batch_size: see
        `GraphNetwork3D.hessian`. Constraints have no part in it. Raises ValueError for what is no number of an atom.
        """
        chosen = None if indices is None else _numbers_of_atoms(indices)
        return self._factor * self.potential.hessian(self._batch(atoms), chosen, batch_size).double().cpu().numpy()

    def get_descriptors(self, atoms: Atoms | None = None) -> np.ndarray:
        """The features of the atoms, [N, F]: see `GraphNetwork3D.descriptors`."""
        return self.potential.model.descriptors(self._batch(atoms)).cpu().numpy()

    def _batch(self, atoms: Atoms | None) -> Batch:
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise ValueError("atoms: expected a structure, as nothing has been calculated yet, got None")
        self._check_elements(atoms)
        return packed(self.potential, [atoms])[0].to(self.potential.scale.device)

    def _check_elements(self, atoms: Atoms) -> None:
        if not self.allow_unseen_elements:
            self.potential.check_elements(torch.from_numpy(atoms.numbers))


def _numbers_of_atoms(indices: Sequence[int]) -> torch.Tensor:
    """[M] int64. Raises ValueError for others than integers, which a mask and fractions would be read as."""
    numbers = np.asarray(indices)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise ValueError(f"indices: expected a sequence of integers, got {indices!r}")
    return torch.from_numpy(numbers.astype(np.int64))


def _warn_of_jumps(potential: Potential, source: Any) -> None:
    """Warn, once in a process for a potential, of one with the paper's torsion. source: the potential, or its path."""
    if getattr(potential.model, "torsion", None) != "paper":
        return
    known, key = (_warned_potentials, potential) if source is potential else (_warned_paths, Path(source).resolve())
    if key in known:
        return
    known.add(key)
    warnings.warn(
        "the energy of a model with the paper's torsion jumps as atoms move, by up to 110 meV in a step of 0.5 fs "
        "(paracetamol), without a force: for dynamics and relaxations train with model.torsion=smooth",
        stacklevel=3,
    )
