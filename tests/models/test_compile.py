"""torch.compile and make_fx take a model without breaks, for any number of atoms.

The backend "aot_eager" runs what was captured through AOT autograd and the operators' fakes, which is this package's
part. Inductor would then translate torch's own operations to C++, which takes half a minute.
"""

import pytest
import torch
from molecules import SMALL, as_data, in_dtype, rattled_batch, with_outputs
from torch._dynamo.testing import CompileCounterWithBackend
from torch.fx.experimental.proxy_tensor import make_fx

from spherenet_fast.graph import radius_graph
from spherenet_fast.models import SphereNet

ONE_LAYER = {**SMALL, "num_layers": 1}


def molecules(sizes):
    """A batch and its graph: a search for neighbors has no place in a compiled function."""
    data = in_dtype(rattled_batch(sizes), torch.float32)
    data.num_graphs = len(sizes)
    return data, radius_graph(data.pos, data.batch, 5.0)


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("gates", [dict(), dict(use_torsion=False)], ids=["torsion", "angle"])
def test_inference_of_molecules_of_any_size(gates):
    model = with_outputs(SphereNet(**ONE_LAYER, **gates)).eval()
    count = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=count)
    compilations = []
    with torch.no_grad():
        for sizes in ((5, 3), (8, 6), (4, 7)):
            found, expected = compiled(*molecules(sizes)), model(*molecules(sizes))
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # the same operations, perhaps fused
            compilations.append(count.frame_count)
    assert compilations[0] == compilations[-1]


def test_energy_training_step():
    model = with_outputs(SphereNet(**ONE_LAYER)).train()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    data, graph = molecules((6, 4))
    losses = [function(data, graph).square().sum() for function in (model, compiled)]
    gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * expected.abs().max())  # float32 sums


def test_no_graph_breaks():
    explanation = torch._dynamo.explain(with_outputs(SphereNet(**ONE_LAYER)).eval())(*molecules((5, 3)))
    assert explanation.graph_break_count == 0 and explanation.graph_count == 1


def test_force_training_step_traced_by_make_fx():
    """Training on forces differentiates twice, which torch.compile does not capture by itself; make_fx does."""
    model = with_outputs(SphereNet(**ONE_LAYER)).train()
    data, graph = molecules((5, 4))

    def step(pos):
        energy, forces = model.energy_and_forces(as_data(data.z, pos, data.batch, num_graphs=2), graph)
        return torch.autograd.grad(energy.square().sum() + forces.square().sum(), list(model.parameters()))

    traced = make_fx(step)(data.pos)
    moved = data.pos + 0.01 * torch.randn_like(data.pos)
    for found, expected in zip(traced(moved), step(moved), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * expected.abs().max())  # float32 sums
