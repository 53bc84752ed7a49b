"""PyTorch Geometric's QM9 and MD17, by name."""

from pathlib import Path

import torch

from ..centering import centered
from ..molecules import Molecules
from ..reading import ReadOptions, as_stated
from ..targets import QM9_TARGETS
from .npz import read_npz

# The order of the columns of PyTorch Geometric's QM9, which converts all energies to eV.
_QM9_COLUMNS = "mu alpha homo lumo gap r2 zpve U0 U H G Cv U0_atom U_atom H_atom G_atom A B C".split()


def holds(source: str) -> bool:
    return source.startswith("pyg:")


def read_source(source: str, options: ReadOptions) -> Molecules:
    """The data set after the colon. Raises ValueError without a folder for it, or as `read_pyg`."""
    if options.root is None:
        raise ValueError(f"data.root: expected the folder of PyTorch Geometric's data sets for {source!r}, got none")
    root = Path(options.root).expanduser()
    return as_stated(read_pyg(source.removeprefix("pyg:"), root, options.dtype), options)


def read_pyg(name: str, root, dtype: torch.dtype = torch.float32) -> Molecules:
    """Load ``"QM9"`` or ``"MD17/<molecule>"`` (names as in ``torch_geometric.datasets.MD17``).

    A data set that is not under `root` is downloaded by PyTorch Geometric. It keeps QM9's labels in float32, which
    rounds total energies (U0, U, H, G) to about 1 meV; MD17's frames are read from the raw files in full precision.

    Raises:
        ValueError: the name is unknown, or PyTorch Geometric is not installed.
        FileNotFoundError: the data set is not under `root` and cannot be downloaded.
    """
    try:
        from torch_geometric.datasets import MD17, QM9
    except ModuleNotFoundError as error:
        raise ValueError(f"data.source: expected PyTorch Geometric installed for 'pyg:{name}' ({error})") from error

    kind, _, molecule = name.partition("/")
    if kind == "QM9" and not molecule:
        return _qm9(_open(QM9, name, root), dtype)
    if kind == "MD17" and molecule in MD17.file_names:
        return _md17(molecule, name, root, dtype)
    known = ", ".join(f"MD17/{molecule}" for molecule in MD17.file_names)
    raise ValueError(f"data.source: expected pyg:QM9 or pyg:MD17/<molecule> ({known}), got 'pyg:{name}'")


def _open(cls, name, root, *args, **options):
    try:
        return cls(str(root), *args, **options)
    except OSError as error:  # urllib's and the file system's errors alike
        raise FileNotFoundError(
            f"data.root: the data set {name} is not under {root} and could not be downloaded ({error})"
        ) from error


def _qm9(dataset, dtype) -> Molecules:
    data, slices = dataset._data, dataset.slices
    units = [QM9_TARGETS[name].unit for name in _QM9_COLUMNS]
    return Molecules(
        n_atoms=slices["z"].diff(),
        z=data.z,
        pos=centered(data.pos, slices["z"].diff(), None, None, dtype),
        y=data.y.double(),
        names=tuple(_QM9_COLUMNS),
        units=tuple("eV" if unit in ("Hartree", "kcal/mol") else unit for unit in units),
    )


def _md17(molecule, name, root, dtype) -> Molecules:
    from torch_geometric.datasets import MD17

    class RawMD17(MD17):
        """Downloads only: processing would build one object per frame and round the energies to float32."""

        def process(self):
            pass

        def load(self, path):
            pass

    coupled_cluster = "CCSD" in molecule
    dataset = _open(RawMD17, name, root, molecule, train=True if coupled_cluster else None)
    parts = [read_npz(Path(path), dtype=dtype) for path in dataset.raw_paths]
    if len(parts) == 1:
        return parts[0]
    train, test = parts
    return Molecules(
        *(torch.cat([getattr(train, field), getattr(test, field)]) for field in ("n_atoms", "z", "pos", "y")),
        names=train.names,
        units=train.units,
        forces=torch.cat([train.forces, test.forces]),
        test=torch.arange(len(train), len(train) + len(test)),
    )
