"""The frame of Eq. (1): what a model gets without writing it, and a model written in it that learns."""

import pytest
import torch
from attention import AttentionNet
from molecules import as_data, rattled_batch
from small_models import NAMES, small_model

from spherenet_fast.data import read_molecules
from spherenet_fast.graph import radius_graph
from spherenet_fast.nn import framework
from spherenet_fast.nn.framework import GraphNetwork3D


class Counting(GraphNetwork3D):
    """Starts with V = E = 1, counts its calls, and leaves the rest to the defaults."""

    def __init__(self, cutoff=2.0, **hparams):
        super().__init__(cutoff, num_layers=3)
        self.weight = torch.nn.Parameter(torch.ones(1).double())
        self.calls = []

    def embed(self, system, p_e):
        self.calls.append(("embed", p_e))
        return system.vec.new_ones(len(system.z), 1), system.vec.new_ones(len(system.vec), 1)

    def phi_v(self, layer, v, e_v, p_v, system):
        self.calls.append((layer, p_v))
        return v + e_v


def test_the_sums_that_models_share():
    model, data = Counting(), rattled_batch((6, 1, 4))
    graph = radius_graph(data.pos, data.batch, 2.0)
    of_molecule = torch.bincount(data.batch[graph.edge_index[1]], minlength=3)
    assert torch.equal(model(data), (torch.tensor([6, 1, 4]) + 3 * of_molecule)[:, None].double())
    assert model.calls == [("embed", None), (0, None), (1, None), (2, None)]


@pytest.mark.filterwarnings("ignore:max_num_neighbors")
def test_limits_on_neighbors_are_obeyed():
    data = rattled_batch((8,))
    assert (radius_graph(data.pos, None, 4.0).in_ptr.diff() >= 2).all()
    assert Counting(cutoff=4.0, max_num_neighbors=2)(data).item() == 8 + 3 * 8 * 2


def test_rows_and_sums_of_a_system():
    class Looking(Counting):
        def phi_e(self, layer, e, v, p_e, system):
            edges = system.graph.edge_index
            number = torch.arange(len(system.z)).double()[:, None]
            assert torch.equal(system.of_senders(number)[:, 0], edges[0].double())
            assert torch.equal(system.of_receivers(number)[:, 0], edges[1].double())
            assert torch.equal(system.vec, data.pos[edges[1]] - data.pos[edges[0]])
            torch.testing.assert_close(system.distance, system.vec.norm(dim=1), rtol=1e-15, atol=0)
            seen.append(layer)
            return e

    data, seen = rattled_batch((5, 4)), []
    for kernels in (True, False):
        Looking(kernels=kernels)(data)
    assert seen == [0, 1, 2] * 2


def test_wrong_hyper_parameters_are_refused_by_the_frame():
    with pytest.raises(ValueError, match="cutoff: expected a positive number, got 0"):
        Counting(cutoff=0)


def test_the_example_learns():
    """Twelve frames of ethanol, one batch: energies and forces of a model that knows nothing, and after 60 steps."""
    torch.manual_seed(0)
    data = read_molecules("ethanol")[torch.arange(12)]
    energy_label, forces_label = data.y - data.y.mean(), data.forces
    scale = forces_label.square().mean().sqrt()
    model = AttentionNet(hidden_channels=32).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        energy, forces = model.energy_and_forces(data)
        energy = energy - energy.mean()  # one composition: its level is not what is to be learned
        loss = (energy - energy_label / scale).square().mean() + 10 * (forces - forces_label / scale).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(10, rel=0.01)  # of a prediction of 0, in units of the forces' root mean square
    assert losses[-1] < 1.5  # 0.6 is usual
    assert model(as_data(data.z[:9], data.pos[:9])).shape == (1, 1)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("SphereNet", "DimeNet"))])
def test_large_systems_find_again_what_they_do_not_store(name, monkeypatch):
    """The same bits. Training stores everything, as its second derivatives need it."""
    model, data = small_model(name).eval(), rattled_batch()

    def forces_and_storage():
        stored = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: stored.append(x.numel()) or x, lambda x: x):
            found = model.energy_and_forces(data)
        return found, sum(stored)

    expected, everything = forces_and_storage()
    monkeypatch.setattr(framework, "MANY_EDGES", 2)
    found, little = forces_and_storage()
    assert all(map(torch.equal, found, expected))
    assert little < 0.8 * everything  # 0.42 to 0.58
    with torch.no_grad():
        assert torch.equal(model(data), expected[0])
    model.train()
    (energy, forces), trained = forces_and_storage()
    assert torch.equal(forces, expected[1]) and forces.requires_grad and trained > everything
