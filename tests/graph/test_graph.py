import itertools
import sys
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111
from graph_oracles import ase_rows, brute_force, check, random_batch, random_crystal, rows

from spherenet_fast.graph import build_graph, cell_lists, edge_vectors, periodic, radius, radius_graph
from spherenet_fast.graph import graph as graph_module


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [[7], [1, 9, 2], [4] * 6, [0, 5, 0, 1, 12, 0, 3], [1, 1, 1]])
def test_open_batch_equals_brute_force(sizes, dtype):
    pos, batch = random_batch(sizes, dtype)
    graph = radius_graph(pos, batch, 2.0)
    assert torch.equal(graph.edge_index, brute_force(pos, batch, 2.0))
    assert graph.shift is None
    check(graph, len(pos))


def test_search_in_blocks_and_by_cell_list_give_the_same_graph(monkeypatch):
    pos, batch = random_batch([3, 17, 1, 8, 25, 2])
    expected = radius_graph(pos, batch, 2.0)
    assert torch.equal(expected.edge_index, brute_force(pos, batch, 2.0))
    for entries, large in [(200, 500), (1, 500), (2**20, 10), (200, 10), (2**20, 0)]:
        monkeypatch.setattr(periodic, "BLOCK_ENTRIES", entries)
        monkeypatch.setattr(periodic, "LARGE", large)
        graph = radius_graph(pos, batch, 2.0)
        assert torch.equal(graph.edge_index, expected.edge_index)
        assert torch.equal(graph.rev, expected.rev)


def test_blocks_hold_every_molecule_once_within_the_limit(monkeypatch):
    monkeypatch.setattr(periodic, "BLOCK_ENTRIES", 100)
    sizes = [3, 0, 10, 5, 5, 1, 9, 4, 4, 4, 4]
    blocks = periodic._blocks(sizes)
    assert sorted(sum(blocks, [])) == [0, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert all(len(block) * max(sizes[molecule] for molecule in block) ** 2 <= 100 for block in blocks)


def test_star_and_line():
    star = torch.tensor([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    graph = radius_graph(star, None, 1.2)
    assert graph.in_ptr.diff().tolist() == [6, 1, 1, 1, 1, 1, 1]
    assert graph.edge_index[0, :6].tolist() == [1, 2, 3, 4, 5, 6]
    check(graph, 7)
    line = torch.arange(6.0)[:, None] * torch.tensor([1.0, 0, 0])
    graph = radius_graph(line, None, 1.5)
    assert graph.edge_index.tolist() == [[1, 0, 2, 1, 3, 2, 4, 3, 5, 4], [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]]
    check(graph, 6)


def test_cutoff_itself_is_outside():
    pair = torch.tensor([[0.0, 0, 0], [3, 0, 0]])
    assert radius_graph(pair, None, 3.0).edge_index.shape == (2, 0)
    assert radius_graph(pair, None, 3.0000001).edge_index.shape == (2, 2)


def test_neighbors_are_decided_in_double_precision():
    # In float32 the distance rounds to 5 and 1e-9 below 5 cannot be told from 5.
    pair = torch.tensor([[0.0, 0, 0], [5 - 1e-9, 0, 0]], dtype=torch.float64)
    assert radius_graph(pair, None, 5.0).edge_index.shape == (2, 2)
    assert radius_graph(pair.float(), None, 5.0).edge_index.shape == (2, 0)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize(
    "pos, batch",
    [
        (torch.zeros(0, 3), None),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)),
        (torch.zeros(1, 3), None),
        (torch.zeros(3, 3), torch.arange(3)),
        (torch.tensor([[0.0, 0, 0], [50, 50, 50]]), torch.tensor([0, 0])),
    ],
)
def test_no_edges(pos, batch, periodic):
    cell = 100 * torch.eye(3) if periodic else None
    graph = radius_graph(pos, batch, 2.0, cell)
    assert graph.edge_index.shape == (2, 0) and graph.num_triplets == 0
    check(graph, len(pos))
    assert edge_vectors(pos, graph, batch, cell).shape == (0, 3)


def test_isolated_last_atom():
    pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [9, 9, 9]])
    graph = radius_graph(pos, None, 2.0)
    assert graph.edge_index.tolist() == [[1, 0], [0, 1]] and graph.in_ptr.tolist() == [0, 1, 2, 2]
    check(graph, 3)


def test_large_open_system_equals_brute_force():
    pos = torch.rand(700, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 19
    graph = radius_graph(pos, None, 4.0)
    near = torch.cdist(pos, pos, compute_mode="donot_use_mm_for_euclid_dist") < 4.0
    receiver, sender = near.fill_diagonal_(False).nonzero(as_tuple=True)
    assert torch.equal(graph.edge_index, torch.stack([sender, receiver]))
    assert torch.equal(graph.rev[graph.rev], torch.arange(len(sender)))


def test_large_open_system_needs_no_square_of_its_size():
    # All pairs of 200,000 atoms would be 320 GB of distances.
    chain = torch.arange(200_000.0)[:, None] * torch.tensor([1.0, 0, 0])
    graph = radius_graph(chain, None, 2.5)
    assert graph.edge_index.shape == (2, 4 * 200_000 - 6)
    assert torch.equal(graph.edge_index[:, graph.rev], graph.edge_index.flip(0))
    assert (graph.edge_index[0, graph.out_edge].diff() >= 0).all()


@pytest.mark.parametrize("seed", range(12))
def test_triclinic_cells_equal_ase(seed):
    # Scales from cells much smaller than the cutoff (about 2,000 images) to larger ones; every choice of directions.
    pos, cell = random_crystal(num_atoms=1 + seed % 5, seed=seed, scale=[1.5, 2.5, 4.0, 7.0][seed % 4])
    for pbc in itertools.product([False, True], repeat=3):
        pbc = torch.tensor(pbc)
        graph = radius_graph(pos, None, 3.3, cell, pbc)
        if pbc.any():
            assert torch.equal(rows(graph), ase_rows(pos, cell, pbc, 3.3))
        else:
            assert torch.equal(graph.edge_index, brute_force(pos, None, 3.3)) and graph.shift is None
        if len(graph.rev) < 1000:  # the slow check in Python
            check(graph, len(pos))
        assert torch.equal(graph.edge_index[:, graph.rev], graph.edge_index.flip(0))
        vec = edge_vectors(pos, graph, None, cell)
        assert (vec.norm(dim=1) < 3.3).all() and torch.equal(vec[graph.rev], -vec)


def test_one_atom_crystal():
    copper = bulk("Cu", "fcc", a=3.6)
    pos, cell = torch.tensor(copper.positions), torch.tensor(copper.cell.array)
    graph = radius_graph(pos, None, 5.0, cell)
    assert graph.edge_index.shape == (2, 12 + 6 + 24)  # the first three shells of fcc, at 2.55, 3.6 and 4.41 Å
    assert torch.equal(rows(graph), ase_rows(pos, cell, True, 5.0))
    assert graph.num_triplets == 42 * 42
    check(graph, 1)


@pytest.mark.parametrize("open_vector", [[0.0, 0, 0], [0, 0, 4.0], [1.0, 2, 1], [0, 0, 500.0]])
def test_slab_ignores_its_open_direction(open_vector):
    slab = fcc111("Pt", (2, 2, 3), vacuum=5.0)
    generator = np.random.default_rng(0)
    pos = torch.tensor(slab.positions + generator.normal(scale=0.1, size=slab.positions.shape))
    cell, pbc = torch.tensor(slab.cell.array), torch.tensor([True, True, False])
    expected = ase_rows(pos, cell, pbc, 6.0)
    cell[2] = torch.tensor(open_vector)
    graph = radius_graph(pos, None, 6.0, cell, pbc)
    assert torch.equal(rows(graph), expected)
    assert (graph.shift[:, 2] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wrapping_changes_nothing(dtype):
    pos, cell = random_crystal(num_atoms=6, seed=3, scale=5.0)
    pos, cell = pos.to(dtype), cell.to(dtype)
    fractional = pos.double() @ torch.linalg.inv(cell.double())
    wrapped = ((fractional - fractional.floor()) @ cell.double()).to(dtype)
    graph, moved = radius_graph(wrapped, None, 4.0, cell), radius_graph(pos, None, 4.0, cell)
    assert len(graph.shift) == len(moved.shift) and not torch.equal(graph.shift, moved.shift)
    assert torch.equal(graph.edge_index, moved.edge_index) and torch.equal(graph.rev, moved.rev)
    # A dozen roundings of numbers up to 20 Å.
    tolerance = 12 * 20 * torch.finfo(dtype).eps
    vec, moved_vec = edge_vectors(wrapped, graph, None, cell), edge_vectors(pos, moved, None, cell)
    torch.testing.assert_close(vec, moved_vec, rtol=0, atol=tolerance)


def test_atoms_far_outside_their_cell():
    pos, cell = random_crystal(num_atoms=5, seed=4, scale=4.0)
    far = torch.tensor([[0, 0, 0], [1000, 0, 0], [0, -70000, 3], [5, 5, 5], [0, 0, 0]])
    graph = radius_graph(pos, None, 3.5, cell)
    moved = radius_graph(pos + far.double() @ cell, None, 3.5, cell)
    sender, receiver = graph.edge_index
    assert torch.equal(moved.edge_index, graph.edge_index)
    assert torch.equal(moved.shift, graph.shift + far[sender] - far[receiver])


@pytest.mark.parametrize("mixed", [False, True])
def test_batch_of_crystals_is_its_crystals(mixed):
    crystals = [random_crystal(num_atoms=n, seed=n, scale=3.0) for n in (1, 4, 2)]
    pbc = torch.tensor([[True, True, True], [False, False, False], [True, False, True]]) if mixed else None
    pos = torch.cat([pos for pos, _ in crystals])
    cell = torch.stack([cell for _, cell in crystals])
    batch = torch.tensor([0, 1, 1, 1, 1, 2, 2])
    graph = radius_graph(pos, batch, 5.0, cell, pbc)
    check(graph, 7)
    vec = edge_vectors(pos, graph, batch, cell)
    start, edge = 0, 0
    for structure, (alone, box) in enumerate(crystals):
        own = radius_graph(alone, None, 5.0, box, None if pbc is None else pbc[structure])
        part = slice(edge, edge + len(own.rev))
        assert len(own.rev)
        assert torch.equal(graph.edge_index[:, part] - start, own.edge_index)
        assert torch.equal(graph.shift[part], torch.zeros(len(own.rev), 3).long() if own.shift is None else own.shift)
        # The same sums in another order: a few roundings of numbers of about 20 Å.
        torch.testing.assert_close(vec[part], edge_vectors(alone, own, None, box), rtol=0, atol=1e-13)
        start, edge = start + len(alone), part.stop
    assert edge == len(graph.rev)


def test_cell_and_pbc_of_all_structures_may_be_given_once():
    pos, cell = random_crystal(num_atoms=6, seed=1, scale=5.0)
    batch, pbc = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([True, False, True])
    once = radius_graph(pos, batch, 4.0, cell, pbc)
    each = radius_graph(pos, batch, 4.0, cell.expand(2, 3, 3), pbc.expand(2, 3))
    assert torch.equal(rows(once), rows(each))
    assert torch.equal(edge_vectors(pos, once, batch, cell), edge_vectors(pos, each, batch, cell.expand(2, 3, 3)))


def test_cell_without_a_periodic_direction_is_open():
    pos, _ = random_batch([6])
    graph = radius_graph(pos, None, 2.0, torch.zeros(3, 3), torch.zeros(3, dtype=torch.bool))
    assert graph.shift is None
    assert torch.equal(graph.edge_index, radius_graph(pos, None, 2.0).edge_index)


@pytest.mark.parametrize("crystal", [False, True])
def test_truncation_keeps_the_nearest(crystal, monkeypatch):
    monkeypatch.setattr(radius, "_truncation_reported", False)
    pos, cell = random_crystal(num_atoms=9, seed=2, scale=4.0) if crystal else (random_batch([9])[0], None)
    full = radius_graph(pos, None, 4.5, cell)
    with pytest.warns(UserWarning, match=f"max_num_neighbors=4 dropped .* of {len(full.rev)} edges"):
        graph = radius_graph(pos, None, 4.5, cell, max_num_neighbors=4)
    distance = edge_vectors(pos, full, None, cell).norm(dim=1)
    kept = []
    for node in range(9):
        edges = range(full.in_ptr[node], full.in_ptr[node + 1])
        kept += sorted(sorted(edges, key=lambda edge: distance[edge])[:4])
    assert torch.equal(rows(graph), rows(full)[kept])
    assert (graph.rev == -1).any() and (graph.rev >= 0).any()
    check(graph, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        radius_graph(pos, None, 4.5, cell, max_num_neighbors=4)  # said once
        assert torch.equal(radius_graph(pos, None, 4.5, cell, max_num_neighbors=10**6).rev, full.rev)


def test_truncation_of_a_batch_of_crystals_is_that_of_its_crystals(monkeypatch):
    monkeypatch.setattr(radius, "_truncation_reported", True)
    crystals = [random_crystal(num_atoms=3, seed=seed, scale=scale) for seed, scale in ((1, 3.0), (2, 5.0))]
    pos, cell = torch.cat([pos for pos, _ in crystals]), torch.stack([cell for _, cell in crystals])
    batch = torch.tensor([0, 0, 0, 1, 1, 1])
    found = rows(radius_graph(pos, batch, 5.0, cell, max_num_neighbors=4))
    alone = [radius_graph(pos, None, 5.0, cell, max_num_neighbors=4) for pos, cell in crystals]
    first, second = map(rows, alone)
    assert len(first) == len(second) == 12 and (alone[1].shift != 0).any()
    assert torch.equal(found, torch.cat([first, second + torch.tensor([3, 3, 0, 0, 0])]))


def test_truncation_breaks_ties_by_sender(monkeypatch):
    monkeypatch.setattr(radius, "_truncation_reported", True)
    star = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 0, 0], [0, 1, 0], [0, -1, 0]])
    graph = radius_graph(star, None, 1.2, max_num_neighbors=2)
    assert graph.edge_index.tolist() == [[2, 2, 0, 1, 2, 2], [0, 1, 2, 2, 3, 4]]
    assert graph.rev.tolist() == [2, 3, 0, 1, -1, -1]
    check(graph, 5)


@pytest.mark.parametrize("with_shift", [False, True])
def test_build_graph_gives_the_graph_of_its_edges(with_shift):
    pos, cell = random_crystal(num_atoms=7, seed=5, scale=4.0) if with_shift else (random_batch([7])[0], None)
    graph = radius_graph(pos, None, 4.0, cell)
    assert len(graph.rev)
    built = build_graph(graph.edge_index, 7, graph.shift)
    for mine, given in zip(built, graph):
        assert torch.equal(mine, given) if isinstance(given, torch.Tensor) else mine == given


@pytest.mark.parametrize("with_shift", [False, True])
def test_build_graph_takes_senders_in_any_order_and_missing_edges(with_shift):
    pos, cell = random_crystal(num_atoms=7, seed=5, scale=4.0) if with_shift else (random_batch([7])[0], None)
    graph = radius_graph(pos, None, 4.0, cell)
    assert len(graph.rev)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(graph.rev), generator=generator)[: 2 * len(graph.rev) // 3]
    order = order[torch.argsort(graph.edge_index[1, order], stable=True)]
    built = build_graph(graph.edge_index[:, order], 7, graph.shift[order] if with_shift else None)
    assert torch.equal(built.edge_index, graph.edge_index[:, order])
    assert (built.rev == -1).any() and (built.rev >= 0).any()
    check(built, 7)


def test_reverse_edges_of_found_graphs_need_no_search(monkeypatch):
    monkeypatch.setattr(graph_module, "_searched", None)
    pos, cell = random_crystal(num_atoms=7, seed=5, scale=2.5)
    check(radius_graph(pos, None, 3.0, cell), 7)


def test_reverse_edges_differ_by_their_images():
    edge_index = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]])
    shift = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 0, -2], [0, 0, 0]])
    assert build_graph(edge_index, 2, shift).rev.tolist() == [3, -1, -1, 0]


def test_build_graph_of_no_edges():
    check(build_graph(torch.zeros(2, 0, dtype=torch.int64), 4), 4)
    check(build_graph(torch.zeros(2, 0, dtype=torch.int64), 0, torch.zeros(0, 3, dtype=torch.int64)), 0)


def test_images_too_far_apart_to_pack_into_64_bits():
    huge = 2**40
    shift = torch.tensor([[huge, -huge, huge], [1, 0, 0], [-huge, huge, -huge], [-huge, huge, huge]])
    edge_index = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]])
    graph = build_graph(edge_index, 2, shift)
    assert graph.rev.tolist() == [2, -1, 0, -1]
    receiver, sender, shift = periodic.sorted_edges(edge_index[1].flip(0), edge_index[0].flip(0), shift.flip(0))
    assert receiver.tolist() == [0, 0, 1, 1] and sender.tolist() == [1, 1, 0, 0]
    assert shift.tolist() == [[1, 0, 0], [huge, -huge, huge], [-huge, huge, -huge], [-huge, huge, huge]]


def test_edge_vectors_are_differentiable():
    crystals = [random_crystal(num_atoms=n, seed=n, scale=3.0) for n in (2, 3)]
    pos = torch.cat([pos for pos, _ in crystals]).requires_grad_()
    cell = torch.stack([cell for _, cell in crystals]).requires_grad_()
    batch = torch.tensor([0, 0, 1, 1, 1])
    graph = radius_graph(pos, batch, 2.8, cell)
    assert len(graph.rev) and (graph.shift != 0).any()
    assert torch.autograd.gradcheck(lambda pos, cell: edge_vectors(pos, graph, batch, cell), (pos, cell))
    alone = radius_graph(crystals[0][0], None, 2.8, crystals[0][1])
    single = (crystals[0][0].requires_grad_(), crystals[0][1].requires_grad_())
    assert torch.autograd.gradcheck(lambda pos, cell: edge_vectors(pos, alone, None, cell), single)


def test_graph_enters_compiled_code():
    # multiples of 1/64: the product of shift and cell is exact, which BLAS else rounds as the memory happens to lie
    pos, cell = (torch.round(64 * x) / 64 for x in random_crystal(num_atoms=4, seed=0, scale=4.0))
    graph = radius_graph(pos, None, 4.0, cell)
    compiled = torch.compile(edge_vectors, backend="eager", fullgraph=True)
    assert torch.equal(compiled(pos, graph, None, cell), edge_vectors(pos, graph, None, cell))


SEARCHES = ["vesin"] + (["nvalchemi"] if find_spec("nvalchemiops") else [])  # the second also runs without a GPU


@pytest.mark.parametrize("name", SEARCHES)
def test_every_installed_search_equals_ase(name):
    search = cell_lists.vesin_search if name == "vesin" else cell_lists.cuda_search()
    crystals = [random_crystal(num_atoms=n, seed=n, scale=1.5 * n) for n in (1, 3, 2)]
    pbc = torch.tensor([[True, True, True], [False, True, False], [True, True, False]])
    cell = periodic._complete_cell(torch.stack([cell for _, cell in crystals]), pbc)
    bounds = [(0, 1), (1, 4), (4, 6)]
    first, second, shift, _ = search(torch.cat([pos for pos, _ in crystals]), bounds, cell, pbc, 4.0)
    both = torch.cat([second, first]), torch.cat([first, second]), torch.cat([shift, -shift])
    receiver, sender, shift = periodic.sorted_edges(*both)
    found = torch.cat([torch.stack([receiver, sender], 1), shift], 1)
    expected = [
        ase_rows(pos, cell[structure], pbc[structure], 4.0) + torch.tensor([bounds[structure][0]] * 2 + [0] * 3)
        for structure, (pos, _) in enumerate(crystals)
    ]
    assert torch.equal(found, torch.cat(expected))


def test_missing_cuda_search_is_said_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvalchemiops.torch.neighbors", None)
    cell_lists.cuda_search.cache_clear()
    with pytest.warns(UserWarning, match=r"spherenet_fast\[cuda\]"):
        assert cell_lists.cuda_search() is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cell_lists.cuda_search() is None
    cell_lists.cuda_search.cache_clear()
