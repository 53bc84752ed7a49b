"""What SphereNet sees around one bond: distances, angles and torsions of the neighbors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..graph import Graph, edge_vectors, radius_graph
from ..nn.blocks import torsions
from ..ops import reference
from ..ops.reference._triplets import DELTA

if TYPE_CHECKING:
    from ase import Atoms

REACH = 1.3  # neighbors are shown up to this many times the length of the bond
FARTHEST = 20.0  # Å: no bond is longer


class Surroundings(NamedTuple):
    """The bond j -> i and the neighbors k of j, as `SphereNet` with this cutoff has them.

    Places are relative to j, in Å, in axes (along the bond, across, across) that are right-handed.
    """

    bond: tuple[int, int]  # j, i
    cutoff: float  # Å
    length: float  # Å, of the bond
    neighbors: list[int]  # [n] the atoms k; a periodic image counts as its atom
    place: np.ndarray  # [n, 3] of the neighbors
    distance: np.ndarray  # [n] Å
    theta: np.ndarray  # [n] radian, angle k-j-i
    phi: np.ndarray  # [n] radian in (0, 2 pi], torsion; nan where k is collinear with the bond
    next: list[int | None]  # [n] position in `neighbors` of the one that the torsion is measured to; None: nobody
    axes: np.ndarray  # [3, 3], one a row


def surroundings(atoms: Atoms, bond: tuple[int, int] | None = None, cutoff: float | None = None) -> Surroundings:
    """Distances, angles and torsions around a bond, computed by the functions that the model is made of.

    Args:
        atoms: a molecule or a periodic cell.
        bond: atoms j and i; None: the shortest between two atoms that are not hydrogen (between any, where there are no
            two such atoms), from the one with more neighbors. Of several images of i the nearest one.
        cutoff: Å; None: `REACH` times the length of the bond.

    Raises:
        ValueError: there is no such atom, no other atom, or the two are not closer than the cutoff or FARTHEST.
    """
    pos, cell, pbc = _tensors(atoms)
    if len(atoms) < 2 and cell is None:
        raise ValueError(f"structure: expected at least 2 atoms, got {len(atoms)}")
    if bond is not None:
        wrong = [atom for atom in bond if not 0 <= atom < len(atoms)]
        if wrong:
            raise ValueError(f"--bond: expected atoms 0 to {len(atoms) - 1}, got {wrong[0]}")
        if bond[0] == bond[1] and cell is None:
            raise ValueError(f"--bond: expected two different atoms, got {bond[0]} twice")
    length = _length(pos, cell, pbc, atoms.numbers, bond, cutoff)
    cutoff = REACH * length if cutoff is None else cutoff
    graph = radius_graph(pos, None, cutoff, cell, pbc)
    vec = edge_vectors(pos, graph, None, cell)
    edge = _edge(graph, vec, atoms.numbers, bond)
    if edge is None:
        name = "between two atoms" if bond is None else f"of atoms {bond[0]} and {bond[1]}, {length:.2f} Å long,"
        raise ValueError(f"--cutoff: expected more than the distance {name}, got {cutoff:g} Å")
    return _around(graph, vec, edge, cutoff)


def places_around(atoms: Atoms, seen: Surroundings, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """All atoms closer to j than `reach` (Å), in the axes of `seen`, j itself first.

    Returns atomic numbers [n] and places [n, 3].
    """
    pos, cell, pbc = _tensors(atoms)
    graph = radius_graph(pos, None, reach, cell, pbc)
    j = seen.bond[0]
    edges = slice(int(graph.in_ptr[j]), int(graph.in_ptr[j + 1]))
    places = -edge_vectors(pos, graph, None, cell)[edges].numpy() @ seen.axes.T
    return atoms.numbers[[j, *graph.edge_index[0, edges].tolist()]], np.concatenate([np.zeros((1, 3)), places])


def _tensors(atoms: Atoms) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """pos [N, 3] float64, and cell [3, 3], pbc [3] where anything is periodic."""
    pos = torch.from_numpy(np.array(atoms.positions, dtype=np.float64))
    if not atoms.pbc.any():
        return pos, None, None
    return pos, torch.from_numpy(np.array(atoms.cell, dtype=np.float64)), torch.from_numpy(np.array(atoms.pbc))


def _length(pos, cell, pbc, numbers, bond, cutoff) -> float:
    """Length of the bond in Å, found with a cutoff that grows until it is there. Raises ValueError at FARTHEST."""
    reach = 2.0 if cutoff is None else cutoff
    while True:
        graph = radius_graph(pos, None, reach, cell, pbc)
        vec = edge_vectors(pos, graph, None, cell)
        edge = _edge(graph, vec, numbers, bond)
        if edge is not None:
            return float(vec[edge].norm())
        if reach >= FARTHEST:
            found = "none" if bond is None else f"{bond[0]} and {bond[1]}, which are not"
            raise ValueError(f"--bond: expected two atoms less than {FARTHEST:g} Å apart, got {found}")
        reach = min(1.5 * reach, FARTHEST)


def _edge(graph: Graph, vec: torch.Tensor, numbers, bond: tuple[int, int] | None) -> int | None:
    """Number of the shortest edge of the bond, or None."""
    sender, receiver = graph.edge_index
    if bond is not None:
        fits = (sender == bond[0]) & (receiver == bond[1])
    else:
        heavy = torch.from_numpy(np.asarray(numbers) > 1)
        fits = heavy[sender] & heavy[receiver] if heavy.sum() > 1 else torch.ones_like(sender, dtype=torch.bool)
    if not fits.any():
        return None
    distance = torch.where(fits, vec.norm(dim=1), math.inf)
    shortest = (distance < distance.min() + 1e-6).nonzero()[:, 0]  # both directions, of equal length but for rounding
    return int(shortest[graph.in_ptr.diff()[sender[shortest]].argmax()])


def _around(graph: Graph, vec: torch.Tensor, edge: int, cutoff: float) -> Surroundings:
    sender, receiver = graph.edge_index
    j, i = int(sender[edge]), int(receiver[edge])
    direction = vec / vec.norm(dim=1, keepdim=True)
    chosen = torsions("paper", vec, vec.norm(dim=1), direction, cutoff, graph, reference)
    z, re, im = reference.triplet_geometry(direction, chosen, graph)
    first, last = int(graph.in_ptr[j]), int(graph.in_ptr[j + 1])
    out = graph.out_edge[graph.out_ptr[j] : graph.out_ptr[j + 1]]
    position = int((out == edge).nonzero())
    incoming = [q for q in range(first, last) if q != int(graph.rev[edge])]
    pairs = torch.tensor(
        [int(graph.triplet_ptr[j]) + (q - first) * len(out) + position for q in incoming], dtype=torch.long
    )
    of = {q - first: n for n, q in enumerate(incoming)}
    phi = torch.remainder(torch.atan2(im[pairs], re[pairs]), 2 * math.pi)
    phi = torch.where(phi < DELTA, phi + 2 * math.pi, phi)
    phi = torch.where(chosen[pairs] == -2, math.nan, phi)
    axes = _axes(direction[edge].numpy(), -vec[incoming].numpy())
    return Surroundings(
        (j, i), cutoff, float(vec[edge].norm()), sender[incoming].tolist(), -vec[incoming].numpy() @ axes.T,
        vec[incoming].norm(dim=1).numpy(), torch.acos(z[pairs].clamp(-1, 1)).numpy(), phi.numpy(),
        [of.get(int(slot)) if slot >= 0 else None for slot in chosen[pairs]], axes,
    )  # fmt: skip


def _axes(along: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Right-handed axes [3, 3], one a row: along the bond, then the direction across it where most neighbors lie."""
    across = places - np.outer(places @ along, along)
    spread = np.linalg.eigh(across.T @ across)[1][:, -1] if len(places) else np.zeros(3)
    second = spread - (spread @ along) * along
    if np.linalg.norm(second) < 1e-3 or not len(places) or np.abs(across).max() < 1e-3:
        second = np.cross(along, np.eye(3)[np.abs(along).argmin()])
    second /= np.linalg.norm(second)
    return np.stack([along, second, np.cross(along, second)])
