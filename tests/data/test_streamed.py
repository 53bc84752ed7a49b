"""Data that stays in its files: the same batches and runs as out of memory, read by other processes as it is needed."""

import multiprocessing
import os
import pickle
import re
import signal

import ase.db
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from test_lmdb import structure, write
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter
from training_runs import TINY_MODEL, before_step, random_molecules, same_run, settings

from spherenet_fast.data import StreamedMolecules, evaluation_loader, random_split, read_molecules
from spherenet_fast.data.formats.lmdb import LmdbRecords
from spherenet_fast.data.streams import records as records_module
from spherenet_fast.data.streams.records import Opened
from spherenet_fast.training import load_config, train
from spherenet_fast.training.normalization import fit_normalization


def packed_arrays(count, seed=0):
    """Molecules of `random_molecules` in the layout "packed"."""
    molecules = random_molecules(count, seed=seed)
    arrays = {"n_atoms": molecules.n_atoms, "z": molecules.z, "pos": molecules.pos, "forces": molecules.forces}
    return {name: array.numpy() for name, array in arrays.items()} | {"energy": molecules.y[:, 0].numpy()}


def shards(path, save=np.savez):
    path.mkdir()
    for number, count in enumerate((9, 14, 7)):
        save(path / f"{number}.npz", **packed_arrays(count, number), energy_unit="kcal/mol", length_unit="bohr")
    return path


def frames(path):
    """Shards of one molecule's frames, in MD17's names."""
    path.mkdir()
    draw = np.random.default_rng(0)
    z, grid = np.array([6, 1, 8]), np.array([[0.0, 0, 0], [1.1, 0, 0], [0, 1.2, 0]])
    for number, count in enumerate((16, 14)):
        pos = grid + draw.uniform(-0.1, 0.1, (count, 3, 3))
        np.savez(path / f"{number}.npz", z=z, R=pos, E=draw.normal(size=(count, 1)), F=draw.normal(size=(count, 3, 3)))
    return path


def lmdbs(path):
    path.mkdir()
    records = [structure(3 + n % 3, n, y=float(n), force=torch.randn(3 + n % 3, 3)) for n in range(30)]
    records[4].force = None  # a label that some do not have
    write(path / "data.0000.lmdb", records[:17])
    write(path / "data.0001.lmdb", records[17:])
    return path


def database(path, periodic=True):
    draw = np.random.default_rng(1)
    with ase.db.connect(path, type="db") as rows:
        for number in range(30):
            pos = np.array([[0, 0, 0], [1.1, 0, 0], [0, 1.2, 0]]) + draw.uniform(-0.1, 0.1, (3, 3))
            cell = {"cell": np.eye(3) * 6, "pbc": True} if periodic and number % 2 else {}
            atoms = Atoms("HCO", pos, **cell)
            if number != 5:
                results = {"energy": draw.normal(), "forces": draw.normal(size=(3, 3))}
                atoms.calc = SinglePointCalculator(atoms, **results)
            rows.write(atoms, data={"charge": float(number)})
        del rows[3]  # ids with a gap
    return path


SOURCES = {
    "shards": shards,
    "compressed": lambda path: shards(path, np.savez_compressed),
    "frames": frames,
    "lmdb": lmdbs,
    "database": lambda path: database(path.with_suffix(".db")),
}


@pytest.fixture(params=SOURCES)
def source(request, tmp_path):
    return SOURCES[request.param](tmp_path / "set")


def both(source, tmp_path, workers=0):
    """The molecules of a source in memory, and in their files."""
    options = dict(forces=True, index=tmp_path / "index", workers=workers)
    found = [read_molecules(source, stream=stream, **options) for stream in (False, True)]
    return [molecules.choose(["energy"], {"energy": "meV"} if molecules.units[0] else {}, True) for molecules in found]


def same(one, other):
    for name in one.__slots__:
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None), name
        assert left is None or np.array_equal(np.asarray(left), np.asarray(right), equal_nan=name == "y"), name


def test_batches_and_facts_are_those_out_of_memory(source, tmp_path):
    whole, streamed = both(source, tmp_path)
    assert isinstance(streamed, StreamedMolecules) and len(streamed) == len(whole)
    for indices in ([0], [21, 3, 5, 16, 4], list(range(len(whole)))):
        same(streamed[indices], whole[indices])
    every = torch.arange(len(whole))
    assert torch.equal(streamed.n_atoms, whole.n_atoms) and streamed.elements() == whole.elements()
    assert streamed.elements(every[4:6]) == whole.elements(every[4:6])
    assert np.array_equal(streamed.labels(every), whole.labels(every), equal_nan=True)
    numbers = torch.tensor([1, 7])
    assert torch.equal(streamed.with_elements(numbers), whole.with_elements(numbers))
    for draw in ({"train": None, "val": 3, "test": 4, "seed": 1}, {"train": 5, "val": 2, "test": None, "seed": 2}):
        splits = [random_split(molecules, **draw) for molecules in (whole, streamed)]
        assert all(map(torch.equal, *splits))


@pytest.mark.parametrize("references", ["elements", "mean"])
@pytest.mark.parametrize("scale", ["auto", "none"])
@pytest.mark.parametrize("with_forces", [False, True])
def test_normalization_from_facts_alone(tmp_path, monkeypatch, references, scale, with_forces):
    monkeypatch.setattr("spherenet_fast.training.normalization.PART", 7)  # several parts
    source = lmdbs(tmp_path / "set")
    options = dict(forces=with_forces, index=tmp_path / "index", workers=0)
    whole, streamed = (
        read_molecules(source, stream=stream, **options).choose(["energy"], {}, with_forces) for stream in (False, True)
    )
    train = torch.randperm(30)[:25]
    expected = fit_normalization(whole, train, references, scale)
    found = fit_normalization(streamed, train, references, scale)
    for one, other in zip(found, expected, strict=True):
        # sums of 25 float64 numbers of at most 30 in another order, and a fit whose matrix has a condition below 1e3
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def run_settings(source, tmp_path, **changes):
    values = {f"model.{name}": value for name, value in TINY_MODEL.items()}
    values |= {"data.source": source, "data.index": tmp_path / "index", "data.forces": True, "data.stream": True}
    values |= {"data.train": 20, "data.val": 4, "data.test": 5, "training.max_time": None, "training.max_steps": 8}
    values |= {"training.val_every": 4, "training.tensorboard": False, "training.device": "cpu", "training.threads": 1}
    values |= {"training.batch_size": 4, "training.log_every": 2, "data.targets": "[energy]", "data.workers": 2}
    return settings(values | {name.replace("__", "."): value for name, value in changes.items()})


def test_a_run_that_workers_read_and_a_signal_stops_is_that_without(tmp_path, monkeypatch):
    """The order is a function of the seed and the step, whoever reads."""
    source = shards(tmp_path / "set")
    assert train(load_config("ethanol", run_settings(source, tmp_path, data__workers=0)), tmp_path / "one") is not None
    with monkeypatch.context() as patch:
        before_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train(load_config("ethanol", run_settings(source, tmp_path)), tmp_path / "two") is None
    train(load_config("ethanol", run_settings(source, tmp_path, data__workers=1)), tmp_path / "two", resume=True)
    same_run(tmp_path / "one", tmp_path / "two")


@pytest.fixture
def soon(monkeypatch):
    """Processes that end are found out in a fifth of a second, not in five."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))


def kill_worker():
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


def test_a_worker_that_dies_stops_the_training_with_a_checkpoint(tmp_path, monkeypatch, capsys, soon):
    source = lmdbs(tmp_path / "set")
    values = run_settings(source, tmp_path, training__max_steps=6, data__workers=1)
    train(load_config("ethanol", values), tmp_path / "one")
    with monkeypatch.context() as patch:
        before_step(patch, 1, kill_worker)
        assert train(load_config("ethanol", values), tmp_path / "two") is None
    error = capsys.readouterr().err
    assert "a process that reads data (data.workers) has ended: " in error
    assert "by the end of a process that read data; the same command with --resume continues" in error
    train(load_config("ethanol", values), tmp_path / "two", resume=True)
    same_run(tmp_path / "one", tmp_path / "two")


def test_a_worker_that_dies_in_a_test_leaves_the_rest_to_its_parent(tmp_path, capsys, soon):
    whole, streamed = both(shards(tmp_path / "set"), tmp_path, workers=1)
    batches = iter(evaluation_loader(streamed, torch.arange(30), 1))
    first = next(batches)
    kill_worker()
    for number, batch in enumerate([first, *batches]):
        same(batch, whole[number])
    assert number == 29 and "a process that reads data has ended" in capsys.readouterr().err


def test_errors_of_a_worker_are_one_line(tmp_path):
    source = shards(tmp_path / "set")
    _, streamed = both(source, tmp_path, workers=1)
    with open(source / "1.npz", "r+b") as file:
        file.truncate(700)
    streamed.reader.records._opened = Opened(streamed.reader.records._open)  # nothing of it is open
    with pytest.raises(ValueError, match="1.npz: expected a NumPy archive") as caught:
        list(evaluation_loader(streamed, torch.arange(30), 5))
    assert "\n" not in str(caught.value)


def test_every_structure_is_read_once_before_training_and_then_what_batches_need(tmp_path, monkeypatch):
    source, read, plain = lmdbs(tmp_path / "set"), [], LmdbRecords.read

    def counted(self, file, numbers):
        read.extend(numbers)
        return plain(self, file, numbers)

    monkeypatch.setattr(LmdbRecords, "read", counted)
    options = dict(forces=True, index=tmp_path / "index", workers=0, stream=True)
    read_molecules(source, **options)
    assert len(read) == 30
    molecules = read_molecules(source, **options).choose(["energy"], {}, True)  # of the next run
    fit_normalization(molecules, torch.arange(25))
    random_split(molecules, 20, 5, 5, 0)
    assert len(read) == 30
    next(iter(evaluation_loader(molecules, torch.tensor([3, 20, 7, 8]), 2)))
    assert len(read) == 32
    (source / "data.0001.lmdb").unlink()
    write(source / "data.0001.lmdb", [structure(3, 1, y=0.0, force=torch.zeros(3, 3))])  # which has changed
    assert len(read_molecules(source, **options)) == 18 and len(read) == 50


def test_a_batch_of_shards_needs_the_bytes_of_its_molecules_alone(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    for number in range(2):
        np.savez(tmp_path / "set" / f"{number}.npz", **packed_arrays(500, number))
    molecules = read_molecules(tmp_path / "set", stream=True, index=tmp_path / "index", workers=0)
    size, plain = [], os.pread
    monkeypatch.setattr(os, "pread", lambda file, count, place: size.append(count) or plain(file, count, place))
    atoms = len(molecules[[999, 3, 4]].z)
    assert sum(size) == atoms * (8 + 12 + 12) + 3 * 8  # z int64, pos and forces float32, energies


@pytest.mark.parametrize("damage", ["truncated", "absent"])
def test_an_index_that_is_not_whole_is_made_again(tmp_path, capsys, damage):
    source = shards(tmp_path / "set")
    options = dict(index=tmp_path / "index", workers=0, stream=True)
    expected = read_molecules(source, **options).n_atoms.clone()
    column = next((tmp_path / "index").glob("*/0.bin"))
    column.unlink() if damage == "absent" else os.truncate(column, 8)
    assert torch.equal(read_molecules(source, **options).n_atoms, expected)
    read_molecules(source, **options)
    assert capsys.readouterr().out.count("structures looked at") == 2


def test_readers_go_to_processes_that_inherit_nothing(source, tmp_path):
    _, streamed = both(source, tmp_path)
    expected = streamed[[0, 20]]
    same(pickle.loads(pickle.dumps(streamed.reader))[torch.tensor([0, 20])], expected)


def test_few_files_are_open_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(records_module, "MOST_OPEN", 2)
    _, streamed = both(shards(tmp_path / "set"), tmp_path)
    streamed[[0, 10, 25, 1]]
    assert len(streamed.reader.records._opened._files) == 2


def test_what_cannot_be_streamed(tmp_path):
    options = dict(index=tmp_path / "index", workers=0, stream=True)
    for source in ("ethanol.extxyz", "."):
        (tmp_path / "ethanol.extxyz").touch()
        with pytest.raises(ValueError, match="data.stream: expected an LMDB, .npz archives or ASE databases"):
            read_molecules(tmp_path / source, **options)
    bad = shards(tmp_path / "set")
    np.savez(bad / "3.npz", **{**packed_arrays(3), "forces": np.zeros((2, 3))})
    with pytest.raises(ValueError, match=r"3.npz: forces: expected \d+ rows \(the sum of n_atoms\), got 2"):
        read_molecules(bad, **options)
    arrays = packed_arrays(3)
    del arrays["forces"]
    np.savez(bad / "3.npz", **arrays, energy_unit="kcal/mol", length_unit="bohr")
    with pytest.raises(ValueError, match="3.npz: expected arrays energy, .*forces.* as in .*0.npz, got energy"):
        read_molecules(bad, **options)
    np.savez(bad / "3.npz", **packed_arrays(3), energy_unit="eV", length_unit="bohr")
    with pytest.raises(ValueError, match="3.npz: energy_unit: expected the same as in .*0.npz, got another"):
        read_molecules(bad, **options)
    arrays = packed_arrays(3)
    arrays["pos"] = arrays["pos"] * 0.0
    np.savez(bad / "3.npz", **arrays, energy_unit="kcal/mol", length_unit="bohr")
    with pytest.raises(ValueError, match="frame . of .*3.npz: pos: expected atoms at least"):
        read_molecules(bad, **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_truncated_files(source, tmp_path, workers):
    file = source if source.is_file() else sorted(source.iterdir())[-1]
    os.truncate(file, file.stat().st_size * 2 // 3)
    for stream in (False, True):
        with pytest.raises(ValueError, match=re.escape(str(file))) as caught:
            read_molecules(source, stream=stream, index=tmp_path / "index", workers=workers)
        assert "\n" not in str(caught.value)


def test_large_files_are_streamed_unasked(tmp_path, monkeypatch, capsys):
    source = shards(tmp_path / "set")
    assert not isinstance(read_molecules(source), StreamedMolecules)
    monkeypatch.setattr("spherenet_fast.data.sources.LARGE", 10**12)
    assert isinstance(read_molecules(source, index=tmp_path / "index", workers=0), StreamedMolecules)
    assert "read as it is needed (data.stream)" in capsys.readouterr().out
    assert not isinstance(read_molecules(source, stream=False), StreamedMolecules)
