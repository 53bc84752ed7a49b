"""Searches for neighbors: which atoms lie within the cutoff of each other, and through which periodic image.

The public functions return both directions of every pair as int64 tensors, sorted by receiver, then sender, then
shift, such that

    vec = pos[receiver] - pos[sender] + shift @ cell,    |vec| < cutoff.

Positions and cells come in as float64: the set of neighbors must not depend on how the model rounds. Nothing is
truncated, and nothing larger than the list itself grows faster than the number of atoms.
"""

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor

from . import cell_lists

Shift = TypeVar("Shift", Tensor, None)  # of a list of edges: [E,3], or None in open systems

COINCIDENT = 1e-6  # Å; atoms closer than this have no direction between them
LARGE = 500  # atoms; from here on a cell list is faster than all distances of a molecule
LARGE_ON_GPU = 2**15  # atoms; up to here the kernels take all distances of a molecule
BLOCK_ENTRIES = 2**20  # distances held at once (8 MB)
MAX_CELLS_AWAY = 2**31  # cells between an atom and the origin; beyond, float64 no longer resolves positions
MOST_EDGES = 1e9  # of a structure that repeats, estimated from its density; their arrays alone take 50 GB
FLAT = 1e-6  # volume of a cell over the product of its edges; below, its vectors are linearly dependent


def open_pairs(pos: Tensor, atom_ptr: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Neighbors in molecules without periodic images.

    Args:
        pos: [N,3] float64, Å.
        atom_ptr: [B+1] int64; molecule b owns the atoms atom_ptr[b]:atom_ptr[b+1].
        cutoff: Å.

    Returns:
        receiver [E], sender [E].

    Raises:
        ValueError: two atoms of one molecule are at the same place.
    """
    size, start = atom_ptr.diff(), atom_ptr[:-1]
    sizes = size.tolist()
    blocks = _blocks([count if count <= LARGE else 0 for count in sizes])
    found = [_block_pairs(pos, start[block], size[block], cutoff) for block in blocks]
    large = [molecule for molecule, count in enumerate(sizes) if count > LARGE]
    if large:
        cell = torch.eye(3, dtype=pos.dtype, device=pos.device).expand(len(large), 3, 3)
        pbc = torch.zeros(len(large), 3, dtype=torch.bool, device=pos.device)
        first, second, _ = _half_list(pos, atom_ptr, large, cell, pbc, cutoff)
        found.append((torch.cat([first, second]), torch.cat([second, first])))
    if len(found) == 1 and not large:
        return found[0]
    if not found:
        return atom_ptr.new_empty(0), atom_ptr.new_empty(0)
    receiver, sender = (torch.cat(column) for column in zip(*found))
    return sorted_edges(receiver, sender, None)[:2]


def periodic_pairs(
    pos: Tensor, atom_ptr: Tensor, cell: Tensor, pbc: Tensor, cutoff: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbors in structures that repeat along some or all of their cell vectors.

    Atoms may lie anywhere, in the cell or not: `shift` belongs to the positions as given. Cells may be smaller than
    the cutoff: a pair then has one edge per image, and an atom is a neighbor of its own images. Cell vectors along
    open directions are ignored; they may be zero.

    Args:
        pos: [N,3] float64, Å.
        atom_ptr: [B+1] int64; structure b owns the atoms atom_ptr[b]:atom_ptr[b+1].
        cell: [B,3,3] float64, Å, one vector per row.
        pbc: [B,3] bool, the directions that repeat.
        cutoff: Å.

    Returns:
        receiver [E], sender [E], shift [E,3].

    Raises:
        ValueError: two atoms are at the same place, the periodic vectors of a cell are linearly dependent, or an
            atom is MAX_CELLS_AWAY or more cells away from the origin.
    """
    cell = _complete_cell(cell, pbc)
    structure = torch.repeat_interleave(torch.arange(len(cell), device=pos.device), atom_ptr.diff())
    away = torch.einsum("na,nab->nb", pos, torch.linalg.inv(cell)[structure]).floor()
    away = away.masked_fill_(~pbc[structure], 0)  # [N,3] cells between each atom and the cell at the origin
    if away.numel() and away.abs().max() >= MAX_CELLS_AWAY:
        atom = int(away.abs().amax(1).argmax())
        raise ValueError(
            f"pos: expected atoms within {MAX_CELLS_AWAY} cells of the origin, got atom {atom} at {pos[atom].tolist()}"
        )
    wrapped = pos - torch.einsum("na,nab->nb", away, cell[structure])
    _check_density(atom_ptr, cell, cutoff)
    first, second, shift = _half_list(wrapped, atom_ptr, range(len(cell)), cell, pbc, cutoff)
    receiver, sender, shift = sorted_edges(
        torch.cat([second, first]), torch.cat([first, second]), torch.cat([shift, -shift])
    )
    if away.any():  # back to the given positions; moves all images of a pair alike, which leaves them sorted
        away = away.long()
        shift = shift + away[sender] - away[receiver]
    return receiver, sender, shift


def _check_density(atom_ptr: Tensor, cell: Tensor, cutoff: float) -> None:
    """ValueError for a structure whose cell [B,3,3] is so small that its edges would fill the memory."""
    atoms = atom_ptr.diff().double()
    edges = atoms.square() * (4 / 3 * torch.pi * cutoff**3) / torch.linalg.det(cell).abs()
    if len(edges) and edges.max() > MOST_EDGES:
        structure = int(edges.argmax())
        raise ValueError(
            f"cell: expected at most {MOST_EDGES:g} edges within the cutoff of {cutoff:g} Å, got about "
            f"{edges[structure].item():.0e} in structure {structure}, {int(atoms[structure])} atoms in "
            f"{cell[structure].tolist()}"
        )


def nearest(receiver: Tensor, distance: Tensor, in_ptr: Tensor, count: int) -> Tensor:
    """Mask [E] of the `count` nearest edges of every receiver; of equal distances the first edge wins.

    Args:
        receiver: [E] int64, sorted.
        distance: [E].
        in_ptr: [N+1] int64; receiver n owns the edges in_ptr[n]:in_ptr[n+1].
    """
    order = torch.argsort(distance, stable=True)
    order = order[torch.argsort(receiver[order], stable=True)]
    rank = torch.arange(len(order), device=order.device) - in_ptr[receiver[order]]
    keep = torch.empty_like(order, dtype=torch.bool)
    keep[order] = rank < count
    return keep


def sorted_edges(receiver: Tensor, sender: Tensor, shift: Shift) -> tuple[Tensor, Tensor, Shift]:
    """Sort edges by receiver, then sender, then shift: [E], [E], [E,3] or None.

    Sorting bare numbers is several times faster than sorting with a permutation, so an edge is packed into the bits
    of one int64 and unpacked again; edges that do not fit are sorted column by column.
    """
    if len(receiver) == 0:
        return receiver, sender, shift
    columns = [receiver, sender] + ([] if shift is None else list(shift.unbind(1)))
    ranges = [(int(low), int(high)) for low, high in map(torch.aminmax, columns)]
    widths = [(high - low).bit_length() for low, high in ranges]
    if sum(widths) < 64:
        key = torch.zeros_like(receiver)
        for column, (low, _), width in zip(columns, ranges, widths):
            key = (key << width) | (column - low)
        key = _sort(key)
        for k in reversed(range(len(columns))):
            columns[k] = (key & (2 ** widths[k] - 1)) + ranges[k][0]
            key = key >> widths[k]
    else:
        order = torch.arange(len(receiver), device=receiver.device)
        for column in reversed(columns):
            order = order[torch.argsort(column[order], stable=True)]
        columns = [column[order] for column in columns]
    return columns[0], columns[1], None if shift is None else torch.stack(columns[2:], 1)


def _sort(key: Tensor) -> Tensor:
    if key.is_cpu:
        key.numpy().sort()  # NumPy's vectorized sort of plain integers, several times faster than torch.sort
        return key
    return torch.sort(key).values


def _blocks(sizes: list[int]) -> list[list[int]]:
    """Group molecules so that the padded distances of a group stay below BLOCK_ENTRIES; molecules of size 0 drop out.

    All in one group, in their own order, where they fit; else from the largest down, so that little is padded.
    """
    molecules = [molecule for molecule, size in enumerate(sizes) if size]
    if not molecules:
        return []
    if len(molecules) * max(sizes) ** 2 <= BLOCK_ENTRIES:
        return [molecules]
    molecules.sort(key=lambda molecule: -sizes[molecule])
    blocks: list[list[int]] = [[]]
    for molecule in molecules:
        if blocks[-1] and (len(blocks[-1]) + 1) * sizes[blocks[-1][0]] ** 2 > BLOCK_ENTRIES:
            blocks.append([])
        blocks[-1].append(molecule)
    return blocks


def _block_pairs(pos: Tensor, start: Tensor, size: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """All pairs of the molecules start[m]:start[m]+size[m] ([M] each) from their padded [M,n,n] distances."""
    local = torch.arange(int(size.max()), device=pos.device)
    atom = (start[:, None] + local).clamp_(max=len(pos) - 1)  # [M,n]
    block = pos[atom].masked_fill_((local >= size[:, None])[..., None], torch.nan)  # NaN is never near
    distance = _distances(block)
    same = distance < COINCIDENT
    if int(same.sum()) > int(size.sum()):  # more than every atom with itself
        molecule, one, other = same.triu(1).nonzero()[0].tolist()
        _same_place(atom[molecule, one], atom[molecule, other], distance[molecule, one, other])
    molecule, receiver, sender = ((distance < cutoff) & ~same).nonzero(as_tuple=True)
    start = start[molecule]
    return start + receiver, start + sender


def _distances(block: Tensor) -> Tensor:
    """All distances [M,n,n] within blocks [M,n,3], rounded operation by operation as the kernels do: the same bits."""
    x, y, z = (column[:, :, None] - column[:, None] for column in block.unbind(-1))
    return x.square_().add_(y.square_()).add_(z.square_()).sqrt_()


def _half_list(
    pos: Tensor, atom_ptr: Tensor, structures: Iterable[int], cell: Tensor, pbc: Tensor, cutoff: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Every pair once, unsorted: first [H], second [H], shift [H,3]; vec = pos[second] - pos[first] + shift @ cell.

    structures: S numbers into atom_ptr [B+1]; cell [S,3,3], pbc [S,3] are theirs. Searching once and mirroring makes
    the list symmetric whatever the rounding.
    """
    bounds = atom_ptr.tolist()
    bounds = [(bounds[structure], bounds[structure + 1]) for structure in structures]
    first, second, shift, distance = cell_lists.search(pos, bounds, cell, pbc, cutoff)
    if len(distance) and distance.min() < COINCIDENT:
        pair = distance.argmin()
        _same_place(first[pair], second[pair], distance[pair])
    return first, second, shift


def is_flat(cell: Tensor) -> Tensor:
    """Whether the vectors of cells [B,3,3] span no volume, or are not finite: [B] bool."""
    return ~(torch.linalg.det(cell).abs() > FLAT * cell.norm(dim=2).prod(1))


def complete_cell(cell: Tensor, pbc: Tensor) -> Tensor:
    """Cells [B,3,3] whose open directions (pbc [B,3] False) are unit vectors across the periodic ones."""
    complete = torch.where(pbc.any(1)[:, None, None], cell, torch.eye(3, dtype=cell.dtype, device=cell.device))
    for structure in ((~pbc).any(1) & pbc.any(1)).nonzero()[:, 0].tolist():
        repeats = pbc[structure]
        across = torch.linalg.svd(cell[structure][repeats], full_matrices=True).Vh[int(repeats.sum()) :]
        complete[structure, ~repeats] = across
    return complete


def _complete_cell(cell: Tensor, pbc: Tensor) -> Tensor:
    """`complete_cell`; ValueError for a structure whose periodic directions are linearly dependent."""
    complete = complete_cell(cell, pbc)
    flat = is_flat(complete)
    if flat.any():
        structure = int(flat.nonzero()[0])
        raise ValueError(
            f"cell: expected linearly independent vectors along the periodic directions, got zero volume in structure "
            f"{structure}: {cell[structure].tolist()} with pbc {pbc[structure].tolist()}"
        )
    return complete


def _same_place(first: Tensor, second: Tensor, distance: Tensor) -> None:
    raise ValueError(
        f"pos: expected atoms at least {COINCIDENT:g} Å apart, got atoms {int(first)} and {int(second)} at the same "
        f"place (distance {float(distance):.1e} Å)"
    )
