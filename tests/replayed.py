"""What the tests of recorded predictions replay: molecules, crystals, models of all kinds."""

import torch
from crystals import crystal
from graph_oracles import random_crystal
from molecules import SMALL, with_outputs
from small_models import small_model

from spherenet_fast.models import SphereNet
from spherenet_fast.nn.inputs import read_inputs

ONE_LAYER = dict(num_layers=1)  # recording takes seconds, in proportion


def spherenet(**changes):
    return small_model("SphereNet", **ONE_LAYER, **changes)


def molecules(spread=1.0, seed=0, atoms=(6, 5)):
    """Random molecules, the more spread the fewer edges. float64."""
    generator = torch.Generator().manual_seed(seed)
    batch = torch.repeat_interleave(torch.arange(len(atoms)), torch.tensor(atoms))
    z = torch.tensor([1, 6, 7, 8])[torch.randint(4, batch.shape, generator=generator)]
    pos = spread * 2 * torch.randn(len(batch), 3, dtype=torch.float64, generator=generator)
    return {"z": z, "pos": pos, "batch": batch, "num_graphs": len(atoms)}


def periodic(seed):
    pos, cell = random_crystal(3, seed, 4.0)
    return crystal([6, 8, 1], pos, cell)


def neighbors(model, data):
    return model.neighbors(read_inputs(data, model.parameter_like()))


def assert_same(replay, data, method="energy_and_forces"):
    for found, expected in zip(getattr(replay, method)(data), getattr(replay.model, method)(data), strict=True):
        assert torch.equal(found, expected) and not found.requires_grad


class Spied(SphereNet):
    """Counts how often it is called."""

    calls = 0

    def _predict(self, inputs, graph):
        self.calls += 1
        return super()._predict(inputs, graph)


def own(kind):
    torch.manual_seed(0)
    model = kind(**SMALL | ONE_LAYER).double()
    with_outputs(model)
    return model


def spied():
    return own(Spied).eval()


def gradients(model, results):
    """Of a loss of all results by all parameters that want one; None where there is none."""
    model.zero_grad()
    loss = sum((torch.sin(result) * torch.arange(result.numel()).reshape(result.shape)).sum() for result in results)
    loss.backward()
    return [parameter.grad for parameter in model.parameters()]


def assert_same_gradients(replay, data, method="energy_and_forces"):
    found, expected = getattr(replay, method)(data), getattr(replay.model, method)(data)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b) and a.requires_grad
    for a, b in zip(gradients(replay.model, found), gradients(replay.model, expected), strict=True):
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b))


class LooksAtValues(SphereNet):
    def rho_ev(self, e, system):
        return super().rho_ev(e, system) * (2 if bool(system.distance.min() > 0) else 1)


class Scripted(SphereNet):
    """With a part in TorchScript, as libraries of equivariant layers have them."""

    def __init__(self, hidden_channels: int = 128, **more: int):
        super().__init__(hidden_channels=hidden_channels, **more)
        self.scripted = torch.jit.script(torch.nn.Linear(1, 1).double())

    def phi_u(self, e_u, v_u, p_u):
        return self.scripted(v_u)


class ChangesInPlace(SphereNet):
    """What depends on no argument is changed in place: it must be made again in every call."""

    def phi_u(self, e_u, v_u, p_u):
        ones = torch.ones(1, 1, dtype=v_u.dtype)
        return ones.add_(v_u.sum()) + v_u


class Corrected(SphereNet):
    def energy_and_forces(self, data, graph=None):
        energy, forces = super().energy_and_forces(data, graph)
        return energy + 1, forces


class DropsOut(SphereNet):
    def rho_ev(self, e, system):
        return torch.nn.functional.dropout(super().rho_ev(e, system), 0.5, self.training)


class CountsCalls(SphereNet):
    def __init__(self, **hparams):
        super().__init__(**hparams)
        self.register_buffer("count", torch.zeros(1))

    def phi_u(self, e_u, v_u, p_u):
        self.count += 1
        return v_u * self.count.to(v_u)
