"""The same bits on every run and with any number of threads, from the value to the second derivatives."""

import pytest
import torch
from crystals import CRYSTALS, repeated
from molecules import in_dtype, rattled_batch, with_outputs
from operator_cases import CASES, MODEL_SIZES, case, cast, derivatives
from operator_graphs import crowd
from small_models import NAMES, small_model

from spherenet_fast import ops
from spherenet_fast.models import SphereNet

VEC, GRAPH = crowd()  # several chunks of work for every operator: there is something to share among threads


def results(name, dtype):
    """Everything that a case gives, by name."""
    chosen = case(name, VEC, GRAPH, MODEL_SIZES)
    function, inputs = chosen.function(ops), cast(chosen.inputs, dtype)
    if chosen.derivatives:
        return derivatives(function, inputs)
    values = function(*inputs.values())
    return dict(enumerate(values if isinstance(values, tuple) else (values,)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_operators(name, dtype, set_threads):
    set_threads(1)
    expected = results(name, dtype)
    for threads in (1, 2, 2, 3):
        set_threads(threads)
        found = results(name, dtype)
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def training_step(model, data):
    model.zero_grad()
    energy, forces = model.energy_and_forces(data)
    (energy.square().mean() + forces.square().mean()).backward()
    return [energy.detach(), forces.detach(), *(parameter.grad for parameter in model.parameters())]


def assert_same_bits_for_any_threads(model, dtype, set_threads):
    data = in_dtype(rattled_batch((24, 9, 20)), dtype)
    set_threads(1)
    expected = [tensor.clone() for tensor in training_step(model, data)]
    for threads in (1, 2, 3):
        set_threads(threads)
        found = training_step(model, data)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_training_step_of_a_large_model(dtype, set_threads):
    model = with_outputs(SphereNet(num_layers=2, num_spherical=3)).to(dtype).train()
    assert_same_bits_for_any_threads(model, dtype, set_threads)


def test_training_step_of_a_crystal(set_threads):
    data = repeated(CRYSTALS["skewed"], (3, 3, 3))
    model = small_model("SphereNet")

    def step():
        model.zero_grad()
        energy, forces, stress = model.energy_forces_stress(data)
        (energy.square().mean() + forces.square().mean() + stress.square().mean()).backward()
        return [energy.detach(), forces.detach(), stress.detach(), *(weight.grad for weight in model.parameters())]

    set_threads(1)
    expected = step()
    for threads in (2, 3):
        set_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(step(), expected, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_training_step_of_all_models(name, set_threads):
    assert_same_bits_for_any_threads(small_model(name).float(), torch.float32, set_threads)
