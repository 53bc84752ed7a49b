"""SchNet, DimeNet and DimeNet++ with the weights of PyTorch Geometric's models, against those on QM9's molecules."""

import copy
from functools import cache

import pytest
import torch
from torch_geometric.nn.models import dimenet, schnet

from bench.providers import pyg_models
from spherenet_fast.data import read_molecules
from spherenet_fast.models import DimeNet, DimeNetPlusPlus, SchNet

WIDTHS = dict(hidden_channels=24, out_channels=2, num_spherical=3, num_radial=2, output_initializer="glorot_orthogonal")
MODELS = {
    SchNet: dict(hidden_channels=24, num_filters=20, num_interactions=3, num_gaussians=12, cutoff=6.0),
    DimeNet: dict(WIDTHS, num_blocks=2, num_bilinear=5, cutoff=4.0, num_before_skip=2),
    DimeNetPlusPlus: dict(
        WIDTHS, num_blocks=2, int_emb_size=10, basis_emb_size=6, out_emb_channels=30, num_output_layers=2,
        envelope_exponent=6,
    ),
}  # fmt: skip


def of_pyg(model):
    """PyTorch Geometric's model of this class: a copy, since building one takes it seconds."""
    return copy.deepcopy(_built(model))


@cache
def _built(model):
    torch.manual_seed(0)
    theirs = getattr(schnet if model is SchNet else dimenet, model.__name__)(**MODELS[model])
    for name, parameter in theirs.named_parameters():
        if name.endswith("bias"):  # which are 0 at the start
            torch.nn.init.normal_(parameter, std=0.2)
    return theirs


def molecules(dtype):
    """20 molecules of the sample."""
    return read_molecules("qm9", dtype=dtype)[torch.arange(0, 1000, 50)]


@pytest.fixture
def neighbors_for_pyg(monkeypatch):
    """What PyTorch Geometric takes from packages that need not be there."""
    monkeypatch.setattr(schnet, "radius_graph", pyg_models._edge_index)
    monkeypatch.setattr(dimenet, "radius_graph", pyg_models._edge_index)
    monkeypatch.setattr(dimenet, "triplets", pyg_models._triplets)
    monkeypatch.setattr(dimenet, "scatter", pyg_models._sized(dimenet.scatter))


# Some hundred operations, each off by 1e-16 or 6e-8, and forces that cancel. PyTorch Geometric's own float32 results
# are as far from its float64 ones.
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("model", MODELS)
def test_energies_and_forces(model, dtype, tolerance, neighbors_for_pyg):
    # The weights in float64 are those rounded to float32. Expected are exact numbers, of float64, for both.
    found = model.from_pyg(of_pyg(model).to(dtype)).energy_and_forces(molecules(dtype))
    expected = pyg_models.PygModel(of_pyg(model).double()).energy_and_forces(molecules(torch.float64))
    for value, exact in zip(found, expected, strict=True):
        assert (value.double() - exact).norm() <= tolerance * exact.norm() and exact.norm() > 0


@pytest.mark.parametrize("model", MODELS)
def test_gradients_of_the_parameters(model, neighbors_for_pyg):
    """Through the second derivative; a sum over all parameters, whose names are not the same, is compared."""
    data, results = molecules(torch.float64), []
    theirs = of_pyg(model).double()
    ours = model.from_pyg(theirs)
    for each in (ours, pyg_models.PygModel(theirs)):
        energy, forces = each.energy_and_forces(data)
        gradients = torch.autograd.grad(energy.square().sum() + forces.square().sum(), list(each.parameters()))
        results.append(sum(gradient.square().sum() for gradient in gradients))
    # sums of squares over some thousand numbers; SchNet's embedding has fewer rows here, which changes nothing
    torch.testing.assert_close(*results, rtol=1e-8, atol=0)


@pytest.mark.parametrize("model", MODELS)
def test_module(model):
    theirs = of_pyg(model).double().eval()
    before = {name: value.clone() for name, value in theirs.state_dict().items()}
    ours = model.from_pyg(theirs)
    assert not ours.training and ours.parameter_like().dtype == torch.float64
    assert {name: ours.hparams[name] for name in MODELS[model] if name in ours.hparams}.items() <= MODELS[model].items()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter += 1  # our own copies
    assert all(torch.equal(value, before[name]) for name, value in theirs.state_dict().items())


def test_mean_and_deviation_of_a_schnet(neighbors_for_pyg):
    theirs = schnet.SchNet(**MODELS[SchNet], mean=-3.0, std=2.5).double()
    data = molecules(torch.float64)
    found = SchNet.from_pyg(theirs)(data)
    torch.testing.assert_close(found, pyg_models.PygModel(theirs)(data), rtol=1e-11, atol=0)


def test_what_cannot_be_taken_over():
    with pytest.raises(TypeError, match="model: expected a torch_geometric.nn.models.SchNet, got Linear"):
        SchNet.from_pyg(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="expected a torch_geometric.nn.models.DimeNetPlusPlus, got DimeNet"):
        DimeNetPlusPlus.from_pyg(of_pyg(DimeNet))
    with pytest.raises(TypeError, match="expected a torch_geometric.nn.models.DimeNet, got DimeNetPlusPlus"):
        DimeNet.from_pyg(of_pyg(DimeNetPlusPlus))
    with pytest.raises(ValueError, match="model.dipole: expected False, got True"):
        SchNet.from_pyg(schnet.SchNet(**MODELS[SchNet], dipole=True))
    with pytest.raises(ValueError, match="model.readout: expected SumAggregation, got MeanAggregation"):
        SchNet.from_pyg(schnet.SchNet(**MODELS[SchNet], readout="mean"))
    theirs = of_pyg(DimeNetPlusPlus)
    theirs.interaction_blocks[0].act = torch.relu
    with pytest.raises(ValueError, match="model.act: expected the SiLU"):
        DimeNetPlusPlus.from_pyg(theirs)
