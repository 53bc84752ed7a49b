"""PhysNet against its equations, written out atom by atom."""

import math

import torch
from molecules import rattled_batch
from small_models import small_model

from spherenet_fast.models import PhysNet


def softplus(x):
    return torch.log((1 + torch.exp(x)) / 2)


def affine(weights, name, x):
    """W x + b. x [F]."""
    return weights[f"{name}.weight"] @ x + weights.get(f"{name}.bias", 0)


def residual(weights, name, x):
    return x + affine(weights, f"{name}.lin2", softplus(affine(weights, f"{name}.lin1", softplus(x))))


def energy_of_molecule(weights, z, pos, cutoff, num_blocks, residuals):
    """One molecule: a loop over modules, atoms and neighbors. weights: state of the model by name."""
    num_atoms = len(z)
    x = [weights["emb.weight"][element] for element in z]
    y = [torch.zeros(1).double()] * num_atoms
    for module in (f"blocks.{number}" for number in range(num_blocks)):
        proto = []
        for i in range(num_atoms):
            v = softplus(affine(weights, f"{module}.lin_i", softplus(x[i])))
            for j in range(num_atoms):
                distance = (pos[i] - pos[j]).norm()
                if i == j or distance >= cutoff:
                    continue
                r = distance / cutoff
                ends = 1 - 6 * r**5 + 15 * r**4 - 10 * r**3
                g = ends * torch.exp(-weights["beta"] * (torch.exp(-distance) - weights["mu"]) ** 2)
                mask = weights[f"{module}.mask.weight"] @ g
                v = v + mask * softplus(affine(weights, f"{module}.lin_j", softplus(x[j])))
            for number in range(residuals["interaction"]):
                v = residual(weights, f"{module}.interaction_residuals.{number}", v)
            proto.append(v)
        for i in range(num_atoms):
            x[i] = weights[f"{module}.gate"] * x[i] + affine(weights, f"{module}.lin", softplus(proto[i]))
            for number in range(residuals["atomic"]):
                x[i] = residual(weights, f"{module}.atomic_residuals.{number}", x[i])
            out = x[i]
            for number in range(residuals["output"]):
                out = residual(weights, f"{module}.output_residuals.{number}", out)
            y[i] = y[i] + affine(weights, f"{module}.out", softplus(out))
    scale, shift = weights["scale.weight"], weights["shift.weight"]
    return sum(scale[element] * y[i] + shift[element] for i, element in enumerate(z))


def test_energies_and_forces_are_those_of_the_equations():
    model = small_model("PhysNet", cutoff=3.0)
    data = rattled_batch((5, 1, 4))
    energy, forces = model.eval().energy_and_forces(data)
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    residuals = dict(interaction=1, atomic=2, output=1)
    for molecule in range(3):
        mine = data.batch == molecule
        pos = data.pos[mine].clone().requires_grad_()
        expected = energy_of_molecule(weights, data.z[mine].tolist(), pos, 3.0, 2, residuals)
        # the same operations in another order, in float64
        torch.testing.assert_close(energy[molecule], expected.detach(), rtol=1e-11, atol=1e-12)
        if mine.sum() > 1:
            (slope,) = torch.autograd.grad(expected.sum(), pos)
            torch.testing.assert_close(forces[mine], -slope, rtol=1e-9, atol=1e-11)


def test_start():
    """Masks and outputs are 0; the centers run from exp(-cutoff) to 1, with the paper's widths."""
    model = PhysNet()
    data = rattled_batch((5, 4))
    data.pos = data.pos.float()
    assert (model(data) == 0).all()
    nearest = math.exp(-10.0)
    torch.testing.assert_close(model.mu.detach()[[0, -1]], torch.tensor([nearest, 1.0]))
    torch.testing.assert_close(model.beta[0].item(), (2 / 64 * (1 - nearest)) ** -2, rtol=1e-6, atol=0)
