"""The CUDA kernels of the gated sum, run on the CPU, against the readable operator in float64."""

import pytest
import torch
from operator_cases import GRAPHS, assert_close, cast, derivatives, gated_function, gated_inputs
from test_gated_sum import GATES, SHAPES, TOLERANCES

from spherenet_fast import reference

ODD = SHAPES[4]


def check(operators, vec, graph, inputs, basis, dtype, tolerance):
    """Kernels in dtype against the reference in float64, on the same numbers."""
    inputs = cast(inputs, dtype)
    found = derivatives(gated_function(operators, vec, graph, basis), inputs)
    expected = derivatives(gated_function(reference, vec, graph, basis), cast(inputs, torch.float64))
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("basis", ["paper", "released"])
@pytest.mark.parametrize("gates", GATES, ids=["torsion", "angle", "plain"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_every_size(cuda_operators, shape, gates, basis, dtype, tolerance):
    vec, graph = GRAPHS["three triplets"]
    check(cuda_operators, vec, graph, gated_inputs(vec, **shape, **gates), basis, dtype, tolerance)


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("shape", [SHAPES[0], ODD], ids=["default", "odd"])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_graph(cuda_operators, name, shape, dtype, tolerance):
    vec, graph = GRAPHS[name]
    check(cuda_operators, vec, graph, gated_inputs(vec, **shape), "paper", dtype, tolerance)
