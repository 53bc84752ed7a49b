import pytest
import torch

from spherenet_fast.graph import build_graph, edge_vectors, radius_graph

OPEN = torch.zeros(3, dtype=torch.bool)
POS = 4 * torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
BATCH = torch.tensor([0, 0, 1, 1, 1])
CELL = 8 * torch.eye(3)


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(pos=[[0.0, 0, 0]]), TypeError, "pos: expected a tensor, got list"),
        (dict(pos=POS.half()), TypeError, "pos: expected torch.float32 or torch.float64, got torch.float16"),
        (dict(pos=POS[:, :2]), ValueError, r"pos: expected shape \[N,3\], got \[5, 2\]"),
        (dict(pos=POS[0]), ValueError, r"pos: expected shape \[N,3\], got \[3\]"),
        (dict(pos=POS.where(POS != POS[3, 1], torch.nan)), ValueError, "pos: expected finite .*nan.* for atom 3"),
        (dict(pos=POS.where(POS != POS[1, 0], torch.inf)), ValueError, "pos: expected finite .*inf.* for atom 1"),
        (dict(batch=BATCH.int()), TypeError, "batch: expected torch.int64, got torch.int32"),
        (dict(batch=BATCH[:4]), ValueError, r"batch: expected shape \[5\], got \[4\]"),
        (dict(batch=BATCH.flip(0)), ValueError, "batch: expected sorted, got 0 after 1 at atom 3"),
        (dict(batch=BATCH - 1), ValueError, "batch: expected no negative numbers, got -1"),
        (dict(batch=BATCH.to("meta")), ValueError, "batch: expected device cpu, got meta"),
        (dict(cutoff=0), ValueError, "cutoff: expected a positive finite distance, got 0"),
        (dict(cutoff=-1.0), ValueError, "cutoff: expected a positive finite distance, got -1.0"),
        (dict(cutoff=float("nan")), ValueError, "cutoff: expected a positive finite distance, got nan"),
        (dict(cutoff=float("inf")), ValueError, "cutoff: expected a positive finite distance, got inf"),
        (dict(cutoff="5"), TypeError, "cutoff: expected a number, got str"),
        (dict(cell=CELL.double()), TypeError, "cell: expected torch.float32, got torch.float64"),
        (dict(cell=CELL[:2]), ValueError, r"cell: expected shape \[B,3,3\] or \[3,3\], got \[2, 3\]"),
        (dict(cell=CELL.repeat(2, 1)), ValueError, r"cell: expected shape \[B,3,3\] or \[3,3\], got \[6, 3\]"),
        (dict(cell=CELL[None]), ValueError, "cell: expected at least 2 structures as in batch, got 1"),
        (dict(cell=CELL.expand(2, 3, 3), batch=None), ValueError, "batch: .* because cell holds 2 structures"),
        (dict(cell=CELL * torch.nan), ValueError, "cell: expected finite vectors, got"),
        (dict(cell=CELL.to("meta")), ValueError, "cell: expected device cpu, got meta"),
        (dict(cell=torch.ones(3, 3)), ValueError, "cell: expected linearly independent .* zero volume in structure 0"),
        (dict(cell=torch.zeros(3, 3), pbc=~OPEN), ValueError, "cell: expected linearly independent .* zero volume"),
        (dict(pbc=~OPEN), ValueError, "cell: expected .* because pbc has periodic directions, got None"),
        (dict(cell=CELL, pbc=OPEN.int()), TypeError, "pbc: expected torch.bool, got torch.int32"),
        (dict(cell=CELL, pbc=~OPEN[:2]), ValueError, r"pbc: expected shape \[B,3\] or \[3\], got \[2\]"),
        (dict(cell=CELL, pbc=~OPEN.expand(3, 3)), ValueError, r"pbc: expected \[2,3\] or \[3\] .* got \[3, 3\]"),
        (dict(cell=CELL, pos=POS * 1e13), ValueError, "pos: expected atoms within 2147483648 cells .* got atom"),
        (dict(max_num_neighbors=0), ValueError, "max_num_neighbors: expected at least 1, got 0"),
        (dict(max_num_neighbors=2.0), TypeError, "max_num_neighbors: expected an int, got float"),
    ],
)
def test_radius_graph_errors(change, error, message):
    with pytest.raises(error, match=message):
        radius_graph(**{**dict(pos=POS, batch=BATCH, cutoff=2.0), **change})


@pytest.mark.parametrize("num_atoms", [6, 600])
@pytest.mark.parametrize("periodic", [False, True])
def test_two_atoms_at_the_same_place(num_atoms, periodic):
    pos = 20 * torch.rand(3 + num_atoms, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = torch.tensor([0] * 3 + [1] * num_atoms)
    cell = 20 * torch.eye(3, dtype=torch.float64) if periodic else None
    pos[7] = pos[5] + 5e-7 - (20 if periodic else 0)
    with pytest.raises(ValueError, match="pos: expected atoms at least 1e-06 Å apart, got atoms (5 and 7|7 and 5) at"):
        radius_graph(pos, batch, 2.0, cell)
    pos[7] += 1e-5
    pos[0] = pos[5]  # of another structure
    radius_graph(pos, batch, 2.0, cell)


EDGES = torch.tensor([[1, 0, 2, 1], [0, 1, 1, 2]])
SHIFT = torch.zeros(4, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(edge_index=EDGES.tolist()), TypeError, "edge_index: expected a tensor, got list"),
        (dict(edge_index=EDGES.int()), TypeError, "edge_index: expected torch.int64, got torch.int32"),
        (dict(edge_index=EDGES.T), ValueError, r"edge_index: expected shape \[2,E\], got \[4, 2\]"),
        (dict(num_nodes=2), ValueError, r"edge_index: expected atoms from 0 to 1 .*, got 0 to 2"),
        (dict(edge_index=EDGES - 1), ValueError, r"edge_index: expected atoms from 0 to 2 .*, got -1 to 1"),
        (dict(edge_index=EDGES.flip(1)), ValueError, "edge_index: expected edges sorted by .* got receiver 1 after 2"),
        (dict(edge_index=EDGES[:, [0, 0, 1]]), ValueError, "edge_index: expected every edge once, .* at 0 and 1"),
        (dict(edge_index=EDGES[:, [0, 0, 1, 1]]), ValueError, "edge_index: expected every edge once, .* at 0 and 1"),
        (dict(edge_index=EDGES[:1].repeat(2, 1).sort(1)[0]), ValueError, "edge_index: .* got 0 twice at edge 0"),
        (dict(num_nodes=3.0), TypeError, "num_nodes: expected an int, got float"),
        (dict(num_nodes=-1, edge_index=EDGES[:, :0]), ValueError, "num_nodes: expected at least 0, got -1"),
        (dict(shift=SHIFT.int()), TypeError, "shift: expected torch.int64, got torch.int32"),
        (dict(shift=SHIFT[:3]), ValueError, r"shift: expected shape \[4,3\], got \[3, 3\]"),
        (dict(shift=SHIFT.to("meta")), ValueError, "shift: expected device cpu, got meta"),
    ],
)
def test_build_graph_errors(change, error, message):
    with pytest.raises(error, match=message):
        build_graph(**{**dict(edge_index=EDGES, num_nodes=3, shift=None), **change})


def test_edge_vectors_errors():
    pos = torch.rand(3, 3)
    graph = build_graph(EDGES, 3, SHIFT)
    with pytest.raises(ValueError, match=r"pos: expected shape \[3,3\] as in the graph, got \[4, 3\]"):
        edge_vectors(torch.rand(4, 3), graph)
    with pytest.raises(ValueError, match="cell: expected .* because the graph has periodic shifts, got None"):
        edge_vectors(pos, graph)
    with pytest.raises(TypeError, match="cell: expected torch.float32, got torch.float64"):
        edge_vectors(pos, graph, None, CELL.double())
    with pytest.raises(ValueError, match=r"cell: expected shape \[B,3,3\] or \[3,3\], got \[3\]"):
        edge_vectors(pos, graph, None, CELL[0])
    with pytest.raises(ValueError, match=r"batch: expected \[3\] because cell holds 2 structures, got None"):
        edge_vectors(pos, graph, None, CELL.expand(2, 3, 3))


def test_a_cell_with_too_many_edges():
    cell = 0.01 * torch.eye(3, dtype=torch.float64)
    message = "cell: expected at most 1e.09 edges within the cutoff of 5 Å, got about 2e.09 in structure 0, 2 atoms in"
    with pytest.raises(ValueError, match=message):
        radius_graph(torch.zeros(2, 3, dtype=torch.float64), None, 5.0, cell)
