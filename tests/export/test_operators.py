"""What is exported: energies of atoms and slopes along pairs, for lists of neighbors as engines make them."""

import numpy as np
import pytest
import torch
from crystals import CRYSTALS, CUTOFF
from molecules import rattled_batch
from small_models import NAMES, small_model
from training_runs import untrained

from spherenet_fast.export.operators import PAIRS, Energies, example, graph_of_pairs, operators
from spherenet_fast.graph import build_graph, edge_vectors, radius_graph
from spherenet_fast.models import SphereNet
from spherenet_fast.training import Potential
from spherenet_fast.training.normalization import Normalization


def shuffled(count):
    return torch.from_numpy(np.random.default_rng(0).permutation(count))


@pytest.fixture(scope="module")
def potential():
    return untrained("float64")[0]


def crystal_pairs(name):
    data = CRYSTALS[name]
    return data, radius_graph(data.pos, None, CUTOFF, data.cell, data.pbc)


@pytest.mark.parametrize("name", ["smaller than the cutoff", "slab"])
def test_graph_of_shuffled_pairs(name):
    """The same arrays as those of the search, whatever the order."""
    data, expected = crystal_pairs(name)
    order = shuffled(len(expected.rev))
    near = torch.ones(len(order), dtype=torch.bool)
    found_order, found = graph_of_pairs(expected.edge_index[:, order], expected.shift[order], near, len(data.z))
    assert torch.equal(order[found_order], torch.arange(len(order)))
    for field in ("edge_index", "in_ptr", "out_ptr", "out_edge", "rev", "triplet_ptr"):
        assert torch.equal(getattr(found, field), getattr(expected, field)), field
    assert found.num_triplets == expected.num_triplets and found.present.all()


def test_pairs_beyond_the_cutoff_are_padding():
    data = rattled_batch((7,))
    near, far = (radius_graph(data.pos, None, cutoff) for cutoff in (2.5, 4.0))
    assert 0 < len(near.rev) < len(far.rev)
    distance = edge_vectors(data.pos, far).norm(dim=1)
    _, found = graph_of_pairs(far.edge_index, torch.zeros(len(far.rev), 3, dtype=torch.int64), distance < 2.5, 7)
    count = len(near.rev)
    assert torch.equal(found.edge_index[:, :count], near.edge_index) and torch.equal(found.rev[:count], near.rev)
    assert (found.edge_index[:, count:] == -1).all() and (found.rev[count:] == -1).all()
    assert torch.equal(found.in_ptr, near.in_ptr) and found.num_triplets == near.num_triplets


def test_a_pair_without_its_opposite():
    edge_index = torch.tensor([[1, 0, 2], [0, 1, 1]])
    _, found = graph_of_pairs(edge_index, torch.zeros(3, 3, dtype=torch.int64), torch.ones(3, dtype=torch.bool), 3)
    assert torch.equal(found.rev, build_graph(edge_index, 3).rev) and found.rev.tolist() == [1, 0, -1]


@pytest.mark.parametrize("weights", ["all", "half"])
def test_slopes_are_derivatives(potential, weights):
    """Of the weighted sum of energies by the vectors, by central differences."""
    energies, data = Energies(potential), rattled_batch((6,))
    z = torch.tensor([1, 6, 8])[torch.arange(6) % 3]
    graph = radius_graph(data.pos, None, energies.cutoff)
    vec, shift = edge_vectors(data.pos, graph), torch.zeros(len(graph.rev), 3, dtype=torch.int64)
    weight = torch.ones(6).double() if weights == "all" else (torch.arange(6) % 2).double()
    _, slopes = energies(z, vec, graph.edge_index, shift, weight)
    for edge, axis in ((0, 0), (3, 2)):
        step = torch.zeros_like(vec)
        step[edge, axis] = 1e-5
        up, down = (weight @ energies(z, vec + s, graph.edge_index, shift, weight)[0] for s in (step, -step))
        # energies of 1e3 eV in float64 differ by 1e-13 eV at least, over 2e-5 Å; the third derivative adds 1e-10
        assert float(slopes[edge, axis]) == pytest.approx(float(up - down) / 2e-5, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_operators_serve_other_sizes(name):
    """Written down with two molecules, of all models, with the numbers of the model for three."""
    energies, data = Energies(Potential.wrap(small_model(name))), rattled_batch((6, 3, 1))
    traced = operators(energies, energies, PAIRS, torch.device("cpu"))
    graph = radius_graph(data.pos, data.batch, energies.cutoff)
    order = shuffled(len(graph.rev))
    edge_index, vec = graph.edge_index[:, order], edge_vectors(data.pos, graph)[order]
    shift, weight = torch.zeros(len(order), 3, dtype=torch.int64), torch.ones(10).double()
    of_atoms, slopes = traced(data.z, vec, edge_index, shift, weight)
    energy, forces = energies.model.energy_and_forces(data)
    # float64, sums in another order
    total = torch.zeros(3).double().index_add(0, data.batch, of_atoms)
    torch.testing.assert_close(total, energy[:, 0], atol=1e-10, rtol=1e-9)
    found = torch.zeros_like(forces).index_add(0, edge_index[0], slopes).index_add(0, edge_index[1], -slopes)
    torch.testing.assert_close(found, forces, atol=1e-10, rtol=1e-9)


def test_an_unknown_element_gives_no_number(potential):
    system = example(Energies(potential), torch.device("cpu"))
    system["z"][8] = 7
    energies, slopes = Energies(potential)(*(system[name] for name in PAIRS))
    assert energies[8].isnan() and not energies[:8].isnan().any()
    assert slopes.isnan().any()


class _Squared(SphereNet):
    def phi_u(self, e_u, v_u, p_u):
        return v_u**2


class _Constant(SphereNet):
    def atom_readout(self, v, system):
        return super().atom_readout(v, system) + 0 * len(system.z)


def _small(kind, **changes):
    model = small_model("SphereNet", **changes)
    other = kind(**model.hparams).double()
    other.load_state_dict(model.state_dict())
    return Potential.wrap(other, shift={"H": -13.0, "C": -1029.0})


def _two_targets():
    model = small_model("SphereNet", out_channels=2)
    zeros = torch.zeros(2, 95).double(), torch.zeros(2).double(), torch.ones(2).double()
    return Potential(model, Normalization(*zeros), ["energy", "gap"], ["eV", "eV"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_two_targets, "potential: expected one that predicts an energy alone, got energy, gap"),
        (lambda: _small(SphereNet, kernels=False), "model: expected kernels=True, to be exported, got False"),
        (lambda: _small(SphereNet, max_num_neighbors=5), "model: expected max_num_neighbors=None, to be .* got 5"),
        (lambda: _small(_Squared), "model: expected a sum over atoms, to be exported, got a _Squared, which"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_exported(make, message):
    with pytest.raises(ValueError, match=message):
        Energies(make())


def test_a_model_that_takes_a_size_as_a_constant():
    with pytest.raises(ValueError, match="model: expected operators .* as a constant, as by len()"):
        energies = Energies(_small(_Constant))
        operators(energies, energies, PAIRS, torch.device("cpu"))


def test_the_potential_is_left_as_it_is(potential):
    before = potential.state()["digest"]
    assert not any(parameter.requires_grad for parameter in Energies(potential).model.parameters())
    assert potential.state()["digest"] == before and all(p.requires_grad for p in potential.model.parameters())
