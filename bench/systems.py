"""The systems that are measured: drawn with fixed seeds, from data in this repository or from nothing.

For periodic ones on a GPU also their neighbors, with nothing but torch.
"""

import math
from pathlib import Path

import numpy as np
import torch

from spherenet_fast.data import Batch, read_molecules
from spherenet_fast.graph import Graph, build_graph

CUTOFF = 5.0  # Å, SphereNet's default
LIQUID_DENSITY = 0.0925  # atoms/Å^3, liquid ethanol at room temperature
LIQUID_SPACING = 1.4  # Å, the least distance between two atoms of the liquid
PLACED_ATOMS = 6400  # a larger cube is eight smaller ones
CHUNK = 2**24  # distances at once


def qm9(num_molecules: int) -> Batch:
    """A draw of the shipped sample, which is spread evenly over QM9 and so has its distribution of sizes.

    With this seed, 32 molecules are as 32 molecules are on average: 583 atoms, 9,162 edges and 140,448 triplets, where
    the sample has 582, 9,193 and 141,843.
    """
    molecules = read_molecules("qm9")
    return molecules[torch.randperm(len(molecules), generator=torch.Generator().manual_seed(7))[:num_molecules]]


def ethanol(num_frames: int) -> Batch:
    return read_molecules("ethanol")[:num_frames]


def aspirin(num_frames: int) -> Batch:
    return read_molecules(Path(__file__).with_name("data") / "aspirin.npz")[:num_frames]


def liquid(num_atoms: int) -> Batch:
    """H, C, N and O at the density of a liquid: placed at random in a periodic cube, none closer than LIQUID_SPACING.

    Periodic, so that an atom has as many neighbors in a large cube as in a small one.
    """
    if num_atoms > PLACED_ATOMS:
        part = liquid(num_atoms // 8)
        side = part.cell[0, 0, 0]
        corners = side * torch.cartesian_prod(*[torch.arange(2.0)] * 3)
        pos = (part.pos[None] + corners[:, None]).reshape(-1, 3)
        return _crystal(part.z.repeat(8), pos, 2 * part.cell, (True, True, True))
    generator = np.random.default_rng(num_atoms)
    side = (num_atoms / LIQUID_DENSITY) ** (1 / 3)
    pos = np.empty((num_atoms, 3))
    placed = 0
    while placed < num_atoms:
        candidate = generator.random(3) * side
        offset = pos[:placed] - candidate
        offset -= side * np.round(offset / side)
        if (offset**2).sum(1).min(initial=np.inf) >= LIQUID_SPACING**2:
            pos[placed] = candidate
            placed += 1
    z = generator.choice([1, 6, 7, 8], size=num_atoms, p=[0.6, 0.2, 0.1, 0.1])
    return _crystal(torch.from_numpy(z), torch.from_numpy(pos).float(), side * torch.eye(3)[None], (True, True, True))


def droplet(num_atoms: int) -> Batch:
    """The atoms of the cube of `liquid`, in free space, for models without periodic systems."""
    data = liquid(num_atoms)
    return Batch(data.z, data.pos, data.batch, 1)


def slab(num_atoms: int) -> Batch:
    """A molecule of CH4 on copper: six by six atoms, five layers of the (111) surface, rattled by 0.1 Å."""
    if num_atoms != 185:
        raise ValueError(f"num_atoms: expected 185, got {num_atoms}")
    apart = 3.615 / math.sqrt(2)
    a, b = apart * np.array([1, 0, 0]), apart * np.array([0.5, math.sqrt(3) / 2, 0])
    up = np.array([0, 0, 3.615 / math.sqrt(3)])
    copper = [i * a + j * b + layer * ((a + b) / 3 + up) for layer in range(5) for i in range(6) for j in range(6)]
    tetrahedron = 1.09 / math.sqrt(3) * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    carbon = copper[-15] + np.array([0, 0, 3.0])
    pos = np.array([*copper, carbon, *(carbon + tetrahedron)])
    pos += np.random.default_rng(0).normal(scale=0.1, size=pos.shape)
    cell = torch.tensor(np.array([[*(6 * a)], [*(6 * b)], [0, 0, 30.0]])).float()[None]
    z = torch.tensor([29] * len(copper) + [6, 1, 1, 1, 1])
    return _crystal(z, torch.from_numpy(pos).float(), cell, (True, True, False))


def _crystal(z, pos, cell, pbc) -> Batch:
    return Batch(z, pos, torch.zeros(len(z), dtype=torch.int64), 1, cell=cell, pbc=torch.tensor([pbc]))


def graph_by_images(data: Batch, cutoff: float) -> Graph:
    """`radius_graph` of one structure, where its positions are, by all distances to the nearest images of its cell.

    The cell has to be wider than the cutoff in all periodic directions, with its atoms inside or close to it.
    """
    pos, cell = data.pos.double(), data.cell[0].double()
    steps = [torch.arange(-1, 2) if repeats else torch.arange(1) for repeats in data.pbc[0].tolist()]
    shift = torch.cartesian_prod(*steps).to(pos.device)
    moved = shift.double() @ cell  # [S, 3]
    rows = max(1, CHUNK // (len(pos) * len(shift)))
    edges = []
    for first in range(0, len(pos), rows):
        # vec = pos[receiver] - pos[sender] + moved, in the order receiver, sender, shift
        vec = pos[first : first + rows, None, None] - pos[None, :, None] + moved
        length = vec.square().sum(-1)
        receiver, sender, image = ((length < cutoff**2) & (length > 1e-12)).nonzero(as_tuple=True)
        edges.append(torch.stack([sender, receiver + first, image]))
    sender, receiver, image = torch.cat(edges, 1)
    return build_graph(torch.stack([sender, receiver]), len(pos), shift[image])
