"""Stress: a derivative of the energy by strain, checked by numerical ones."""

from types import SimpleNamespace

import pytest
import torch
from crystals import CRYSTALS, joined, small_model
from molecules import as_data, in_dtype, rattled


@pytest.fixture(params=[True, False], ids=["kernels", "reference"])
def model(request):
    return small_model(kernels=request.param)


def strained(data, strain):
    change = torch.eye(3, dtype=torch.float64) + strain
    return SimpleNamespace(**{**vars(data), "pos": data.pos @ change, "cell": data.cell @ change})


def numerical_stress(model, data, step=1e-5):
    stress = torch.zeros(3, 3, dtype=torch.float64)
    for a in range(3):
        for b in range(3):
            strain = torch.zeros(3, 3, dtype=torch.float64)
            strain[a, b] += step / 2
            strain[b, a] += step / 2
            above, below = (model(strained(data, sign * strain)).sum() for sign in (1, -1))
            stress[a, b] = (above - below) / (2 * step)
    return stress.detach() / torch.linalg.det(data.cell).abs()


@pytest.mark.parametrize("name", CRYSTALS)
def test_forces_and_stress_are_numerical_derivatives(model, name):
    data = CRYSTALS[name]
    energy, forces, stress = model.energy_forces_stress(data)
    torch.testing.assert_close(energy, model(data).detach(), rtol=1e-14, atol=1e-14)
    assert stress.shape == (1, 3, 3) and torch.equal(stress, stress.mT)
    assert stress.abs().max() > 1e-4  # or else nothing is tested
    # Central differences of 1e-5: error 1e-10 times third derivatives, rounding 1e-15 / 1e-5.
    torch.testing.assert_close(stress[0], numerical_stress(model, data), rtol=1e-6, atol=1e-8)
    for atom in range(len(data.z)):
        for axis in range(3):
            step = torch.zeros_like(data.pos)
            step[atom, axis] = 1e-5
            above, below = (
                model(SimpleNamespace(**{**vars(data), "pos": data.pos + sign * step})).item() for sign in (1, -1)
            )
            assert forces[atom, axis].item() == pytest.approx(-(above - below) / 2e-5, rel=1e-6, abs=1e-8)


def test_energy_and_forces_are_those_without_stress(model):
    data = joined(list(CRYSTALS.values()))
    energy, forces = model.energy_and_forces(data)
    found = model.energy_forces_stress(data)
    torch.testing.assert_close(found[0], energy, rtol=0, atol=0)
    torch.testing.assert_close(found[1], forces, rtol=0, atol=0)
    # Nothing pulls on a crystal from outside: sums of rounded numbers.
    for part in forces.split([len(data.z) for data in CRYSTALS.values()]):
        torch.testing.assert_close(part.sum(0), torch.zeros(3).double(), rtol=0, atol=1e-12)


def test_a_cell_given_once_is_that_of_all_structures(model):
    data = CRYSTALS["skewed"]
    both = joined([data, data])
    expected = model.energy_forces_stress(both)
    found = model.energy_forces_stress(SimpleNamespace(**{**vars(both), "cell": data.cell, "pbc": data.pbc}))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-14)


def test_float32_follows_float64():
    data = joined(list(CRYSTALS.values()))
    expected = small_model().energy_forces_stress(data)
    found = small_model().float().energy_forces_stress(in_dtype(data, torch.float32))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        # Some hundred roundings of 6e-8; the virial adds forces times positions of up to 20 Å.
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-5 * other.abs().max().item())


def test_derivatives_switched_off_outside_change_nothing(model):
    data = joined([CRYSTALS["slab"], CRYSTALS["skewed"]])
    expected = model.energy_forces_stress(data)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            copy = SimpleNamespace(
                **{name: v.clone() if isinstance(v, torch.Tensor) else v for name, v in vars(data).items()}
            )
            for one, other in zip(model.energy_forces_stress(copy), expected, strict=True):
                assert not one.requires_grad and torch.equal(one, other)
    assert not data.pos.requires_grad and not data.cell.requires_grad


def test_training_differentiates_the_stress(model):
    data = joined([CRYSTALS["smaller than the cutoff"], CRYSTALS["slab"]])
    model.train()

    def loss():
        energy, forces, stress = model.energy_forces_stress(data)
        return energy.square().mean() + forces.square().mean() + 1e4 * stress.square().mean()

    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    generator = torch.Generator().manual_seed(1)
    steps = [1e-6 * torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, step in zip(parameters, steps, strict=True):
                parameter += sign * step
        values.append(loss().item())
    slope = sum((gradient * step).sum().item() for gradient, step in zip(gradients, steps, strict=True))
    assert abs(slope) > 1e-9
    # central differences: error 1e-12 times a third derivative, rounding 1e-15 / slope
    assert slope == pytest.approx((values[0] - values[1]) / 2, rel=1e-5)


def test_no_atoms_and_no_neighbors_have_no_stress(model):
    cell = 20 * torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    for count in (0, 2):
        data = as_data(torch.full((count,), 6), torch.zeros(count, 3).double(), torch.arange(count), cell=cell)
        data.num_graphs = 2
        energy, forces, stress = model.energy_forces_stress(data)
        assert energy.shape == (2, 1) and forces.shape == (count, 3)
        assert torch.equal(stress, torch.zeros(2, 3, 3).double())


@pytest.mark.parametrize(
    "cell, error, message",
    [
        (None, ValueError, r"data.cell: expected \[B, 3, 3\] or \[3, 3\], to which a stress relates, got None"),
        (torch.zeros(3, 3).double(), ValueError, "data.cell: expected cells with a volume, .* for structure 0"),
        (torch.eye(3).double().expand(2, 3, 3), ValueError, "data.cell: expected one for each of 1 structures, got 2"),
        (torch.eye(3), TypeError, "data.cell: expected torch.float64 on cpu as for pos, got torch.float32 on cpu"),
    ],
)
def test_what_has_no_stress(cell, error, message):
    data = as_data(torch.tensor([6, 1, 1]), rattled(3, 0), cell=cell, pbc=torch.ones(3, dtype=torch.bool))
    with pytest.raises(error, match=message):
        small_model().energy_forces_stress(data)


def test_a_box_that_does_not_repeat_has_no_stress():
    cell, pbc = 8 * torch.eye(3).double(), torch.zeros(3, dtype=torch.bool)
    data = as_data(torch.tensor([6, 1, 1]), rattled(3, 0), cell=cell, pbc=pbc)
    with pytest.raises(ValueError, match="data.pbc: expected a direction that repeats, .* none for structure 0"):
        small_model().energy_forces_stress(data)
