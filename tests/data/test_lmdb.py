"""The Open Catalyst Project's LMDBs: what is read of them, and that nothing in them is run."""

import os
import pickle
from types import SimpleNamespace

import lmdb
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from training_runs import TINY_MODEL, settings
from typer.testing import CliRunner

from spherenet_fast.cli import app
from spherenet_fast.data import read_molecules
from spherenet_fast.data.formats import lmdb as lmdb_module
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
    record.pos = np.asfortranarray(record.pos.astype(">f8"))  # by columns, in the other byte order
    molecules = read_molecules(write(tmp_path / "other.lmdb", [record], protocol=2), dtype=torch.float64)
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
    values |= {"training.max_steps": 2, "training.tensorboard": False, "training.device": "cpu"}
    train(load_config("oc20:s2ef" if s2ef else "oc20:is2re", settings(values)), tmp_path / "run")
    arguments = ["evaluate", str(tmp_path / "run" / "best.ckpt"), "--data", str(tmp_path / "val.lmdb")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and result.stdout.startswith("1 molecules")
    assert "% of the errors are within 0.02 eV" in result.stdout and ("eV/Ang" in result.stdout) == s2ef


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

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
    bad.pos = Malicious(torch._utils._rebuild_tensor_v2, stored, 0, (3, 3), (3, 1), False, {})
    with pytest.raises(ValueError, match="record 0: expected pos"):
        read_molecules(write(tmp_path / "data.lmdb", [bad]))
    assert not (tmp_path / "run").exists()


REBUILD, FROM_BUFFER = (np.zeros(1).__reduce_ex__(protocol)[0] for protocol in (2, 5))


def array_with_state(*state):
    """An array whose pickle states its shape, dtype, order and bytes."""
    array = Malicious(REBUILD, np.ndarray, (0,), b"b")
    array.call += ((1, *state),)
    return array


@pytest.mark.parametrize("make", ["constructor", "buffer", "state"])
def test_bytes_of_a_file_are_never_pointers(tmp_path, make):
    objects, data = np.dtype("O"), b"A" * 72
    bad = structure(3)
    bad.pos = {
        "constructor": Malicious(np.ndarray, (3, 3), objects, data),
        "buffer": Malicious(FROM_BUFFER, data, objects, (3, 3), "C"),
        "state": array_with_state((3, 3), objects, False, data),
    }[make]
    with pytest.raises(ValueError, match="an array of O8?, expected one of numbers"):
        read_molecules(write(tmp_path / "data.lmdb", [bad]))


@pytest.mark.parametrize("offset", [2**12, 2**30])
def test_fields_of_a_dtype_cannot_lie_outside_the_array(tmp_path, offset):
    for name, message in (("V8", "an array of V8, expected one of numbers"), ("f8", None)):
        forged = Malicious(np.dtype, name, False, True)
        forged.call += ((3, "|", None, ("a",), {"a": (np.dtype("f8"), offset)}, 8, 1, 16),)
        record = structure(3)
        record.pos = array_with_state((3, 3), forged, False, np.arange(9.0).tobytes())
        path = write(tmp_path / f"{name}.lmdb", [record])
        if message is None:  # what the dtype's state says beyond the byte order is not heard
            assert read_molecules(path, dtype=torch.float64).pos.flatten().tolist() == list(range(9))
        else:
            with pytest.raises(ValueError, match=message):
                read_molecules(path)


@pytest.mark.parametrize("module, name", sorted(lmdb_module._ADMITTED))
def test_a_file_cannot_change_what_it_names(tmp_path, module, name):
    stand_in = lmdb_module._ADMITTED[module, name]
    before = dict(vars(stand_in)) if isinstance(stand_in, type) else None
    named = b"c" + f"{module}\n{name}\n".encode()
    for state in (b"N}U\x05numpyK\x01s\x86", b"}U\x05numpyK\x01s"):  # (None, {"numpy": 1}) and {"numpy": 1}
        path = write(tmp_path / f"{len(state)}.lmdb", [b"\x80\x02" + named + state + b"b."])
        with pytest.raises(ValueError, match="expected an LMDB of pickled structures"):
            read_molecules(path)
    assert before is None or dict(vars(stand_in)) == before


def test_a_record_is_not_an_array_at_an_address_of_its_choice(tmp_path):
    secret = np.arange(9.0).reshape(3, 3)
    address = Data.__new__(Data)
    address.__dict__["__array_interface__"] = secret.__array_interface__
    assert np.array_equal(np.asarray(SimpleNamespace(**vars(address))), secret)  # what NumPy makes of it
    bad = structure(3)
    for bad.pos in (address, [address]):
        with pytest.raises(ValueError, match="record 0: .* expected numbers, got a (_Record|list)"):
            read_molecules(write(tmp_path / f"{type(bad.pos).__name__}.lmdb", [bad]))


@pytest.mark.parametrize("layout", [(0, (1000, 3), (3, 1)), (-3, (3, 3), (3, 1)), (4, (3, 3), (3, 1))])
def test_tensors_stay_within_their_storage(tmp_path, layout):
    good = structure(3)
    storage = good.pos.untyped_storage()
    stored = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    good.pos = Malicious(torch._utils._rebuild_tensor_v2, stored, *layout, False, {})
    with pytest.raises(ValueError, match="record 0: expected pos .* (out of bounds|invalid storage offset)"):
        read_molecules(write(tmp_path / "data.lmdb", [good]))


def test_a_store_without_a_mapping(tmp_path):
    named = b"ctorch_geometric.data.data\nData\n)\x81}U\x06_storectorch_geometric.data.storage\nGlobalStorage\n)\x81"
    for number, state in enumerate((b"}", b"}U\x08_mappingK\x03s")):
        record = b"\x80\x02" + named + state + b"bsb."
        with pytest.raises(ValueError, match="record 0: .* got attributes in a (NoneType|int)"):
            read_molecules(write(tmp_path / f"{number}.lmdb", [record]))


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


def test_folders_of_one_lmdb_and_of_several(tmp_path):
    for number in range(2):
        inside = tmp_path / "all" / f"{number}.lmdb"
        inside.mkdir(parents=True)
        write(inside / "data.mdb", [structure(3, number, y=float(number))])
        (inside / "lock.mdb").touch()
    for path, energies in (
        (tmp_path / "all", [0, 1]),
        (tmp_path / "all" / "1.lmdb", [1]),
        (tmp_path / "all" / "1.lmdb" / "data.mdb", [1]),
    ):
        assert read_molecules(path).y[:, 0].tolist() == energies


def test_fractions_of_atoms_are_refused(tmp_path):
    for name, value, message in (
        ("atomic_numbers", [29.0, 8.5], r"expected whole numbers, got 8.5 at \[1\]"),
        ("fixed", [0.5, 1.0], r"expected false or true, 0 or 1, got 0.5 at \[0\]"),
    ):
        record = structure(2)
        record[name] = torch.tensor(value)
        with pytest.raises(ValueError, match=f"f.lmdb: record 0: .*{message}"):
            read_molecules(write(tmp_path / "f.lmdb", [record]))
    with lmdb.open(str(write(tmp_path / "g.lmdb", [structure(2)])), subdir=False, lock=False) as environment:
        with environment.begin(write=True) as transaction:
            transaction.put(b"length", pickle.dumps(0.5))
    with pytest.raises(ValueError, match="g.lmdb: length: expected the number of records; expected whole numbers"):
        read_molecules(tmp_path / "g.lmdb")


def test_entries_that_are_not_used_are_named(tmp_path):
    records = [structure(3, number, y=1.0, stress=torch.eye(3), dipole=torch.ones(3)) for number in range(2)]
    with pytest.warns(UserWarning) as caught:
        read_molecules(write(tmp_path / "f.lmdb", records))
    (message,) = (str(warning.message) for warning in caught)
    assert message.endswith("f.lmdb: not used, as they are not understood: entries dipole, stress")


def test_labels_of_some_records(tmp_path):
    """What a record does not have is NaN, and no other record's label is lost."""
    records = [structure(3, 0, y=1.0), structure(2, 1, y=2.0, force=torch.ones(2, 3)), structure(2, 2)]
    records[2].fixed = None
    molecules = read_molecules(write(tmp_path / "f.lmdb", records))
    assert molecules.y[:2, 0].tolist() == [1.0, 2.0] and molecules.y[2].isnan().all()
    assert molecules.forces.isnan().any(1).tolist() == [True] * 3 + [False] * 2 + [True] * 2
    assert molecules.fixed.tolist() == [True, False, False] + [False] * 4
    with pytest.raises(ValueError, match="data.relaxations: expected y_relaxed in every record"):
        read_molecules(tmp_path / "f.lmdb", relaxations=True)
