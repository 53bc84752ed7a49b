"""TorchSim's model: its own checks, and the results of the ASE calculator."""

import pytest
import torch
from engines import counted, ethanol, ethanol_crystal, small_potential, with_calculator

ts = pytest.importorskip("torch_sim", reason="torch-sim-atomistic is for Python 3.11 and newer: the extra `engines`")
from torch_sim.models.interface import validate_model_outputs  # noqa: E402

from spherenet_fast.calculators.torchsim import SphereNetModel  # noqa: E402

CPU = torch.device("cpu")


def state_of(structures, dtype=torch.float64):
    return ts.io.atoms_to_state(structures, CPU, dtype)


def of_all_elements():
    """Structures of TorchSim's checks are metals and minerals."""
    potential = small_potential()
    potential.elements = None
    return potential


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_torchsim_accepts_the_outputs(dtype):
    model = SphereNetModel(of_all_elements(), dtype=dtype)
    validate_model_outputs(model, CPU, dtype)
    assert model.compute_stress  # which it has switched on


def test_torchsim_finds_the_calculators_results():
    testing = pytest.importorskip("torch_sim.testing", reason="torch-sim-atomistic 0.3, of Python 3.11, has none")
    potential = of_all_elements()
    calculator = with_calculator(ethanol(), potential).calc
    model = SphereNetModel(potential, compute_stress=True)
    assert len(testing.CONSISTENCY_SIMSTATES) > 10
    for name in testing.CONSISTENCY_SIMSTATES:
        state = testing.SIMSTATE_GENERATORS[name](CPU, torch.float64)
        testing.assert_model_calculator_consistency(model, calculator, state)  # to 1e-5


@pytest.mark.parametrize("make", [ethanol, ethanol_crystal])
def test_results_are_those_of_the_calculator(make):
    potential = small_potential()
    expected = with_calculator(make(), potential)
    found = SphereNetModel(potential, compute_stress=True)(state_of([make()]))
    # The same operations in float64, but for TorchSim's own copy of positions and cells.
    assert found["energy"].item() == pytest.approx(expected.get_potential_energy(), rel=1e-12)
    assert found["forces"].numpy() == pytest.approx(expected.get_forces(), abs=1e-10)
    assert all(not tensor.requires_grad and tensor.dtype == torch.float64 for tensor in found.values())
    if expected.pbc.any():
        assert found["stress"][0].numpy() == pytest.approx(expected.get_stress(voigt=False), abs=1e-10)
    else:
        assert "stress" not in found


def test_a_batch_has_the_results_of_single_molecules():
    model, molecules = SphereNetModel(small_potential()), [ethanol(seed) for seed in range(4)]
    molecules[2] = molecules[2][:7]
    together, alone = model(state_of(molecules)), [model(state_of([one])) for one in molecules]
    assert len(set(together["energy"].tolist())) == 4
    for name in ("energy", "forces"):
        # Sums over the same neighbors in the same order; products of matrices of another height may round otherwise.
        torch.testing.assert_close(together[name], torch.cat([one[name] for one in alone]), rtol=1e-12, atol=1e-10)


def test_energies_of_a_float32_potential_keep_their_digits():
    """The atoms of an ethanol have -4,200 eV, of which float32 would leave 0.2 meV."""
    potential = small_potential().float()
    energy = SphereNetModel(potential)(state_of([ethanol()]))["energy"]
    # The network's own rounding is of its share of the energy, a few eV: 1e-7 of that.
    assert energy.item() == pytest.approx(with_calculator(ethanol(), potential).get_potential_energy(), abs=1e-6)
    assert abs(energy - energy.float()).item() > 1e-6


def test_a_state_may_be_a_dictionary():
    model, state = SphereNetModel(small_potential()), state_of([ethanol()])
    names = ("positions", "cell", "pbc", "atomic_numbers", "system_idx")
    found = model({name: getattr(state, name) for name in names})
    torch.testing.assert_close(found, model(state), rtol=0, atol=0)


def test_an_unseen_element_is_an_error():
    molecule = ethanol()
    molecule.symbols[0] = "N"
    with pytest.raises(ValueError, match=r"expected elements of the training set \(H, C, O\), got N"):
        SphereNetModel(small_potential())(state_of([ethanol(), molecule]))


def test_torchsim_moves_all_systems_at_once(monkeypatch):
    model, before = SphereNetModel(small_potential()), state_of([ethanol(seed) for seed in range(3)])
    calls = counted(monkeypatch)
    nve = ts.Integrator.nve if hasattr(ts, "Integrator") else ts.integrators.nve  # 0.6 and 0.3
    steps = {"n_steps": 5, "temperature": 50, "timestep": 0.0001}  # K, ps
    after = ts.integrate(system=before, model=model, integrator=nve, **steps)
    assert set(calls) == {3} and len(calls) >= 5
    moved = (after.positions - before.positions).norm(dim=1)
    assert all(part.max() > 1e-4 for part in moved.split(9))
    torch.testing.assert_close(after.energy, model(after)["energy"], rtol=1e-12, atol=0)
