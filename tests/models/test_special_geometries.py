"""Molecules whose atoms lie on lines and in planes: numbers everywhere, and forces that belong to the energy."""

import pytest
import torch
from molecules import EXACT, MOLECULES, SMALL, as_data, rotation, with_outputs

from spherenet_fast.models import SphereNet

# The torsion rule has margins of 1e-4 rad and of 1e-5 across an edge. Within a step much smaller than both no atom's
# reference changes, so the energy is smooth and its derivative exists, at exact molecules as well.
STEP = 1e-6
STRUCTURES = {**EXACT, "octahedron": (torch.full((7,), 6), MOLECULES["octahedron"])}


def small_model(**hparams):
    return with_outputs(SphereNet(**{**SMALL, **hparams})).double()


@pytest.mark.parametrize("basis", ["paper", "dig"])
@pytest.mark.parametrize("turned", [False, True], ids=["aligned", "turned"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_energies_forces_and_second_derivatives_are_numbers(name, turned, basis):
    z, pos = STRUCTURES[name]
    data = as_data(z, pos @ rotation(0) if turned else pos.clone())
    model = small_model(basis=basis).train()
    data.pos.requires_grad_()
    energy, forces = model.energy_and_forces(data)
    product = torch.autograd.grad(forces, data.pos, torch.randn_like(forces), retain_graph=True)[0]
    (energy.sum() + forces.square().sum()).backward()
    for tensor in (energy, forces, product, *(parameter.grad for parameter in model.parameters())):
        assert tensor.isfinite().all()
    assert energy.abs() > 1e-3 and forces.norm() > 1e-3 and product.norm() > 1e-3  # or else nothing is tested


@pytest.mark.parametrize("turned", [False, True], ids=["aligned", "turned"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_forces_are_minus_the_gradient(name, turned):
    z, pos = STRUCTURES[name]
    pos = pos @ rotation(1) if turned else pos
    model = small_model().eval()
    _, forces = model.energy_and_forces(as_data(z, pos))

    def energy(step):
        with torch.no_grad():
            return model(as_data(z, pos + step)).item()

    for coordinate in range(pos.numel()):
        step = torch.zeros_like(pos).view(-1).index_fill(0, torch.tensor(coordinate), STEP).view_as(pos)
        forward, backward = energy(step) - energy(0 * step), energy(0 * step) - energy(-step)
        force, scale = forces.view(-1)[coordinate].item(), forces.abs().max().item()
        # Energies of 10 are rounded to 1e-14, over 1e-6 that is 1e-8. One-sided differences deviate by 1e-6 times a
        # curvature of up to 1000 times the forces: where they do by more, there is a kink or a jump, and no derivative.
        assert forward / STEP == pytest.approx(backward / STEP, rel=0, abs=1e-3 * scale)
        assert -(forward + backward) / (2 * STEP) == pytest.approx(force, rel=0, abs=1e-6 * scale + 1e-7)


@pytest.mark.parametrize("name", STRUCTURES)
def test_second_derivatives_belong_to_the_forces(name):
    z, pos = STRUCTURES[name]
    model = small_model().train()
    direction = torch.randn_like(pos)
    leaf = pos.clone().requires_grad_()
    _, forces = model.energy_and_forces(as_data(z, leaf))
    (product,) = torch.autograd.grad(forces, leaf, direction)  # the matrix of second derivatives is symmetric
    model.eval()
    sides = [model.energy_and_forces(as_data(z, pos + sign * STEP * direction))[1] for sign in (1, -1)]
    difference = (sides[0] - sides[1]) / (2 * STEP)
    assert (product - difference).norm() < 1e-6 * difference.norm() + 1e-6  # forces of 100 rounded to 1e-13, over 1e-6


def test_through_linearity():
    """As a bent triatomic straightens, energy and forces stay near those of the straight one, in every precision."""
    z, straight = EXACT["carbon dioxide"]
    model = small_model().eval()
    energy, forces = model.energy_and_forces(as_data(z, straight))
    for bend in (1e-2, 1e-4, 1e-6, 1e-8, 1e-12, 0.0):
        pos = straight + torch.tensor([[0, 0, 0], [0, bend, 0], [0, 0, 0]])
        for dtype in (torch.float64, torch.float32):
            found, found_forces = model.to(dtype).energy_and_forces(as_data(z, pos.to(dtype)))
            assert found_forces.isfinite().all()
            # harmonics with m = 1 grow like the bend: the energy is continuous, the forces across are not
            assert (found - energy).abs() <= 100 * bend * energy.abs() + 1e-4
            assert (found_forces - forces)[:, 0].norm() <= 100 * bend * forces.norm() + 1e-3
