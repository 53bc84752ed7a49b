"""The numbers of the released code, its self-reference mended (fixtures/README.md), in basis "dig"."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from operator_cases import paper_torsions

from spherenet_fast import ops
from spherenet_fast.graph import build_graph, edge_vectors
from spherenet_fast.models import SphereNet
from spherenet_fast.ops import reference
from spherenet_fast.ops.reference import spherical_harmonics, triplet_geometry

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(params=["released_code_l7", "released_code_l3"], scope="module")
def released(request):
    with np.load(FIXTURES / f"{request.param}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture(params=[False, True], ids=["reference", "kernels"])
def kernels(request):
    return request.param


def checkpoint(released):
    """The state dict and the hyper-parameters."""
    state = {key.removeprefix("weight/"): value for key, value in released.items() if key.startswith("weight/")}
    hparams = {key.removeprefix("hparam/"): value for key, value in released.items() if key.startswith("hparam/")}
    return state, {name: value.item() for name, value in hparams.items()}


def make_model(released, dtype, kernels):
    state, hparams = checkpoint(released)
    return SphereNet.from_dig(state, **hparams, kernels=kernels).to(dtype)


def make_data(released, dtype=torch.float64):
    return SimpleNamespace(z=released["z"], pos=released["pos"].to(dtype), batch=released["batch"])


def make_graph(released):
    return build_graph(torch.stack([released["edge_sender"], released["edge_receiver"]]), len(released["z"]))


def triplet_rows(released, graph):
    """Where the fixture's triplets lie among the pairs of the graph."""
    q, e = released["triplet_edge_kj"], released["triplet_edge_ji"]
    j = graph.edge_index[0, e]
    e_local = torch.empty_like(graph.out_edge)
    e_local[graph.out_edge] = torch.arange(len(e_local)) - graph.out_ptr[graph.edge_index[0, graph.out_edge]]
    return graph.triplet_ptr[j] + (q - graph.in_ptr[j]) * graph.out_ptr.diff()[j] + e_local[e]


def bases(released, kernels):
    """distance, bessel and radial of the edges, then torsion reference, z, re and im at the fixture's triplets."""
    operators = ops if kernels else reference
    graph = make_graph(released)
    vec = edge_vectors(released["pos"], graph)
    distance = vec.norm(dim=1)
    chosen = paper_torsions(operators, vec, graph)
    geometry = triplet_geometry(vec / distance[:, None], chosen, graph)
    bessel, radial = make_model(released, torch.float64, kernels).emb(distance, operators)
    rows = triplet_rows(released, graph)
    return distance, bessel, radial, chosen[rows], *(value[rows] for value in geometry)


def test_angles_and_torsions(released, kernels):
    distance, _, _, chosen, z, re, im = bases(released, kernels)
    assert (chosen != -2).all()
    # the same numbers in another order of operations: rounding, times 1 / sin(theta), which is at most 13 here
    torch.testing.assert_close(distance, released["distance"], rtol=0, atol=1e-13)
    torch.testing.assert_close(torch.atan2(torch.hypot(re, im), z), released["angle"], rtol=0, atol=1e-12)
    torsion = torch.where(chosen == -1, 2 * math.pi, torch.atan2(im, re).remainder(2 * math.pi))
    torch.testing.assert_close(torsion, released["torsion"], rtol=0, atol=1e-11)


def test_bases(released, kernels):
    _, bessel, radial, _, z, re, im = bases(released, kernels)
    rows = released["basis_rows"]
    num_spherical = radial.shape[1]
    radial = radial[released["triplet_edge_kj"][rows]]
    harmonics = spherical_harmonics(z[rows], re[rows], im[rows], num_spherical)[:, :, None]
    degree = torch.arange(num_spherical)
    angle_basis = harmonics[:, degree**2] * radial
    torsion_basis = harmonics * radial[:, torch.arange(num_spherical**2) % num_spherical]
    # the released formulas expand j_l in sines and cosines and lose up to 4 digits at small arguments; values up to 11
    torch.testing.assert_close(bessel[: len(released["rbf"])], released["rbf"], rtol=0, atol=1e-13)
    torch.testing.assert_close(angle_basis.flatten(1), released["angle_basis"], rtol=0, atol=1e-11)
    torch.testing.assert_close(torsion_basis.flatten(1), released["torsion_basis"], rtol=0, atol=1e-11)


def relative_error(value, expected):
    return ((value.double() - expected).abs().max() / expected.abs().max()).item()


def test_energy_and_forces(released, kernels):
    energy, forces = make_model(released, torch.float64, kernels).eval().energy_and_forces(make_data(released))
    # double precision minus the digits that the released j_l loses
    assert relative_error(energy, released["energy"]) < 1e-9
    assert relative_error(forces, released["forces"]) < 1e-9


def test_energy_and_forces_in_float32(released, kernels):
    model = make_model(released, torch.float32, kernels).eval()
    energy, forces = model.energy_and_forces(make_data(released, torch.float32))
    # float32 rounding (6e-8) through some twenty layers and sums, and through arguments of sines up to 20
    assert relative_error(energy, released["energy"]) < 1e-5
    assert relative_error(forces, released["forces"]) < 1e-5


def test_gradients_of_a_loss_with_forces(released, kernels):
    model = make_model(released, torch.float64, kernels).train()
    energy, forces = model.energy_and_forces(make_data(released))
    loss = energy.square().mean() + 10 * forces.square().mean()
    loss.backward()
    assert relative_error(loss.detach(), released["loss"]) < 1e-9
    # second derivatives amplify the lost digits by another cutoff / distance or frequency
    for name, parameter in model.named_parameters():
        assert relative_error(parameter.grad.norm(), released[f"gradnorm/{name}"]) < 1e-7, name
        if f"grad/{name}" in released:
            assert relative_error(parameter.grad, released[f"grad/{name}"]) < 1e-7, name


def test_state_dict_that_does_not_fit(released):
    state, hparams = checkpoint(released)
    with pytest.raises(ValueError, match=r"init_e.emb.weight: expected \[95, 128\], got \[95, 32\]"):
        SphereNet.from_dig(state)
    short = {name: value for name, value in state.items() if name != "init_v.lin.weight"}
    with pytest.raises(ValueError, match=r"init_v.lin.weight: expected \[1, 48\], got none"):
        SphereNet.from_dig(short, **hparams)
    with pytest.raises(ValueError, match=r"emb.extra: expected no such entry, got \[2\]"):
        SphereNet.from_dig(state | {"emb.extra": torch.zeros(2)}, **hparams)
    with pytest.raises(ValueError, match='basis: expected "dig"'):
        SphereNet.from_dig(state, **hparams, basis="paper")
