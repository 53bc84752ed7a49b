"""Which numbers of a file are its labels: names, the two energies of VASP, molecules without a label."""

import json

import ase.db
import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from commands import call, waters
from training_runs import settings, tiny_config, tiny_settings, untrained

from spherenet_fast.calculators.ase import SphereNetCalculator
from spherenet_fast.data import from_atoms, read_molecules
from spherenet_fast.data.labels import parse_keys
from spherenet_fast.training import Potential, train
from spherenet_fast.training.metrics import ErrorSum, evaluate, spreads
from spherenet_fast.training.module import TrainingModule
from spherenet_fast.training.normalization import fit_normalization
from spherenet_fast.training.optimization.losses import total_loss
from spherenet_fast.training.prepare import prepare_molecules

NAN = float("nan")


def write_database(path, structures):
    """An ase.db whose rows have numbers as key_value_pairs and vectors as data."""
    with ase.db.connect(path) as database:
        for atoms in structures:
            vectors = {name: atoms.arrays[name] for name in atoms.arrays if name not in ("numbers", "positions")}
            database.write(Atoms(atoms.symbols, atoms.positions), key_value_pairs=atoms.info, data=vectors)


@pytest.mark.parametrize("energy, forces", [("REF_energy", "REF_forces"), ("dft_energy", "force"), ("Energy", "F")])
@pytest.mark.parametrize("suffix", ["extxyz", "db", "json"])
def test_labels_under_other_names(tmp_path, energy, forces, suffix):
    path, structures = tmp_path / f"f.{suffix}", waters(3, energy, forces)
    if suffix == "extxyz":
        ase.io.write(path, structures)
    else:
        write_database(path, structures)
    found = read_molecules(path, keys={"energy": energy, "forces": forces}, dtype=torch.float64)
    # the file has eight decimals
    assert found.y[:, 0].numpy() == pytest.approx([atoms.info[energy] for atoms in structures], abs=1e-8)
    vectors = np.concatenate([atoms.arrays[forces] for atoms in structures])
    assert found.forces.numpy() == pytest.approx(vectors, abs=1e-8)
    assert found.names == ("energy",) and found.units == ("eV",)
    assert found.notes == (f"energy: {energy}, in eV unless data.file_units.energy (--file-units) says otherwise",)
    plain = read_molecules(path)
    assert plain.names == (energy,) and plain.units == (None,) and plain.forces is None and plain.vectors == (forces,)


def test_what_is_no_number_in_a_database_is_no_label(tmp_path):
    atoms = molecule("H2O")
    with ase.db.connect(tmp_path / "f.db") as database:
        data = {"ragged": [[1.0, 2.0], [3.0]], "options": {"xc": "PBE"}, "charges": np.zeros(3), "gap": 0.5}
        database.write(atoms, key_value_pairs={"code": "x", "relaxed": True}, data=data)
    found = read_molecules(tmp_path / "f.db")
    assert found.names == ("gap",) and found.vectors == ()
    with pytest.raises(ValueError, match="frame 0 of .*f.db: ragged: expected a number"):
        read_molecules(tmp_path / "f.db", keys={"energy": "ragged"})


def test_labels_of_arrays_under_other_names(tmp_path):
    np.savez(tmp_path / "f.npz", n_atoms=[1, 2], z=[1, 2, 3], pos=np.eye(3), E_dft=[1.0, 2.0], energy=[3.0, 4.0])
    found = read_molecules(tmp_path / "f.npz", keys={"energy": "E_dft"}).choose(["energy"])
    assert found.y[:, 0].tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="data.keys.energy: expected some of E_dft, energy, got 'U7'"):
        read_molecules(tmp_path / "f.npz", keys={"energy": "U7"})
    with pytest.raises(ValueError, match="data.keys.forces: expected none for data that ASE does not read, got 'F'"):
        read_molecules("ethanol", keys={"forces": "F"})


def test_a_missing_label_is_answered_by_the_line_that_would_use_what_there_is(tmp_path):
    """What the messages ask for in turn leads to a model with which the calculator works."""
    path, out = tmp_path / "f.extxyz", tmp_path / "run"
    ase.io.write(path, waters(8, "REF_energy", "REF_forces"))
    options = {"data.source": path, "data.train": 6, "data.val": 1, "data.test": 1, "training.max_steps": 2}
    command = ["train", "ethanol", "--out", out, *(part for text in [*tiny_settings(), *settings(options)]
                                                   for part in ("--set", text))]  # fmt: skip
    code, _, error = call(*command)
    assert code == 2 and error == (
        "error: targets: expected some of REF_energy, got 'energy'; vectors on atoms: REF_forces; "
        "--keys energy=REF_energy,forces=REF_forces (in a config, data.keys) would use that\n"
    )
    code, _, error = call(*command, "--set", "data.targets=[REF_energy]")
    assert code == 2 and "a file's own name for the energy goes into data.keys={energy: REF_energy}" in error
    code, _, error = call(*command, "--keys", "energy=REF_energy,forces=force")
    assert code == 2 and error.startswith("error: data.keys.forces: expected data with 'force', got vectors on ")
    code, output, _ = call(*command, "--keys", "energy=REF_energy,forces=REF_forces")
    assert code == 0 and "energy: REF_energy, in eV unless" in output
    atoms = molecule("H2O")
    atoms.calc = SphereNetCalculator(out / "best.ckpt")
    assert np.isfinite(atoms.get_forces()).all()
    assert call("evaluate", out / "best.ckpt", "--part", "all")[1].count("8 molecules") == 1
    ase.io.write(tmp_path / "g.extxyz", waters(2))
    code, _, error = call("evaluate", out / "best.ckpt", "--data", tmp_path / "g.extxyz")
    assert code == 2 and "; --keys energy=energy (in a config, data.keys) would use that" in error
    code, output, _ = call("evaluate", out / "best.ckpt", "--data", tmp_path / "g.extxyz",
                           "--keys", "energy=energy,forces=forces")  # fmt: skip
    assert code == 0 and output.startswith("2 molecules")


def test_an_energy_learned_under_its_own_name_is_said_and_can_be_used(tmp_path, capsys):
    path = tmp_path / "f.extxyz"
    ase.io.write(path, waters(8, "REF_energy"))
    config = tiny_config(
        data__source=path, data__targets="[REF_energy]", data__forces=False, data__train=6, data__val=1, data__test=1,
        training__max_steps=1,
    )  # fmt: skip
    train(config, tmp_path / "run")
    assert "REF_energy: a number like any other. If it is the energy: data.targets=[energy]" in capsys.readouterr().out
    atoms = molecule("H2O")
    atoms.calc = SphereNetCalculator(tmp_path / "run" / "best.ckpt", unit="eV")
    assert np.isfinite(atoms.get_forces()).all()


@pytest.mark.parametrize("text", ["energy", "energy=", "=a", "energy=a,,", "energy=a,energy=b"])
def test_wrong_keys(text):
    with pytest.raises(ValueError, match="--keys: expected NAME=LABEL,... as energy=REF_energy"):
        parse_keys([text])
    assert parse_keys([]) is None and parse_keys(["a=b, c=d", "e=f"]) == {"a": "b", "c": "d", "e": "f"}


def test_keys_of_no_target():
    with pytest.raises(ValueError, match="'data.keys': expected some of energy, forces, stress, got gap"):
        tiny_config(data__keys="{gap: g}")


def test_energies_of_relaxations_under_other_names(tmp_path):
    (tmp_path / "runs").mkdir()
    ase.io.write(tmp_path / "runs" / "a.extxyz", waters(3, "REF_energy"))
    hint = "; energy: expected some of REF_energy, got 'energy'; --keys energy=REF_energy"
    with pytest.raises(ValueError, match=f"a.extxyz: expected a trajectory with energies, .*{hint}"):
        read_molecules(tmp_path / "runs", relaxations=True)
    found = read_molecules(tmp_path / "runs", relaxations=True, keys={"energy": "REF_energy"})
    energies = [atoms.info["REF_energy"] for atoms in waters(3, "REF_energy")]
    assert found.y.numpy() == pytest.approx(np.array([[energies[2], energies[0]]]), abs=1e-8)
    with pytest.raises(ValueError, match="data.keys: expected energy alone for relaxations, got forces"):
        read_molecules(tmp_path / "runs", relaxations=True, keys={"forces": "F"})
    assert tiny_config(data__keys="{energy: E}", data__relaxations=True, data__forces=False,
                       data__targets="[relaxed_energy]").data.keys == {"energy": "E"}  # fmt: skip


def test_predictions_under_other_names(tmp_path):
    untrained("float32")[0].save(tmp_path / "p.pt")
    ase.io.write(tmp_path / "f.extxyz", waters(2))
    command = ["predict", tmp_path / "p.pt", tmp_path / "f.extxyz", "-o", tmp_path / "o.extxyz"]
    assert call(*command, "--keys", "energy=NN_energy,forces=NN_forces")[0] == 0
    given, found = (ase.io.read(tmp_path / name, ":") for name in ("f.extxyz", "o.extxyz"))
    assert [atoms.get_potential_energy() for atoms in found] == [atoms.get_potential_energy() for atoms in given]
    assert call(*command, "--overwrite")[0] == 0
    for one, other in zip(ase.io.read(tmp_path / "o.extxyz", ":"), found, strict=True):
        assert one.get_potential_energy() == other.info["NN_energy"]
        assert np.array_equal(one.get_forces(), other.arrays["NN_forces"])
    code, _, error = call(*command, "--overwrite", "--keys", "gap=x")
    assert code == 2 and "--keys: expected some of energy, energies, forces, stress, got gap" in error


def test_validation_without_labels(tmp_path):
    structures = waters(6)
    for atoms in structures[3:]:
        atoms.calc = None
    ase.io.write(tmp_path / "f.extxyz", structures)
    np.savez(tmp_path / "s.npz", train=[0, 1], val=[3, 4], test=[2])
    config = tiny_config(data__source=tmp_path / "f.extxyz", data__split=tmp_path / "s.npz")
    with pytest.raises(ValueError, match="data.val: expected validation molecules with a label 'energy', got none"):
        train(config, tmp_path / "run")
    np.savez(tmp_path / "s.npz", train=[0, 1], val=[2], test=[3, 4])
    train(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["mae"] == {"energy": None, "forces": None}


# Two energies


def two_energies(count=3):
    structures = [bulk("Cu") for _ in range(count)]
    for number, atoms in enumerate(structures):
        atoms.calc = SinglePointCalculator(
            atoms, energy=-3.0 - number, free_energy=-3.5 - number, forces=np.zeros((1, 3))
        )
    return structures


VASPRUN = """<?xml version="1.0"?><modeling>
<kpoints/><parameters/>
<atominfo><atoms>1</atoms><array name="atoms"><set><rc><c>Cu</c><c>1</c></rc></set></array></atominfo>
<structure name="initialpos"><crystal><varray name="basis"><v>0 1.8 1.8</v><v>1.8 0 1.8</v><v>1.8 1.8 0</v></varray>
</crystal><varray name="positions"><v>0 0 0</v></varray></structure>{calculations}</modeling>"""
CALCULATION = """<calculation><scstep><energy><i name="e_fr_energy">{free}</i><i name="e_0_energy">{energy}</i></energy>
</scstep><structure><crystal><varray name="basis"><v>0 1.8 1.8</v><v>1.8 0 1.8</v><v>1.8 1.8 0</v></varray></crystal>
<varray name="positions"><v>0 0 0</v></varray></structure><varray name="forces"><v>0 0 0</v></varray>
<energy><i name="e_fr_energy">{free}</i><i name="e_0_energy">0</i></energy></calculation>"""
OUTCAR_HEAD = """ POTCAR:    PAW_PBE Cu 22Jun2005
   ions per type =               1
   ISPIN  =      1    spin polarized calculation?
"""
OUTCAR_STEP = """      direct lattice vectors                 reciprocal lattice vectors
     0.0 1.8 1.8     0.0 0.0 0.0
     1.8 0.0 1.8     0.0 0.0 0.0
     1.8 1.8 0.0     0.0 0.0 0.0
 POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
      0.0 0.0 0.0         0.0 0.0 0.0
 -----------------------------------------------------------------------------------
  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)
  ---------------------------------------------------
  free  energy   TOTEN  =  {free} eV

  energy  without entropy=  0.0  energy(sigma->0) =  {energy}
"""


def write_vasp(path, pairs):
    """vasprun.xml or OUTCAR as far as ASE reads them, for pairs (energy(sigma->0), free energy)."""
    if path.name == "OUTCAR":
        steps = [
            f"----- Iteration {number}( 1) -----\n" + OUTCAR_STEP.format(energy=energy, free=free)
            for number, (energy, free) in enumerate(pairs, 1)
        ]
        path.write_text(OUTCAR_HEAD + "".join(steps))
    else:
        steps = [CALCULATION.format(energy=energy, free=free) for energy, free in pairs]
        path.write_text(VASPRUN.format(calculations="".join(steps)))


@pytest.mark.parametrize("name", ["f.extxyz", "f.traj", "f.db", "vasprun.xml", "OUTCAR"])
def test_forces_belong_to_the_free_energy(tmp_path, name):
    path = tmp_path / name
    if name in ("vasprun.xml", "OUTCAR"):
        write_vasp(path, [(-3.0 - number, -3.5 - number) for number in range(3)])
    else:
        ase.io.write(path, two_energies())
    energy, free = [-3.0, -4.0, -5.0], [-3.5, -4.5, -5.5]
    found = read_molecules(path, forces=True)
    assert found.y[:, 0].numpy() == pytest.approx(free) and found.forces.shape == (3, 3)
    assert found.notes == (
        "energy: free_energy, to which the forces belong; --keys energy=energy (in a config, data.keys) takes "
        "the other",
    )
    assert read_molecules(path).y[:, 0].numpy() == pytest.approx(energy)
    chosen = read_molecules(path, forces=True, keys={"energy": "energy"})
    assert chosen.y[:, 0].numpy() == pytest.approx(energy) and chosen.notes == ()
    assert read_molecules(path, keys={"energy": "free_energy"}).y[:, 0].numpy() == pytest.approx(free)


def test_one_of_two_energies(tmp_path):
    same, mixed = two_energies(), two_energies()
    for atoms in same:
        atoms.calc.results["energy"] = atoms.calc.results["free_energy"]
    assert from_atoms(same, forces=True).notes == ()
    del mixed[0].calc.results["free_energy"], mixed[1].calc.results["energy"]
    found = from_atoms(mixed, forces=True)
    assert found.y[:, 0].tolist() == [-3.0, -4.5, -5.5]
    assert found.notes[0] == "energy: free_energy, in 1 frames the only one"
    assert "free_energy, to which the forces belong in 1 frames, in 1 others the only one there is" in found.notes[1]
    for atoms in mixed:
        atoms.calc.results.pop("energy", None)
    assert from_atoms(mixed[1:]).y[:, 0].tolist() == [-4.5, -5.5]


# Labels missing in some frames


def gaps(path):
    """Twelve molecules: 3 has no forces, 5 no energy, 7 neither."""
    structures = waters(12)
    del structures[3].calc.results["forces"], structures[5].calc.results["energy"]
    structures[7].calc = None
    ase.io.write(path, structures)
    return path


def test_molecules_without_a_label_do_not_count(tmp_path, capsys):
    config = tiny_config(data__source=gaps(tmp_path / "f.extxyz"), data__dtype="float64")
    molecules = prepare_molecules(config.data)
    assert capsys.readouterr().out == (
        f"energy: 2 of 12 molecules have no label and do not count (frame 5 of {tmp_path}/f.extxyz, ...)\n"
        f"forces: 2 of 12 molecules have no label and do not count (frame 3 of {tmp_path}/f.extxyz, ...)\n"
    )
    everything = torch.arange(12)
    normalization = fit_normalization(molecules, everything)
    complete = torch.tensor([0, 1, 2, 4, 6, 8, 9, 10, 11])
    assert normalization.scale.item() == pytest.approx(
        fit_normalization(molecules, torch.tensor([*complete, 5])).scale.item(), rel=1e-12
    )
    potential = Potential(untrained()[0].model.train(), normalization, ("energy",), ("eV",), forces=True)
    y = molecules.y[torch.tensor([*complete, 3]), 0]
    energy, forces = potential.energy_and_forces(molecules[everything])
    rows = torch.tensor([*complete, 3]).sort().values
    atoms = molecules.atoms_of(torch.tensor([*complete, 5]))[0]
    error, forces_error = (energy[rows] - molecules.y[rows]).detach(), (forces - molecules.forces)[atoms].detach()
    # in batches of five: some have gaps, others none
    found = evaluate(potential, molecules, everything, batch_size=5)
    assert found.mae["energy"] == pytest.approx(error.abs().mean().item(), rel=1e-9)
    assert found.mae["forces"] == pytest.approx(forces_error.abs().mean().item(), rel=1e-9)
    assert found.rmse["energy"] == pytest.approx(error.square().mean().sqrt().item(), rel=1e-9)
    assert spreads(molecules, everything)["energy"] == pytest.approx(y.std(correction=0).item(), rel=1e-9)
    module = TrainingModule(potential, config, 1)
    for part in (everything[:5], everything[5:]):  # with five and five energies, and 12 and 18 atoms with forces
        module.validation_step(molecules[part], 0)
    assert (config.loss.energy, config.loss.forces) == ("l1", "l1")
    weighted = config.loss.energy_weight * error.abs().mean() + config.loss.forces_weight * forces_error.abs().mean()
    expected = (weighted / normalization.scale).item()
    assert module.take_errors("val")["val_loss"] == pytest.approx(expected, rel=1e-9)
    for batch in (molecules[everything], molecules[everything].mirrored(torch.ones(12, dtype=torch.bool))):
        error, forces_error, _ = module._errors(batch)
        loss = total_loss(config.loss, batch.of_known_targets(error), forces_error)
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(weight.grad).all() for weight in module.parameters() if weight.grad is not None)
    with pytest.raises(ValueError, match="data.missing: expected a label 'energy' in every molecule, .* in frame 5"):
        prepare_molecules(tiny_config(data__source=tmp_path / "f.extxyz", data__missing="error").data)


def test_errors_of_several_targets_with_gaps():
    errors = ErrorSum(["a", "b"], torch.tensor([1.0, 1.0]))
    errors.add(torch.tensor([[2.0, NAN], [0.5, NAN]]), None, torch.tensor([[True, False], [True, False]]))
    state, again = errors.state(), ErrorSum(["a", "b"], torch.tensor([1.0, 1.0]))
    assert np.isnan(errors.means().mae["b"])
    again.load(state)
    again.add(torch.tensor([[1.5, -3.0]]))
    found = again.means()
    assert found.mae == {"a": 4.0 / 3, "b": 3.0} and found.within == {"a": 1 / 3, "b": 0.0}
    # a prediction that is not finite is no missing label
    again.add(torch.tensor([[NAN, 1.0]]), None, torch.tensor([[True, True]]))
    assert np.isnan(again.means().mae["a"])


def test_a_run_with_gaps_in_all_sets(tmp_path):
    """Also with a batch that has no label at all, and resumed."""
    np.savez(tmp_path / "split.npz", train=[0, 1, 3, 7], val=[2, 5, 7], test=[4, 3, 5, 6])
    changes = dict(
        data__source=gaps(tmp_path / "f.extxyz"), data__split=tmp_path / "split.npz", training__batch_size=1,
        training__max_steps=4,
    )  # fmt: skip
    with pytest.raises(ValueError, match="a molecule twice"):
        train(tiny_config(**changes), tmp_path / "run")
    np.savez(tmp_path / "split.npz", train=[0, 1, 3, 7], val=[2, 5], test=[4, 6])
    results = train(tiny_config(**changes), tmp_path / "run")
    assert np.isfinite(list(results["mae"].values())).all()
    assert train(tiny_config(**changes | {"training__max_steps": 6}), tmp_path / "run", resume=True)["step"] == 6
    np.savez(tmp_path / "split.npz", train=[5, 7], val=[2], test=[4])
    with pytest.raises(ValueError, match="data.train: expected training molecules with a label 'energy', got none"):
        train(tiny_config(**changes), tmp_path / "other")


def test_gaps_in_arrays(tmp_path):
    arrays = dict(z=[8, 1], pos=np.arange(18.0).reshape(3, 2, 3), energy=[1.0, NAN, 2.0], forces=np.ones((3, 2, 3)))
    arrays["forces"][2] = NAN
    np.savez(tmp_path / "f.npz", **arrays)
    molecules = read_molecules(tmp_path / "f.npz").choose(["energy"], forces=True)
    assert molecules[:].known.tolist() == [[True], [False], [True]]
    assert molecules.fixed.tolist() == [False] * 4 + [True] * 2 and torch.isfinite(molecules.forces).all()
    arrays["forces"][0, 1] = NAN
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(ValueError, match="frame 0 of .*f.npz: forces: expected them on all atoms .* NaN on 1 of 2"):
        read_molecules(tmp_path / "f.npz").choose(["energy"], forces=True)
    np.savez(tmp_path / "g.npz", **arrays | dict(energy=[NAN] * 3))
    with pytest.raises(ValueError, match="targets: expected some molecule with a label 'energy', got none"):
        read_molecules(tmp_path / "g.npz").choose(["energy"])


def test_wrong_labels_name_the_frame(tmp_path):
    structures = waters(3)
    structures[2].calc.results["energy"] = "low"
    with pytest.raises(ValueError, match="structure 2: energy: expected a number, got 'low'"):
        from_atoms(structures)
    structures = waters(3, forces="F")
    structures[1].arrays["F"] = np.zeros((3, 2))
    ase.io.write(tmp_path / "f.extxyz", structures)
    with pytest.raises(ValueError, match=r"frame 1 of .*f.extxyz: F: expected \[3, 3\] numbers, got \[3, 2\]"):
        read_molecules(tmp_path / "f.extxyz", keys={"forces": "F"})
