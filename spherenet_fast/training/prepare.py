"""From a config to molecules, a split and an untrained potential."""

from pathlib import Path

import torch
from torch import Tensor

from ..data import QM9_TARGETS, Molecules, Split, StreamedMolecules, hold_out, random_split, read_molecules, read_split
from ..data.checks import check_frames, check_labels, check_volumes
from ..data.targets import canonical_target, is_total_energy
from ..data.units import conversion
from ..graph import radius_graph
from ..models import find_model, model_name
from ..nn.framework import GraphNetwork3D
from ..nn.hparams import arguments
from .config import Config, DataConfig
from .config.files import config_to_dict
from .config.models import ModelConfig
from .distributed.processes import Processes
from .normalization import Normalization, fit_normalization
from .potential import Potential, refit


def prepare_molecules(
    config: DataConfig, stress: bool = False, read: Molecules | StreamedMolecules | None = None
) -> Molecules | StreamedMolecules:
    """Read the data and choose targets and units; QM9's targets default to the units of the literature (meV, D, ...).

    Prints what was chosen in reading, and how many molecules have no label. stress: whether it is learned, too. read:
    what `read_molecules` has returned for this config; None: it is read here.

    Raises:
        FileNotFoundError, ValueError: see `read_molecules`, `Molecules.choose`, `check_frames` and `check_volumes`; a
            label is missing where data.missing says "error".
    """
    molecules = read_molecules(config.source, **config.read_options()) if read is None else read
    known = {canonical_target(name): unit for name, unit in zip(molecules.names, molecules.units, strict=True)}
    usual = {
        name: QM9_TARGETS[name].report
        for name in map(canonical_target, config.targets)
        if name in QM9_TARGETS and known.get(name)
    }
    units = usual | {canonical_target(name): unit for name, unit in config.units.items()}
    chosen = molecules.choose(config.targets, units, config.forces, stress)
    check_labels(molecules, config.targets, config.forces, config.missing, stress)
    if isinstance(chosen, Molecules):  # else their files have been looked through
        check_frames(chosen)
    if stress:
        check_volumes(chosen)
    for name, unit in zip(chosen.names, chosen.units, strict=True):
        if "energy" in name.lower() and unit is None and not is_total_energy(name, unit):
            print(f"{name}: a number like any other. If it is the energy: data.targets=[energy], --keys energy={name}")
        if unit is None and is_total_energy(name, unit):
            print(f"{name}: in an unknown unit; data.file_units.{name} says it, which ASE and predictions need")
    return chosen


def prepare_split(config: DataConfig, molecules: Molecules | StreamedMolecules) -> Split:
    """The split file of the config, or a draw by its seed; tested on held-out elements where it names them.

    Raises like `read_split`, `random_split` and `hold_out`.
    """
    if config.split is not None:
        return read_split(Path(config.split).expanduser(), len(molecules))
    if config.held_out:
        molecules = hold_out(molecules, config.held_out)
    return random_split(molecules, config.train, config.val, config.test, config.seed)


def prepare_potential(
    config: Config, molecules: Molecules | StreamedMolecules, split: Split, resumed: dict | None = None
) -> Potential:
    """A potential with fresh weights (by `training.seed`), normalization fitted to the training molecules.

    With `training.init_from` it has the weights and the scale of that checkpoint, and what they leave of the labels is
    added to its atomic energies (or its mean): those of elements that it had not seen begin there. The embeddings of
    such elements are as they were initialized.

    Args:
        resumed: `Potential.state` of the run that goes on, in place of the checkpoint of training.init_from.

    Raises:
        FileNotFoundError: there is no checkpoint training.init_from.
        ValueError: there are no training molecules, none of their atoms has a neighbor within the cutoff, or the model
            does not take the hyper-parameters or predicts one number where there are several targets; the checkpoint
            is damaged, or of another model, or other hyper-parameters, targets or units.
    """
    if len(split.train) == 0:
        raise ValueError("data.train: expected at least 1 training molecule, got 0")
    torch.manual_seed(config.training.seed)
    model = untrained_model(config.model, molecules.names).to(getattr(torch, config.data.dtype))
    _check_neighbors(model, molecules, split.train)
    elements = molecules.elements(split.train)
    if config.training.init_from is None:
        normalization = fit_normalization(molecules, split.train, config.loss.references, config.loss.scale)
    else:
        start = _start(config, model, molecules) if resumed is None else Potential.from_state(resumed)
        model.load_state_dict(start.model.state_dict())
        elements = None if start.elements is None else sorted({*start.elements, *elements})
        if resumed is None:
            normalization = refit(start, molecules, split.train, config.loss.references)
        else:
            normalization = Normalization(start.atomic_energies, start.shift, start.scale)
    return Potential(
        model,
        normalization,
        molecules.names,
        molecules.units,
        forces=molecules.has_forces,
        elements=elements,
        config=config_to_dict(config),
    )


def _start(config: Config, model: GraphNetwork3D, molecules: Molecules) -> Potential:
    """The potential of training.init_from, whose network is like `model`, in the units of `molecules`."""
    path = config.training.init_from
    start = Potential.load(Path(path).expanduser())

    def same(what: str, expected, came) -> None:
        if expected != came:
            raise ValueError(f"training.init_from: expected {what} {expected} as in {path}, got {came}")

    same("model.name:", model_name(type(start.model)), model_name(type(model)))
    same("data.targets:", ", ".join(start.names), ", ".join(molecules.names))
    for name, value in start.model.hparams.items():
        same(f"model.{name}:", value, model.hparams.get(name))
    factors = []
    for name, before, unit in zip(start.names, start.units, molecules.units, strict=True):
        if (before is None) != (unit is None):
            same(f"the unit of {name}:", before or "unknown", unit or "unknown")
        factors.append(1.0 if unit is None else conversion(before, unit))
    factor = torch.tensor(factors, dtype=torch.float64)
    start.atomic_energies *= factor[:, None]
    start.shift *= factor
    start.scale *= factor
    start.model.to(getattr(torch, config.data.dtype))
    return start


def untrained_model(config: ModelConfig, targets: tuple[str, ...]) -> GraphNetwork3D:
    """The model of the config with one output for each of the targets."""
    name, model = config.name, find_model(config.name)
    known = arguments(model)
    # what is left at its default may be none of a constructor's own that passes others on
    hparams = {key: value for key, value in vars(config).items() if key in known and value != known[key].default}
    if "out_channels" in known:
        hparams["out_channels"] = len(targets)
    elif len(targets) != 1:
        raise ValueError(f"data.targets: expected one, as {name} takes no out_channels, got {', '.join(targets)}")
    return model(**hparams)


def count_edges(model: GraphNetwork3D, molecules: Molecules, indices: Tensor, processes: Processes) -> Tensor:
    """Edges that the model sees in each of the molecules `indices` [M]: [M] int64. Each process counts a share."""
    own = []
    for part in processes.share(indices).split(256):
        batch = molecules[part]
        graph = radius_graph(
            batch.pos, batch.batch, model.cutoff, batch.cell, batch.pbc, model.hparams.get("max_num_neighbors")
        )
        own.append(torch.bincount(batch.batch[graph.edge_index[1]], minlength=len(part)))
    edges = torch.zeros(len(indices), dtype=torch.int64)
    for rank, part in enumerate(processes.objects(torch.cat(own) if own else edges[:0])):
        edges[rank :: processes.count] = part
    return edges


def _check_neighbors(model: GraphNetwork3D, molecules: Molecules, indices: Tensor) -> None:
    """ValueError if no atom of the molecules `indices` has a neighbor: there would be nothing to learn from."""
    for part in indices.split(64):  # the first few tell, in all but wrong cases
        batch = molecules[part]
        graph = radius_graph(batch.pos, batch.batch, model.cutoff, batch.cell, batch.pbc)
        if graph.edge_index.numel():
            return
    raise ValueError(
        "config key 'model.cutoff': expected a distance in Ang within which atoms of the training molecules have "
        f"neighbors, got {model.cutoff:g}, within which none has any"
    )
