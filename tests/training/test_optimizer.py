"""Muon for wide weight matrices, AdamW for all else, as one optimizer."""

import copy
import pickle

import pytest
import torch
from molecules import SMALL
from torch import nn

from spherenet_fast import SphereNet
from spherenet_fast.training.config import OptimizerConfig
from spherenet_fast.training.optimization.optimizer import Muon, Together, make_optimizer, muon_matrices, orthogonalized

# bfloat16 has 8 bits, and five iterations of it add up to a few of the last.
BFLOAT16 = 0.05


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 48), nn.SiLU(), nn.Linear(48, 64), nn.SiLU(), nn.Linear(64, 48), nn.Linear(48, 1))


def train(network, optimizer, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(64, 6, generator=generator)
        optimizer.zero_grad()
        loss = (network(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (64, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orthogonalized_keeps_singular_vectors_and_makes_values_near_one(shape, dtype):
    random = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u, _, vh = torch.linalg.svd(random, full_matrices=False)
    scales = torch.linspace(0.3, 7, min(shape), dtype=torch.float64)
    matrices = (u * scales @ vh).to(dtype)
    found = orthogonalized(matrices)
    assert found.dtype == dtype and found.shape == matrices.shape
    middle = u.mT @ found.double() @ vh.mT
    values = middle.diagonal(dim1=1, dim2=2)
    # the interval to which the quintic takes everything from 0.003 to 1
    assert values.max() < 1.2 and values.min() > 0.65
    assert (middle - torch.diag_embed(values)).abs().max() < BFLOAT16


def test_orthogonalized_leaves_zeros():
    assert torch.equal(orthogonalized(torch.zeros(2, 32, 40)), torch.zeros(2, 32, 40))


def test_muon_takes_the_steps_of_torchs():
    ours, theirs = model(), model()
    twice = dict(lr=2e-2, weight_decay=0.05)  # torch's steps have the size of AdamW's
    optimizers = [
        Muon(muon_matrices(ours), lr=1e-2, weight_decay=0.1),
        torch.optim.Muon(muon_matrices(theirs), **twice, adjust_lr_fn="match_rms_adamw"),
    ]
    start = [weight.detach().clone() for weight in muon_matrices(ours)]
    for network, optimizer in zip((ours, theirs), optimizers, strict=True):
        generator = torch.Generator().manual_seed(3)
        for _ in range(3):
            for weight in muon_matrices(network):
                weight.grad = torch.randn(weight.shape, generator=generator)
            optimizer.step()
    for before, a, b in zip(start, muon_matrices(ours), muon_matrices(theirs), strict=True):
        assert (a - b).norm() < BFLOAT16 * (b - before).norm()


def test_every_parameter_has_one_optimizer():
    network = SphereNet(**SMALL | {"hidden_channels": 32, "int_emb_size": 16})
    optimizer = make_optimizer(network, OptimizerConfig())
    groups = [{id(parameter) for parameter in group["params"]} for group in optimizer.param_groups]
    assert sorted(id for group in groups for id in group) == sorted(id(p) for p in network.parameters())
    assert groups[0] == {id(p) for n, p in network.named_parameters() if p.ndim == 2 and min(p.shape) >= 32} - {
        id(network.init_e.emb.weight)  # its rows are looked up, one alone at a time
    }


def test_adamw_is_torchs():
    ours, theirs = model(), model()
    options = OptimizerConfig(name="adamw", lr=3e-3, weight_decay=0.01, beta2=0.99)
    train(ours, make_optimizer(ours, options), steps=3)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    train(theirs, adamw, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_one_optimizer_is_itself_and_takes_the_state_of_together():
    """Checkpoints of earlier versions have AdamW alone inside of Together."""
    network = model()
    together = Together(torch.optim.AdamW(network.parameters(), 3e-3, fused=True))
    train(network, together, steps=3)
    twin = copy.deepcopy(network)
    other = make_optimizer(twin, OptimizerConfig(name="adamw", lr=3e-3))
    assert type(other) is torch.optim.AdamW
    other.load_state_dict(copy.deepcopy(together.state_dict()))
    for each, its_optimizer in ((network, together), (twin, other)):
        train(each, its_optimizer, steps=3, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))


def test_a_loaded_state_continues_to_the_same_bits():
    network = model()
    optimizer = make_optimizer(network, OptimizerConfig())
    train(network, optimizer, steps=3)
    twin = copy.deepcopy(network)
    other = make_optimizer(twin, OptimizerConfig())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in (*optimizer.param_groups, *other.param_groups):
        group["lr"] = 3e-3  # as the schedule does, through the groups of the whole
    for each, its_optimizer in ((network, optimizer), (twin, other)):
        train(each, its_optimizer, steps=3, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))


def test_learning_rates_reach_the_parts():
    network = model()
    optimizer = make_optimizer(network, OptimizerConfig(lr=1e-3))
    assert isinstance(optimizer, Together) and len(optimizer.param_groups) == 2
    before = [parameter.detach().clone() for parameter in network.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    train(network, optimizer, steps=2)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_it_learns(name):
    network = model()
    optimizer = make_optimizer(network, OptimizerConfig(name=name, lr=3e-3))
    first = train(network, optimizer, steps=1)
    assert train(network, optimizer, steps=100, seed=1) < 0.1 * first


def test_steps_do_not_depend_on_threads():
    networks, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            network = model()
            optimizer = Muon(muon_matrices(network), lr=1e-2)
            generator = torch.Generator().manual_seed(2)
            for parameter in network.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
            networks.append(network)
    finally:
        torch.set_num_threads(threads)
    for network in networks[1:]:
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), networks[0].parameters(), strict=True))


def test_shared_and_computed_weights():
    """A shared weight takes one step; one that a parametrization computes has its parts with AdamW."""
    network = model()
    network[4] = nn.Linear(48, 64)
    network[4].weight = network[2].weight
    assert len(muon_matrices(network)) == 1
    network = model()
    nn.utils.parametrizations.weight_norm(network[2])
    assert [weight.shape for weight in muon_matrices(network)] == [network[4].weight.shape]
    train(network, make_optimizer(network, OptimizerConfig()), steps=1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_copies_step_alike(copied):
    network = model()
    optimizer = make_optimizer(network, OptimizerConfig())
    train(network, optimizer, steps=2)
    both = [(network, optimizer), copied((network, optimizer))]
    for each, its_optimizer in both:
        train(each, its_optimizer, steps=2, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(*(each.parameters() for each, _ in both), strict=True))


def test_later_groups_are_stepped():
    network, later = model(), nn.Parameter(torch.ones(3))
    optimizer = make_optimizer(network, OptimizerConfig())
    optimizer.add_param_group({"params": [later]})
    later.grad = torch.ones(3)
    with torch.no_grad():
        optimizer.step(lambda: later.sum())
    assert (later < 1).all() and len(optimizer.param_groups) == 3


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="name: expected muon or adamw, got 'sgd'"):
        make_optimizer(model(), OptimizerConfig(name="sgd"))
