"""What must hold for a structure that repeats, however its cell and its atoms are written down."""

import itertools

import pytest
import torch
from crystals import CRYSTALS, CUTOFF, joined, repeated, small_model
from molecules import rotation

from spherenet_fast.graph import radius_graph
from spherenet_fast.models import MODELS

# Energies here are sums of at most a few thousand float64 terms of order 1, so two ways of adding them up agree to
# about 1e-13.
SUMS = dict(rtol=1e-12, atol=1e-12)


@pytest.fixture(params=[True, False], ids=["kernels", "reference"])
def model(request):
    return small_model(kernels=request.param)


def copies(pbc, *numbers):
    """How often to repeat a cell: once along its open directions."""
    return tuple(number if repeats else 1 for number, repeats in zip(numbers, pbc.tolist(), strict=True))


@pytest.mark.parametrize("numbers", [(2, 1, 1), (2, 3, 2)])
@pytest.mark.parametrize("name", CRYSTALS)
def test_a_supercell_has_the_energy_of_its_cells(model, name, numbers):
    data = CRYSTALS[name]
    numbers = copies(data.pbc, *numbers)
    count = torch.tensor(numbers).prod()
    energy = model(data)
    assert energy.abs() > 1e-2  # or else nothing is tested
    torch.testing.assert_close(model(repeated(data, numbers)), count * energy, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_counts_cells(name):
    torch.manual_seed(0)
    model = MODELS[name](cutoff=CUTOFF).double().eval()
    with torch.no_grad():  # some last layers start at 0, which would make every energy the same
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    for data in (CRYSTALS["one atom, fcc"], CRYSTALS["skewed"]):
        energy, _, stress = model.energy_forces_stress(data)
        assert energy.abs() > 1e-2
        found, _, found_stress = model.energy_forces_stress(repeated(data, (2, 1, 2)))
        # DimeNet's bilinear messages grow a thousandfold where neighbors are many, and cancel in the energy
        rtol = 1e-9 if name == "DimeNet" else 1e-10
        torch.testing.assert_close(found, 4 * energy, rtol=rtol, atol=0)
        torch.testing.assert_close(found_stress, stress, rtol=1e-8, atol=1e-10 * stress.abs().max().item())


def test_a_cell_smaller_than_the_cutoff_is_as_a_cell_that_sees_no_image_twice(model):
    # Twice the cutoff and more in every direction: no atom and no edge meets its own image.
    data = CRYSTALS["one atom, fcc"]
    energy = model(data)
    torch.testing.assert_close(model(repeated(data, (5, 5, 5))), 125 * energy, rtol=1e-10, atol=0)


def test_forces_and_stress_of_a_supercell(model):
    # Wider than the cutoff, so that no edge runs along a lattice vector: about such an edge the images of an atom
    # share one azimuth, and once they are atoms of their own, their forces may follow the numbering of the edges.
    for name in ("skewed", "slab"):
        data = CRYSTALS[name]
        numbers = copies(data.pbc, 2, 2, 1)
        count = int(torch.tensor(numbers).prod())
        _, forces, stress = model.energy_forces_stress(data)
        _, repeated_forces, repeated_stress = model.energy_forces_stress(repeated(data, numbers))
        torch.testing.assert_close(repeated_forces, forces.repeat(count, 1), rtol=1e-10, atol=1e-11)
        torch.testing.assert_close(repeated_stress, stress, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CRYSTALS)
def test_atoms_may_be_given_in_any_image(model, name):
    data = CRYSTALS[name]
    expected = model.energy_forces_stress(data)
    fractional = data.pos @ torch.linalg.inv(data.cell)
    wrapped = (fractional - torch.where(data.pbc, fractional.floor(), 0.0)) @ data.cell
    steps = torch.tensor([[1, 0, -2], [0, 3, 0], [-1, -1, -1], [0, 0, 0], [2, 0, 1]]).repeat(2, 1)[: len(data.z)]
    shifted = data.pos + (steps * data.pbc).double() @ data.cell
    assert not torch.equal(shifted, data.pos)
    for pos in (wrapped, shifted):
        found = model.energy_forces_stress(type(data)(**{**vars(data), "pos": pos}))
        for value, same in zip(found, expected, strict=True):
            # Positions up to 30 Å from the origin are rounded by 4e-15.
            torch.testing.assert_close(value, same, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", [name for name, data in CRYSTALS.items() if data.pbc.sum() > 1])
def test_another_choice_of_cell_vectors_is_the_same_crystal(model, name):
    data = CRYSTALS[name]
    first, second = data.pbc.nonzero()[:2, 0].tolist()
    cell = data.cell.clone()
    cell[first] += 2 * data.cell[second]
    energy, forces, stress = model.energy_forces_stress(data)
    found = model.energy_forces_stress(type(data)(**{**vars(data), "cell": cell}))
    torch.testing.assert_close(found[0], energy, **SUMS)
    torch.testing.assert_close(found[1], forces, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(found[2], stress, rtol=1e-10, atol=1e-11)  # the volume stays the same


def test_turning_a_crystal_turns_forces_and_stress(model):
    for data in CRYSTALS.values():
        turn = rotation(3)
        turned = type(data)(**{**vars(data), "pos": data.pos @ turn, "cell": data.cell @ turn})
        energy, forces, stress = model.energy_forces_stress(data)
        found = model.energy_forces_stress(turned)
        torch.testing.assert_close(found[0], energy, rtol=1e-10, atol=1e-11)
        torch.testing.assert_close(found[1], forces @ turn, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(found[2], turn.T @ stress @ turn, rtol=1e-9, atol=1e-11)


def test_structures_of_a_batch_are_as_alone(model):
    alone = [model.energy_forces_stress(data) for data in CRYSTALS.values()]
    found = model.energy_forces_stress(joined(list(CRYSTALS.values())))
    for value, parts in zip(found, zip(*alone), strict=True):
        torch.testing.assert_close(value, torch.cat(parts), rtol=1e-11, atol=1e-12)


def test_a_triplet_turns_back_only_to_the_same_image():
    # k -> j -> i is no triplet if k is i in the same image. In a crystal of one atom, k, j and i are always one atom.
    for data in CRYSTALS.values():
        graph = radius_graph(data.pos, None, CUTOFF, data.cell, data.pbc)
        sender, receiver = graph.edge_index.tolist()
        shift = graph.shift.tolist()
        edges = range(len(sender))
        # Seen from j in its cell: i is receiver[e] moved by +shift[e], k is sender[q] moved by -shift[q].
        back = {
            (q, e)
            for q, e in itertools.product(edges, edges)
            if receiver[q] == sender[e] and sender[q] == receiver[e] and [-n for n in shift[q]] == shift[e]
        }
        assert back == {(graph.rev[e].item(), e) for e in edges}
    graph = radius_graph(CRYSTALS["one atom, fcc"].pos, None, CUTOFF, CRYSTALS["one atom, fcc"].cell)
    assert len(graph.rev) == 18  # the shells at 2.55 and 3.6 Å
    assert graph.num_triplets - len(graph.rev) == 18 * 17
