"""``spherenet-fast check``: what it measures, and when a potential passes."""

import math

import ase.io
import numpy as np
import pytest
import torch
from ase.build import fcc111, molecule
from commands import call
from molecules import EXACT, with_outputs
from training_runs import TINY_MODEL

from spherenet_fast.calculators.ase import SphereNetCalculator
from spherenet_fast.checks import Limits, check_potential
from spherenet_fast.checks.continuity import jumps, minima, remaining
from spherenet_fast.checks.lines import bonds, out_of_plane, stretches
from spherenet_fast.cli.check import table
from spherenet_fast.data import read_molecules
from spherenet_fast.models import SphereNet
from spherenet_fast.training import Potential


def potential(torsion):
    """An untrained model with random outputs, of soft forces."""
    torch.manual_seed(0)
    model = SphereNet(**TINY_MODEL, torsion=torsion)
    with_outputs(model)
    return Potential.wrap(model, scale=0.02, unit="eV")


def values(rows):
    return {row.name: row for row in rows}


@pytest.fixture
def ethanol(tmp_path):
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=0)
    ase.io.write(tmp_path / "ethanol.xyz", atoms)
    return atoms


def test_a_smooth_potential_passes(tmp_path, ethanol):
    potential("smooth_even").save(tmp_path / "a.ckpt")
    status, out, err = call(
        "check", tmp_path / "a.ckpt", tmp_path / "ethanol.xyz", "-o", tmp_path / "a.png", "--picoseconds", 0.02,
        "--points", 20, "--max-drift", 50,
    )  # fmt: skip
    assert status == 0, out + err
    assert "FAILED" not in out and out.count("passed") == 9 and "0 of 152" in out  # eight bonds
    assert "bonds, 8 ..." in err and (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_potential_that_jumps_fails(tmp_path, ethanol):
    potential("paper").save(tmp_path / "a.ckpt")
    with pytest.warns(UserWarning, match="jumps as atoms move"):
        status, out, _ = call("check", tmp_path / "a.ckpt", tmp_path / "ethanol.xyz", "--picoseconds", 0)
    assert status == 4
    failed = [line for line in out.splitlines() if "FAILED" in line]
    assert any("jump of the energy" in line for line in failed)
    assert any("that forces do not explain" in line for line in failed)


def test_forces_that_are_wrong_and_a_mirror_image_are_seen(monkeypatch, ethanol):
    plain = SphereNetCalculator.evaluate

    def spoilt(self, structures, *arguments, **options):
        found = plain(self, structures, *arguments, **options)
        for atoms in found:
            results = atoms.calc.results
            if "forces" in results:
                results["forces"][2, 1] += 0.003
            results["energy"] += 0.01 * (np.linalg.det(atoms.positions[1:4] - atoms.positions[0]) > 0)
        return found

    monkeypatch.setattr(SphereNetCalculator, "evaluate", spoilt)
    found = values(check_potential(potential("smooth_even"), ethanol, points=12, picoseconds=0).rows)
    # eV/Å, with the error of differences
    assert found["forces against differences"].value == pytest.approx(0.003, abs=1e-6)
    assert not found["forces against differences"].passed
    assert found["mirror image"].value == pytest.approx(10, abs=1e-6) and not found["mirror image"].passed


def test_dynamics_that_breaks_down_fails(ethanol):
    hot = check_potential(potential("smooth"), ethanol, points=12, picoseconds=0.5, timestep=50, temperature=9000)
    assert not values(hot.rows)["drift at constant energy"].passed


def test_of_a_slab_no_bond_is_stretched():
    slab = fcc111("Cu", (1, 1, 3), vacuum=4.0)
    slab.rattle(0.1, seed=0)
    found = check_potential(potential("smooth_even"), slab, points=12, picoseconds=0)
    assert found.passed and not any(row.name.startswith("bonds") for row in found.rows)
    assert values(found.rows)["forces against differences"].value > 0


def test_limits():
    with pytest.raises(ValueError, match="--max-force-jump: expected a number of at least 0, got -1"):
        Limits(force_jump=-1)
    with pytest.raises(ValueError, match="--timestep: expected a number above 0, got 0"):
        check_potential(potential("smooth"), molecule("H2O"), timestep=0)
    with pytest.raises(ValueError, match="--picoseconds: expected 0 or two steps of 0.5 fs and more, got 1e-09"):
        check_potential(potential("smooth"), molecule("H2O"), picoseconds=1e-9)


def test_a_number_that_is_not_finite_fails():
    from spherenet_fast.checks.potential import Row

    assert not Row("a", math.nan, "eV", 1.0).passed and "FAILED" in table([Row("a", math.inf, "eV", 1.0)])
    assert Row("a", math.nan, "eV").passed


def test_atoms_leave_the_plane_of_their_neighbors():
    z, pos = EXACT["benzene"]
    pos = pos.double()
    lines = out_of_plane(z, pos, half=0.1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(pos[1] - pos[0], pos[2] - pos[0]), dim=0)
    assert len(lines) == 12
    for atom, line in enumerate(lines):
        assert (line.move[atom] @ normal).abs() == pytest.approx(0.2, abs=1e-9)  # from 0.1 Å below to 0.1 Å above
        torch.testing.assert_close(line.start + line.move / 2, pos)
        assert not line.move[torch.arange(12) != atom].any()
    assert out_of_plane(torch.tensor([1, 1]), torch.tensor([[0.0, 0, 0], [0, 0, 0.74]]).double()) == []


def test_jumps_of_energies():
    x = torch.linspace(0, 6, 400, dtype=torch.float64)
    assert not jumps(torch.sin(5 * x), 5 * torch.cos(5 * x), float(x[1])).any()
    broken = torch.sin(5 * x) + 0.05 * (x > 3)
    assert jumps(broken, 5 * torch.cos(5 * x), float(x[1])).nonzero().tolist() == [[int((x <= 3).sum()) - 1]]
    flat = torch.ones(400, dtype=torch.float64) + 1e-15 * (x > 3)  # rounding
    assert not jumps(flat, torch.zeros(400, dtype=torch.float64), float(x[1]), 1e-14).any()


def test_what_remains_of_a_change():
    start, end = torch.tensor(0.0).double(), torch.tensor(1.0).double()
    before, smooth, ratio = remaining(lambda t: torch.sin(3 * t)[:, None], start, end, 1e-8)
    assert before == pytest.approx(math.sin(3)) and 0 < smooth <= 3e-8 and ratio <= 1e-8
    _, step, _ = remaining(lambda t: (torch.sin(3 * t) + 0.1 * (t > 0.7))[:, None], start, end, 1e-8)
    assert step == pytest.approx(0.1, abs=1e-7)  # less than a part of the interval changes


def test_minima_that_count():
    x = torch.linspace(-2, 2, 201, dtype=torch.float64)
    assert minima(x**2) == 1 and minima((x**2 - 1) ** 2) == 2 and minima(x) == 0
    assert minima(x**2 + 4e-4 * torch.cos(60 * x)) == 1  # ripples of less than a meV


def test_bonds_stretch():
    ethanol = read_molecules("ethanol", dtype=torch.float64)[0]
    lines = stretches(ethanol.z, ethanol.pos)
    pairs = bonds(ethanol.z, ethanol.pos).tolist()
    assert len(lines) == len(pairs) == 8
    ends = torch.tensor([0.0, 1.0]).double()
    for line, (a, b) in zip(lines, pairs, strict=True):
        length = (ethanol.pos[a] - ethanol.pos[b]).norm()
        found = line.frames(ends, torch.float64).pos.reshape(2, -1, 3)
        torch.testing.assert_close((found[:, a] - found[:, b]).norm(dim=1), torch.tensor([0.7, 1.6]).double() * length)
        moved = line.move.norm(dim=1) > 0
        for part in (moved, ~moved):  # each is rigid
            torch.testing.assert_close(torch.pdist(found[0, part]), torch.pdist(found[1, part]), rtol=0, atol=1e-12)
    z, pos = EXACT["benzene"]
    carbons = [int((line.move[:6].norm(dim=1) > 0).sum()) for line in stretches(z, pos)]
    assert sorted(carbons) == [0] * 6 + [3] * 6  # a hydrogen alone, or half of the ring
