"""Readers of archives, structures, samples and PyTorch Geometric's data sets."""

import urllib.error
from pathlib import Path
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from spherenet_fast.data import Molecules, read_molecules, sample_path, sources
from spherenet_fast.data.reading import as_stated


def test_shipped_samples():
    ethanol, qm9 = read_molecules("ethanol"), read_molecules("qm9")
    assert len(ethanol) == 2000 and torch.equal(ethanol.test, torch.arange(1000, 2000))
    assert ethanol.names == ("energy",) and ethanol.units == ("kcal/mol",)
    assert len(qm9) == 1000 and qm9.names == tuple("mu alpha homo lumo gap r2 zpve U0 U H G Cv".split())
    methane = dict(zip(qm9.names, qm9.y[0].tolist(), strict=True))
    assert qm9[0].z.tolist() == [6, 1, 1, 1, 1]
    assert methane["U0"] == -40.47893 and methane["gap"] == 0.5048  # QM9's file for molecule 1
    assert sample_path("qm9").stat().st_size + sample_path("ethanol").stat().st_size < 1_000_000


def frames(count=4):
    draw = np.random.default_rng(1)
    return {
        "z": np.array([8, 1, 1], dtype=np.uint8),
        "pos": draw.normal(size=(count, 3, 3)),
        "energy": draw.normal(size=count),
        "forces": draw.normal(size=(count, 3, 3)),
    }


MD17_NAMES = {"pos": "R", "energy": "E", "forces": "F", "z": "z"}
RMD17_NAMES = {"pos": "coords", "energy": "energies", "forces": "forces", "z": "nuclear_charges"}


@pytest.mark.parametrize(
    ("names", "unit"),
    [(MD17_NAMES, "kcal/mol"), (RMD17_NAMES, "kcal/mol"), ({name: name for name in MD17_NAMES}, None)],
)
def test_frames_of_one_molecule(tmp_path, names, unit):
    arrays = frames()
    np.savez(tmp_path / "f.npz", **{names[name]: array for name, array in arrays.items()})
    molecules = read_molecules(tmp_path / "f.npz", dtype=torch.float64)
    assert molecules.units == (unit,) and molecules.test is None
    batch = molecules[[2, 0]]
    assert batch.z.tolist() == [8, 1, 1] * 2
    assert np.array_equal(batch.pos.reshape(2, 3, 3), arrays["pos"][[2, 0]])
    assert np.array_equal(batch.forces.reshape(2, 3, 3), arrays["forces"][[2, 0]])
    assert np.array_equal(batch.y[:, 0], arrays["energy"][[2, 0]])


def test_divided_frames_and_revised_labels(tmp_path):
    train, test, revised = frames(), frames(2), frames(6)["energy"]
    arrays = {"z": train["z"]} | {f"train_{k}": v for k, v in train.items() if k != "z"}
    arrays |= {f"test_{k}": v for k, v in test.items() if k != "z"}
    np.savez(tmp_path / "f.npz", **arrays, train_energy_revised=revised[:4], test_energy_revised=revised[4:])
    molecules = read_molecules(tmp_path / "f.npz")
    assert molecules.test.tolist() == [4, 5] and len(molecules) == 6
    assert np.array_equal(molecules.y[4:, 0], test["energy"])
    again = read_molecules(tmp_path / "f.npz", labels="revised")
    assert np.array_equal(again.y[:, 0], revised) and again.forces is None
    np.savez(tmp_path / "g.npz", **arrays)
    with pytest.raises(ValueError, match="no revised labels"):
        read_molecules(tmp_path / "g.npz", labels="revised")


def test_packed_labels_and_cells(tmp_path):
    arrays = {
        "n_atoms": np.array([1, 2]),
        "z": np.array([1, 8, 1]),
        "pos": np.random.default_rng(0).normal(size=(3, 3)),
    }
    np.savez(
        tmp_path / "f.npz", **arrays, cell=np.stack([np.eye(3)] * 2), gap_eV=np.array([1.0, 2.0]),
        label=np.array(["a", "b"]),
    )  # fmt: skip
    molecules = read_molecules(tmp_path / "f.npz")
    assert molecules.names == ("gap_eV",) and molecules.units == (None,)
    assert molecules.pbc.all() and molecules.pbc.shape == (2, 3)
    np.savez(
        tmp_path / "g.npz", **arrays, y=np.ones((2, 2)), target_names=["u298", "x"], target_units=["eV", "D"],
        pbc=np.array([True, True, False]), lattice=np.eye(3),
    )  # fmt: skip
    molecules = read_molecules(tmp_path / "g.npz")
    assert molecules.names == ("U", "x") and molecules.units == ("eV", "D")
    assert molecules.pbc.tolist() == [[True, True, False]] * 2


@pytest.mark.parametrize("content", [b"", b"no archive", "truncated"])
def test_damaged_archives(tmp_path, content):
    path = tmp_path / "f.npz"
    whole = sample_path("qm9").read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == "truncated" else content)
    with pytest.raises(ValueError, match="f.npz: expected a NumPy archive"):
        read_molecules(path)


def test_archive_with_a_damaged_array(tmp_path):
    whole = bytearray(sample_path("qm9").read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 64] = bytes(64)  # inside the compressed positions; the archive's directory stays whole
    (tmp_path / "f.npz").write_bytes(whole)
    with pytest.raises(ValueError, match="f.npz: [a-z_]*: expected an array as NumPy saves it, got a damaged one"):
        read_molecules(tmp_path / "f.npz")


def test_wrong_sources(tmp_path):
    for name in ("methanol", ""):
        with pytest.raises(FileNotFoundError, match=f"a file or one of ethanol, toluene, .*; there is no '{name}'"):
            read_molecules(name)
    np.savez(tmp_path / "f.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="expected arrays n_atoms, z, pos .* got a"):
        read_molecules(tmp_path / "f.npz")
    np.savez(tmp_path / "g.npz", **(frames() | {"energy": np.zeros(3)}))
    with pytest.raises(ValueError, match="energy: expected one entry per frame"):
        read_molecules(tmp_path / "g.npz")
    (tmp_path / "f.xyz").write_text("2\n\nnothing\n")
    with pytest.raises(ValueError, match="f.xyz: expected structures that ASE can read"):
        read_molecules(tmp_path / "f.xyz")


def test_structures_through_ase(tmp_path):
    cell = Atoms("Pt2", [[0, 0, 0], [2, 2, 2]], cell=[4, 4, 4], pbc=True, info={"gap": 0.5})
    molecule = Atoms("HF", [[0, 0, 0], [0, 0, 0.9]], info={"gap": 2})
    for number, atoms in enumerate((cell, molecule)):
        atoms.calc = SinglePointCalculator(atoms, energy=-1.5 * number, forces=np.full((2, 3), number))
    ase.io.write(tmp_path / "f.extxyz", [cell, molecule])
    molecules = read_molecules(tmp_path / "f.extxyz", dtype=torch.float64)
    assert molecules.names == ("energy", "gap") and molecules.units == ("eV", None)
    assert molecules.y.tolist() == [[0.0, 0.5], [-1.5, 2.0]]
    assert molecules.forces.tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
    assert molecules.pbc.tolist() == [[True] * 3, [False] * 3]
    assert molecules.cell[0].tolist() == (4 * np.eye(3)).tolist()
    assert read_molecules(tmp_path / "f.extxyz").pos.dtype == torch.float32


# PyTorch Geometric's data sets, in the folders it would make


def test_md17_of_pytorch_geometric_keeps_full_precision(tmp_path):
    arrays = frames()
    (tmp_path / "ethanol" / "raw").mkdir(parents=True)
    np.savez(tmp_path / "ethanol" / "raw" / "md17_ethanol.npz", **{MD17_NAMES[k]: v for k, v in arrays.items()})
    molecules = read_molecules("pyg:MD17/ethanol", root=tmp_path)
    assert molecules.units == ("kcal/mol",) and np.array_equal(molecules.y[:, 0], arrays["energy"])


def test_qm9_of_pytorch_geometric(tmp_path):
    from torch_geometric.data import Data
    from torch_geometric.datasets import QM9

    for name in ("gdb9.sdf", "gdb9.sdf.csv", "uncharacterized.txt", "qm9_v3.pt"):
        (tmp_path / "raw").mkdir(exist_ok=True)
        (tmp_path / "raw" / name).touch()
    data = [
        Data(z=torch.tensor(z), pos=torch.rand(len(z), 3), y=torch.arange(19.0)[None] + 100 * i)
        for i, z in enumerate([[6, 1], [8, 1, 1]])
    ]
    (tmp_path / "processed").mkdir()
    QM9.save(data, tmp_path / "processed" / "data_v3.pt")
    molecules = read_molecules("pyg:QM9", root=tmp_path)
    assert molecules.n_atoms.tolist() == [2, 3] and torch.equal(molecules[1].pos, data[1].pos)
    chosen = molecules.choose(["U0", "mu"], {"U0": "meV"})
    assert chosen.y.tolist() == [[7000.0, 0.0], [107000.0, 100.0]] and chosen.units == ("meV", "D")


def test_absent_data_set_of_pytorch_geometric(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch_geometric.datasets.qm9.download_url", offline)
    monkeypatch.setattr("torch_geometric.datasets.md17.download_url", offline)
    for name in ("QM9", "MD17/revised ethanol"):
        with pytest.raises(FileNotFoundError, match="is not under .* and could not be downloaded .*no network"):
            read_molecules(f"pyg:{name}", root=tmp_path)
    with pytest.raises(ValueError, match="expected pyg:QM9 or pyg:MD17/<molecule>"):
        read_molecules("pyg:MD17/water", root=tmp_path)
    with pytest.raises(ValueError, match="data.root: expected the folder"):
        read_molecules("pyg:QM9")


def test_a_format_is_a_module_in_the_list(tmp_path, monkeypatch):
    """A source that only the added format holds; names and units that its user states are obeyed."""

    def read_source(source, options):
        text = Path(source).read_text()
        pos = torch.tensor([[0.0, 0.0, float(text)], [0.0, 0.0, 0.0]], dtype=options.dtype)
        arrays = dict(n_atoms=torch.tensor([2]), z=torch.tensor([1, 1]), pos=pos, y=torch.ones(1, 1).double())
        return as_stated(Molecules(**arrays, names=("E",), units=(None,)), options)

    added = SimpleNamespace(holds=lambda source: source.endswith(".bond"), read_source=read_source)
    monkeypatch.setattr(sources, "FORMATS", (added, *sources.FORMATS))
    path = tmp_path / "h2.bond"
    path.write_text("0.75")
    found = read_molecules(path, dtype=torch.float64, keys={"energy": "E"}, file_units={"energy": "eV", "length": "nm"})
    assert found.pos[0, 2] == 7.5 and (found.names, found.units) == (("energy",), ("eV",))
    assert found.origin.files == (str(path),)
    with pytest.raises(TypeError, match="unexpected keyword argument 'unit'"):
        read_molecules(path, unit="eV")
