"""The pictures: their numbers are the model's, their files are whole, wrong input is named."""

import math
import os

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from commands import call
from operator_cases import paper_torsions
from training_runs import untrained

from spherenet_fast import ops
from spherenet_fast.graph import edge_vectors, radius_graph
from spherenet_fast.models import SchNet, SphereNet
from spherenet_fast.ops import reference
from spherenet_fast.plots import draw_filters, draw_geometry, surroundings, torsion_filters
from spherenet_fast.plots.files import save

SMALL = dict(num_layers=2, hidden_channels=8, int_emb_size=6, out_emb_channels=8, num_spherical=4, num_radial=3)


def rattled(seed=0) -> Atoms:
    """Ethanol in no special position."""
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.15, seed=seed)
    return atoms


@pytest.mark.parametrize("operators", [ops, reference])
@pytest.mark.parametrize("basis", ["paper", "dig"])
def test_filters_are_the_factors_of_the_gated_sum(operators, basis):
    """One message at a time through a block's sum over triplets, at the place that the other picture says it has."""
    torch.manual_seed(0)
    model = SphereNet(basis=basis, **SMALL).double()
    atoms = rattled()
    pos = torch.from_numpy(atoms.positions)
    graph = radius_graph(pos, None, 5.0)
    vec = edge_vectors(pos, graph)
    direction = vec / vec.norm(dim=1, keepdim=True)
    chosen = paper_torsions(operators, vec, graph)
    _, radial = model.emb(vec.norm(dim=1), operators)
    seen = surroundings(atoms, (0, 2), cutoff=5.0)
    edge = int(((graph.edge_index[0] == 0) & (graph.edge_index[1] == 2)).nonzero())
    assert len(seen.neighbors) == 7
    for n, k in enumerate(seen.neighbors):
        x = torch.zeros(vec.shape[0], 6, dtype=torch.float64)
        x[(graph.edge_index[0] == k) & (graph.edge_index[1] == 0)] = 1
        block, inputs = model.update_es[1], (x, radial, direction, chosen, graph)
        angle, torsion = (block.lin_sbf1.weight, block.lin_sbf2.weight), (block.lin_t1.weight, block.lin_t2.weight)
        by_angle = operators.gated_sum(*inputs, *angle, None, None, basis)[edge]
        by_both = operators.gated_sum(*inputs, *angle, *torsion, basis)[edge]
        place = (
            torch.tensor([float(value[n])], dtype=torch.float64) for value in (seen.distance, seen.theta, seen.phi)
        )
        drawn = torsion_filters(model, 1, *place)
        # float64; between them lie acos and atan2, which lose digits like 1 / sin(theta)
        torch.testing.assert_close(drawn[0, 0, 0] * by_angle, by_both, rtol=1e-9, atol=1e-11)


def test_maps_show_the_filters_on_a_symmetric_scale():
    torch.manual_seed(0)
    model = SphereNet(**SMALL)
    figure = draw_filters(model, block=1, channels=[2, 5], points=7)
    maps = [mesh for ax in figure.axes for mesh in ax.collections if mesh.get_cmap().name == "RdBu_r"]
    maps = [mesh for mesh in maps if mesh.get_array().size == 49]  # not the color bars'
    assert len(maps) == 16
    distance, theta = torch.linspace(0, 5, 8)[1:], torch.linspace(0, math.pi, 7)
    values = torsion_filters(model, 1, distance, theta, torch.arange(8) * math.pi / 4)
    assert values.shape == (8, 7, 7, 6)
    for number, mesh in enumerate(maps):
        expected = values[number % 8, ..., [2, 5][number // 8]].numpy()
        # float32: the same products for another number of torsions at a time, so rounded in another order
        assert np.asarray(mesh.get_array()).reshape(7, 7) == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert mesh.norm.vmin == -mesh.norm.vmax
    assert len({mesh.norm.vmax for mesh in maps[:8]}) == 1 and maps[0].norm.vmax != maps[8].norm.vmax


def test_models_without_torsions_have_no_filters():
    with pytest.raises(
        ValueError, match="checkpoint: expected a SphereNet, got a SchNet, which has no torsion filters"
    ):
        draw_filters(SchNet())


def test_six_filters_are_drawn_unless_chosen():
    model = SphereNet(**(SMALL | {"int_emb_size": 9}))
    labels = [ax.get_ylabel() for ax in draw_filters(model, points=4).axes if ax.get_ylabel().startswith("filter")]
    assert len(labels) == len(set(labels)) == 6


@pytest.mark.parametrize("bond", [(0, 2), (2, 0), (0, 1)])
def test_surroundings_are_ase_s_distances_angles_and_dihedrals(bond):
    atoms = rattled(seed=1)
    j, i = bond
    seen = surroundings(atoms, bond, cutoff=5.0)
    assert seen.neighbors == [k for k in range(9) if k not in bond]
    assert seen.length == pytest.approx(atoms.get_distance(j, i))
    for n, k in enumerate(seen.neighbors):
        assert seen.distance[n] == pytest.approx(atoms.get_distance(k, j))
        assert math.degrees(seen.theta[n]) == pytest.approx(atoms.get_angle(k, j, i))
        # ASE's dihedral is clockwise as seen from j to i, so counterclockwise as seen from i
        torsions = {other: atoms.get_dihedral(k, j, i, other) % 360 for other in seen.neighbors if other != k}
        nearest = min(torsions, key=torsions.get)
        assert seen.neighbors[seen.next[n]] == nearest
        assert math.degrees(seen.phi[n]) == pytest.approx(torsions[nearest])
        assert np.linalg.norm(seen.place[n]) == pytest.approx(seen.distance[n])
        assert seen.place[n, 0] == pytest.approx(seen.distance[n] * math.cos(seen.theta[n]))
    assert seen.phi.sum() == pytest.approx(2 * math.pi)
    azimuth = np.arctan2(seen.place[:, 2], seen.place[:, 1])
    turned = np.mod(azimuth[seen.next] - azimuth, 2 * math.pi)
    assert turned == pytest.approx(seen.phi)


def test_without_a_bond_the_shortest_one_of_heavy_atoms():
    seen = surroundings(molecule("CH3CH2OH"))
    assert seen.bond == (1, 2)  # C-O, from the carbon, which has more neighbors
    assert seen.cutoff == pytest.approx(1.3 * seen.length) and len(seen.neighbors) == 3
    apart = Atoms("AuHHAu", positions=[[0, 0, 0], [0, 5, 0], [0, 5, 0.7], [0, 0, 2.9]])
    assert set(surroundings(apart).bond) == {0, 3}


def test_special_surroundings():
    copper = surroundings(bulk("Cu"))
    assert copper.bond == (0, 0) and len(copper.neighbors) == 11
    assert copper.distance == pytest.approx(np.full(11, 3.61 / 2**0.5))
    assert np.isnan(copper.phi).sum() == 1  # the opposite one
    assert math.isnan(surroundings(molecule("C2H2")).phi[0])
    water = surroundings(molecule("H2O"), (0, 1))
    assert water.next == [None] and water.phi[0] == pytest.approx(2 * math.pi)
    assert surroundings(molecule("H2")).neighbors == []


def test_atoms_far_apart_have_no_bond():
    far = Atoms("H2", positions=[[0, 0, 0], [0, 0, 30]])
    with pytest.raises(ValueError, match="expected two atoms less than 20 Å apart, got none"):
        surroundings(far)
    with pytest.raises(ValueError, match="apart, got 0 and 1, which are not"):
        surroundings(far, (0, 1))
    with pytest.raises(ValueError, match="structure: expected at least 2 atoms, got 1"):
        surroundings(Atoms("H"))


@pytest.mark.parametrize("atoms", [rattled(), bulk("Cu"), molecule("C2H2"), molecule("H2")])
def test_every_structure_gets_a_whole_picture(tmp_path, atoms):
    save(draw_geometry(atoms), tmp_path / "a.png", dpi=40)
    assert (tmp_path / "a.png").read_bytes()[-8:-4] == b"IEND"
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints with and without torsions, and structures."""
    folder = tmp_path_factory.mktemp("pictures")
    untrained()[0].save(folder / "best.ckpt")
    untrained(model__use_torsion="false")[0].save(folder / "angles.ckpt")
    ase.io.write(folder / "in.xyz", [rattled(0), rattled(1)])
    return folder


def test_the_commands_write_png_and_svg(folder, tmp_path):
    checkpoint, structures = folder / "best.ckpt", folder / "in.xyz"
    assert call("filters", checkpoint, "-o", tmp_path / "f.png", "--channel", 1)[0] == 0
    code, output, _ = call("geometry", structures, "--out", tmp_path / "g.svg", "--bond", 0, 2, "--frame", -1)
    assert code == 0 and f"picture in {tmp_path / 'g.svg'}" in output
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "g.svg").read_text()
    assert text.rstrip().endswith("</svg>")
    assert sorted(os.listdir(tmp_path)) == ["f.png", "g.svg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["filters", "angles.ckpt", "-o", "a.png"], "with torsions, got one without"),
        (["filters", "nothing.ckpt", "-o", "a.png"], "nothing.ckpt: no such checkpoint"),
        (["filters", "in.xyz", "-o", "a.png"], "in.xyz: expected a checkpoint"),
        (["filters", "best.ckpt", "-o", "a.png", "--block", "1"], "--block: expected 0 to 0, got 1"),
        (["filters", "best.ckpt", "-o", "a.png", "--channel", "4"], "--channel: expected 0 to 3, got 4"),
        (["filters", "best.ckpt", "-o", "a.pdf"], "--out: expected a name that ends in .png or .svg, got 'a.pdf'"),
        (["geometry", "in.xyz", "-o", "away/a.png"], "--out: there is no folder away"),
        (["geometry", "nothing.xyz", "-o", "a.png"], "nothing.xyz: no such file"),
        (["geometry", "in.xyz", "-o", "a.png", "--frame", "2"], "--frame: expected -2 to 1, got 2"),
        (["geometry", "in.xyz", "-o", "a.png", "--bond", "0", "9"], "--bond: expected atoms 0 to 8, got 9"),
        (["geometry", "in.xyz", "-o", "a.png", "--bond", "3", "3"], "--bond: expected two different atoms, got 3"),
        (["geometry", "in.xyz", "-o", "a.png", "--bond", "0", "2", "--cutoff", "1"], "--cutoff: expected more than"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    before = sorted(os.listdir(folder))
    code, _, error = call(*arguments)
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert sorted(os.listdir(folder)) == before
