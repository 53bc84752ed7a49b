"""A trained model with everything needed to use it: atomic energies, scale, targets, units."""

import warnings
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from .._devices import usable_device
from .._files import write_file
from ..cuda_graph import CapturedModel
from ..data.formats.ase_files import from_atoms
from ..data.loader import evaluation_loader
from ..data.molecules import Molecules
from ..data.sources import read_molecules
from ..data.streams.molecules import StreamedMolecules
from ..data.units import unit_name
from ..models import model_name
from ..nn.framework import GraphNetwork3D
from ..nn.inputs import entry
from ..nn.ranges import MAX_ATOMIC_NUMBER
from ..nn.replay import Replay
from .checkpoint import FORMAT, check_state, digest, read_checkpoint, rebuilt_model, serialized
from .config.old_names import renamed_keys
from .normalization import Normalization, check_normalization, fit_normalization, fit_to_predictions


class Potential(nn.Module):
    """target = shift + sum over atoms of elements[z] + scale * model(data), in the units of the training labels.

    Args:
        model: with one output per target. A class of your own is stored by its import path: the module that defines it
            must be there when the potential is loaded.
        normalization: atomic energies, shift and scale.
        names: T names of the targets.
        units: T units, or None where unknown.
        forces: whether it was trained on forces (they are derivatives of the target "energy" in any case).
        elements: atomic numbers seen in training; None: any.
        config: the training configuration, as a dictionary.

    Raises:
        ValueError: the model has not one output per target, or atomic energies, scale and units do not fit the names.
    """

    def __init__(
        self,
        model: GraphNetwork3D,
        normalization: Normalization,
        names,
        units,
        forces=False,
        elements=None,
        config=None,
    ):
        super().__init__()
        check_normalization(names, units, *normalization)
        _check_outputs(model.hparams.get("out_channels", len(names)), names)
        self.model = model
        self.register_buffer("atomic_energies", normalization.elements)
        self.register_buffer("shift", normalization.shift)
        self.register_buffer("scale", normalization.scale)
        self.names, self.units, self.forces = tuple(names), tuple(units), forces
        self.elements = None if elements is None else tuple(elements)
        self.config = config
        self._replay: Replay | None = None

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        if prefix + "references" in state_dict:  # as earlier versions call it
            state_dict[prefix + "atomic_energies"] = state_dict.pop(prefix + "references")
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    @classmethod
    def fit(cls, model: GraphNetwork3D, data, batch_size: int = 32) -> "Potential":
        """The potential of a model that was trained in a loop of one's own; `model` itself is put in evaluation mode.

            atoms.calc = SphereNetCalculator(Potential.fit(model, train_data))

        By what its labels were shifted and scaled in the loop need not be known: energies of the elements (or a mean)
        and a scale are fitted, by least squares, so that its predictions come closest to the labels of `data`; the
        scale to the forces where there are any. With a model that predicts 0 for all, as untrained ones of this package
        do, they are those with which `spherenet-fast train` begins.

        Args:
            model: with one output per target, in the dtype and on the device that it is to be used in.
            data: what it was trained on: `Molecules`, a list of ASE's structures, or a source of `read_molecules`. Of
                several labels the one called energy is taken.
            batch_size: molecules that are predicted at a time.

        Raises:
            ValueError: `data` has no label, or others than the model has outputs; or the predictions fall where the
                labels rise.
        """
        weight = next(model.parameters())
        if isinstance(data, list | tuple):
            if not data:
                raise ValueError("data: expected structures, got none")
            data = from_atoms(list(data), weight.dtype, forces=True)
        elif not isinstance(data, Molecules):
            data = read_molecules(data, dtype=weight.dtype, forces=True, stream=False)
        names = ["energy"] if "energy" in data.names else list(data.names)
        molecules = data.choose(names, forces=names == ["energy"] and data.forces is not None)
        model.eval()
        y, forces = [], []
        with torch.no_grad():
            for batch in evaluation_loader(molecules, torch.arange(len(molecules)), batch_size):
                batch = batch.to(weight.device)
                if batch.forces is None:
                    y.append(model(batch).cpu())
                    continue
                for found, part in zip((y, forces), model.energy_and_forces(batch), strict=True):
                    found.append(part.cpu())
        y = torch.cat(y).double()
        _check_outputs(y.shape[1], names)
        normalization = fit_to_predictions(molecules, y, torch.cat(forces) if forces else None)
        elements = molecules.z.unique().tolist()
        potential = cls(model, normalization, names, molecules.units, bool(forces), elements)
        return potential.to(weight.device).eval()

    @classmethod
    def wrap(cls, model: GraphNetwork3D, shift: float | Mapping[str, float] = 0.0, scale=1.0, unit="eV") -> "Potential":
        """energy = shift + scale * model(data), for a model trained so; `model` itself is put in evaluation mode.

        shift: of a structure, or {symbol: energy of an atom}, which also says which elements the model knows; scale:
        positive; unit: of both. Raises ValueError or TypeError for another one, and for a model of several outputs.
        """
        from ase.data import atomic_numbers

        elements, known = torch.zeros(1, MAX_ATOMIC_NUMBER + 1, dtype=torch.float64), None
        if isinstance(shift, Mapping):
            if unknown := shift.keys() - atomic_numbers.keys():
                raise ValueError(f"shift: expected symbols of elements, got {', '.join(map(str, unknown))}")
            known = sorted(atomic_numbers[symbol] for symbol in shift)
            for symbol, energy in shift.items():
                elements[0, atomic_numbers[symbol]] = energy
            shift = 0.0
        numbers = (_number(name, value) for name, value in (("shift", shift), ("scale", scale)))
        shift, scale = (torch.tensor([value], dtype=torch.float64) for value in numbers)
        potential = cls(model, Normalization(elements, shift, scale), ["energy"], [unit_name(unit)], elements=known)
        return potential.to(next(model.parameters()).device).eval()

    @property
    def references(self) -> Tensor:
        """The former name of `atomic_energies`."""
        warnings.warn("Potential.references is deprecated: use atomic_energies", DeprecationWarning, stacklevel=2)
        return self.atomic_energies

    @property
    def recorded(self) -> Replay:
        """The model, for one arrangement of atoms after another: by recorded operators, on a GPU by CUDA graphs."""
        kind = CapturedModel if self.scale.is_cuda else Replay
        if self._replay is None or self._replay.model is not self.model or type(self._replay) is not kind:
            self._replay = kind(self.model)
        return self._replay

    def offset(self, data, num_graphs: int) -> Tensor:
        """What the network does not predict: [num_graphs, T] float64."""
        atoms, batch = self.atomic_energies.T[entry(data, "z")], entry(data, "batch")
        if batch is None:
            return self.shift + atoms.sum(0, keepdim=True)
        return self.shift + atoms.new_zeros(num_graphs, atoms.shape[1]).index_add_(0, batch, atoms)

    def atom_offset(self, data) -> Tensor:
        """The share of every atom in `offset`, [N, T] float64: its element's energy, and equal parts of the shift."""
        z, batch = entry(data, "z"), entry(data, "batch")
        counts = torch.bincount(torch.zeros_like(z) if batch is None else batch)
        counts = counts if batch is None else counts[batch]
        return self.atomic_energies.T[z] + self.shift / counts[:, None]

    def forward(self, data, per_atom: bool = False) -> Tensor:
        """Targets [graphs, T] float64, in `units`; if per_atom what every atom contributes to them, [N, T].

        The contributions of a structure's atoms add up to its targets, to rounding of the model's dtype: each holds
        the reference energy of its element and an equal share of the shift.

        Raises:
            ValueError: per_atom of a model that is no sum over atoms (`GraphNetwork3D.is_sum_over_atoms`).
        """
        if not per_atom:
            return self.in_units(data, self.model(data))[0]
        return self.in_units(data, self.model(data, per_atom=True), per_atom=True)[0]

    def energy_and_forces(self, data) -> tuple[Tensor, Tensor]:
        """Energies [graphs, 1] float64 in `units`, and forces [N, 3] in that unit per Å.

        Raises:
            ValueError: there is more than one target.
        """
        self._check_single()
        return self.in_units(data, *self.model.energy_and_forces(data))

    def energy_forces_stress(self, data) -> tuple[Tensor, Tensor, Tensor]:
        """`energy_and_forces`, and stress [graphs, 3, 3] in the unit of the energy per Å^3, positive under tension.

        Raises:
            ValueError: there is more than one target, no cell, or one without a volume.
        """
        self._check_single()
        return self.in_units(data, *self.model.energy_forces_stress(data))

    def hessian(self, data, atoms: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        """The second derivatives of one structure's energy, in its unit per Å^2: see `GraphNetwork3D.hessian`.

        Raises:
            ValueError: there is more than one target or structure.
        """
        self._check_single()
        rows = self.model.hessian(data, atoms, batch_size)
        return rows * self.scale.to(rows.dtype)

    def in_units(self, data, prediction: Tensor, *slopes: Tensor, per_atom: bool = False) -> tuple[Tensor, ...]:
        """What the model says of `data`, and derivatives of it, in `units`.

        prediction: [graphs, T], or [N, T] if per_atom; slopes: any shape, of one target. Returns the prediction as
        float64, and the slopes.
        """
        offset = self.atom_offset(data) if per_atom else self.offset(data, len(prediction))
        return offset + self.scale * prediction.double(), *(slope * self.scale.to(slope.dtype) for slope in slopes)

    def _check_single(self) -> None:
        if len(self.names) != 1:
            raise ValueError(f"targets: expected one to take forces of, got {', '.join(self.names)}")

    def all_units(self) -> dict[str, str | None]:
        """{name: unit} of the targets, and of "forces" and "stress" if it was trained on them."""
        units = dict(zip(self.names, self.units, strict=True))
        if self.forces:
            units["forces"] = None if self.units[0] is None else f"{self.units[0]}/Ang"
        if self.stress:
            units["stress"] = None if self.units[0] is None else f"{self.units[0]}/Ang^3"
        return units

    @property
    def stress(self) -> bool:
        """Whether it was trained on stress."""
        return self.config is not None and self.config.get("loss", {}).get("stress_weight", 0) > 0

    @property
    def ewt_threshold(self) -> float | None:
        """The error, in the unit of a target, up to which the share of errors is to be reported; None: not at all."""
        return None if self.config is None else renamed_keys(self.config)["data"].get("ewt_threshold")

    def state_unit(self, unit: str) -> None:
        """Say the unit of the one target where the data of the training did not. Raises ValueError where they did."""
        if len(self.names) != 1 or self.units[0] is not None:
            known = ", ".join(str(known) for known in self.units)
            raise ValueError(f"--unit: expected it for one target of unknown unit alone, got targets in {known}")
        self.units = (unit_name(unit),)

    def unseen_elements(self, z: Tensor) -> list[str]:
        """Symbols of the elements in `z` [N] that were not in the training set: predictions for them are noise."""
        from ase.data import chemical_symbols

        unknown = set() if self.elements is None else set(z.tolist()) - set(self.elements)
        return [chemical_symbols[number] for number in sorted(unknown)]

    def check_elements(self, z: Tensor) -> None:
        """ValueError if `z` [N] holds an element that was not in the training set."""
        from ase.data import chemical_symbols

        if unseen := self.unseen_elements(z):
            known = ", ".join(chemical_symbols[number] for number in self.elements)
            raise ValueError(f"z: expected elements of the training set ({known}), got {', '.join(unseen)}")

    def state(self, weights: dict[str, Tensor] | None = None) -> dict:
        """Everything in a dictionary of tensors, numbers and strings.

        Args:
            weights: {name: tensor} to store instead of the model's own parameters (an average of them).

        Raises:
            ValueError: the model's class is made inside of a function, where it could not be found again.
        """
        weights = {**self.model.state_dict(), **(weights or {})}
        normalization = {"elements": self.atomic_energies, "shift": self.shift, "scale": self.scale}
        return {
            "format": FORMAT,
            "model": model_name(type(self.model)),
            "hparams": dict(self.model.hparams),
            "names": list(self.names),
            "units": list(self.units),
            "forces": bool(self.forces),
            "elements": None if self.elements is None else list(map(int, self.elements)),
            "config": self.config,
            "normalization": normalization,
            "weights": weights,
            "digest": digest(weights, normalization),
        }

    @classmethod
    def from_state(cls, state: dict) -> "Potential":
        """The potential that `state` describes.

        Raises:
            ValueError: `state` is not what `Potential.state` returned: see `check_state`; or its model is unknown, or
                does not take the hyper-parameters or weights.
        """
        check_state(state)
        model = rebuilt_model(state.get("model", "SphereNet"), state["hparams"], state["weights"])
        normalization = Normalization(**state["normalization"])
        return cls(
            model, normalization, state["names"], state["units"], state["forces"], state["elements"], state["config"]
        )

    def save(self, path) -> None:
        """Write `state()` to `path`, all or nothing. Raises OSError, which says what cannot be written."""
        write_file(path, serialized(self.state()))

    @classmethod
    def load(cls, path, device="cpu") -> "Potential":
        """Read what `save` wrote, or the checkpoint of a training run (its averaged weights).

        It comes ready to evaluate: in evaluation mode, its weights without gradients. A model that is not of this
        package is imported from where the checkpoint says (`spherenet_fast.models.find_model`).

        Args:
            path: of a file; or a name of pretrained weights, as "md17-ethanol"; or hf://OWNER/REPOSITORY/FILE, of the
                Hugging Face Hub. See `spherenet_fast.pretrained.checkpoint_file`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is empty, truncated, damaged, or no checkpoint of this package, or one of a model that
                cannot be imported (see `spherenet_fast.models.find_model`), or its numbers are not finite; or PyTorch
                cannot compute on `device`; or a pretrained file is damaged, or huggingface_hub is not installed.
            OSError: a download has failed.
        """
        device = usable_device(device)
        state = read_checkpoint(path)
        state = state.get("potential", state)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            came = state.get("format", "another file") if isinstance(state, dict) else "another file"
            raise ValueError(f"{path}: expected a checkpoint of spherenet_fast, got {came!r}")
        try:
            potential = cls.from_state(state)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return potential.to(device).eval().requires_grad_(False)


MOST_TO_REFIT = 10_000  # molecules


def refit(
    potential: Potential,
    molecules: Molecules | StreamedMolecules,
    train: Tensor,
    references: str = "auto",
    batch_size: int = 64,
) -> Normalization:
    """The potential's own normalization, with what it leaves of the labels [B, T] of `train` added to its references.

    Args:
        molecules: with the targets and units of the potential. train: [B] indices.
        references: as for `fit_normalization`.

    Of molecules that are not in memory, MOST_TO_REFIT are taken, spread evenly over `train`.
    """
    if isinstance(molecules, StreamedMolecules):
        chosen = train[:: -(-len(train) // MOST_TO_REFIT)]
        molecules, train = molecules.loaded(chosen), torch.arange(len(chosen))
    rest = molecules.y.clone()
    with torch.no_grad():
        for part, batch in zip(train.split(batch_size), evaluation_loader(molecules, train, batch_size), strict=True):
            rest[part] -= potential(batch)
    found = fit_normalization(replace(molecules, y=rest, forces=None), train, references, scale="none")
    return Normalization(potential.atomic_energies + found.elements, potential.shift + found.shift, potential.scale)


def _check_outputs(outputs: int, names) -> None:
    if outputs != len(names):
        targets = ", ".join(names) or "no target"
        raise ValueError(f"model: expected as many outputs as targets, {len(names)} ({targets}), got {outputs}")


def _number(name: str, value) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected a number, got {value!r}") from error


def load(path, device=None) -> Potential:
    """The trained potential in a checkpoint, ready to use, on `device` (default: the CPU).

        potential = spherenet_fast.load("runs/ethanol/best.ckpt")  # or pretrained, "md17-ethanol", "hf://..."
        energy, forces = potential.energy_and_forces(data)

    It predicts targets in the units of the training's labels (`potential.units`), reference energies included; its
    network, which predicts neither, is `potential.model`. The same as `Potential.load`, which says what is raised.
    """
    return Potential.load(path, device or "cpu")
