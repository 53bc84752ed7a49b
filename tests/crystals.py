"""Periodic structures for the tests: one atom, skewed, smaller than the cutoff, slabs."""

import itertools
from types import SimpleNamespace

import numpy as np
import torch
from graph_oracles import random_crystal
from molecules import rattled, with_outputs

from spherenet_fast.models import SphereNet

CUTOFF = 4.0  # Å


def crystal(z, pos, cell, pbc=(True, True, True)):
    return SimpleNamespace(z=torch.tensor(z), pos=pos, cell=cell, pbc=torch.tensor(pbc), batch=None)


def _slab():
    """Two layers of four atoms and one on top of them, repeating in the first two directions."""
    layers = torch.tensor([[x, y, z + 0.0] for z in (0, 2) for x in (0, 2.6) for y in (0, 2.7)] + [[1.3, 1.2, 3.4]])
    noise = torch.from_numpy(np.random.default_rng(0).normal(scale=0.1, size=(9, 3)))
    cell = torch.tensor([[5.2, 0.1, 0], [0.3, 5.4, 0], [0, 0, 9.0]], dtype=torch.float64)
    return crystal([29] * 8 + [8], layers.double() + noise, cell, (True, True, False))


def _skewed(num_atoms, seed, scale, pbc=(True, True, True)):
    """Random atoms, none close to an image of itself or of another, in and around a triclinic cell."""
    pos, cell = random_crystal(num_atoms, seed, scale)
    return crystal([6, 8, 1, 7, 6][:num_atoms], pos, cell, pbc)


_FCC = 3.6 * torch.tensor([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], dtype=torch.float64)
_SMALL_CELL = torch.tensor([[3.1, 0.2, 0.0], [0.4, 3.3, -0.2], [0.1, -0.3, 3.6]], dtype=torch.float64)
CRYSTALS = {
    "one atom, fcc": crystal([29], torch.tensor([[0.3, -0.2, 0.1]], dtype=torch.float64), _FCC),
    "smaller than the cutoff": crystal([6, 8, 1], rattled(3, 1), _SMALL_CELL),
    "skewed": _skewed(5, 3, 6.0),
    "slab": _slab(),
    "wire": _skewed(4, 1, 4.5, (False, True, False)),
}


def repeated(data, numbers):
    """The supercell of k x l x m cells, its atoms cell by cell."""
    shifts = torch.tensor(list(itertools.product(*map(range, numbers))), dtype=data.pos.dtype) @ data.cell
    pos = (data.pos + shifts[:, None]).reshape(-1, 3)
    cell = data.cell * torch.tensor(numbers, dtype=data.pos.dtype)[:, None]
    return SimpleNamespace(z=data.z.repeat(len(shifts)), pos=pos, cell=cell, pbc=data.pbc, batch=None)


def joined(structures):
    """Structures as one batch, cells and pbc one for each."""
    sizes = torch.tensor([len(data.z) for data in structures])
    return SimpleNamespace(
        z=torch.cat([data.z for data in structures]),
        pos=torch.cat([data.pos for data in structures]),
        cell=torch.stack([data.cell for data in structures]),
        pbc=torch.stack([data.pbc for data in structures]),
        batch=torch.repeat_interleave(torch.arange(len(sizes)), sizes),
        num_graphs=len(sizes),
    )


def small_model(**hparams):
    """A float64 model in evaluation mode, its energies of order 1."""
    torch.manual_seed(0)
    widths = dict(
        num_layers=2, hidden_channels=8, int_emb_size=6, basis_emb_size_dist=3, basis_emb_size_angle=3,
        basis_emb_size_torsion=3, out_emb_channels=8, num_spherical=3, num_radial=3, num_output_layers=1,
    )  # fmt: skip
    return with_outputs(SphereNet(**{**widths, "cutoff": CUTOFF, **hparams})).double().eval()
