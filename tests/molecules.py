"""Structures for the tests: rattled molecules, and exact ones whose atoms lie on lines and in planes."""

import math
from types import SimpleNamespace

import numpy as np
import torch

from spherenet_fast.graph import build_graph
from spherenet_fast.nn.blocks import Dense


def rattled(num_atoms, seed, spread=1.5):
    """Atoms at least 0.9 apart, none on a line with two others: pos [N, 3]."""
    generator = np.random.default_rng(seed)
    pos = [generator.normal(size=3)]
    while len(pos) < num_atoms:
        candidate = generator.normal(size=3) * spread
        if min(np.linalg.norm(candidate - other) for other in pos) > 0.9:
            pos.append(candidate)
    return torch.from_numpy(np.array(pos))


def complete_graph(num_atoms):
    """Edges both ways between all atoms."""
    receiver, sender = torch.where(~torch.eye(num_atoms, dtype=torch.bool))
    return build_graph(torch.stack([sender, receiver]), num_atoms)


def rotation(seed):
    """A random proper rotation [3, 3]."""
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return torch.from_numpy(matrix * np.sign(np.linalg.det(matrix)))


def as_data(z, pos, batch=None, **more):
    """What a model takes."""
    return SimpleNamespace(z=z, pos=pos, batch=batch, **more)


def in_dtype(data, dtype):
    """The same data with positions and cell in another dtype."""
    floating = {name: value.to(dtype) for name, value in vars(data).items() if name in ("pos", "cell")}
    return SimpleNamespace(**{**vars(data), **floating})


def rattled_batch(sizes=(6, 9, 4), seed=0):
    """Rattled molecules of H, C, N and O as a batch."""
    generator = torch.Generator().manual_seed(seed)
    pos = torch.cat([rattled(size, seed + number) for number, size in enumerate(sizes)])
    z = torch.tensor([1, 6, 7, 8])[torch.randint(4, (len(pos),), generator=generator)]
    return as_data(z, pos, torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)))


def labeled_batch(sizes, seed=2):
    """A rattled batch with random targets y [B, 1] and forces [N, 3]."""
    data = rattled_batch(sizes, seed)
    y, forces = torch.randn(len(sizes), 1).double(), torch.randn(len(data.z), 3).double()
    return as_data(**vars(data), num_graphs=len(sizes), y=y, forces=forces)


def moved(data, device, dtype=torch.float64):
    """The same data on a device, what is floating-point in a dtype."""

    def move(value):
        return value.to(device, dtype if value.is_floating_point() else None)

    return SimpleNamespace(**{k: move(v) if isinstance(v, torch.Tensor) else v for k, v in vars(data).items()})


# ------------------------------------------------------------------------------------------------ exact geometries
# Bond lengths in Å and angles in degrees, near the experimental ones; the symmetry is what matters.


def _polar(length, angle, azimuth=0.0):
    """A point at an angle from the x axis, turned about it by the azimuth."""
    angle, azimuth = math.radians(angle), math.radians(azimuth)
    across = length * math.sin(angle)
    return np.array([length * math.cos(angle), across * math.cos(azimuth), across * math.sin(azimuth)])


def _chain(length, bond, angle, azimuths, far_azimuths):
    """Two atoms on the x axis and the hydrogens of each, whose bonds make `angle` with the axis bond."""
    origin, far = np.zeros(3), np.array([length, 0, 0])
    near_side = [_polar(bond, angle, azimuth) for azimuth in azimuths]
    far_side = [far + _polar(bond, 180 - angle, azimuth) for azimuth in far_azimuths]
    return [origin, far, *near_side, *far_side]


def _on_a_line(*bonds):
    return [np.array([x, 0.0, 0.0]) for x in np.cumsum([0.0, *bonds])]


def _benzene():
    return [
        r * np.array([math.cos(k * math.pi / 3), math.sin(k * math.pi / 3), 0]) for r in (1.39, 2.48) for k in range(6)
    ]


def _methane():
    corners = [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]
    return [np.zeros(3), *(1.087 / math.sqrt(3) * np.array(corner) for corner in corners)]


_EXACT = {
    "benzene": ([6] * 6 + [1] * 6, _benzene()),
    "ethylene": ([6, 6] + [1] * 4, _chain(1.339, 1.087, 121.3, (0, 180), (0, 180))),
    "carbon dioxide": ([8, 6, 8], _on_a_line(1.162, 1.162)),
    "hydrogen cyanide": ([1, 6, 7], _on_a_line(1.066, 1.153)),
    "acetylene": ([1, 6, 6, 1], _on_a_line(1.061, 1.203, 1.061)),
    "methane": ([6] + [1] * 4, _methane()),
    "staggered ethane": ([6, 6] + [1] * 6, _chain(1.535, 1.094, 111.2, (0, 120, 240), (60, 180, 300))),
    "eclipsed ethane": ([6, 6] + [1] * 6, _chain(1.535, 1.094, 111.2, (0, 120, 240), (0, 120, 240))),
    "formaldehyde": ([6, 8, 1, 1], _chain(1.205, 1.111, 121.9, (0, 180), ())),
    "hydrogen peroxide": ([8, 8, 1, 1], _chain(1.475, 0.950, 94.8, (0,), (119.8,))),
    "water": ([8, 1, 1], [np.zeros(3), _polar(0.958, 0), _polar(0.958, 104.5)]),
}
EXACT = {name: (torch.tensor(z), torch.from_numpy(np.array(pos))) for name, (z, pos) in _EXACT.items()}

OCTAHEDRON = torch.tensor(
    [[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64
)
MOLECULES = {
    "rattled": rattled(7, 0),
    "octahedron": OCTAHEDRON,
    "bent": torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.3, 1.1, 0]], dtype=torch.float64),
    "pair": torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=torch.float64),
    "benzene": EXACT["benzene"][1],
    "linear": EXACT["acetylene"][1],
}

# A model with all seven degrees of the default basis that is otherwise small.
SMALL = dict(
    num_layers=2, hidden_channels=16, int_emb_size=12, basis_emb_size_dist=4, basis_emb_size_angle=5,
    basis_emb_size_torsion=6, out_emb_channels=16, num_output_layers=2,
)  # fmt: skip


def with_outputs(model):
    """The model with random weights in the layers that start at 0: of a prediction of 0 nothing can be compared."""
    for module in model.modules():
        if isinstance(module, Dense) and not module.weight.any():
            module.reset_parameters()
    return model


def around_one_edge(azimuths, across=1.0, seed=0):
    """Neighbors of atom 0, in edges 0 to M - 1, at given azimuths [M] about the one edge out of it, number M.

    across: [M] or one for all, how far they are from the line of that edge; along it they are 1 forward or back.
    Returns vec [M + 1, 3] float64 in a random orientation, graph.
    """
    azimuths = torch.as_tensor(azimuths, dtype=torch.float64)
    across = torch.as_tensor(across, dtype=torch.float64).expand(len(azimuths))
    along = 1 - 2 * (torch.arange(len(azimuths)) % 2).double()
    outward = torch.stack([across * azimuths.cos(), across * azimuths.sin(), along], dim=1)
    vec = torch.cat([-outward, torch.tensor([[0.0, 0, 1]], dtype=torch.float64)]) @ rotation(seed)
    edges = [(k + 1, 0) for k in range(len(azimuths))] + [(0, len(azimuths) + 1)]
    return vec, build_graph(torch.tensor(edges).T, len(azimuths) + 2)
