"""Packed molecules, units, splits and the order of batches."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from ase import units
from training_runs import random_molecules

from spherenet_fast.data import (
    EvenBatches,
    Molecules,
    ShuffledBatches,
    conversion,
    evaluation_loader,
    random_split,
    read_molecules,
    read_split,
    training_loader,
)
from spherenet_fast.data.file_units import in_stated_units


def collate_in_a_loop(molecules, indices):
    """What a batch is, one molecule at a time."""
    parts = [slice(int(molecules.offset[i]), int(molecules.offset[i + 1])) for i in indices]
    return {
        "z": torch.cat([molecules.z[part] for part in parts]),
        "pos": torch.cat([molecules.pos[part] for part in parts]),
        "forces": torch.cat([molecules.forces[part] for part in parts]),
        "batch": torch.cat([torch.full((part.stop - part.start,), row) for row, part in enumerate(parts)]),
        "y": torch.stack([molecules.y[i] for i in indices]),
        "cell": None if molecules.cell is None else torch.stack([molecules.cell[i] for i in indices]),
        "pbc": None if molecules.pbc is None else torch.stack([molecules.pbc[i] for i in indices]),
    }


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("indices", [[3], [0, 1, 2, 3, 4, 5, 6], [5, 0, 5, 2]])
def test_batch_is_the_loop_over_molecules(periodic, indices):
    molecules = random_molecules(periodic=periodic)
    batch = molecules.batch(torch.tensor(indices))
    assert batch.num_graphs == len(indices)
    for name, expected in collate_in_a_loop(molecules, indices).items():
        found = getattr(batch, name)
        assert found is None if expected is None else torch.equal(found, expected), name


def test_indexing_takes_numbers_lists_and_slices():
    molecules = random_molecules()
    assert torch.equal(molecules[[2, 3]].z, molecules[2:4].z)
    assert molecules[2].num_graphs == 1
    assert molecules[0:0].num_graphs == 0 and len(molecules[0:0].z) == 0


def test_batch_moves_to_another_device():
    batch = random_molecules(periodic=True)[[1, 2]].to("meta")
    assert {batch.z.device.type, batch.cell.device.type, batch.y.device.type} == {"meta"}


def test_shuffled_batches_depend_on_seed_and_step_only():
    indices = torch.arange(100, 117)
    whole = list(islice(ShuffledBatches(indices, 5, seed=3), 11))
    for start in (1, 3, 7):
        rest = list(islice(ShuffledBatches(indices, 5, seed=3, start=start), 11 - start))
        assert all(map(torch.equal, whole[start:], rest))
    other = list(islice(ShuffledBatches(indices, 5, seed=4), 11))
    assert not all(map(torch.equal, whole, other))


def test_every_epoch_visits_every_molecule_at_most_once_in_a_new_order():
    batches = ShuffledBatches(torch.arange(17), 5, seed=0)
    assert batches.steps_per_epoch == 3
    epochs = [torch.cat(list(islice(batches, 3 * e, 3 * e + 3))) for e in range(4)]
    assert all(len(epoch.unique()) == 15 for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert len(torch.cat(epochs).unique()) == 17


def test_batch_larger_than_the_data_is_the_data():
    batches = ShuffledBatches(torch.arange(3), 32, seed=0)
    assert batches.steps_per_epoch == 1
    assert sorted(next(iter(batches)).tolist()) == [0, 1, 2]
    with pytest.raises(ValueError, match="at least 1 training molecule"):
        ShuffledBatches(torch.arange(0), 4, seed=0)


def test_processes_share_a_batch():
    """In equal parts, or nearly so, where all molecules together do not fill a batch."""
    for molecules, size in ((17, 2), (5, 8)):
        indices = torch.arange(molecules)
        whole = islice(ShuffledBatches(indices, 3 * size, seed=3), 7)
        parts = zip(*(islice(ShuffledBatches(indices, size, 3, 0, rank, 3), 7) for rank in range(3)), strict=True)
        for batch, shares in zip(whole, parts, strict=True):
            assert torch.equal(torch.cat(shares), batch)
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
    with pytest.raises(ValueError, match="at least 3 training molecules, one for each process, got 2"):
        ShuffledBatches(torch.arange(2), 4, seed=0, count=3)


def sizes_of_a_set(count):
    """Edges of many small molecules and a few large ones."""
    draw = np.random.default_rng(0)
    return torch.from_numpy(np.concatenate([draw.integers(10, 300, count - count // 6), [3000] * (count // 6)]))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_even_batches_have_as_many_molecules_and_about_as_many_edges(count):
    edges, indices = sizes_of_a_set(600), torch.arange(100, 700)
    streams = [EvenBatches(indices, edges, 20_000, 64, 3, rank=rank, count=count) for rank in range(count)]
    steps = streams[0].steps_per_epoch
    epochs = [list(islice(stream, 2 * steps)) for stream in streams]
    sums = torch.tensor([[int(edges[batch - 100].sum()) for batch in epoch] for epoch in epochs])
    assert sums.max() <= 20_000 and sums.max() - sums.min() <= 3000 - 10  # the largest molecule less the smallest
    assert (sums.amax(0) - sums.amin(0)).double().mean() < 100  # the processes of a step have equal work
    assert len({len(batch) for epoch in epochs for batch in epoch}) == 1
    first = torch.cat([batch for epoch in epochs for batch in epoch[:steps]])
    assert len(first.unique()) == len(first) > 600 - count * 64  # each once, but those that fill no batch


def test_even_batches_depend_on_seed_and_step_only():
    edges, indices = sizes_of_a_set(60), torch.arange(60)
    whole = list(islice(EvenBatches(indices, edges, 9000, 8, 3), 20))
    rest = list(islice(EvenBatches(indices, edges, 9000, 8, 3, start=9), 11))
    assert all(map(torch.equal, whole[9:], rest))
    assert not all(map(torch.equal, whole, islice(EvenBatches(indices, edges, 9000, 8, 4), 20)))
    assert len(whole[0]) == 8 > len(next(iter(EvenBatches(indices, edges, 3000, 8, 3)))) >= 1
    message = "training.max_edges: expected at least 3000, the edges of the largest training molecule, got 2999"
    with pytest.raises(ValueError, match=message):
        EvenBatches(indices, edges, 2999, 8, 3)


def test_loaders_yield_collated_batches():
    molecules = random_molecules()
    batches = ShuffledBatches(torch.arange(7), 3, seed=1)
    first = next(iter(training_loader(molecules, batches)))
    assert torch.equal(first.z, molecules.batch(next(iter(batches))).z)
    sizes = [batch.num_graphs for batch in evaluation_loader(molecules, torch.arange(7), 3)]
    assert sizes == [3, 3, 1]
    assert list(evaluation_loader(molecules, torch.arange(0), 3)) == []


# Units and targets


def test_conversions():
    # CODATA values, to the digits in which editions agree
    assert conversion("Hartree", "eV") == pytest.approx(27.21138, rel=1e-6)
    of_ase = {"Hartree": units.Hartree, "Rydberg": units.Rydberg, "cm^-1": units.invcm, "kJ/mol": units.kJ / units.mol}
    assert all(conversion(name, "eV") == number for name, number in of_ase.items())
    assert conversion("D", "e*Ang") == units.Debye and conversion("Bohr^2", "Ang^2") == units.Bohr**2
    assert conversion("eV", "kcal/mol") == pytest.approx(23.0605, rel=1e-5)
    assert conversion("kcal/mol", "kJ/mol") == pytest.approx(4.184, rel=1e-12)
    assert conversion("Bohr^3", "Ang^3") == pytest.approx(0.529177**3, rel=1e-5)
    assert conversion("ev", "mEV") == pytest.approx(1000)
    with pytest.raises(ValueError, match="'D' .dipole moment. to measure the same .* got 'eV'"):
        conversion("eV", "D")
    with pytest.raises(ValueError, match="expected one of eV, .* got 'furlong'"):
        conversion("furlong", "eV")


def test_choose_converts_targets_and_forces():
    molecules = random_molecules()
    chosen = molecules.choose(["gap", "energy"], {"gap": "meV"})
    assert chosen.names == ("gap", "energy") and chosen.units == ("meV", "eV")
    assert torch.allclose(chosen.y[:, 0], molecules.y[:, 1] * 27211.386, rtol=1e-6)
    assert torch.equal(chosen.y[:, 1], molecules.y[:, 0])
    assert chosen.forces is None
    chosen = molecules.choose(["energy"], {"energy": "meV"}, forces=True)
    assert torch.allclose(chosen.forces, 1000 * molecules.forces)
    stated = in_stated_units(molecules, {"energy": "kcal/mol"}).choose(["energy"], {"energy": "kJ/mol"})
    assert torch.allclose(stated.y[:, 0], molecules.y[:, 0] * 4.184)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["energi"],), "targets: expected some of energy, gap, got 'energi'"),
        ((["gap", "gap"],), "distinct"),
        ((["gap"], {"gap": "D"}), "'D' .dipole moment."),
        ((["gap"], {"energy": "eV"}), "units: expected names among the targets gap, got 'energy'"),
        ((["gap"], None, True), r"expected \['energy'\] alone when training on forces"),
    ],
)
def test_choose_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        random_molecules().choose(*arguments)


def test_choose_rejects_labels_that_are_infinite():
    molecules = random_molecules()
    molecules.y[4, 1] = float("inf")
    molecules.choose(["energy"])
    with pytest.raises(ValueError, match="molecule 4: gap: expected a finite label, got inf"):
        molecules.choose(["gap"])
    molecules.forces[int(molecules.offset[2])] = float("inf")
    with pytest.raises(ValueError, match="molecule 2: forces: expected finite labels"):
        molecules.choose(["energy"], forces=True)


def test_unknown_unit_of_the_file():
    molecules = random_molecules()
    molecules.units = (None, None)
    assert molecules.choose(["gap"]).units == (None,)
    with pytest.raises(ValueError, match="file_units.gap: expected the file's unit, to convert to 'eV'"):
        molecules.choose(["gap"], {"gap": "eV"})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"z": torch.tensor([1, 95])}, ValueError, "1 to 94, got 1 to 95"),
        ({"z": torch.tensor([0, 1])}, ValueError, "1 to 94, got 0 to 1"),
        ({"z": torch.tensor([1])}, ValueError, "z: expected 2 atoms"),
        ({"pos": torch.zeros(2, 2)}, ValueError, r"pos: expected shape \[2, 3\], got \[2, 2\]"),
        ({"pos": torch.tensor([[0.0, 0, 0], [0, float("nan"), 0]])}, ValueError, "got nan for pos of molecule 1"),
        ({"pos": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "pos: expected a floating dtype"),
        ({"n_atoms": torch.tensor([2, 0])}, ValueError, "at least 1 atom"),
        ({"cell": torch.zeros(3, 3)}, ValueError, r"cell: expected shape \[2, 3, 3\]"),
    ],
)
def test_molecules_reject(change, error, message):
    arguments = {"n_atoms": torch.tensor([1, 1]), "z": torch.tensor([1, 8]), "pos": torch.zeros(2, 3)}
    with pytest.raises(error, match=message):
        Molecules(**(arguments | {"y": torch.zeros(2, 0, dtype=torch.float64)} | change))


# Splits


def test_random_split_is_repeatable_and_disjoint():
    molecules = random_molecules(20)
    one, two, other = (random_split(molecules, 10, 4, 3, seed) for seed in (1, 1, 2))
    assert all(map(torch.equal, one, two)) and not torch.equal(one.train, other.train)
    assert [len(part) for part in one] == [10, 4, 3] and len(torch.cat(one).unique()) == 17
    assert [len(part) for part in random_split(molecules, None, 4, 3, 0)] == [13, 4, 3]
    assert [len(part) for part in random_split(molecules, 10, 4, None, 0)] == [10, 4, 6]


def test_fixed_test_frames_are_never_trained_on():
    molecules = random_molecules(20)
    molecules.test = torch.arange(12, 20)
    split = random_split(molecules, None, 3, None, 0)
    assert len(split.train) == 9 and int(split.train.max()) < 12 and int(split.val.max()) < 12
    assert torch.equal(split.test, molecules.test)
    assert random_split(molecules, 5, 3, 2, 0).test.tolist() == [12, 13]
    with pytest.raises(ValueError, match=r"at most 12 training frames in all, got 10 \+ 3 \+ 0"):
        random_split(molecules, 10, 3, None, 0)
    with pytest.raises(ValueError, match="at most 8 test frames, got 9"):
        random_split(molecules, 5, 3, 9, 0)


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_not_divided(seed):
    molecules = random_molecules(60)
    molecules.group = torch.from_numpy(np.repeat([5, 3, 9, 0, 4, 8, 1], [10, 4, 12, 6, 20, 5, 3]))
    for sizes in ((None, 14, 13), (25, 14, None), (25, 14, 13)):
        split = random_split(molecules, *sizes, seed)
        groups = [set(molecules.group[part].tolist()) for part in split]
        assert sum(map(len, groups)) == len(set().union(*groups))  # disjoint
        for group, part in zip(groups, split, strict=True):
            assert group and all((molecules.group == number).sum() == (molecules.group[part] == number).sum()
                                 for number in group)  # fmt: skip
        assert all(size is None or len(part) <= size for size, part in zip(sizes, split, strict=True))
        assert None not in sizes or sum(map(len, split)) == 60
        assert all(map(torch.equal, split, random_split(molecules, *sizes, seed)))


def test_groups_of_fixed_test_frames_are_not_trained_on():
    molecules = random_molecules(20)
    molecules.group, molecules.test = torch.arange(20) // 5, torch.tensor([7, 8])
    split = random_split(molecules, None, 5, None, 0)
    assert sorted(torch.cat(split[:2]).tolist()) == [*range(5), *range(10, 20)] and split.test.tolist() == [7, 8]


def test_groups_that_fit_nowhere():
    molecules = random_molecules(20)
    molecules.group = torch.arange(20) // 5
    with pytest.raises(ValueError, match=r"data.val: expected room for a whole group \(5 to 5 structures\), got 4"):
        random_split(molecules, None, 4, 5, 0)
    with pytest.raises(TypeError, match="group: expected int64, got torch.float32"):
        replace(molecules, group=torch.zeros(20))
    with pytest.raises(ValueError, match=r"group: expected shape \[20\], got \[3\]"):
        replace(molecules, group=torch.arange(3))


def test_a_split_is_the_one_of_the_shipped_results():
    """Without groups the draw is a permutation cut in three, as in the split files under bench/results."""
    order = np.random.default_rng(7).permutation(20)
    assert torch.cat(random_split(random_molecules(20), 10, 4, 6, 7)).tolist() == order.tolist()


def test_split_that_does_not_fit():
    molecules = random_molecules(20)
    with pytest.raises(ValueError, match=r"at most 20 molecules in all, got 15 \+ 4 \+ 3"):
        random_split(molecules, 15, 4, 3, 0)
    with pytest.raises(ValueError, match="at most 20 molecules in all"):
        random_split(molecules, None, 4, 30, 0)
    with pytest.raises(ValueError, match="expected at least one number"):
        random_split(molecules, None, 4, None, 0)


def test_split_files(tmp_path):
    split = random_split(random_molecules(20), 10, 4, 3, seed=1)
    split.save(tmp_path / "s.npz")
    assert all(map(torch.equal, split, read_split(tmp_path / "s.npz", 20)))
    with pytest.raises(ValueError, match="expected indices 0 to 4"):
        read_split(tmp_path / "s.npz", 5)
    molecules = random_molecules(20)
    split.save(tmp_path / "s.npz", molecules)
    assert all(map(torch.equal, split, read_split(tmp_path / "s.npz", 20, molecules)))
    other = replace(molecules, y=molecules.y.clone())
    other.y[7] += 1e-6
    with pytest.raises(ValueError, match="expected the molecules of which .*s.npz is a split, got others"):
        read_split(tmp_path / "s.npz", 20, other)
    np.savez(tmp_path / "s.npz", train=[1, 2], test=[2])
    with pytest.raises(ValueError, match="got a molecule twice"):
        read_split(tmp_path / "s.npz", 20)
    np.savez(tmp_path / "s.npz", train=[0.5])
    with pytest.raises(ValueError, match=r"s.npz: train: expected whole numbers, got 0.5 at \[0\]"):
        read_split(tmp_path / "s.npz", 20)
    (tmp_path / "s.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="s.npz: expected a NumPy archive"):
        read_split(tmp_path / "s.npz", 20)
    with pytest.raises(FileNotFoundError, match="no such split file"):
        read_split(tmp_path / "none.npz", 20)


def test_mirror_images():
    """Mirroring twice gives the batch back, and distances stay; only the chosen molecules change."""
    molecules = read_molecules("ethanol").choose(["energy"], forces=True)
    batch = molecules[[0, 1, 2]]
    which = torch.tensor([True, False, True])
    image = batch.mirrored(which)
    chosen = which[batch.batch]
    assert torch.equal(image.pos[~chosen], batch.pos[~chosen])
    assert torch.equal(image.forces[chosen, 0], -batch.forces[chosen, 0])
    assert torch.equal(image.pos[chosen, 0], -batch.pos[chosen, 0])
    again = image.mirrored(which)
    assert torch.equal(again.pos, batch.pos) and torch.equal(again.forces, batch.forces)
    assert torch.equal(image.y, batch.y)


def test_mirror_images_of_crystals():
    """Cells are mirrored with the atoms in them: what is left alone is where in the cell an atom lies."""
    batch = random_molecules(periodic=True)[[0, 1, 2, 3]]
    which = torch.tensor([True, False, True, False])
    image = batch.mirrored(which)
    inside, same = (
        torch.einsum("na,nab->nb", of.pos.double(), torch.linalg.inv(of.cell.double())[of.batch])
        for of in (batch, image)
    )
    torch.testing.assert_close(same, inside, rtol=1e-12, atol=1e-12)  # float64, of the same numbers but for signs
    handed = torch.linalg.det(batch.cell).sign() * torch.linalg.det(image.cell).sign()
    assert handed.tolist() == [-1, 1, -1, 1]
