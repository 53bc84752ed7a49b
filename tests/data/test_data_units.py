"""Units that files state, and that the user states for them."""

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from training_runs import tiny_config
from typer.testing import CliRunner

from spherenet_fast.cli import app
from spherenet_fast.data import read_molecules
from spherenet_fast.data.units import conversion, force_units, unit_name
from spherenet_fast.training import train
from spherenet_fast.training.prepare import prepare_molecules

BOHR, HARTREE, KCAL = 0.52917721, 27.2113860, 0.0433641039  # Å, eV, eV; CODATA, to the digits in which editions agree
ROUNDING = 1e-7  # of those digits

WATER = np.array([[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]])  # Å
FORCES = np.array([[0.0, 0.0, 0.5], [0.0, 0.1, -0.25], [0.0, -0.1, -0.25]])  # eV/Å


def sgdml(path, energy=-14.0, length=1.0, forces=FORCES, **arrays):
    """Two frames of water as sGDML writes them, energies and forces in the units of the arguments."""
    np.savez(
        path, z=[8, 1, 1], R=np.stack([WATER] * 2) / length, E=np.full(2, energy), F=np.stack([forces] * 2), **arrays
    )
    return read_molecules(path, dtype=torch.float64)


def check(molecules, unit="eV"):
    """The numbers above, whatever the units of the file."""
    chosen = molecules.choose(["energy"], {"energy": "eV"}, forces=True)
    assert molecules.units == (unit,)
    assert np.allclose(chosen.pos[:3], WATER, rtol=ROUNDING, atol=0)
    assert np.allclose(chosen.y, -14.0, rtol=ROUNDING, atol=0)
    assert np.allclose(chosen.forces[:3], FORCES, rtol=2 * ROUNDING, atol=0)


@pytest.mark.parametrize("energy_unit", ["eV", "ev", b"EV", ["eV"]])
@pytest.mark.parametrize("length_unit", ["Ang", "ang", "Angstrom", "\N{LATIN CAPITAL LETTER A WITH RING ABOVE}", "A"])
def test_units_in_a_file_of_sgdml(tmp_path, energy_unit, length_unit):
    check(sgdml(tmp_path / "f.npz", e_unit=energy_unit, r_unit=length_unit))


@pytest.mark.parametrize("bohr", ["bohr", "Bohr", "a0", "au", "a.u."])
def test_lengths_in_bohr(tmp_path, bohr):
    molecules = sgdml(tmp_path / "f.npz", length=BOHR, forces=FORCES * BOHR, e_unit="eV", r_unit=bohr)  # eV/bohr
    check(molecules)
    forces = FORCES * BOHR / KCAL
    check(sgdml(tmp_path / "g.npz", -14 / KCAL, BOHR, forces, r_unit=bohr), "kcal/mol")  # energies as MD17's
    forces = FORCES * BOHR / HARTREE
    check(sgdml(tmp_path / "h.npz", -14 / HARTREE, BOHR, forces, e_unit="au", r_unit=bohr), "Hartree")


@pytest.mark.parametrize("name", ["E", "energies", "REF"])
@pytest.mark.parametrize("together", [False, True])
def test_the_unit_of_an_energy_of_another_name_in_a_packed_file(tmp_path, name, together):
    label = dict(y=np.full((2, 1), -14.0), target_names=[name]) if together else {name: np.full(2, -14.0)}
    pos, forces = np.concatenate([WATER] * 2), np.concatenate([FORCES] * 2)
    np.savez(tmp_path / "f.npz", n_atoms=[3, 3], z=[8, 1, 1] * 2, pos=pos, forces=forces, e_unit="eV", **label)
    check(read_molecules(tmp_path / "f.npz", dtype=torch.float64, keys={"energy": name}))
    named = read_molecules(tmp_path / "f.npz")
    assert (named.names, named.units) == ((name,), (None if name == "REF" else "eV",))


def test_forces_in_another_unit_than_energies(tmp_path):
    for number, (unit, size) in enumerate((("eV/Ang", 1.0), ("hartree/bohr", HARTREE / BOHR), ("au", HARTREE / BOHR))):
        forces = FORCES / size
        molecules = sgdml(tmp_path / f"{number}.npz", -14 / KCAL, BOHR, forces, r_unit="bohr", forces_unit=unit)
        check(molecules, "kcal/mol")
    molecules = sgdml(tmp_path / "nm.npz", length=10.0, forces=FORCES * 10, e_unit="eV", r_unit="nm", f_unit="eV/nm")
    check(molecules)
    with pytest.raises(ValueError, match=r"file_units.energy: expected a unit, as the forces have one \(eV/Ang\)"):
        np.savez(tmp_path / "f.npz", z=[8], pos=np.ones((2, 1, 3)), energy=np.ones(2), forces=np.ones((2, 1, 3)),
                 forces_unit="eV/Ang")  # fmt: skip
        read_molecules(tmp_path / "f.npz")


def test_unknown_units_are_refused(tmp_path):
    for name, unit, message in (
        ("e_unit", "furlong", "expected one of eV, meV, Hartree, .*, got 'furlong'"),
        ("e_unit", "Ang", "expected one of eV, meV, Hartree, .*, got 'Ang'"),
        ("r_unit", "eV", "expected one of Ang, Bohr, nm, pm, got 'eV'"),
        ("r_unit", 1.0, "expected text, got float64"),
        ("r_unit", ["Ang", "Ang"], "expected one unit, got 2"),
        ("energy_unit", b"\xff", "expected an array as NumPy saves it, got a damaged one"),
        ("f_unit", "eV", "expected an energy over a length, as eV/Ang, got 'eV'"),
        ("f_unit", "Ang/eV", "expected an energy over a length, as eV/Ang, got 'Ang/eV'"),
    ):
        with pytest.raises(ValueError, match=f"f.npz: {name}: {message}"):
            sgdml(tmp_path / "f.npz", **{name: unit})
    check(sgdml(tmp_path / "g.npz", -14 / KCAL, forces=FORCES / KCAL, e_unit="", r_unit=""), "kcal/mol")


def test_units_in_every_layout(tmp_path):
    cell = np.stack([np.eye(3) * 9] * 2)
    units = {"energy_unit": "Hartree", "length_unit": "bohr"}
    packed = {"n_atoms": [1, 2], "z": [8, 1, 1], "pos": WATER, "forces": FORCES, "cell": cell, **units}
    np.savez(tmp_path / "packed.npz", **packed, energy=[1.0, 2.0], free_energy=[1.0, 2.0], charge=[0, 1])
    named = {"y": np.ones((2, 3)), "target_names": ["U0", "gap", "mu"]}
    np.savez(tmp_path / "named.npz", **packed | {"energy_unit": "eV"}, **named)
    stated = named | {"target_units": ["Hartree", "meV", "e*Ang"]}
    np.savez(tmp_path / "stated.npz", **packed | {"energy_unit": "eV"}, **stated)
    divided = {"z": [8, 1, 1], **units, "cell": cell[0]}
    divided |= {f"{part}_{name}": array for part in ("train", "test")
                for name, array in (("pos", WATER[None]), ("energy", [1.0]), ("forces", FORCES[None]))}  # fmt: skip
    np.savez(tmp_path / "divided.npz", **divided)
    relaxations = {"n_atoms": [1, 2], "z": [8, 1, 1], "pos_initial": WATER, "cell": cell, "energy_initial": [1.0, 2.0],
                   "energy_relaxed": [3.0, 4.0], "frame_system": [0, 1], "frame_energy": [1.0, 2.0],
                   "frame_pos": WATER, "frame_forces": FORCES, **units}  # fmt: skip
    np.savez(tmp_path / "relaxations.npz", **relaxations)
    for name, names, expected in (
        ("packed", ("energy", "free_energy", "charge"), ("Hartree", "Hartree", None)),
        ("named", ("U0", "gap", "mu"), ("eV", "eV", "D")),
        ("stated", ("U0", "gap", "mu"), ("Hartree", "meV", "e*Ang")),
        ("divided", ("energy",), ("Hartree",)),
        ("relaxations", ("energy",), ("Hartree",)),
    ):
        molecules = read_molecules(tmp_path / f"{name}.npz", dtype=torch.float64)
        assert molecules.names == names and molecules.units == expected
        assert np.allclose(molecules.pos[:3], WATER * BOHR, rtol=ROUNDING, atol=0)
        assert np.allclose(molecules.forces[:3], FORCES / BOHR, rtol=ROUNDING, atol=0)
        assert np.allclose(molecules.cell[0], cell[0] * BOHR, rtol=ROUNDING, atol=0)
    initial = read_molecules(tmp_path / "relaxations.npz", relaxations=True, dtype=torch.float64)
    assert initial.units == ("Hartree",) * 2
    assert np.allclose(initial.pos, WATER * BOHR, rtol=ROUNDING, atol=0)


def test_units_stated_by_the_user(tmp_path):
    given = {"energy": "Hartree", "length": "bohr"}
    energy, forces = -14 / HARTREE, FORCES * BOHR / HARTREE
    path = tmp_path / "f.npz"
    sgdml(path, energy, BOHR, forces, e_unit="kcal/mol", r_unit="Ang")  # wrongly
    check(read_molecules(path, dtype=torch.float64, file_units=given), "Hartree")
    sgdml(path, energy, BOHR, forces)
    check(read_molecules(path, dtype=torch.float64, file_units=given), "Hartree")
    sgdml(path, energy, BOHR, FORCES)
    check(read_molecules(path, dtype=torch.float64, file_units=given | {"forces": "eV/Ang"}), "Hartree")
    water = Atoms("OH2", WATER / BOHR, cell=np.eye(3) * 9 / BOHR, pbc=True)
    water.calc = SinglePointCalculator(water, energy=energy, forces=forces)
    ase.io.write(tmp_path / "f.extxyz", water)
    molecules = read_molecules(tmp_path / "f.extxyz", dtype=torch.float64, file_units=given)
    assert np.allclose(molecules.pos, WATER, rtol=0, atol=1e-8)  # extended XYZ has eight digits after the point
    assert np.allclose(molecules.cell[0], np.eye(3) * 9, rtol=ROUNDING, atol=0)
    assert np.allclose(molecules.choose(["energy"], {"energy": "eV"}, forces=True).forces, FORCES, rtol=0, atol=1e-6)
    for given, message in (
        ({"length": "eV"}, "file_units.length: expected one of Ang, Bohr, nm, pm, got 'eV'"),
        ({"energy": "Ang"}, "file_units.energy: expected one of eV, .*, got 'Ang'"),
        ({"forces": "eV"}, "file_units.forces: expected an energy over a length, as eV/Ang, got 'eV'"),
        ({"energi": "eV"}, "file_units.energi: expected some of length, forces, stress, energy, got 'energi'"),
    ):
        with pytest.raises(ValueError, match=message):
            read_molecules(path, file_units=given)


def test_unknown_unit_of_a_target_names_it(tmp_path):
    np.savez(tmp_path / "f.npz", n_atoms=[1], z=[1], pos=np.zeros((1, 3)), y=np.ones((1, 2)), target_names=["p", "q"],
             target_units=["eV", "furlong"])  # fmt: skip
    molecules = read_molecules(tmp_path / "f.npz")
    assert molecules.choose(["p"], {"p": "meV"}).y.item() == 1000
    with pytest.raises(ValueError, match="target 'q': unit: expected one of eV, .*, got 'furlong'"):
        molecules.choose(["q"])


def test_atomic_units_and_units_of_forces():
    assert unit_name("au", "energy") == "Hartree" and unit_name(" A.U. ", "length") == "Bohr"
    assert force_units("kcal/mol/A") == ("kcal/mol", "Ang") and force_units("au") == ("Hartree", "Bohr")
    assert conversion("Bohr", "Ang") == pytest.approx(BOHR, rel=ROUNDING) and conversion("nm", "pm") == 1000
    with pytest.raises(ValueError, match="expected one of eV, .*, got 'au'"):
        unit_name("au")


def test_training_and_evaluation_with_stated_units(tmp_path):
    """The errors of a model are the same for a file in other units, which the user states."""
    source = read_molecules("ethanol", dtype=torch.float64)
    arrays = {"z": source[[0]].z.numpy(), "pos": source.pos[: 9 * 20].reshape(20, 9, 3).numpy()}
    energy, forces = source.y[:20, 0].numpy(), source.forces[: 9 * 20].reshape(20, 9, 3).numpy()
    np.savez(tmp_path / "ang.npz", **arrays, energy=energy, forces=forces)
    arrays["pos"] = arrays["pos"] / BOHR
    np.savez(tmp_path / "bohr.npz", **arrays, energy=energy * KCAL / HARTREE, forces=forces * KCAL / HARTREE * BOHR)
    in_angstrom = {"energy": "kcal/mol"}
    in_bohr = {"energy": "Hartree", "length": "bohr"}
    config = tiny_config(
        data__source=tmp_path / "ang.npz", data__file_units=in_angstrom, data__units=in_angstrom, training__max_steps=2
    )
    other = tiny_config(data__source=tmp_path / "bohr.npz", data__file_units=in_bohr, data__units=in_angstrom)
    one, two = prepare_molecules(config.data), prepare_molecules(other.data)
    for field in ("pos", "y", "forces"):
        assert torch.allclose(getattr(one, field), getattr(two, field), rtol=1e-5)  # float32
    train(config, tmp_path / "run")
    checkpoint, tables = str(tmp_path / "run" / "best.ckpt"), []

    def evaluate(*arguments):
        return CliRunner().invoke(app, ["evaluate", checkpoint, *arguments])

    for name, units in (("ang", in_angstrom), ("bohr", in_bohr)):
        stated = [word for key, unit in units.items() for word in ("--file-units", f"{key}={unit}")]
        result = evaluate("--data", str(tmp_path / f"{name}.npz"), *stated)
        assert result.exit_code == 0, result.output
        tables.append([float(word) for word in result.stdout.split() if word.replace(".", "").isdigit()])
    # molecules; two errors of energy, energy per atom and forces, each in two units, and of forces on three elements
    assert len(tables[0]) == 1 + 2 * (3 * 2 + 3) and tables[0][0] == 20
    assert np.allclose(*tables, rtol=1e-3)  # printed with five digits, of float32 and of differences of energies
    for arguments, message in (
        (["--data", str(tmp_path / "ang.npz")], "file_units.energy: .*evaluate --file-units energy=UNIT"),
        (["--data", str(tmp_path / "ang.npz"), "--file-units", "eV"], "--file-units: expected NAME=UNIT, .* got 'eV'"),
        (["--file-units", "energy=eV"], "--file-units: expected --data with it"),
    ):
        result = evaluate(*arguments)
        assert result.exit_code == 2
        with pytest.raises(ValueError, match=message):
            raise ValueError(result.stderr)
