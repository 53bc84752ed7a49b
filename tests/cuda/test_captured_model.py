"""CUDA graphs without being asked, their steps tried on the CPU: results, room that grows, and when they are left."""

import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
from molecules import SMALL, as_data, labeled_batch, with_outputs
from operator_cases import assert_close

from spherenet_fast.cuda_graph import CapturedInference, CapturedModel, RecordingError, automatic
from spherenet_fast.cuda_graph.derivatives import CapturedPrediction
from spherenet_fast.models import SphereNet

# the same sums in float64, in matrix products of other sizes
TOLERANCE = 1e-10
METHODS = ["__call__", "energy_and_forces", "energy_forces_stress"]


class OnCpu(CapturedModel):
    device = "cpu"


def small_model(**changes):
    torch.manual_seed(0)
    return with_outputs(SphereNet(**SMALL | changes)).double()


def batches(periodic=False):
    """Of one kind, the third one too large for what the first ones need."""
    found = [labeled_batch(sizes, seed) for seed, sizes in enumerate([(6, 5), (5, 5), (7, 6), (6, 6), (5, 4, 3)])]
    cell = dict(cell=7 * torch.eye(3, dtype=torch.float64), pbc=torch.ones(3, dtype=torch.bool)) if periodic else {}
    return [as_data(**vars(data), **cell) for data in found]


def called(predict, method, data):
    """What a method of a model, or of what stands for it, returns."""
    found = getattr(predict, method)(data)
    return found if isinstance(found, tuple) else (found,)


def gradients(found, model):
    loss = sum((value * torch.linspace(-1, 1, value.numel()).reshape(value.shape)).sum() for value in found)
    loss.backward(inputs=list(model.parameters()))
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return grads


@pytest.fixture
def made(monkeypatch):
    """The capacities that were made."""
    found, make = [], CapturedModel._make

    def noted(self, *arguments):
        captured = make(self, *arguments)
        found.append(captured.step.capacity)
        return captured

    monkeypatch.setattr(CapturedModel, "_make", noted)
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("training", [True, False])
def test_results_and_gradients_are_the_models(method, training, made):
    model = small_model().train(training)
    predict = OnCpu(model, after=1)
    with torch.set_grad_enabled(training):
        for data in batches(periodic=method == "energy_forces_stress") * 2:
            found, expected = called(predict, method, data), called(model, method, data)
            assert_close(dict(enumerate(found)), dict(enumerate(t.detach() for t in expected)), TOLERANCE)
            if training:
                assert_close(gradients(found, model), gradients(expected, model), TOLERANCE)
    first, *grown = made
    assert 1 <= len(grown) <= 3 and all(all(a >= b for a, b in zip(more, first)) for more in grown)


def test_gradients_add_up():
    model = small_model().train()
    predict = OnCpu(model, after=0)
    for data in batches()[:2]:
        predict.energy_and_forces(data)[1].square().sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for data in batches()[:2]:
        model.energy_and_forces(data)[1].square().sum().backward(inputs=list(model.parameters()))
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert_close(found, expected, TOLERANCE)


def test_gradients_are_those_of_the_last_prediction():
    predict = OnCpu(small_model().train(), after=0)
    first, second = (predict.energy_and_forces(data)[0].sum() for data in batches()[:2])
    with pytest.raises(RuntimeError, match="expected a backward pass before the next prediction, got one after"):
        first.backward()
    with pytest.raises(RuntimeError, match="expected no second derivative, got create_graph=True"):
        second.backward(create_graph=True)


def test_weights_that_move_are_followed(made):
    """As those of an average that is exchanged with them."""
    model, data = small_model().eval(), batches()[0]
    predict = OnCpu(model, after=0)
    predict.energy_and_forces(data)
    for parameter in model.parameters():
        parameter.data = 1.1 * parameter.data
    found, expected = predict.energy_and_forces(data), model.energy_and_forces(data)
    assert_close(dict(enumerate(found)), dict(enumerate(expected)), TOLERANCE)
    assert len(made) == 2


def test_only_what_comes_again_is_recorded(made, monkeypatch):
    model, sizes = small_model().eval(), [(6, 5), (30,), (6, 5), (6, 5), (1,), (30,)]
    predict = OnCpu(model, after=2)
    for seed, size in enumerate(sizes):
        predict.energy_and_forces(labeled_batch(size, seed))
    assert len(made) == 1 and made[0].atoms == 13  # a tenth more than 11
    monkeypatch.setenv(automatic.SWITCH, "0")
    predict._captured.clear()
    predict.energy_and_forces(labeled_batch((6, 5)))
    assert len(made) == 1
    # energies that may still be differentiated by whoever asked for them
    monkeypatch.delenv(automatic.SWITCH)
    for _ in range(4):
        assert predict(labeled_batch((6, 5))).requires_grad
    assert len(made) == 1


def test_the_fewest_are_kept(made):
    predict = OnCpu(small_model().eval(), after=0)
    for number in range(1, automatic.MOST + 3):
        predict.energy_and_forces(labeled_batch((2**number,)))
    assert len(made) == automatic.MOST + 2 and len(predict._captured) == automatic.MOST


@pytest.mark.parametrize("training", [True, False])
def test_wrong_data_gets_the_errors_of_the_model(training):
    predict, data = OnCpu(small_model().train(training), after=1), batches()[0]
    for _ in range(3):
        predict.energy_and_forces(data)
    wrong = SimpleNamespace(**vars(data) | dict(z=torch.full_like(data.z, 200)))
    with pytest.raises(ValueError, match="data.z: expected atomic numbers 1 to 94, got 200 to 200"):
        predict.energy_and_forces(wrong)
    flat = SimpleNamespace(**vars(data), cell=torch.zeros(3, 3).double(), pbc=torch.ones(3, dtype=torch.bool))
    for _ in range(3):
        with pytest.raises(ValueError, match="data.cell: expected "):
            predict.energy_forces_stress(flat)
    assert not predict._refused


# ---- when it is left -------------------------------------------------------------------------------------------------


class Crowded(SphereNet):
    """Energies that depend on the room that there is."""

    def atom_readout(self, v, system):
        return super().atom_readout(v, system) * len(system.z)


@pytest.mark.parametrize("training", [True, False])
def test_results_that_padding_changes_are_not_taken(training):
    torch.manual_seed(0)
    model, data = with_outputs(Crowded(**SMALL)).double().train(training), batches()[0]
    predict = OnCpu(model, after=0)
    with pytest.warns(UserWarning, match="^Crowded runs without CUDA graphs, .*: its results in arrays"):
        found = predict.energy_and_forces(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        again = predict.energy_and_forces(data)
    expected = model.energy_and_forces(data)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(found, again, expected, strict=True))


def test_gradients_that_are_others_are_not_taken(monkeypatch):
    model, data = small_model().train(), batches()[0]
    right = CapturedPrediction._differentiate
    monkeypatch.setattr(
        CapturedPrediction, "_differentiate",
        lambda self: [None if gradient is None else 2 * gradient for gradient in right(self)],
    )  # fmt: skip
    predict = OnCpu(model, after=0)
    found = predict.energy_and_forces(data)
    with pytest.warns(UserWarning, match="its gradients in arrays of a fixed size are others"):
        mine = gradients(found, model)
    assert_close(mine, gradients(model.energy_and_forces(data), model), TOLERANCE)
    assert predict._refused


@pytest.mark.parametrize(
    "error, reason",
    [
        (RecordingError("it cannot be recorded: it reads\na value"), "longer: it cannot be recorded: it reads$"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "longer: CUDA out of memory. Tried$"),
    ],
)
def test_without_graphs_where_recording_fails(error, reason, monkeypatch):
    model, data = small_model().eval(), batches()[0]

    def fail(self):
        raise error

    monkeypatch.setattr(CapturedInference, "_compute", fail)
    predict = OnCpu(model, after=0)
    with pytest.warns(UserWarning, match=reason):
        found = predict.energy_and_forces(data)
    assert all(map(torch.equal, found, model.energy_and_forces(data)))
    assert predict._refused and not predict._captured
    other = copy.deepcopy(predict)  # which starts afresh
    assert not other._refused
