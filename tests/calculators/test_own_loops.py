"""A model trained in a loop of one's own becomes a potential or calculator in one line."""

import pytest
import torch
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from training_runs import TINY_MODEL, random_molecules, untrained

import spherenet_fast
from spherenet_fast import SphereNet
from spherenet_fast.calculators.ase import SphereNetCalculator
from spherenet_fast.training import Potential
from spherenet_fast.training.normalization import fit_normalization

SYMBOLS = {"H": -13.6, "C": -1029.0, "N": -1485.0, "O": -2042.0}
SCALE = 0.7


@pytest.fixture
def model():
    """A model in training mode whose predictions are not 0."""
    torch.manual_seed(0)
    model = SphereNet(**TINY_MODEL).double().train()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def structures(model, forces=True):
    """Rattled molecules whose labels are what a loop with SYMBOLS and SCALE would have trained the model to."""
    calculator = SphereNetCalculator(model, shift=SYMBOLS, scale=SCALE)
    found = []
    for number, name in enumerate(["H2O", "CH4", "NH3", "CH3OH", "HCN", "C2H6", "CO2", "N2H4", "H2CO"] * 2):
        atoms = molecule(name)
        atoms.rattle(0.1, seed=number)
        atoms.calc = calculator
        labels = {"energy": atoms.get_potential_energy()} | ({"forces": atoms.get_forces()} if forces else {})
        atoms.calc = SinglePointCalculator(atoms, **labels)
        found.append(atoms)
    return found


def test_shift_and_scale_are_those_of_the_loop(model):
    atoms = molecule("CH3OH")
    atoms.calc = SphereNetCalculator(model, shift=SYMBOLS, scale=SCALE)
    data = dict(z=torch.from_numpy(atoms.numbers), pos=torch.from_numpy(atoms.positions))
    energy, forces = model.eval().energy_and_forces(data)
    shift = SYMBOLS["C"] + SYMBOLS["O"] + 4 * SYMBOLS["H"]
    # one product and one sum in float64 of energies of 3000; the calculator moves positions to the origin
    assert atoms.get_potential_energy() == pytest.approx(shift + SCALE * energy.item(), abs=1e-9)
    assert atoms.get_forces() == pytest.approx(SCALE * forces.numpy(), abs=1e-9)
    with pytest.raises(ValueError, match="z: expected elements of the training set .*, got S"):
        SphereNetCalculator(model, shift=SYMBOLS).get_potential_energy(molecule("SH2"))
    atoms.calc = SphereNetCalculator(model, shift=2.0, unit="kcal/mol")
    assert atoms.get_potential_energy() == pytest.approx((2 + energy.item()) * 0.0433641, rel=1e-6)  # as many digits


@pytest.mark.parametrize("forces", [True, False])
def test_a_fit_finds_the_shift_and_scale_of_the_loop(model, forces):
    given = structures(model, forces)
    potential = Potential.fit(model.train(), given, batch_size=5)
    assert not potential.training and potential.units == ("eV",) and potential.forces == forces
    assert potential.scale.item() == pytest.approx(SCALE, rel=1e-7)  # float64, energies of 3000 beside parts of 0.1
    atoms = given[3].copy()
    atoms.calc = SphereNetCalculator(potential)
    assert atoms.get_potential_energy() == pytest.approx(given[3].get_potential_energy(), abs=1e-6)
    with pytest.raises(ValueError, match="z: expected elements of the training set .*, got S"):
        SphereNetCalculator(potential).get_potential_energy(molecule("SH2"))


@pytest.mark.parametrize("forces", [True, False])
def test_an_untrained_model_has_the_normalization_of_a_training(forces):
    molecules = random_molecules(30).choose(["energy"], forces=forces)
    expected = fit_normalization(molecules, torch.arange(30))
    potential = Potential.fit(SphereNet(**TINY_MODEL), molecules)
    assert torch.equal(potential.atomic_energies, expected.elements) and torch.equal(potential.scale, expected.scale)


def test_missing_labels_do_not_count(model):
    molecules = random_molecules(30).choose(["gap"])
    molecules.pos = molecules.pos.double()
    few = torch.arange(20)
    molecules.y[20:] = torch.nan
    with torch.no_grad():
        molecules.y[few] = 3 + 2 * model.eval()(molecules[few])
    potential = Potential.fit(model, molecules)
    # float64, 20 numbers of size 1
    assert [potential.shift.item(), potential.scale.item()] == pytest.approx([3, 2], rel=1e-9)
    molecules.y[few] *= -1
    with pytest.raises(ValueError, match="model: expected predictions that rise with the labels"):
        Potential.fit(model, molecules)
    with pytest.raises(ValueError, match=r"model: expected as many outputs as targets, 2 \(a, b\), got 1"):
        two = random_molecules(5)
        two.names, two.pos = ("a", "b"), two.pos.double()
        Potential.fit(model, two)


def test_wrong_arguments_are_named(model):
    potential = Potential.wrap(model)
    for change in (dict(shift=1.0), dict(scale=2.0)):
        with pytest.raises(ValueError, match="shift, scale: expected none but with a model"):
            SphereNetCalculator(potential, **change)
    with pytest.raises(TypeError, match="potential: expected a Potential, a GraphNetwork3D or a path, got Linear"):
        SphereNetCalculator(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="shift: expected symbols of elements, got Xy"):
        SphereNetCalculator(model, shift={"Xy": 1.0})
    with pytest.raises(TypeError, match="shift: expected a number, got 'a'"):
        SphereNetCalculator(model, shift="a")
    with pytest.raises(ValueError, match=r"model: expected as many outputs as targets, 1 \(energy\), got 2"):
        SphereNetCalculator(SphereNet(**TINY_MODEL, out_channels=2))
    with pytest.raises(ValueError, match="data: expected structures, got none"):
        Potential.fit(model, [])
    with pytest.raises(ValueError, match="scale: expected positive numbers, got -1"):
        SphereNetCalculator(model, scale=-1.0)
    with pytest.raises(ValueError, match="unit: expected one of eV"):
        SphereNetCalculator(model, unit="parsec")


def test_load_gives_what_predicts_in_real_units(tmp_path):
    potential, molecules, _ = untrained()
    potential.save(tmp_path / "best.ckpt")
    loaded = spherenet_fast.load(tmp_path / "best.ckpt")
    assert not loaded.training and next(loaded.parameters()).device.type == "cpu"
    assert torch.equal(loaded(molecules[:3]), potential(molecules[:3]))
    assert loaded.energy_and_forces(molecules[:3])[1].isfinite().all()


@pytest.mark.parametrize("device", ["cuda:9", "meta", "abacus", torch.device("meta")])
def test_a_device_that_is_not_there_is_named(tmp_path, model, device):
    untrained()[0].save(tmp_path / "best.ckpt")
    text = f"^device: expected a device that PyTorch can compute on here, in float64, got '{device}'$"
    for use in (spherenet_fast.load, SphereNetCalculator):
        with pytest.raises(ValueError, match=text):
            use(tmp_path / "best.ckpt", device=device)
    with pytest.raises(ValueError, match=text):
        SphereNetCalculator(Potential.wrap(model), device=device)
