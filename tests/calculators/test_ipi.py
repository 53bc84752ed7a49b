"""The driver of i-PI: one batched call a step, and the results of the ASE calculator."""

import numpy as np
import pytest
from engines import counted, ethanol, ethanol_crystal, small_potential, with_calculator

pytest.importorskip("ipi", reason="of the extra `engines`")
from ipi.scripting import InteractiveSimulation  # noqa: E402
from ipi.utils.units import unit_to_internal, unit_to_user  # noqa: E402

from spherenet_fast.calculators.ipi import SphereNetDriver  # noqa: E402

PES = """
from spherenet_fast.calculators.ipi import SphereNetDriver
__DRIVER_NAME__, __DRIVER_CLASS__ = "spherenet", "SphereNetDriver"
"""
INPUT = """
<simulation verbosity='quiet'>
  <total_steps> 3 </total_steps>
  <prng><seed> 1 </seed></prng>
  <ffdirect name='spherenet'>
    <pes> custom </pes>
    <pes_path> spherenet_pes.py </pes_path>
    <parameters> {template: atoms.xyz, checkpoint: best.ckpt} </parameters>
    <batch_size> 4 </batch_size>
  </ffdirect>
  <system>
    <initialize nbeads='4'>
      <file mode='ase'> atoms.xyz </file>
      <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces><force forcefield='spherenet'/></forces>
    <ensemble><temperature units='kelvin'> 300 </temperature></ensemble>
    <motion mode='dynamics'>
      <dynamics mode='nve'><timestep units='femtosecond'> 0.1 </timestep></dynamics>
    </motion>
  </system>
</simulation>
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """With ethanol, its potential, and the file of two lines that i-PI reads."""
    monkeypatch.chdir(tmp_path)
    atoms = ethanol()
    atoms.center(vacuum=10)
    atoms.pbc = False
    atoms.write("atoms.xyz")
    small_potential().save("best.ckpt")
    (tmp_path / "spherenet_pes.py").write_text(PES)
    return tmp_path


def internal(atoms):
    """Cell and positions as i-PI has them."""
    cell = atoms.cell.array if atoms.pbc.any() else 30 * np.eye(3)
    return unit_to_internal("length", "angstrom", cell.T), unit_to_internal("length", "angstrom", atoms.positions)


@pytest.mark.parametrize("make", [ethanol, ethanol_crystal])
def test_beads_in_a_batch_are_those_of_the_calculator_one_by_one(make, tmp_path):
    potential, structure = small_potential(), make()
    structure.write(tmp_path / "atoms.xyz")
    driver = SphereNetDriver(tmp_path / "atoms.xyz", potential)
    beads = [with_calculator(structure, potential) for _ in range(3)]
    for number, bead in enumerate(beads):
        bead.rattle(0.02, seed=number)
    found = driver(*map(list, zip(*map(internal, beads), strict=True)))
    assert len(found) == 3
    for bead, (energy, forces, virial, extras) in zip(beads, found, strict=True):
        # The same in float64 but for lengths in Bohr and back: i-PI's own table, both ways.
        assert unit_to_user("energy", "electronvolt", energy) == pytest.approx(bead.get_potential_energy(), rel=1e-12)
        assert unit_to_user("force", "ev/ang", forces) == pytest.approx(bead.get_forces(), abs=1e-9)
        expected = -bead.get_volume() * bead.get_stress(voigt=False) if bead.pbc.any() else np.zeros((3, 3))
        assert unit_to_user("energy", "electronvolt", virial) == pytest.approx(expected, abs=1e-9)
        assert extras == ""
    alone = driver(*internal(beads[1]))
    assert alone[0] == pytest.approx(found[1][0], rel=1e-12)
    assert alone[1] == pytest.approx(found[1][1], abs=1e-12)


def test_all_beads_of_a_step_in_one_call(folder, monkeypatch):
    simulation = InteractiveSimulation(INPUT)
    calls = counted(monkeypatch)
    simulation.run(1)
    calls.clear()  # the first step needs the forces of the start, too
    simulation.run(3)
    assert calls == [4] * 3
    assert np.isfinite(simulation.properties("potential"))
    assert np.ptp(simulation.syslist[0].beads.q, axis=0).max() > 1e-6  # the beads have parted


def test_what_cannot_be_evaluated_is_refused(folder):
    atoms = ethanol()
    atoms.symbols[0] = "N"
    atoms.write("other.xyz")
    with pytest.raises(ValueError, match=r"expected elements of the training set \(H, C, O\), got N"):
        SphereNetDriver("other.xyz", "best.ckpt")
    driver = SphereNetDriver("atoms.xyz", "best.ckpt")
    with pytest.raises(ValueError, match="template: expected as many atoms as i-PI has, 7, got 9"):
        driver(*internal(ethanol()[:7]))
