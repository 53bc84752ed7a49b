"""What models say of single atoms: contributions to the prediction, and descriptors."""

import pytest
import torch
from molecules import as_data, rattled_batch, rotation
from small_models import NAMES, small_model
from torch.testing import assert_close

from spherenet_fast.models import SphereNet

ROUNDING = dict(rtol=1e-10, atol=1e-12)  # float64: the same sums in another order


@pytest.mark.parametrize("name", NAMES)
def test_contributions_of_atoms_add_up_to_the_prediction(name):
    model, data = small_model(name).eval(), rattled_batch()
    energy, forces = model.energy_and_forces(data)
    contributions, same_forces = model.energy_and_forces(data, per_atom=True)
    assert contributions.shape == (len(data.z), 1) and not contributions.requires_grad
    assert len(contributions.unique()) > 10
    assert_close(torch.zeros_like(energy).index_add(0, data.batch, contributions), energy, **ROUNDING)
    assert_close(same_forces, forces, **ROUNDING)
    with torch.no_grad():
        assert torch.equal(model(data, per_atom=True), contributions)


def test_contributions_of_the_atoms_of_a_cell_come_with_the_stress():
    model, data = small_model("SphereNet").eval(), rattled_batch((6, 4))
    data = as_data(**vars(data), cell=6 * torch.eye(3, dtype=torch.float64), pbc=torch.ones(3, dtype=torch.bool))
    energy, forces, stress = model.energy_forces_stress(data)
    contributions, *others = model.energy_forces_stress(data, per_atom=True)
    assert_close(torch.zeros_like(energy).index_add(0, data.batch, contributions), energy, **ROUNDING)
    assert_close(others, [forces, stress], **ROUNDING)


def test_contributions_can_be_trained():
    model, data = small_model("SphereNet").train(), rattled_batch((5,))
    contributions, _ = model.energy_and_forces(data, per_atom=True)
    contributions[0].sum().backward()
    assert model.init_v.lin.weight.grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_descriptors_are_of_the_atoms_surroundings(name):
    """The same for the molecule alone and in a batch, and wherever and however it lies; others for other elements."""
    model, data = small_model(name).eval(), rattled_batch((6, 5))
    found = model.descriptors(data)
    assert found.shape == (11, 10) and not found.requires_grad  # all of these models have 10 hidden channels
    assert len(found.unique(dim=0)) == 11
    first = slice(0, 6)
    moved = as_data(data.z[first], data.pos[first] @ rotation(1).T + 3)
    # kernels in float64; directions along a line are as exact as positions of 10 Å, to 1e-15 of them
    assert_close(model.descriptors(moved), found[first], rtol=1e-8, atol=1e-10)
    other = as_data(data.z.clone(), data.pos, data.batch)
    other.z[0] += 1
    assert not torch.allclose(model.descriptors(other)[first], found[first])


class Mean(SphereNet):
    def phi_u(self, e_u, v_u, p_u):
        return v_u / 2


def test_a_prediction_that_is_no_sum_over_atoms_has_no_contributions():
    data = rattled_batch((5,))
    model = Mean(num_layers=1, hidden_channels=8).double()
    assert not model.is_sum_over_atoms and small_model("SchNet").is_sum_over_atoms
    for call in (model, model.energy_and_forces):
        with pytest.raises(ValueError, match="per_atom: expected a model whose .* got a Mean with rho_vu or phi_u"):
            call(data, per_atom=True)
    assert model.descriptors(data).shape == (5, 8)
