"""A checkpoint for dynamics, and forces of another potential behind it where a test needs a minimum."""

import ase.io
import pytest
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from molecules import with_outputs
from training_runs import TINY_MODEL

from spherenet_fast.calculators.ase import SphereNetCalculator
from spherenet_fast.models import SphereNet
from spherenet_fast.training import Potential


@pytest.fixture
def checkpoint(tmp_path):
    """Of a tiny SphereNet in float64 with random weights, which knows all elements."""
    model = SphereNet(**TINY_MODEL).double()
    with_outputs(model)
    path = tmp_path / "potential.ckpt"
    Potential.wrap(model, scale=0.02, unit="eV").save(path)  # of forces that 0.5 fs are short enough for
    return path


@pytest.fixture
def water(tmp_path):
    """A file with one water molecule."""
    path = tmp_path / "water.xyz"
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=0)
    ase.io.write(path, atoms)
    return path


@pytest.fixture
def emt(monkeypatch):
    """The calculator gives the energies of ASE's effective medium theory, which has minima, whatever the checkpoint.

    Returns a list of functions that change results; each is called with the dictionary and the number of the call.
    """
    changes, calls = [], []

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        Calculator.calculate(self, atoms, properties, system_changes)
        emt = self.atoms.copy()
        emt.calc = EMT()
        self.results = {name: emt.calc.get_property(name, emt) for name in properties}
        calls.append(1)
        for change in changes:
            change(self.results, len(calls))

    monkeypatch.setattr(SphereNetCalculator, "calculate", calculate)
    return changes
