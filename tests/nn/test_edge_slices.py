"""Blocks whose edges are computed slice by slice, where no derivative is wanted: the numbers of the whole."""

import pytest
import torch
from molecules import rattled_batch
from small_models import small_model

from spherenet_fast.graph import radius_graph
from spherenet_fast.nn import blocks
from spherenet_fast.nn.blocks import in_edge_slices


@pytest.fixture(scope="module")
def many_molecules():
    return rattled_batch((10,) * 64)


@pytest.mark.parametrize("name", ["SphereNet", "DimeNet"])
def test_more_edges_than_a_slice_has(name, many_molecules, monkeypatch):
    model = small_model(name).eval()
    graph = radius_graph(many_molecules.pos, many_molecules.batch, model.cutoff)
    num_edges = len(graph.rev)
    assert blocks.SLICE < num_edges < 2 * blocks.SLICE  # a whole slice and a part of one
    whole = model(many_molecules, graph).detach()  # with derivatives, in one piece
    seen = []
    plain = blocks.Residual.forward

    def forward(self, x, operators):
        seen.append(len(x))
        return plain(self, x, operators)

    monkeypatch.setattr(blocks.Residual, "forward", forward)
    with torch.no_grad():
        sliced = model(many_molecules, graph)
    assert set(seen) == {blocks.SLICE, num_edges - blocks.SLICE}
    # Every edge is computed alone, so only a product that sums in another order for other sizes could differ, by some
    # 1e-16; the energies of the molecules are of the order of 1 and all different.
    torch.testing.assert_close(sliced, whole, rtol=1e-12, atol=1e-12)
    assert len(whole.unique()) == 64


@pytest.mark.parametrize("num_edges, sizes", [(0, [0]), (4, [4]), (5, [4, 1]), (8, [4, 4]), (11, [4, 4, 3])])
def test_every_edge_is_in_one_slice(num_edges, sizes, monkeypatch):
    monkeypatch.setattr(blocks, "SLICE", 4)
    rows, others = torch.randn(num_edges, 3), torch.randn(num_edges, 2, 2)
    seen = []

    def function(x, y):
        seen.append(len(x))
        return 2 * x, y.flatten(1) - x[:, :1]

    with torch.no_grad():
        doubled, differences = in_edge_slices(function, rows, others)
    assert seen == sizes
    assert torch.equal(doubled, 2 * rows) and torch.equal(differences, others.flatten(1) - rows[:, :1])
    in_edge_slices(function, rows, others)
    assert seen[len(sizes) :] == [num_edges]  # derivatives are taken of the whole
