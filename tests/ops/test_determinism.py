"""The same bits on every run and with any number of threads, from the value to the second derivatives."""

import pytest
import torch
from crystals import CRYSTALS, repeated
from molecules import in_dtype, rattled_batch, with_outputs
from operator_cases import bessel_constants, cast, crowd, derivatives, gated_function, gated_inputs
from small_models import NAMES, small_model

from spherenet_fast import ops
from spherenet_fast.models import SphereNet

VEC, GRAPH = crowd()  # several chunks of work for every operator: there is something to share among threads
CONSTANTS = bessel_constants(7, 6)


def radial_basis(dtype):
    distance = VEC.norm(dim=1).repeat(3)
    frequency = torch.linspace(3, 19, 6, dtype=torch.float64)
    given = cast({"distance": distance, "frequency": frequency}, dtype)
    return derivatives(lambda *values: ops.radial_basis(*values, *CONSTANTS, 6.0, 5), given)


def gated_sum(dtype):
    given = cast(gated_inputs(VEC, 7, 6, 64, 8, 8), dtype)
    return derivatives(gated_function(ops, VEC, GRAPH), given)


def torsion_reference(dtype):
    return {"reference": ops.torsion_reference(VEC.to(dtype), GRAPH)}


def sums(dtype):
    def function(per_edge, per_atom):
        edges = GRAPH.edge_index
        return (
            ops.segment_sum(per_edge**3, GRAPH.in_ptr),
            ops.segment_sum(per_edge**3, GRAPH.out_ptr, GRAPH.out_edge),
            ops.gather(per_atom**3, edges[0], GRAPH.out_ptr, GRAPH.out_edge),
            ops.gather(per_atom**3, edges[1], GRAPH.in_ptr),
        )

    generator = torch.Generator().manual_seed(0)
    shapes = {"per_edge": (len(VEC), 128), "per_atom": (24, 128)}
    given = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
    return derivatives(function, given)


def silu(dtype):
    return derivatives(ops.silu, {"x": torch.linspace(-9, 9, 100_000).to(dtype)})


def radial_filter(dtype):
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (len(VEC), 128), "bessel": (len(VEC), 6), "weight": (128, 6)}
    return derivatives(ops.radial_filter, {k: torch.randn(v, generator=generator).to(dtype) for k, v in shapes.items()})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", [radial_basis, gated_sum, torsion_reference, sums, silu, radial_filter])
def test_operators(case, dtype, set_threads):
    set_threads(1)
    expected = case(dtype)
    for threads in (1, 2, 2, 3):
        set_threads(threads)
        found = case(dtype)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


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
