"""The package of AOTInductor, from Python and from the C++ program of the docs."""

import re
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from training_runs import untrained

from spherenet_fast._library import loaded_path
from spherenet_fast.calculators import SphereNetCalculator
from spherenet_fast.export import export_pt2, load_pt2
from spherenet_fast.graph import radius_graph

PAGE = Path(__file__).parents[2] / "docs/export.md"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A potential and its package: half a minute or more of a C++ compiler, once for all tests here."""
    potential = untrained("float64")[0]
    path = tmp_path_factory.mktemp("pt2") / "tiny.pt2"
    export_pt2(potential, path)
    return potential, path, load_pt2(path)


def rattled(names, cell=None):
    structures = [molecule(name) for name in names]
    for number, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=number)
        if cell is not None:
            atoms.set_cell(cell, scale_atoms=False)
            atoms.pbc = True
    return structures


def inputs(structures, cutoff):
    """The arguments of a package, pairs in any order."""
    sizes = torch.tensor([len(atoms) for atoms in structures])
    z = torch.cat([torch.tensor(atoms.numbers) for atoms in structures])
    pos = torch.cat([torch.tensor(atoms.positions) for atoms in structures])
    batch = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    cell = torch.stack([torch.tensor(atoms.cell.array) for atoms in structures])
    pbc = torch.tensor(np.array([atoms.pbc for atoms in structures]))
    graph = radius_graph(pos, batch, cutoff, cell if pbc.any() else None, pbc)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(graph.rev)))
    shift = torch.zeros(len(order), 3, dtype=torch.int64) if graph.shift is None else graph.shift[order]
    return z, pos, batch, cell, graph.edge_index[:, order], shift


def check(exported, structures, skin=0.0):
    """Equal to the calculator in float64: what is left is the order of sums."""
    potential, _, model = exported
    energy, forces, virial = model(*inputs(structures, model.cutoff + skin))
    for found, same in zip(model.evaluate(structures), (energy, forces, virial), strict=True):
        torch.testing.assert_close(found, same, atol=1e-9, rtol=0)  # sums in another order, of 1e3 eV
    parts = forces.split([len(atoms) for atoms in structures])
    for number, atoms in enumerate(structures):
        atoms.calc = SphereNetCalculator(potential)
        assert energy[number].item() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)  # of 1e3 eV
        np.testing.assert_allclose(parts[number].numpy(), atoms.get_forces(), atol=1e-10)
        if atoms.pbc.any():
            stress = virial[number].numpy() / atoms.get_volume()
            np.testing.assert_allclose(stress, atoms.get_stress(voigt=False), atol=1e-10)


@pytest.mark.parametrize("names", [["CH3CH2OH", "H2O", "C6H6"], ["CH3OH"], ["H2O"]], ids=len)
def test_molecules_of_any_size(exported, names):
    check(exported, rattled(names))


def test_single_atoms_and_pairs(exported):
    check(exported, [Atoms("C", [[0, 0, 0]])])
    check(exported, [Atoms("CO", [[0, 0, 0], [0, 0, 9]])])  # without neighbors
    check(exported, [Atoms("CO", [[0, 0, 0], [0, 0, 1.2]])])


def test_pairs_beyond_the_cutoff_change_nothing(exported):
    check(exported, rattled(["CH3CH2OH", "CH4"]), skin=1.5)


def test_cells(exported):
    check(exported, rattled(["CH3OH"], [[2.9, 0.3, 0], [0, 5, 0.2], [0.1, 0, 6]]))  # one of them below the cutoff
    check(exported, rattled(["CH3OH", "H2O"], [[4.2, 0.3, 0], [0, 5, 0.2], [0.1, 0, 6]]))


def test_neighbors_are_found_for_structures_and_tensors(exported):
    model, structures = exported[2], rattled(["CH3OH", "H2O"])
    z, pos, batch, cell, *_ = inputs(structures, model.cutoff)
    for one, other in zip(model.evaluate(z, pos, batch), model.evaluate(structures), strict=True):
        assert torch.equal(one, other)
    first = batch == 0
    for one, other in zip(model.evaluate(z[first], pos[first]), model.evaluate(structures[0]), strict=True):
        assert torch.equal(one, other)
    box = torch.diag_embed(torch.full((2, 3), 4.5, dtype=torch.float64))
    cells = rattled(["CH3OH", "H2O"], [4.5] * 3)
    for one, other in zip(model.evaluate(z, pos, batch, box), model.evaluate(cells), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match=r"z: expected atomic numbers \[1, 6, 8\], .* got \[7\]"):
        model.evaluate(molecule("NH3"))


def test_wrong_inputs(exported, tmp_path):
    model = exported[2]
    given = dict(zip("z pos batch cell edge_index shift".split(), inputs(rattled(["H2O"]), model.cutoff), strict=True))
    for name, value, error, message in [
        ("pos", given["pos"].float(), TypeError, "pos: expected torch.float64, got torch.float32"),
        ("pos", given["pos"][1:], ValueError, r"pos: expected shape \[3, 3\], got \[2, 3\]"),
        ("shift", given["shift"][1:], ValueError, r"edge_index: expected shape \[2, 5\], got \[2, 6\]"),
        ("batch", given["batch"] + 1, ValueError, "batch: expected numbers from 0 to 0, got 1 to 1"),
        ("edge_index", given["edge_index"] + 1, ValueError, "edge_index: expected numbers from 0 to 2, got 1 to 3"),
        ("z", torch.tensor([7, 1, 1]), ValueError, r"z: expected atomic numbers \[1, 6, 8\], .* got \[7\]"),
    ]:
        with pytest.raises(error, match=message):
            model(**given | {name: value})
    with pytest.raises(FileNotFoundError, match="nothing.pt2: no such file"):
        load_pt2(tmp_path / "nothing.pt2")
    (tmp_path / "other.pt2").write_text("no package")
    with pytest.raises(ValueError, match="other.pt2: expected what `spherenet-fast export --to pt2` wrote"):
        load_pt2(tmp_path / "other.pt2")


@pytest.mark.parametrize("damage", ["truncated", "a wrong byte", "of another version"])
def test_damaged_packages(tmp_path, damage):
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data/library.so", bytes(range(256)) * 100)
    content = bytearray(path.read_bytes())
    content[1000] ^= damage == "a wrong byte"
    path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    with pytest.raises(ValueError, match="model.pt2: expected what `spherenet-fast export --to pt2` wrote: ") as caught:
        load_pt2(path)
    assert "\n" not in str(caught.value) and ("it is damaged (in " in str(caught.value)) == (damage == "a wrong byte")


def test_the_program_of_the_docs(exported, tmp_path):
    """Compiled against torch's own headers and libraries; without Python it has the numbers of the calculator."""
    potential, path, _ = exported
    program = re.search(r"<!-- file: energy.cpp -->\n```cpp\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    (tmp_path / "energy.cpp").write_text(program)
    folder = Path(torch.__file__).parent
    subprocess.run(
        ["g++", "-std=c++20", "-O0", "energy.cpp", "-o", "energy", f"-I{folder}/include", f"-L{folder}/lib",
         f"-Wl,-rpath,{folder}/lib", "-ltorch", "-ltorch_cpu", "-lc10", "-ldl"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    result = subprocess.run([tmp_path / "energy", loaded_path(), path], capture_output=True, text=True, check=True)
    energy, *forces = [[float(word) for word in line.split()] for line in result.stdout.splitlines()]
    water = Atoms("OH2", [[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]])
    water.calc = SphereNetCalculator(potential)
    assert energy == pytest.approx([water.get_potential_energy()], abs=1e-9)  # printed with 12 digits
    np.testing.assert_allclose(forces, water.get_forces(), atol=1e-10)
    without = subprocess.run([tmp_path / "energy", "libm.so.6", path], capture_output=True, text=True)
    assert without.returncode != 0 and "Could not find schema for spherenet_fast::" in without.stderr
