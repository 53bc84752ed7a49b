"""The Open Catalyst Project's LMDBs: what is read of them, and that nothing in them is run."""

import os
import pickle

import lmdb
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from training_runs import TINY_MODEL, settings
from typer.testing import CliRunner

from spherenet_fast.cli import app
from spherenet_fast.data import read_molecules
from spherenet_fast.training import load_config, train


def write(path, records, length=True, protocol=-1):
    """An LMDB as the project writes it: records by number, and their number."""
    with lmdb.open(str(path), subdir=False, map_size=2**24, lock=False) as environment:
        with environment.begin(write=True) as transaction:
            for number, record in enumerate(records):
                value = record if isinstance(record, bytes) else pickle.dumps(record, protocol)
                transaction.put(str(number).encode(), value)
            if length:
                transaction.put(b"length", pickle.dumps(len(records), protocol))
    return path


def structure(num_atoms, seed=0, **labels):
    """One record, with entries and dtypes as published."""
    generator = torch.Generator().manual_seed(seed)
    pos = torch.rand(num_atoms, 3, generator=generator) * 5
    return Data(
        edge_index=torch.zeros(2, 4, dtype=torch.int64),
        pos=pos,
        pos_relaxed=pos + 0.1,
        cell=torch.eye(3)[None] * (10 + seed),
        atomic_numbers=torch.tensor([29.0] * (num_atoms - 1) + [8.0]),
        natoms=num_atoms,
        tags=torch.tensor([0] * (num_atoms - 1) + [2]),
        fixed=torch.tensor([1.0] * (num_atoms - 2) + [0.0] * 2),
        sid=seed,
        **labels,
    )


def as_old(data):
    """The same record in the layout of PyTorch Geometric 1, where attributes are the object's own."""
    old = Data.__new__(Data)
    old.__dict__.update(data.to_dict() | {"x": None, "y": None, "face": None})
    return old


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("old", [False, True])
def test_initial_structures_and_relaxed_energies(tmp_path, old, protocol):
    data = [structure(4, 0, y_relaxed=-1.5, y_init=0.25), structure(3, 1, y_relaxed=-2.0, y_init=0.5)]
    path = write(tmp_path / "data.lmdb", [as_old(d) if old else d for d in data], length=not old, protocol=protocol)
    molecules = read_molecules(path, dtype=torch.float64, relaxations=True)
    assert molecules.names == ("relaxed_energy", "initial_energy") and molecules.units == ("eV", "eV")
    assert molecules.y.tolist() == [[-1.5, 0.25], [-2.0, 0.5]]
    assert molecules.n_atoms.tolist() == [4, 3] and molecules.z.tolist() == [29] * 3 + [8] + [29] * 2 + [8]
    assert torch.equal(molecules.pos, torch.cat([d.pos for d in data]).double())
    assert torch.equal(molecules.cell, torch.cat([d.cell for d in data]).double())
    assert molecules.pbc.all() and molecules.forces is None
    assert molecules.fixed.tolist() == [True, True, False, False, True, False, False]


def test_energies_and_forces_of_all_files_of_a_folder(tmp_path):
    frames = [structure(3, seed, y=float(seed), force=torch.full((3, 3), float(seed))) for seed in range(3)]
    write(tmp_path / "data.0000.lmdb", frames[:2])
    write(tmp_path / "data.0001.lmdb", frames[2:])
    molecules = read_molecules(tmp_path).choose(["energy"], {"energy": "meV"}, forces=True)
    assert molecules.y.tolist() == [[0.0], [1000.0], [2000.0]]
    assert molecules.forces[:, 0].tolist() == [0.0] * 3 + [1000.0] * 3 + [2000.0] * 3
    with pytest.raises(ValueError, match="data.relaxations: expected y_relaxed in every record"):
        read_molecules(tmp_path, relaxations=True)


def test_numbers_may_be_arrays_of_numpy_and_tensors(tmp_path):
    record = structure(3, y=torch.tensor([1.5]))
    record.pos, record.cell, record.y_relaxed = record.pos.numpy(), record.cell.numpy(), np.float64(-3)
    for protocol in (2, 5):
        molecules = read_molecules(write(tmp_path / f"{protocol}.lmdb", [record], protocol=protocol))
        assert molecules.names == ("relaxed_energy", "energy") and molecules.y.tolist() == [[-3.0, 1.5]]
        assert np.array_equal(molecules.pos, record.pos)


def test_structures_without_labels(tmp_path):
    molecules = read_molecules(write(tmp_path / "test.lmdb", [structure(3), structure(2)]))
    assert len(molecules) == 2 and molecules.names == () and molecules.forces is None


@pytest.mark.parametrize("s2ef", [False, True])
def test_training_and_evaluation(tmp_path, s2ef):
    labels = [dict(y=-float(n), force=torch.randn(3, 3)) if s2ef else dict(y_relaxed=-float(n)) for n in range(4)]
    write(tmp_path / "train.lmdb", [structure(3, seed, **label) for seed, label in enumerate(labels)])
    write(tmp_path / "val.lmdb", [structure(3, 9, **labels[0])])
    values = {f"model.{name}": value for name, value in TINY_MODEL.items()} | {"data.source": tmp_path / "train.lmdb"}
    values |= {"data.targets": "[energy]" if s2ef else "[relaxed_energy]", "data.forces": s2ef, "data.held_out": "[]"}
    values |= {"data.test": 0, "data.val": 1, "training.max_steps": 2, "training.tensorboard": False}
    train(load_config("is2re", settings(values | {"training.device": "cpu"})), tmp_path / "run")
    arguments = ["evaluate", str(tmp_path / "run" / "best.ckpt"), "--data", str(tmp_path / "val.lmdb")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and result.stdout.startswith("1 molecules")
    assert "% of the errors are within 0.02 eV" in result.stdout and ("eV/Ang" in result.stdout) == s2ef


class Malicious:
    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["record", "length", "entry"])
def test_nothing_in_a_file_is_run(tmp_path, place):
    bomb = Malicious(os.mkdir, str(tmp_path / "run"))
    path = tmp_path / "data.lmdb"
    if place == "length":
        with lmdb.open(str(write(path, [structure(3)])), subdir=False, lock=False) as environment:
            with environment.begin(write=True) as transaction:
                transaction.put(b"length", pickle.dumps(bomb))
    else:
        write(path, [bomb if place == "record" else structure(3, surprise=bomb)])
    with pytest.raises(ValueError, match=r"it names posix.mkdir, which is not needed for data"):
        read_molecules(path)
    assert not (tmp_path / "run").exists()
    pickle.loads(pickle.dumps(bomb))  # what Python's own reader would have done
    assert (tmp_path / "run").exists()


def test_no_function_is_reached_through_an_admitted_one(tmp_path):
    stored = Malicious(torch.storage._load_from_bytes, pickle.dumps(Malicious(os.mkdir, str(tmp_path / "run"))))
    bad = structure(3)
    bad.pos = Malicious(torch._utils._rebuild_tensor_v2, None)
    bad.pos.call = torch._utils._rebuild_tensor_v2, (stored, 0, (3, 3), (3, 1), False, {})
    with pytest.raises(ValueError, match="record 0: expected pos"):
        read_molecules(write(tmp_path / "data.lmdb", [bad]))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("length", [True, False])
def test_damaged_files(tmp_path, length):
    whole = pickle.dumps(structure(3))
    no_cell = structure(3)
    no_cell.cell = None
    for name, record, message in (
        ("truncated", whole[: len(whole) // 2], "truncated.lmdb: expected an LMDB of pickled structures"),
        ("number", pickle.dumps(3.0), "number.lmdb: record 0: expected pos .* got none called atomic_numbers or cell"),
        ("cell", no_cell, "cell.lmdb: record 0: .* got none called cell"),
        ("empty", b"", "empty.lmdb: expected an LMDB"),
    ):
        with pytest.raises(ValueError, match=message):
            read_molecules(write(tmp_path / f"{name}.lmdb", [record], length))
    with pytest.raises(ValueError, match="expected records, got none"):
        read_molecules(write(tmp_path / "none.lmdb", [], length))
    (tmp_path / "other.lmdb").write_bytes(b"something else" * 1000)
    with pytest.raises(ValueError, match="other.lmdb: expected an LMDB of pickled structures"):
        read_molecules(tmp_path / "other.lmdb")
    with pytest.raises(FileNotFoundError, match="there is no .*nowhere.lmdb"):
        read_molecules(tmp_path / "nowhere.lmdb")
