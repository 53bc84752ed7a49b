"""Files of structures: all that they hold, or what is wrong with which frame."""

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms
from commands import call, waters
from mutations import mutations
from training_runs import tiny_config, untrained

from spherenet_fast.data import Molecules, from_atoms, read_molecules, read_structures
from spherenet_fast.data.checks import check_frames
from spherenet_fast.training import train


def sdf(*names, data=""):
    """Molecules as one SDF."""
    lines = []
    for name in names:
        atoms = molecule(name)
        lines += [name, "  test", "", f"{len(atoms):3}  0  0  0  0  0  0  0  0  0999 V2000"]
        lines += [f"{x:10.4f}{y:10.4f}{z:10.4f} {a.symbol:3} 0" for a in atoms for x, y, z in [a.position]]
        lines += ["M  END", data + "$$$$"]
    return "\n".join(lines) + "\n"


def test_an_sdf_has_all_its_molecules(tmp_path):
    path = tmp_path / "f.sdf"
    path.write_text(sdf("H2O", "CH4", "CH3CH2OH", data=">  <gap>\n0.25\n\n> <name>\nx\n\n"))
    found = read_structures(path)
    assert [atoms.get_chemical_formula() for atoms in found] == ["H2O", "CH4", "C2H6O"]
    assert found[2].positions == pytest.approx(molecule("CH3CH2OH").positions, abs=5e-5)  # four decimals in the file
    assert found[1].info == {"gap": 0.25, "name": "x"} and read_molecules(path).names == ("gap",)
    untrained("float32")[0].save(tmp_path / "p.pt")
    code, output, _ = call("predict", tmp_path / "p.pt", path, "-o", tmp_path / "o.extxyz")
    assert code == 0 and output.startswith("3 structures") and len(ase.io.read(tmp_path / "o.extxyz", ":")) == 3
    path.write_text(sdf("H2O").replace("V2000", "V3000"))
    with pytest.raises(ValueError, match=r"f.sdf: .* an SDF in the format V3000, expected V2000 \(obabel"):
        read_structures(path)
    path.write_text(sdf("H2O").replace("  3  0", "  9  0"))
    with pytest.raises(ValueError, match="f.sdf: expected structures that ASE can read, got"):
        read_structures(path)


@pytest.mark.parametrize(
    "name, ase_format",
    [("f.mol", "mol"), ("f.gro", "gromacs"), ("f.g96", "gromos"), ("f.res", "res"), ("f.gen", "gen"),
     ("coord", "turbomole"), ("f.car", "dmol-car"), ("f.com", "gaussian-in")],
)  # fmt: skip
def test_structures_that_ase_would_leave_out_are_counted(tmp_path, name, ase_format):
    atoms = molecule("H2O", cell=[9, 9, 9], pbc=ase_format in ("res", "dmol-car"))
    atoms.center()
    path = tmp_path / name
    ase.io.write(path, atoms, format=ase_format)
    assert [len(found) for found in read_structures(path)] == [3]
    text = path.read_text()
    path.write_text(("--Link1--\n" if ase_format == "gaussian-in" else "").join([text] * 3))
    with pytest.raises(ValueError, match=f"{name}: .* got 3 structures in the format {ase_format}, of which ASE reads"):
        read_structures(path)


@pytest.mark.parametrize("suffix", ["xyz", "extxyz"])
def test_frames_after_a_blank_line_are_read(tmp_path, suffix):
    frame = "2\ncomment\nO 0 0 0\nH 0 0 1\n"
    (tmp_path / f"f.{suffix}").write_text("\n" + frame + "\n\n" + frame + frame + "\n \n")
    assert [len(atoms) for atoms in read_structures(tmp_path / f"f.{suffix}")] == [2, 2, 2]


def test_isotopes_of_hydrogen(tmp_path):
    (tmp_path / "f.xyz").write_text("4\nHDO and T\nO 0 0 0\nD 0 0 1\nT 0 1 0\nH 1 0 0\n")
    (tmp_path / "f.sdf").write_text(sdf("H2O").replace(" H  ", " D  "))
    (xyz,), (heavy,) = read_structures(tmp_path / "f.xyz"), read_structures(tmp_path / "f.sdf")
    assert xyz.numbers.tolist() == [8, 1, 1, 1] and heavy.numbers.tolist() == [8, 1, 1]
    assert xyz.get_masses() == pytest.approx([15.999, 2.0141, 3.0160, 1.008], abs=1e-4)
    assert heavy.get_masses() == pytest.approx([15.999, 2.0141, 2.0141], abs=1e-4)
    structures = waters(1)
    ase.io.write(tmp_path / "f.extxyz", structures)
    (tmp_path / "f.extxyz").write_text((tmp_path / "f.extxyz").read_text().replace("\nH ", "\nD "))
    (labeled,) = read_structures(tmp_path / "f.extxyz")
    assert labeled.get_potential_energy() == pytest.approx(structures[0].get_potential_energy())
    with pytest.raises(KeyError):  # ASE itself is as it was
        ase.Atoms("D")


QM9_METHANE = """5
gdb 1 157.7118 157.70997 157.70699 0. 13.21 -0.3877 0.1171 0.5048 35.3641 0.044749 -40.47893 -40.476062 -40.475117 \
-40.498597 6.469
C	-0.0126981359	 1.0858041578	 0.0080009958	-0.535689
H	 0.002150416	-0.0060313176	 1.9761204*^-3	 0.133921
H	 1.0117308433	 1.4637511618	 0.0002765748	 0.133922
H	-0.540815069	 1.4475266138	-0.8766437152	 0.133923
H	-0.5238136345	 1.4379326443	 0.9063972942	 0.133923
1341.307	1341.3284	1341.365	1562.6731	1562.7453	3038.3205	3151.6034	3151.6788	3151.7078
C	C
InChI=1S/CH4/h1H4	InChI=1S/CH4/h1H4
"""


def test_qm9_s_own_files(tmp_path):
    (tmp_path / "f.xyz").write_text(QM9_METHANE * 2)
    found, sample = read_molecules(tmp_path / "f.xyz", dtype=torch.float64), read_molecules("qm9")
    assert found.n_atoms.tolist() == [5, 5] and found.names[:4] == ("A", "B", "C", "mu")
    assert torch.equal(found.pos[5:].float(), sample[0].pos) and found.pos[1, 2].item() == 1.9761204e-3
    units = dict(zip(sample.names, sample.units, strict=True))
    for name, unit, value in zip(found.names, found.units, found.y[1].tolist(), strict=True):
        if name in units:
            assert unit == units[name]
            # the sample's differ in the last bit
            assert value == pytest.approx(sample.y[0, sample.names.index(name)].item(), rel=1e-14)
    assert found.choose(["gap"], {"gap": "eV"}).y[0].item() == pytest.approx(0.5048 * 27.2114, rel=1e-5)
    (tmp_path / "f.xyz").write_text(QM9_METHANE.replace("6.469", ""))
    with pytest.raises(ValueError, match="f.xyz: .* frame 0, line 1: expected a molecule as in QM9's files"):
        read_structures(tmp_path / "f.xyz")


def test_files_of_another_kind_in_a_folder_are_skipped_with_a_line(tmp_path, capsys):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(2):
        ase.io.write(folder / f"{number}.extxyz", waters(4, seed=number))
    for name in ("README.txt", "README.md", "notes.txt", "Makefile", "plot.png", "run.py"):
        (folder / name).write_text("# About these\n\n12 things\n")
    (folder / "logs").mkdir()
    config = tiny_config(data__source=folder, data__train=4, data__val=0, data__test=4, training__max_steps=1)
    train(config, tmp_path / "run")
    line = f"{folder}: skipped Makefile, README.md, README.txt, logs, notes.txt and 2 more, which ASE has no format for"
    assert line in capsys.readouterr().out.splitlines()
    (folder / "2.extxyz").write_bytes(b"")  # a format that ASE knows, so what is wrong with it counts
    with pytest.raises(ValueError, match="2.extxyz: expected at least one structure, got none"):
        read_molecules(folder)
    for file in folder.glob("*.extxyz"):
        file.unlink()
    with pytest.raises(ValueError, match="frames: expected files that ASE can read, got Makefile, README.md"):
        read_molecules(folder)


# Bad frames


def bad_frames(kind):
    """Copper with a bad frame 2."""
    structures = [bulk("Cu", cubic=True) for _ in range(4)]
    for number, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=number)
    if kind == "coincident":
        structures[2].positions[3] = structures[2].positions[1]
    if kind == "image":
        structures[2].positions[3] = structures[2].positions[1] + [3.61, -7.22, 0]
    if kind == "flat":
        structures[2].cell[2] = structures[2].cell[0] + structures[2].cell[1]
    if kind == "not finite":
        structures[2].positions[1, 0] = np.nan
    if kind == "no element":
        structures[2].numbers[1] = 0
    return structures


MESSAGES = {
    "coincident": "pos: expected atoms at least 1e-06 Å apart, got atoms 1 and 3 at the same place",
    "image": "pos: expected atoms at least 1e-06 Å apart, got atoms 1 and 3 at the same place",
    "flat": "cell: expected linearly independent vectors along the periodic directions",
    "not finite": "pos: expected finite numbers",
    "no element": r"z: expected atomic numbers 1 to 94, got \[0, 29\]",
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_bad_frame_is_named_before_the_first_step(tmp_path, kind):
    structures = bad_frames(kind)
    for atoms in structures:
        atoms.info["REF"] = 1.0
    path = tmp_path / "f.traj"  # keeps every digit
    ase.io.write(path, structures[:1])
    ase.io.write(tmp_path / "g.traj", structures)
    folder = tmp_path / "frames"
    folder.mkdir()
    for name in ("f", "g"):
        (tmp_path / f"{name}.traj").rename(folder / f"{name}.traj")
    changes = dict(data__source=folder, data__targets="[REF]", data__forces=False, data__dtype="float64")
    changes |= dict(data__train=1, data__val=1, data__test=3)
    with pytest.raises(ValueError, match=f"frame 2 of {folder}/g.traj: {MESSAGES[kind]}"):
        train(tiny_config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    potential = untrained("float64")[0]
    potential.elements = None
    potential.save(tmp_path / "p.pt")
    if kind != "no element":
        code, _, error = call("predict", tmp_path / "p.pt", folder / "g.traj", "-o", tmp_path / "o.extxyz")
        assert code == 2 and f"frame 2 of {folder}/g.traj: {MESSAGES[kind]}" in error


def test_a_bad_frame_of_arrays_is_named(tmp_path):
    pos = np.random.default_rng(0).normal(size=(30, 4, 3))
    pos[17, 3] = pos[17, 0] + 5e-7
    np.savez(tmp_path / "f.npz", z=[1, 6, 7, 8], pos=pos, energy=np.zeros(30), forces=np.zeros((30, 4, 3)))
    config = tiny_config(data__source=tmp_path / "f.npz", data__dtype="float64")
    with pytest.raises(ValueError, match="frame 17 of .*f.npz: pos: .* got atoms 0 and 3 at the same place"):
        train(config, tmp_path / "run")


def test_good_frames_pass():
    """Symmetric structures, open and skewed cells, atoms outside their cells, single atoms."""
    slab = fcc111("Cu", (2, 2, 2), vacuum=5.0)
    outside = bulk("Cu", cubic=True)
    outside.positions += [[400.0, -700.0, 0.1]] * 4
    skewed = bulk("Cu")
    flat = bulk("Cu", cubic=True)
    flat.cell[2], flat.pbc = flat.cell[0], [True, True, False]  # what does not repeat may be anything
    check_frames(from_atoms([slab, outside, skewed, flat, molecule("C6H6"), molecule("H")], torch.float64))
    check_frames(from_atoms([molecule("C6H6")]))
    flat.pbc = [True, False, True]
    with pytest.raises(ValueError, match="molecule 1: cell: expected linearly independent vectors"):
        check_frames(from_atoms([slab, flat]))


def test_coincident_atoms_are_found_wherever_they_are():
    draw = np.random.default_rng(1)
    for _ in range(50):
        count = int(draw.integers(2, 40))
        pos = draw.uniform(-8, 8, (3 * count, 3))
        first, second = sorted(draw.choice(count, 2, replace=False))
        pos[count + second] = pos[count + first] + draw.uniform(-5e-7, 5e-7, 3)
        molecules = Molecules(
            torch.full((3,), count), torch.ones(3 * count, dtype=torch.int64), torch.from_numpy(pos),
            torch.zeros(3, 0, dtype=torch.float64),
        )  # fmt: skip
        with pytest.raises(ValueError, match=f"molecule 1: pos: .* got atoms {first} and {second} at the same place"):
            check_frames(molecules)


# Damaged files


def test_damaged_extended_xyz_is_read_or_refused_in_one_line(tmp_path):
    """200 damaged copies: a ValueError that names the file, or whole molecules; never another error, never long."""
    structures = waters(4)
    for atoms in structures[:2]:
        atoms.set_cell([4, 5, 6])
        atoms.pbc = True
        atoms.set_constraint(FixAtoms([0]))
        atoms.info["gap"] = 1.5
    path, refused = tmp_path / "f.extxyz", 0
    ase.io.write(path, structures)
    for damaged in mutations(path.read_bytes()):
        path.write_bytes(damaged)
        try:
            check_frames(read_molecules(path).choose(["energy"], forces=True))
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error) and str(path) in str(error)
    assert 100 < refused < 200  # a flipped bit in a digit is another digit


@pytest.mark.parametrize(
    "text, message",
    [
        ("2\n\nO 0 0 0\n", "frame 0, line 1: expected 2 atoms, got"),
        ("99999999999\n\nO 0 0 0\n", "frame 0, line 1: expected 99999999999 atoms, got"),
        ("1\n\nO 0 0 0\nx\n", "frame 1, line 4: expected the number of atoms, got 'x'"),
        ("-1\n\n", "expected the number of atoms, got '-1'"),
        ("1\n\nQ 0 0 0\n", "frame 0, line 1: KeyError: 'Q'"),
        ("1\nProperties=species:S:1:pos:R:3:a:R:99999999\nO 0 0 0\n", "expected 100000003 columns of atoms, got 'O 0"),
        ("0\n\n", "frame 0, line 1: expected at least 1 atom, got 0"),
    ],
)
def test_damaged_frames_of_xyz_files(tmp_path, text, message):
    (tmp_path / "f.xyz").write_text(text)
    with pytest.raises(ValueError, match=f"f.xyz: .*{message}"):
        read_structures(tmp_path / "f.xyz")
