"""The metatomic model, in a process that has no spherenet_fast, against the calculator."""

import json
import os
import subprocess
import sys

import ase.io
import numpy as np
import pytest
from commands import call
from test_pt2 import rattled
from training_runs import untrained

from spherenet_fast.calculators import SphereNetCalculator

# in the extra "engines", for all Pythons that this package takes
pytest.importorskip("spherenet_fast.export.metatomic", reason="needs metatomic-torch", exc_type=ImportError)
pytest.importorskip("metatomic_ase", reason="needs metatomic-ase")

ENGINE = """
import json, sys
import ase.io, torch
from metatensor.torch import Labels
from metatomic.torch import ModelOutput
from metatomic_ase import MetatomicCalculator

calculator = MetatomicCalculator("tiny.pt", extensions_directory="extensions", check_consistency=True)
structures, found = ase.io.read("structures.traj", ":"), []
energy = {kind: {"energy": ModelOutput(unit="eV", sample_kind=kind)} for kind in ("system", "atom")}
for atoms in structures:
    atoms.calc = calculator
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces().tolist()}
    results["energies"] = atoms.get_potential_energies().tolist()
    if atoms.pbc.all():
        results["stress"] = atoms.get_stress(voigt=False).tolist()
    for kind, outputs in energy.items():
        halves = [torch.tensor([[0, k] for k in range(first, len(atoms), 2)], dtype=torch.int32) for first in (0, 1)]
        halves = [Labels(["system", "atom"], half) for half in halves]
        parts = [calculator.run_model(atoms, outputs, half)["energy"].block().values for half in halves]
        results[f"halves, {kind}"] = [part.sum().item() for part in parts]
    found.append(results)
together = calculator.run_model(structures, energy["system"])["energy"].block().values[:, 0].tolist()
capabilities = calculator.model().capabilities()
assert not any(name.startswith("spherenet_fast") for name in sys.modules)
print(json.dumps([found, together, capabilities.interaction_range, capabilities.atomic_types]))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A potential, structures, and what metatomic's calculator says of them."""
    folder = tmp_path_factory.mktemp("metatomic")
    potential = untrained("float64", model__num_layers=2)[0]
    potential.save(folder / "tiny.ckpt")
    status, out, err = call("export", folder / "tiny.ckpt", "--to", "metatomic", "-o", folder / "tiny.pt")
    assert (status, err) == (0, "") and out.endswith(f"with the extensions directory {folder / 'extensions'}\n")
    structures = rattled(["CH3CH2OH", "H2O", "C6H6"]) + rattled(["CH3OH"], [[2.9, 0.3, 0], [0, 5, 0.2], [0.1, 0, 6]])
    ase.io.write(folder / "structures.traj", structures)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-c", ENGINE], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return potential, structures, *json.loads(ran.stdout.splitlines()[-1]), folder


def test_forces_and_stress_are_the_calculators(results):
    potential, structures, found, together, *_ = results
    for atoms, result, alone in zip(structures, found, together, strict=True):
        atoms.calc = SphereNetCalculator(potential)
        assert result["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)  # of 1e3 eV, in float64
        assert alone == pytest.approx(result["energy"], abs=1e-9)
        np.testing.assert_allclose(result["forces"], atoms.get_forces(), atol=1e-10)
    assert [("stress" in result) for result in found] == [False, False, False, True]
    np.testing.assert_allclose(found[3]["stress"], structures[3].get_stress(voigt=False), atol=1e-10)


def test_energies_of_atoms_and_halves_add_up(results):
    for result in results[2]:
        assert len(result["energies"]) == len(result["forces"])
        for parts in (result["energies"], result["halves, system"], result["halves, atom"]):
            assert sum(parts) == pytest.approx(result["energy"], abs=1e-9)  # of 1e3 eV, in float64


def test_what_the_model_says_of_itself(results):
    potential, *_, reach, elements, _ = results
    assert reach == (2 + 1) * potential.model.cutoff and elements == [1, 6, 8]


def test_beside_this_package(results):
    """In a process that has the operators already, they are not loaded again."""
    from metatomic_ase import MetatomicCalculator

    _, structures, found, *_, folder = results
    structures[0].calc = MetatomicCalculator(folder / "tiny.pt", extensions_directory=folder / "extensions")
    np.testing.assert_allclose(structures[0].get_forces(), found[0]["forces"], atol=1e-10)


def test_files_that_are_there(results):
    folder = results[-1]
    arguments = ["export", folder / "tiny.ckpt", "--to", "metatomic", "-o", folder / "other.pt"]
    assert call(*arguments)[0] == 0  # the same library may stay
    [library] = (folder / "extensions/spherenet_fast").iterdir()
    library.write_bytes(b"of another version")
    assert call(*arguments, "--overwrite")[0] == 0 and library.stat().st_size > 10_000
    library.write_bytes(b"of another version")
    (folder / "other.pt").unlink()
    assert call(*arguments) == (2, "", f"error: --out: {library} is there already; --overwrite replaces it\n")
    assert not (folder / "other.pt").exists()


def test_nothing_is_left_of_what_cannot_be_exported(tmp_path):
    untrained("float64", model__kernels=False)[0].save(tmp_path / "reference.ckpt")
    status, _, err = call("export", tmp_path / "reference.ckpt", "--to", "metatomic", "-o", tmp_path / "a.pt")
    assert status == 2 and "expected kernels=True, to be exported" in err
    assert os.listdir(tmp_path) == ["reference.ckpt"]
