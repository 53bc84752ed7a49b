"""The smooth torsion: fused against readable, both derivatives, symmetries, and what makes it smooth."""

import math

import pytest
import torch
from gpu import DEVICE
from molecules import SMALL, as_data, rattled, rotation
from operator_cases import assert_close, cast, derivatives, gated_inputs
from operator_graphs import GRAPHS, crowd, on_device, padded

from spherenet_fast import ops
from spherenet_fast.graph import build_graph, edge_vectors
from spherenet_fast.models import SphereNet
from spherenet_fast.nn.blocks import fade_out, harmonics_with_cosines
from spherenet_fast.ops import reference

# Sums over up to some twenty neighbors, each rounded to 6e-8 (float64: 1e-16) and divided by a length across an axis
# of 0.04 and more, up to three times in a second derivative.
TOLERANCES = [(torch.float64, 1e-11), (torch.float32, 2e-4)]
COLLINEAR_GRAPHS = ("line",)  # there is no length across any axis: what is left is rounding, of which norms say nothing


def inputs(vec, seed=0):
    """direction [E, 3], fade [E]."""
    fade = torch.rand(len(vec), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {"direction": vec / vec.norm(dim=1, keepdim=True), "fade": fade}


def function(operators, graph, even):
    return lambda direction, fade: operators.smooth_torsion(direction, fade, graph, even)


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("even", [False, True], ids=["chiral", "even"])
@pytest.mark.parametrize("name", sorted(GRAPHS.keys() - set(COLLINEAR_GRAPHS)))
def test_every_graph(name, even, dtype, tolerance, instruction_set):
    vec, graph = GRAPHS[name]
    given = cast(inputs(vec), dtype)
    found = derivatives(function(ops, graph, even), given)
    assert all(tensor.dtype == dtype for tensor in found.values())
    assert_close(found, derivatives(function(reference, graph, even), cast(given, torch.float64)), tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("even", [False, True], ids=["chiral", "even"])
def test_atoms_on_a_line(even, dtype):
    """Everybody is collinear with every edge: no torsion, and numbers as derivatives."""
    vec, graph = GRAPHS["line"]
    found = derivatives(function(ops, graph, even), cast(inputs(vec), dtype))
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert found["value 0"].abs().max() < 1e-6  # a direction is known to 6e-8


@pytest.mark.cuda
def test_more_neighbors_than_a_gpu_s_shared_memory_holds():
    edges = [(k + 1, 0) for k in range(1100)] + [(0, 1), (0, 2)]
    graph = build_graph(torch.tensor(edges).T, 1101)
    given = inputs(torch.randn(len(edges), 3, dtype=torch.float64))
    expected = derivatives(function(ops, graph, False), given)
    found = [
        derivatives(function(ops, on_device(graph, DEVICE), False), cast(given, torch.float64, DEVICE))
        for _ in range(2)
    ]
    assert_close(found[0], expected, 1e-11)
    assert all(torch.equal(found[0][name], found[1][name]) for name in expected)  # the same bits


def around_one_edge(*azimuths, tilt=1.2):
    """Vectors to atom 0 from an atom on the z axis and from neighbors at azimuths about it: vec, graph, the axis' edge.

    The edges end at atom 0, and one starts there, along z.
    """
    places = [[math.sin(tilt) * math.cos(a), math.sin(tilt) * math.sin(a), math.cos(tilt)] for a in azimuths]
    count = len(azimuths)
    edges = [(n + 2, 0) for n in range(count)] + [(0, 1)]
    graph = build_graph(torch.tensor(edges).T, count + 2)
    pos = torch.tensor([[0.0, 0, 0], [0.0, 0, 1], *places], dtype=torch.float64)
    return edge_vectors(pos, graph), graph


def point_of(azimuths, even=False, fade=None):
    """re + i im of the neighbors [count] about the one edge."""
    vec, graph = around_one_edge(*azimuths)
    fade = torch.ones(len(vec), dtype=torch.float64) if fade is None else fade
    return torch.complex(*ops.smooth_torsion(vec, fade, graph, even)[:, : len(azimuths)])


def test_one_other_neighbor_is_the_reference():
    """With one neighbor left the torsion is the angle to it, as in the paper, up to the two small constants."""
    for turn in (1.0, 2.0, 4.0, 5.0):
        point = point_of([0.3, 0.3 + turn])[0]
        assert abs(point) == pytest.approx(math.sin(1.2), rel=0.1)  # epsilon = 1e-3 and eta^2 = 1e-2
        assert torch.angle(point).item() % (2 * math.pi) == pytest.approx(turn, abs=1e-12)


def test_the_next_neighbor_counts_most():
    blend = point_of([0.0, 1.2, 4.4])[0]
    assert abs(torch.angle(blend).item() - 1.2) < abs(torch.angle(blend).item() - (4.4 - 2 * math.pi))


@pytest.mark.parametrize("even", [False, True], ids=["chiral", "even"])
def test_who_leaves_fades_out(even):
    vec, graph = around_one_edge(0.0, 1.2, 4.4)
    fade = torch.tensor([1.0, 1, 0, 1], dtype=torch.float64)
    without = point_of([0.0, 1.2], even)
    torch.testing.assert_close(point_of([0.0, 1.2, 4.4], even, fade)[:2], without, rtol=1e-12, atol=0)  # rounding


def test_turning_the_molecule_changes_nothing():
    vec, graph = crowd()
    given = inputs(vec)
    expected = ops.smooth_torsion(*given.values(), graph)
    for seed in range(5):
        turned = ops.smooth_torsion(given["direction"] @ rotation(seed), given["fade"], graph)
        torch.testing.assert_close(turned, expected, rtol=0, atol=1e-12)  # rounding of numbers of order 1


def test_reflection():
    """im changes its sign; re keeps its number if even, and another one if not."""
    vec, graph = crowd()
    given = inputs(vec)
    mirror = torch.tensor([1.0, 1, -1], dtype=torch.float64)
    for even in (True, False):
        re, im = ops.smooth_torsion(*given.values(), graph, even)
        mirrored = ops.smooth_torsion(given["direction"] * mirror, given["fade"], graph, even)
        same = torch.allclose(mirrored, torch.stack([re, -im]), rtol=0, atol=1e-12)
        assert same == even


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 1e-5)])  # as in test_gated_sum.py
@pytest.mark.parametrize("name", ["batch", "periodic", "not symmetric", "one edge", "no edges"])
def test_gated_sum(name, dtype, tolerance, instruction_set):
    vec, graph = GRAPHS[name]
    sizes = dict(num_spherical=7, num_radial=6, channels=64, angle_size=8, torsion_size=8)
    given = cast(gated_inputs(vec, **sizes), dtype)
    given["point"] = reference.smooth_torsion(*inputs(vec).values(), graph).to(dtype)

    def gated(operators):
        return lambda x, radial, direction, aw, au, tw, tu, point: operators.gated_sum(
            x, radial, direction, point, graph, aw, au, tw, tu
        )

    found = derivatives(gated(ops), given)
    assert_close(found, derivatives(gated(reference), cast(given, torch.float64)), tolerance)


def test_fade_out():
    """1 at 0 and 0 at 1, with no slope and no curvature at 1, and 0 beyond."""
    x = torch.tensor([0.0, 1.0, 1.5], dtype=torch.float64).requires_grad_()
    value = fade_out(x)
    assert value.tolist() == [1, 0, 0]
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert slope.tolist() == [0, 0, 0] and curvature.tolist() == [0, 0, 0]


def test_the_harmonics_that_are_even():
    point = torch.randn(3, 4, dtype=torch.float64)
    harmonics, mirrored = (reference.spherical_harmonics(*(point * sign), 5) for sign in (ONE, MIRROR))
    unchanged = (harmonics - mirrored).abs().amax(0) == 0
    assert torch.equal(unchanged, harmonics_with_cosines(5).bool())


ONE = torch.ones(3, 1, dtype=torch.float64)
MIRROR = torch.tensor([[1.0], [1.0], [-1.0]], dtype=torch.float64)

# ---- energies along a path -------------------------------------------------------------------------------------------

STEPS = 400


def moving_atom(torsion, direction, start, cutoff=3.0):
    """Energies [STEPS] and slopes [STEPS] of seven atoms, of which the first moves along a line of 2 Å."""
    torch.manual_seed(0)
    model = SphereNet(**SMALL, cutoff=cutoff, torsion=torsion).double().eval()
    for output in (model.init_v, *model.update_vs):
        torch.nn.init.normal_(output.lin.weight)
    pos = rattled(7, 3)
    way = torch.linspace(0, 2, STEPS, dtype=torch.float64)
    frames = pos.repeat(STEPS, 1, 1)
    frames[:, 0] = torch.tensor(start, dtype=torch.float64) + way[:, None] * direction
    batch = torch.arange(STEPS).repeat_interleave(7)
    data = as_data(torch.tensor([6, 1, 8, 1, 7, 1, 6]).repeat(STEPS), frames.reshape(-1, 3), batch)
    energy, forces = model.energy_and_forces(data)
    return energy[:, 0], -(forces.reshape(STEPS, 7, 3)[:, 0] * direction).sum(-1), way[1]


@pytest.fixture
def jumps():
    """Which differences of energies exceed five times what slopes and their change nearby explain."""
    from spherenet_fast.checks.continuity import jumps  # which needs ASE and SciPy

    return jumps


PATHS = [rotation(seed)[0] for seed in range(4)]  # neighbors overtake each other and cross the cutoff on all of them


@pytest.mark.parametrize("number", range(len(PATHS)))
def test_the_energy_does_not_jump(jumps, number):
    for torsion in ("smooth", "smooth_even", None):
        assert not jumps(*moving_atom(torsion, PATHS[number], [-0.5, 0.6, 2.2])).any(), torsion


def test_the_papers_torsion_jumps(jumps):
    """Or else the test above tests nothing."""
    assert sum(jumps(*moving_atom("paper", direction, [-0.5, 0.6, 2.2])).sum() for direction in PATHS) >= len(PATHS)


def test_forces_are_continuous_where_a_neighbor_becomes_collinear():
    """The first atom moves through the line of two others: halving the step halves the largest change of a force."""
    pos = rattled(7, 3)
    start = (2 * pos[1] - pos[2]).tolist()  # behind atom 1, seen from atom 2

    def largest_change(scale):
        direction = scale * torch.linalg.cross(pos[1] - pos[2], torch.tensor([0.3, -1.0, 0.2], dtype=torch.float64))
        first = [s - float(d) for s, d in zip(start, direction, strict=True)]  # in the middle of the path on the line
        _, slope, step = moving_atom("smooth", direction, first, cutoff=5.0)
        return slope.diff().abs().max() / scale

    assert largest_change(5e-3) < 0.6 * largest_change(1e-2)


# ---- the CUDA kernel, run on the CPU ---------------------------------------------------------------------------------

ALL_GRAPHS = {**GRAPHS, "crowd": crowd()}
DTYPES = [torch.float64, torch.float32]
# Sums of terms of order 1. float32 rounds to 6e-8, which is 1e-5 of 1 - x where two neighbors are close about an axis
# and nobody else is there.
CUDA_TOLERANCES = [(torch.float64, 1e-11), (torch.float32, 5e-5)]


def compare(operators, expected_of, graph, given, even, tolerance):
    """Values and both derivatives in the dtype of the inputs, against those of the module `expected_of` in float64."""
    found = derivatives(lambda *leaves: operators.smooth_torsion(*leaves, graph, even), given)
    exact = cast(given, torch.float64)
    assert_close(found, derivatives(lambda *leaves: expected_of.smooth_torsion(*leaves, graph, even), exact), tolerance)


@pytest.mark.parametrize("dtype, tolerance", CUDA_TOLERANCES)
@pytest.mark.parametrize("even", [False, True], ids=["odd", "even"])
@pytest.mark.parametrize("name", [name for name in ALL_GRAPHS if name != "line"])
def test_cuda_every_graph(cuda_operators, name, even, dtype, tolerance):
    vec, graph = ALL_GRAPHS[name]
    compare(cuda_operators, reference, graph, cast(inputs(vec, 4), dtype), even, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda_atoms_in_a_line_have_none(cuda_operators, dtype):
    """Nobody has a weight: (1e-7)^2 in float32, over the least sum of weights, 1e-3."""
    vec, graph = GRAPHS["line"]
    found = derivatives(lambda *given: cuda_operators.smooth_torsion(*given, graph), cast(inputs(vec, 4), dtype))
    assert all((tensor.abs() < 1e-10).all() for tensor in found.values())


@pytest.mark.parametrize("num_in, num_out", [(511, 2), (512, 1), (513, 2), (1100, 1), (20, 300), (1, 40)])
def test_cuda_very_many_neighbors(cuda_operators, num_in, num_out):
    """As many as shared memory holds, and more, which come in portions."""
    edges = [(k + 1, 0) for k in range(num_in)] + [(0, k + 1) for k in range(num_out)]
    graph = build_graph(torch.tensor(edges).T, max(num_in, num_out) + 1)
    vec = torch.randn(len(edges), 3, dtype=torch.float64)
    # float64: sums over a thousand neighbors
    compare(cuda_operators, ops, graph, inputs(vec, 4), False, 1e-11)


def passes(operators, graph, given, grad_torsion, tangents):
    """Value, gradients and second derivatives along given cotangents."""
    leaves = [value.clone().requires_grad_() for value in given.values()]
    grad_torsion = grad_torsion.clone().requires_grad_()
    value = operators.smooth_torsion(*leaves, graph)
    first = torch.autograd.grad(value, leaves, grad_torsion, create_graph=True)
    return [value, *first, *torch.autograd.grad(first, [*leaves, grad_torsion], tangents)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["batch", "not symmetric", "isolated last", "no edges"])
def test_cuda_padding(cuda_operators, name, dtype):
    """Edges past in_ptr[N] and columns past triplet_ptr[N] change nothing, whatever they hold, and get zeros."""
    vec, graph = GRAPHS[name]
    edges, triplets = len(vec), graph.num_triplets
    given = cast(inputs(vec, 4), dtype)
    tangents = [torch.randn_like(value) for value in given.values()]
    grad_torsion = torch.randn(2, triplets, dtype=dtype)

    def longer(value, dim=0, extra=7):
        shape = [*value.shape]
        shape[dim] = extra
        return torch.cat([value, value.new_full(shape, torch.nan)], dim)

    expected = passes(cuda_operators, graph, given, grad_torsion, tangents)
    found = passes(
        cuda_operators,
        padded(vec, graph, 7)[1]._replace(num_triplets=triplets + 9),
        {name: longer(value) for name, value in given.items()},
        longer(grad_torsion, 1, 9),
        [longer(value) for value in tangents],
    )
    for exact, tensor in zip(expected, found, strict=True):
        dim, size = (1, triplets) if tensor.shape == (2, triplets + 9) else (0, edges)
        assert torch.equal(tensor.narrow(dim, 0, size), exact)
        assert (tensor.narrow(dim, size, tensor.shape[dim] - size) == 0).all()


@pytest.mark.parametrize("absent", ["direction", "fade"])
def test_cuda_one_tangent(cuda_operators, absent):
    """A null tangent is the same as zeros."""
    vec, graph = GRAPHS["batch"]
    given = inputs(vec, 4)
    fixed = list(given).index(absent)
    tangents = [torch.randn_like(value) for value in given.values()]
    tangents[fixed].zero_()
    grad_torsion = torch.randn(2, graph.num_triplets, dtype=torch.float64)
    with_zeros = passes(cuda_operators, graph, given, grad_torsion, tangents)
    leaves = [value.clone().requires_grad_() for value in given.values()]
    grad_torsion.requires_grad_()
    first = torch.autograd.grad(cuda_operators.smooth_torsion(*leaves, graph), leaves, grad_torsion, create_graph=True)
    second = torch.autograd.grad(first[1 - fixed], [*leaves, grad_torsion], tangents[1 - fixed])
    assert all(torch.equal(one, other) for one, other in zip(second, with_zeros[3:], strict=True))
