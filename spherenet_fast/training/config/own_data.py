"""A config for data of one's own: what the data has decides about targets, units, split, batch size and budget."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from ...data import QM9_TARGETS, Molecules, StreamedMolecules, read_molecules
from ...data.checks import check_volumes
from ...data.labels import missing_label
from ...models import MODELS
from ..checkpoint import read_checkpoint
from .files import checked, overriding
from .sections import Config

# What the shipped configs train with, but for the torsion, which makes mirror images equal, and what is found below.
SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"cutoff": 5.0, "num_spherical": 3, "num_radial": 6, "torsion": "smooth_even"},
    "loss": {"energy": "l1", "forces": "l1", "energy_weight": 5.0, "forces_weight": 100.0},
    "optimizer": {"lr": 1e-3, "warmup_steps": 200, "schedule": "cosine", "gradient_clip": 1000.0, "ema_decay": 0.999},
    "training": {"val_every": 200, "log_every": 20},
}
WITHOUT_FORCES = {"optimizer": {"warmup_steps": 50, "gradient_clip": 10.0, "ema_decay": 0.99}}
STRESS_WEIGHT = 1000.0  # ten times that of the forces: of 10 to 20 Å^3, the volume of an atom
# Words in the names of energies that are not the one whose derivatives forces are.
DIFFERENCES = re.compile(
    "adsorption|binding|interaction|formation|cohesi|reaction|activation|barrier|ioni[sz]ation|excit|relative|zero"
)
SEES_REFLECTIONS = ("smooth", "paper")  # torsions
ATOMS_OF_A_STEP = {True: 80, False: 320}  # with and without forces; many small steps learn more in a given time
MOST_OF_A_STEP = 32
# A sixth of the structures tests, a sixtieth of them (of few: 20, or a tenth) validates, at most so many.
MOST_FOR_ERRORS = 1000
MINUTES = 12.0  # for every 1,000 structures of training, and at least
MOST_MINUTES = 1440.0


class Derived(NamedTuple):
    """A config for some data, what it has in words, and the data as the config reads it."""

    config: Config
    text: str
    molecules: Molecules | StreamedMolecules


def config_of_data(source: str, overrides: list[str] | None = None) -> Derived:
    """The config that trains on `source` with settings that the shipped configs have.

    Targets, names and units of labels, numbers of molecules, batch size and budget are those that suit the data, which
    is read for it. With training.init_from the model is that of the checkpoint.

    Args:
        source: of `read_molecules`.
        overrides: as for `load_config`; what they state is not chosen here.

    Raises:
        FileNotFoundError, ValueError: as `load_config` and `read_molecules`; or there is no label, or none of several
            is called an energy.
    """
    changes = [overriding(text) for text in overrides or []]
    stated = OmegaConf.to_container(OmegaConf.merge(*changes)) if changes else {}
    first = {"data": {"source": source}, "training": {"max_time": MINUTES}}
    reading = {section: values for section, values in stated.items() if section != "loss"}  # whose weights come last
    config = checked(OmegaConf.create(first), OmegaConf.create(reading))
    data = stated.get("data") or {}
    options = _options(config, {"forces": data.get("forces", True), "file_units": {}})  # of names not known so far
    molecules = read_molecules(config.data.source, **options)
    found = _labels(config, data, molecules)
    if (wanted := _options(config, found)) != options:
        molecules = read_molecules(config.data.source, **wanted)
    found |= _units(molecules, found["targets"], data)
    found |= _parts(molecules, data)
    sections = {name: dict(values) for name, values in SETTINGS.items()}
    if not found["forces"]:
        sections["optimizer"] |= WITHOUT_FORCES["optimizer"]
    if config.training.init_from is not None:
        sections["model"] = _model_of(config.training.init_from)
    elif config.model.name != Config().model.name:
        del sections["model"]
    if found["forces"] and molecules.has_stress and _all_have_a_volume(molecules):
        sections["loss"]["stress_weight"] = STRESS_WEIGHT
    sections["data"] = {"source": source} | found
    limits = any((stated.get("training") or {}).get(name) for name in ("max_steps", "max_epochs", "max_time"))
    torsion = (sections.get("model", {}) | (stated.get("model") or {})).get("torsion")
    sections["training"]["augment_reflections"] = torsion in SEES_REFLECTIONS or config.model.name not in MODELS
    sections["training"] |= _effort(molecules, found, data, limits)
    config = checked(OmegaConf.create(sections), *changes)
    if config.data.read_options() != wanted:
        molecules = read_molecules(config.data.source, **config.data.read_options())
    return Derived(config, _text(source, molecules, config), molecules)


def _options(config: Config, found: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `read_molecules`."""
    chosen = {name: found[name] for name in ("keys", "forces", "file_units") if name in found}
    return config.data.read_options() | chosen


def _labels(config: Config, stated: Mapping[str, Any], molecules: Molecules | StreamedMolecules) -> dict[str, Any]:
    """targets, forces and keys: what is `stated`, else what the names of labels say."""
    keys, names = dict(config.data.keys), molecules.names
    if "targets" in stated:
        targets = list(config.data.targets)
    elif "energy" in names:
        targets = ["energy"]
    else:
        energies = [name for name in names if "energy" in name.lower() and not DIFFERENCES.search(name.lower())]
        if len(energies) != 1 and len(names) != 1:
            if not names:
                raise ValueError(f"{config.data.source}: expected structures with an energy or another label, got none")
            raise ValueError(
                f"data.targets: expected one that --set data.targets=[NAME] chooses, or --keys energy=NAME where it is "
                f"the energy, of {', '.join(names)}; got none"
            )
        targets = ["energy"] if energies else [names[0]]
        keys |= {"energy": energies[0]} if energies else {}
    forces = stated.get("forces", targets == ["energy"] and molecules.has_forces)
    unnamed = not molecules.has_forces and "forces" not in keys and stated.get("forces") is not False
    if unnamed and targets == ["energy"]:
        vectors = [name for name in molecules.vectors if "force" in name.lower()]
        of_energy = keys.get("energy", "energy").lower().replace("energy", "forces")
        vectors = [name for name in vectors if name.lower() == of_energy] or vectors
        if len(vectors) > 1:
            raise ValueError(missing_label("data.keys.forces", "forces", names, molecules.vectors))
        forces, keys = bool(vectors) or forces, keys | ({"forces": vectors[0]} if vectors else {})
    return {"targets": targets, "forces": forces, "keys": keys}


def _units(molecules: Molecules | StreamedMolecules, targets: list[str], stated: Mapping[str, Any]) -> dict[str, Any]:
    """units: of the targets whose unit the data states, those of the literature for QM9's."""
    known = dict(zip(molecules.names, molecules.units, strict=True))
    units = {
        name: QM9_TARGETS[name].report if name in QM9_TARGETS else known[name] for name in targets if known.get(name)
    }
    return {} if "units" in stated else {"units": units}


def _parts(molecules: Molecules | StreamedMolecules, stated: Mapping[str, Any]) -> dict[str, Any]:
    """train, val and test, as far as nothing is stated that decides about them."""
    if stated.get("split") is not None:
        return {}
    fixed = 0 if molecules.test is None else len(molecules.test)
    count = len(molecules) - fixed
    val, test = min(max(20, count // 60), count // 10, MOST_FOR_ERRORS), min(count // 6, MOST_FOR_ERRORS)
    if molecules.group is not None:  # whole groups are drawn
        sizes = molecules.group.bincount()
        largest = int(sizes.max())
        enough = int((sizes > 0).sum()) > 2 and 2 * largest < count
        val, test = (max(val, largest), max(test, largest)) if enough else (0, 0)
    left = count - (stated.get("train") or 0)
    val = stated.get("val", min(val, left))
    if fixed or stated.get("held_out"):
        return {"val": val, "test": min(fixed, MOST_FOR_ERRORS) if fixed else None}
    test = stated.get("test", min(test, left - val))
    exact = molecules.group is None and test is not None and left > val + test
    return {"val": val, "test": test} | ({"train": count - val - test} if exact else {})


def _all_have_a_volume(molecules: Molecules | StreamedMolecules) -> bool:
    try:
        check_volumes(molecules)
    except ValueError:
        return False
    return True


def _effort(
    molecules: Molecules | StreamedMolecules, found: Mapping[str, Any], stated: Mapping[str, Any], limits: bool
) -> dict[str, Any]:
    """batch_size by the size of the molecules, and max_time by their number where no other `limits` are stated."""
    atoms = max(float(molecules.n_atoms.double().mean()), 1.0)
    batch_size = 1
    while batch_size < MOST_OF_A_STEP and 2 * batch_size * atoms <= ATOMS_OF_A_STEP[bool(found["forces"])]:
        batch_size *= 2
    if limits:
        return {"batch_size": batch_size}
    train = stated.get("train") or found.get("train") or len(molecules)
    return {"batch_size": batch_size, "max_time": min(max(MINUTES, round(MINUTES * train / 1000)), MOST_MINUTES)}


def _model_of(checkpoint) -> dict[str, Any]:
    """The section `model` of a checkpoint."""
    state = read_checkpoint(Path(checkpoint).expanduser())
    state = state.get("potential", state)
    hparams = {name: value for name, value in dict(state.get("hparams") or {}).items() if name != "out_channels"}
    return {"name": state.get("model", "SphereNet")} | hparams


def _text(source: str, molecules: Molecules | StreamedMolecules, config: Config) -> str:
    """What is learned of what, and for how long, in a few lines."""
    from ase.data import chemical_symbols

    low, high = int(molecules.n_atoms.min()), int(molecules.n_atoms.max())
    symbols = " ".join(chemical_symbols[number] for number in molecules.elements())
    known = dict(zip(molecules.names, molecules.units, strict=True))
    data, training = config.data, config.training
    unknown = "an unknown unit (data.file_units.{} says it)".format
    units = {name: data.units.get(name) or known.get(name) or unknown(name) for name in data.targets}
    learned = [f"{data.keys.get(name, name)} in {unit}" for name, unit in units.items()]
    learned += [data.keys.get("forces", "forces")] if data.forces else []
    learned += [data.keys.get("stress", "stress")] if config.loss.stress_weight else []
    lines = [
        f"{source}: {len(molecules)} structures of {low if low == high else f'{low} to {high}'} atoms ({symbols})",
        f"learned: {', '.join(learned)}",
    ]
    if data.split is None:
        sizes = {"training": data.train, "validation": data.val, "test": data.test}
        counts = [f"{'all others' if size is None else size} for {part}" for part, size in sizes.items()]
        lines.append(f"split: {', '.join(counts)} (data.train, data.val, data.test)")
        if molecules.group is not None and not data.test and not data.held_out:
            lines.append(
                "no test: too few files, whose structures stay together; one file of all, or data.split, has one"
            )
    limits = {"max_time": "minutes", "max_steps": "steps", "max_epochs": "epochs"}
    limits = {name: f"{getattr(training, name):g} {word}" for name, word in limits.items() if getattr(training, name)}
    budget = ", ".join(f"{text} (training.{name})" for name, text in limits.items())
    return "\n".join([*lines, f"budget: {budget}, {training.batch_size} structures a step (training.batch_size)"])
