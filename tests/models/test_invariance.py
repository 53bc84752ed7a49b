"""Energies do not change, and forces turn, when molecules are turned, moved and renumbered."""

import pytest
import torch
from molecules import EXACT, SMALL, as_data, rattled_batch, rotation, with_outputs
from small_models import IDS, IMPLEMENTATIONS, NAMES, small_model

from spherenet_fast.models import SphereNet

# Rotated positions differ in the last bit, 1e-16 or 6e-8 of them; some hundred operations later, and divided by the
# distance of a neighbor from an axis, that is 1e-12 or 1e-6 of the energy, and ten times as much of the forces, which
# are compared by their norm.
RATTLED = [(torch.float64, 1e-10), (torch.float32, 2e-5)]
# In exact molecules forces cancel: what is left of large ones has fewer digits. Most of all where atoms lie on a line:
# the harmonics of degree 6 are steepest there, 21 times their value, and a direction is known to 3e-8 in float32.
SYMMETRIC = {torch.float64: 1e-9, torch.float32: 2e-5}


def assert_close(found, expected, tolerance):
    for tensor, reference in zip(found, expected, strict=True):
        assert reference.norm() > 1e-3  # or else nothing is tested
        assert (tensor.double() - reference).norm() <= tolerance * reference.norm()


def moved(data, seed, dtype):
    """The molecules turned, shifted by about 1 Å, atoms in another order within each: data, the rotation, the order.

    Farther from the origin, float32 positions themselves are known too badly: the model in float64 says so, too.
    """
    generator = torch.Generator().manual_seed(seed)
    turn, step = rotation(seed), torch.randn(3, generator=generator).double()
    order = torch.randperm(len(data.z), generator=generator)
    order = order[torch.argsort(data.batch[order], stable=True)]
    return as_data(data.z[order], (data.pos[order] @ turn + step).to(dtype), data.batch), turn, order


def predictions(model, data, dtype):
    """Energy and forces in float64, of the model in dtype."""
    energy, forces = model.to(dtype).energy_and_forces(as_data(data.z, data.pos.to(dtype), data.batch))
    return energy.double(), forces.double()


def check_rattled(model, seeds, dtype, tolerance):
    data = rattled_batch((6, 9, 4))
    energy, forces = predictions(model, data, torch.float64)
    for seed in seeds:
        other, turn, order = moved(data, seed, dtype)
        assert_close(predictions(model, other, dtype), (energy, forces[order] @ turn), tolerance)


@pytest.mark.parametrize("dtype, tolerance", RATTLED)
@pytest.mark.parametrize("basis", ["paper", "dig"])
def test_rattled_molecules(basis, dtype, tolerance):
    check_rattled(with_outputs(SphereNet(**SMALL, basis=basis)).eval(), range(20), dtype, tolerance)


@pytest.mark.parametrize("dtype, tolerance", RATTLED)
@pytest.mark.parametrize("name, kernels", IMPLEMENTATIONS, ids=IDS)
def test_rattled_molecules_with_all_models(name, kernels, dtype, tolerance):
    check_rattled(small_model(name, kernels).eval(), range(3), dtype, tolerance)


@pytest.mark.parametrize("dtype, tolerance", RATTLED)
def test_rattled_molecules_with_the_default_model(dtype, tolerance):
    check_rattled(with_outputs(SphereNet()).eval(), range(3), dtype, tolerance)


@pytest.mark.parametrize("dtype", SYMMETRIC)
@pytest.mark.parametrize("name", EXACT)
def test_exact_molecules(name, dtype):
    """Atoms keep their order: where azimuths coincide, the reference and with it the force follow the numbering."""
    z, pos = EXACT[name]
    model = with_outputs(SphereNet(**SMALL)).eval()
    data = as_data(z, pos, torch.zeros_like(z))
    energy, forces = predictions(model, data, torch.float64)
    for seed in range(20):
        turn = rotation(seed)
        other = as_data(z, pos @ turn + torch.tensor([1.0, -2.0, 0.5]), data.batch)
        assert_close(predictions(model, other, dtype), (energy, forces @ turn), SYMMETRIC[dtype])


@pytest.mark.parametrize("dtype", SYMMETRIC)
@pytest.mark.parametrize("name", EXACT)
def test_energies_of_exact_molecules_do_not_depend_on_the_numbering(name, dtype):
    z, pos = EXACT[name]
    model = with_outputs(SphereNet(**SMALL)).eval()
    data = as_data(z, pos, torch.zeros_like(z))
    energy, _ = predictions(model, data, torch.float64)
    for seed in range(20):
        other, *_ = moved(data, seed, dtype)
        assert_close(predictions(model, other, dtype)[:1], (energy,), SYMMETRIC[dtype])


CHIRAL = ("SphereNet", "SphereNet with the paper's torsion")


@pytest.mark.parametrize("name", NAMES)
def test_mirror_images(name):
    """A torsion has a sense of rotation, distances and angles have none."""
    model = small_model(name).eval()
    data = rattled_batch((6, 9, 4))
    energy = model(data)
    mirrored = model(as_data(data.z, data.pos * torch.tensor([1.0, 1.0, -1.0]), data.batch))
    change = (mirrored - energy).abs() / energy.abs()
    assert (change > 1e-4).all() if name in CHIRAL else (change < 1e-11).all()  # rounding, or not rounding
