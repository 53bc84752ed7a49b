"""The command line called from a test, and files of structures to call it with."""

import numpy as np
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from training_runs import tiny_settings
from typer.testing import CliRunner

from spherenet_fast.cli import app


def call(*arguments):
    """Run the command: its exit code, standard output and standard error."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def overrides(**changes):
    """The options that make a run tiny; `changes` with __ for the dot."""
    return [part for setting in tiny_settings(**changes) for part in ("--set", setting)]


def waters(count=8, energy="energy", forces="forces", seed=0):
    """Rattled water molecules with labels under the given names, results of a calculator where ASE knows the name."""
    draw = np.random.default_rng(seed)
    structures = []
    for number in range(count):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=number)
        labels = {energy: -14.0 + draw.normal(), forces: draw.normal(size=(3, 3))}
        known = {name: value for name, value in labels.items() if name in ("energy", "free_energy", "forces")}
        if known:
            atoms.calc = SinglePointCalculator(atoms, **known)
        for name in labels.keys() - known.keys():
            if name == forces:
                atoms.arrays[name] = labels[name]
            else:
                atoms.info[name] = labels[name]
        structures.append(atoms)
    return structures
