"""What the engines share: many structures as arrays, with the results of the ASE calculator."""

import pickle

import numpy as np
import pytest
import torch
from engines import ethanol, ethanol_crystal, small_potential, with_calculator

from spherenet_fast.calculators.evaluator import Evaluator
from spherenet_fast.nn.recording import Recording


def arrays(structures):
    """Arguments of an `Evaluator`."""
    cells = torch.from_numpy(np.stack([atoms.cell.array for atoms in structures]))
    return (
        torch.from_numpy(np.concatenate([atoms.numbers for atoms in structures])),
        torch.from_numpy(np.concatenate([atoms.positions for atoms in structures])),
        torch.tensor([len(atoms) for atoms in structures]),
        cells,
        torch.from_numpy(structures[0].pbc),
    )


@pytest.mark.parametrize("make", [ethanol, ethanol_crystal])
def test_many_structures_have_the_calculators_results(make):
    structures, potential = [make() for _ in range(3)], small_potential()
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=seed)
    structures[1] = structures[1][:7]
    expected = [with_calculator(atoms, potential) for atoms in structures]
    repeats = bool(structures[0].pbc.any())
    found = Evaluator(potential)(*arrays(structures), stress=repeats)
    # float64: the same sums, products of matrices of another height.
    assert found.energy.numpy() == pytest.approx([one.get_potential_energy() for one in expected], rel=1e-12)
    assert found.forces.numpy() == pytest.approx(np.concatenate([one.get_forces() for one in expected]), abs=1e-10)
    if repeats:
        stress = np.stack([one.get_stress(voigt=False) for one in expected])
        assert found.stress.numpy() == pytest.approx(stress, abs=1e-10)
    else:
        assert found.stress is None


def test_operators_are_recorded():
    evaluate = Evaluator(small_potential())
    evaluate.potential.recorded.after = 2
    given = arrays([ethanol(seed) for seed in range(2)])
    first, *_, last = (evaluate(*given) for _ in range(4))
    assert any(isinstance(one, Recording) for one in evaluate.potential.recorded._recordings.values())
    assert torch.equal(first.energy, last.energy) and torch.equal(first.forces, last.forces)


def test_a_pickled_one_says_the_same():
    evaluate = Evaluator(small_potential())
    again = pickle.loads(pickle.dumps(evaluate))
    given = arrays([ethanol()])
    for one, other in zip(evaluate(*given)[:2], again(*given)[:2], strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="got N"):
        again(given[0].clone().fill_(7), *given[1:])


def test_far_away_is_as_near():
    """A molecule that has drifted off, in an engine that keeps positions in float64, for a network in float32."""
    evaluate = Evaluator(small_potential().float())
    z, pos, *rest = arrays([ethanol()])
    near, far = evaluate(z, pos, *rest), evaluate(z, pos + 2.0**14, *rest)
    # Positions keep 12 digits at 16,384 Å; at those digits' end float32 may round to its neighbor, 1e-7 Å away.
    assert far.energy.item() == pytest.approx(near.energy.item(), abs=1e-5)
    assert far.forces.numpy() == pytest.approx(near.forces.numpy(), abs=1e-4)


def test_positions_that_are_not_finite_are_an_error():
    z, pos, *rest = arrays([ethanol()])
    pos[3, 1] = torch.nan
    with pytest.raises(ValueError, match="pos: expected finite coordinates, got .*nan.* for atom 3"):
        Evaluator(small_potential())(z, pos, *rest)
