"""Recorded predictions: those of the model, bit by bit, for any edges, weights and elements; else the model itself."""

import copy
import pickle
import warnings

import pytest
import torch
from molecules import SMALL, with_outputs
from replayed import (
    ChangesInPlace,
    Corrected,
    CountsCalls,
    DropsOut,
    LooksAtValues,
    Scripted,
    assert_same,
    assert_same_gradients,
    gradients,
    molecules,
    neighbors,
    own,
    periodic,
    spherenet,
    spied,
)
from small_models import NAMES, small_model

from spherenet_fast.models import SphereNet
from spherenet_fast.nn.replay import MOST, Replay

OTHER_BITS = ("SchNet", "PhysNet")  # what opposite edges share is computed once, but in a recording
AT_ONCE = 1  # recorded in the first call


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", NAMES)
def test_any_edges_and_elements_of_so_many_atoms(name, dtype):
    replay = Replay(small_model(name).to(dtype).eval(), AT_ONCE)
    edges = set()
    for spread, seed in ((1, 0), (0.7, 1), (1.5, 2), (1, 3)):
        data = molecules(spread, seed)
        data["pos"] = data["pos"].to(dtype)
        assert_same(replay, data)
        edges.add(len(neighbors(replay.model, data).rev))
    assert len(edges) > 2
    (recording,) = replay._recordings.values()
    assert (recording is None) == (name in OTHER_BITS)


def test_the_model_itself_is_called_until_there_is_a_recording():
    model = spied()
    replay = Replay(model, after=3)
    for expected in (1, 2, 4, 4, 4):  # recording calls it, too
        replay.energy_and_forces(molecules())
        assert model.calls == expected
    replay.energy_and_forces(molecules(atoms=(6, 6)))  # other numbers of atoms
    assert model.calls == 5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_by_the_parameters(name, dtype):
    replay = Replay(small_model(name).to(dtype), AT_ONCE)
    for spread, seed in ((1, 0), (0.7, 1), (1.5, 2)):
        data = molecules(spread, seed)
        data["pos"] = data["pos"].to(dtype)
        assert_same_gradients(replay, data)
    (recording,) = replay._recordings.values()
    assert (recording is None) == (name in OTHER_BITS)


def test_gradients_of_stress():
    replay = Replay(spherenet(cutoff=4.0), AT_ONCE)
    for seed in range(3):
        assert_same_gradients(replay, periodic(seed), "energy_forces_stress")
    (recording,) = replay._recordings.values()
    assert recording is not None


def test_frozen_parameters_have_no_gradient():
    replay = Replay(spherenet(), AT_ONCE)
    assert_same_gradients(replay, molecules())
    for parameter in replay.model.init_e.parameters():
        parameter.requires_grad_(False)
    assert_same_gradients(replay, molecules())
    assert_same_gradients(replay, molecules(seed=1))
    assert len(replay._recordings) == 2 and None not in replay._recordings.values()


def test_a_loss_of_energies_alone_and_one_on_top_of_another():
    replay = Replay(spherenet(), AT_ONCE)
    replay.energy_and_forces(molecules())
    expected = gradients(replay.model, [replay.model.energy_and_forces(molecules())[0]])
    expected = [None if gradient is None else gradient.clone() for gradient in expected]
    found = gradients(replay.model, [replay.energy_and_forces(molecules())[0]])
    for a, b in zip(found, expected, strict=True):
        assert (a is None and not b.any()) or (b is None and not a.any()) or torch.allclose(a, b, atol=1e-14)
    energy, _ = replay.energy_and_forces(molecules())
    weight = replay.model.init_e.lin.weight
    replay.model.zero_grad()
    energy.sum().backward(retain_graph=True)
    once = weight.grad.clone()
    energy.sum().backward()
    assert once.any() and torch.equal(weight.grad, 2 * once)


def test_weights_changed_before_the_backward_pass_are_an_error():
    replay = Replay(spherenet(), AT_ONCE)
    replay.energy_and_forces(molecules())
    energy, _ = replay.energy_and_forces(molecules())
    with torch.no_grad():
        replay.model.update_es[0].lin_kj.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        energy.sum().backward()


def test_gradients_by_positions_in_training_are_the_models():
    replay, data = Replay(spherenet(), AT_ONCE), molecules()
    replay.energy_and_forces(data)
    data["pos"].requires_grad_()
    energy, forces = replay.energy_and_forces(data)
    (slope,) = torch.autograd.grad(forces.square().sum(), data["pos"])
    assert slope.any()


def test_stress():
    replay = Replay(spherenet(cutoff=4.0).eval(), AT_ONCE)
    for seed in range(3):
        assert_same(replay, periodic(seed), "energy_forces_stress")
        assert_same(replay, periodic(seed))
    assert len(replay._recordings) == 2 and None not in replay._recordings.values()
    with pytest.raises(ValueError, match="data.cell: expected"):
        replay.energy_forces_stress(molecules())


def test_changed_weights_are_seen():
    replay = Replay(spied(), AT_ONCE)
    model = replay.model
    assert_same(replay, molecules())
    with torch.no_grad():
        model.update_es[0].lin_kj.weight.mul_(2)
    assert_same(replay, molecules())
    model.load_state_dict({name: 0.9 * value for name, value in model.state_dict().items()})
    assert_same(replay, molecules())
    model.init_e.lin.weight.data = 2 * model.init_e.lin.weight.data
    assert_same(replay, molecules())
    model.init_e.lin.bias = torch.nn.Parameter(model.init_e.lin.bias + 1)
    assert_same(replay, molecules())
    model.float()
    data = molecules() | {"pos": molecules()["pos"].float()}
    assert_same(replay, data)
    assert_same(Replay(model.double(), AT_ONCE), molecules())
    assert_same(replay, molecules())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_modes_of_derivatives(mode):
    replay = Replay(spied(), AT_ONCE)
    with mode():
        replay.energy_and_forces(molecules())
        energy, forces = replay.energy_and_forces(molecules(seed=1))
    assert replay.model.calls == 2
    assert not (energy.requires_grad or forces.requires_grad or energy.is_inference())


def test_positions_that_require_a_gradient_are_left_alone():
    replay, data = Replay(spied(), AT_ONCE), molecules()
    data["pos"].requires_grad_()
    replay.energy_and_forces(data)
    assert_same(replay, data)
    assert data["pos"].requires_grad and data["pos"].grad is None


def test_the_model_is_called_where_a_recording_does_not_apply(monkeypatch):
    replay, data = Replay(spied(), AT_ONCE), molecules()
    replay.energy_and_forces(data)
    model = replay.model
    model.train()
    energy, forces = replay.energy_and_forces(data)
    assert energy.requires_grad and forces.requires_grad
    model.eval()
    seen = []
    hook = model.init_e.register_forward_hook(lambda *arguments: seen.append(1))
    replay.energy_and_forces(data)
    assert seen
    hook.remove()
    model.calls = 0
    monkeypatch.setenv("SPHERENET_FAST_CHECKS", "1")
    replay.energy_and_forces(data)
    assert model.calls == 1
    monkeypatch.delenv("SPHERENET_FAST_CHECKS")
    replay.energy_and_forces(data)
    assert model.calls == 1


@pytest.mark.parametrize("atoms", [(1,), (2,), (1, 1), (1, 2)])
def test_few_edges(atoms):
    """With no more edges than numbers that are special to torch, or as many triplets as edges, nothing is recorded."""
    replay = Replay(spherenet().eval(), AT_ONCE)
    assert_same(replay, molecules(0.3, atoms=atoms))
    assert not replay._recordings
    replay.energy_and_forces(molecules(0.3, atoms=(5,)))
    assert len(replay._recordings) == 1
    far = molecules(100, atoms=(5,))  # without any edge
    assert_same(replay, far)


def test_a_model_that_looks_at_values_is_called_as_ever():
    replay = Replay(own(LooksAtValues).eval(), AT_ONCE)
    with pytest.warns(UserWarning, match="LooksAtValues cannot be recorded"):
        replay.energy_and_forces(molecules())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(replay, molecules())


def test_a_model_with_a_scripted_part_is_called_as_ever():
    model = own(Scripted).eval()
    replay = Replay(model, AT_ONCE)
    for _ in range(2):
        assert_same(replay, molecules())
    assert not replay._recordings
    model.train()
    assert_same_gradients(replay, molecules())


def test_changes_in_place_are_made_in_every_call():
    replay = Replay(own(ChangesInPlace).eval(), AT_ONCE)
    for seed in range(3):
        assert_same(replay, molecules(seed=seed))
    assert None not in replay._recordings.values()


def test_own_forces_are_called():
    replay = Replay(own(Corrected).eval(), AT_ONCE)
    for seed in range(3):
        assert_same(replay, molecules(seed=seed))
    model = spied()
    model.energy_and_forces = lambda data, graph=None: "other"
    assert Replay(model, AT_ONCE).energy_and_forces(molecules()) == "other"


def test_random_numbers_are_drawn_anew():
    replay = Replay(own(DropsOut), AT_ONCE)
    with pytest.warns(UserWarning, match="DropsOut cannot be recorded, .*: it draws random numbers"):
        replay.energy_and_forces(molecules())
    assert len({replay.energy_and_forces(molecules())[0].sum().item() for _ in range(5)}) == 5
    replay.model.eval()  # where it draws none
    for seed in range(2):
        assert_same(replay, molecules(seed=seed))
    assert [recording is None for recording in replay._recordings.values()] == [True, False]


def test_buffers_that_change_are_changed_once_a_call():
    replay = Replay(own(CountsCalls).eval(), 2)
    with pytest.warns(UserWarning, match="CountsCalls cannot be recorded, .*: it changes its buffers"):
        for _ in range(4):
            replay.energy_and_forces(molecules())
    assert replay.model.count == 4


def test_second_derivatives_in_training_are_an_error():
    replay = Replay(own(SphereNet), AT_ONCE)
    replay.energy_and_forces(molecules())
    energy, _ = replay.energy_and_forces(molecules())
    with pytest.raises(RuntimeError, match="differentiated once, got create_graph=True"):
        torch.autograd.grad(energy.sum(), replay.model.init_e.lin.weight, create_graph=True)


def test_writes_without_a_version_and_exchanged_modules_are_seen():
    replay = Replay(spied(), AT_ONCE)
    model = replay.model
    assert_same(replay, molecules())
    for parameter in model.parameters():
        parameter.data.mul_(1.01)
    assert_same(replay, molecules())
    for _ in range(2):  # the second one may get the memory that the first one has left
        for parameter in model.parameters():
            parameter.data = parameter.data * 1.01
        assert_same(replay, molecules())
    model.update_es[0].lin_kj = copy.deepcopy(model.update_es[0].lin_ji)
    assert_same(replay, molecules())


def test_hooks_on_the_way_back_are_called():
    replay, seen = Replay(spied(), AT_ONCE), []
    replay.energy_and_forces(molecules())
    hook = replay.model.update_vs[0].register_full_backward_hook(lambda *arguments: seen.append(1))
    replay.energy_and_forces(molecules())
    assert seen
    hook.remove()
    hook = torch.nn.modules.module.register_module_forward_hook(lambda *arguments: seen.append(2))
    replay.energy_and_forces(molecules())
    hook.remove()
    assert 2 in seen


def test_a_model_without_predictions_or_without_parameters_to_train_is_recorded_later():
    model = SphereNet(**SMALL).double()  # predicts 0
    replay = Replay(model, AT_ONCE)
    replay.energy_and_forces(molecules())
    assert not replay._recordings
    with_outputs(model)
    model.requires_grad_(False)
    replay.energy_and_forces(molecules())
    model.requires_grad_(True)
    replay.energy_and_forces(molecules())
    assert_same_gradients(replay, molecules())
    assert sum(recording is not None for recording in replay._recordings.values()) == 1


def test_gradients_by_the_cell_in_training_are_the_models():
    replay = Replay(spherenet(cutoff=4.0), AT_ONCE)
    data = periodic(0)
    replay.energy_and_forces(data)
    data.cell.requires_grad_()
    energy, _ = replay.energy_and_forces(data)
    assert torch.autograd.grad(energy.sum(), data.cell)[0].any()


def test_copies_and_pickles_record_for_themselves():
    replay = Replay(spherenet().eval(), AT_ONCE)
    replay.energy_and_forces(molecules())
    for other in (copy.deepcopy(replay), pickle.loads(pickle.dumps(replay))):
        assert other.model is not replay.model and not other._recordings
        assert_same(other, molecules())


def test_no_more_recordings_are_kept_than_so_many():
    replay = Replay(spherenet().eval(), AT_ONCE)
    for size in range(4, 6 + MOST):
        assert_same(replay, molecules(0.5, atoms=(size,)))
    assert len(replay._recordings) == MOST


def test_a_graph_of_other_atoms_is_an_error():
    replay = Replay(spied(), AT_ONCE)
    replay.energy_and_forces(molecules())
    graph = neighbors(replay.model, molecules(atoms=(5,)))
    with pytest.raises(ValueError, match="graph: expected one of 11 atoms"):
        replay.energy_and_forces(molecules(), graph)
