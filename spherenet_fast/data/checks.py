"""One look at a whole data set before it is used: frames that no model can take, labels that are missing."""

import numpy as np

from ..graph.periodic import COINCIDENT, FLAT
from .molecules import Molecules


def check_labels(molecules: Molecules, targets, forces: bool, missing: str = "skip", stress: bool = False) -> None:
    """Print what was chosen in reading `molecules` and how many lack a label of `targets`, forces or stress.

    Raises:
        ValueError: one lacks a label and `missing` is "error".
    """
    for note in molecules.notes:
        print(note)
    for name, which in molecules.missing(targets, forces, stress).items():
        first = molecules.name(int(which[0]))
        if missing == "error":
            raise ValueError(f"data.missing: expected a label {name!r} in every molecule, got none in {first}")
        print(f"{name}: {len(which)} of {len(molecules)} molecules have no label and do not count ({first}, ...)")


def check_volumes(molecules: Molecules) -> None:
    """Raise ValueError that names the first molecule without a cell that repeats and has a volume: it has no stress."""
    if len(wrong := molecules.without_volume()):
        name = molecules.name(int(wrong[0]))
        raise ValueError(
            f"{name}: expected a cell with a volume that repeats, as loss.stress_weight is not 0, got none"
        )


def check_parts(molecules: Molecules, val, test, forces: bool) -> None:
    """Raise ValueError if no validation molecule has some label; where no test molecule has it, say so.

    val, test: [.] numbers of molecules.
    """
    for label, which in molecules.missing(molecules.names, forces).items():
        if len(val) and np.isin(val.numpy(), which.numpy()).all():
            raise ValueError(f"data.val: expected validation molecules with a label {label!r}, got none")
        if len(test) and np.isin(test.numpy(), which.numpy()).all():
            print(f"{label}: no test molecule has a label")


def check_frames(molecules: Molecules) -> None:
    """Raise ValueError that names the first frame with two atoms at one place, or with a flat or infinite cell.

    The cell counts along the directions that repeat. Takes time in proportion to N log N.
    """
    if len(molecules) == 0:
        return
    frame = np.repeat(np.arange(len(molecules)), molecules.n_atoms.numpy())
    pos = molecules.pos.double().numpy()
    if molecules.cell is not None:
        pos = _wrapped(molecules, pos, frame)
    found = _coincident(pos, frame)
    if found is not None:
        number = int(frame[found[0]])
        first, second = sorted(int(atom) - int(molecules.offset[number]) for atom in found)
        raise ValueError(
            f"{molecules.name(number)}: pos: expected atoms at least {COINCIDENT:g} Å apart, got atoms {first} and "
            f"{second} at the same place"
        )


def _wrapped(molecules: Molecules, pos: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """pos [N, 3] moved by whole periodic vectors into one cell; ValueError for a flat cell."""
    cell, pbc = molecules.cell.double().numpy(), molecules.pbc.numpy()
    periodic = np.where(pbc[:, :, None], cell, 0.0)
    number = pbc.sum(1)
    length = np.linalg.norm(periodic, axis=2)
    # The volume that the periodic vectors span: of their Gram matrix, with ones for the open directions.
    gram = periodic @ periodic.transpose(0, 2, 1) + np.where(pbc, 0.0, 1.0)[:, :, None] * np.eye(3)
    volume = np.sqrt(np.maximum(np.linalg.det(gram), 0.0))
    flat = ~(volume > FLAT * np.where(pbc, length, 1.0).prod(1)) & (number > 0)
    if flat.any():
        first = int(flat.argmax())
        raise ValueError(
            f"{molecules.name(first)}: cell: expected linearly independent vectors along the periodic directions, got "
            f"{cell[first].tolist()} with pbc {pbc[first].tolist()}"
        )
    inverse = np.linalg.pinv(periodic[number > 0])
    whole = np.zeros_like(pos)
    inside = (number > 0)[frame]
    row = np.cumsum(number > 0) - 1
    # Cells begin at an odd fraction, where no structure of symmetry has atoms: 0 and 1 - 1e-9 are one place.
    fraction = np.einsum("na,nab->nb", pos[inside], inverse[row[frame[inside]]])
    whole[inside] = np.einsum("na,nab->nb", np.floor(fraction + 0.381966), periodic[frame[inside]])
    return pos - whole


def _coincident(pos: np.ndarray, frame: np.ndarray) -> tuple[int, int] | None:
    """The first two atoms of one frame closer than COINCIDENT: close along a skew line, then everywhere."""
    along = pos @ np.array([0.53, 0.61, 0.57])  # shorter than 1: no two atoms are closer than along it
    order = np.lexsort((along, frame))
    step = 1
    while step < len(order):
        one, other = order[:-step], order[step:]
        near = np.flatnonzero((frame[one] == frame[other]) & (along[other] - along[one] < COINCIDENT))
        if len(near) == 0:
            return None
        one, other = one[near], other[near]
        same = np.linalg.norm(pos[one] - pos[other], axis=1) < COINCIDENT
        if same.any():
            pair = int(np.flatnonzero(same)[np.argmin(np.minimum(one, other)[same])])
            return int(one[pair]), int(other[pair])
        step += 1
    return None
