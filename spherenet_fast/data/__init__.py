"""Data: readers, packed molecules, splits and loaders."""

from .checks import check_frames
from .formats.ase_files import from_atoms, read_ase, read_structures
from .formats.lmdb import read_lmdb
from .formats.npz import read_npz
from .loader import EvenBatches, ShuffledBatches, evaluation_loader, training_loader
from .molecules import Batch, Molecules
from .reading import ReadOptions
from .sources import SAMPLES, read_molecules, sample_path
from .splits import Split, hold_out, random_split, read_split
from .streams.molecules import StreamedMolecules
from .targets import QM9_TARGETS, canonical_target, is_extensive, is_total_energy
from .units import UNITS, conversion, is_energy

__all__ = [
    "Batch",
    "EvenBatches",
    "Molecules",
    "QM9_TARGETS",
    "ReadOptions",
    "SAMPLES",
    "ShuffledBatches",
    "Split",
    "StreamedMolecules",
    "UNITS",
    "canonical_target",
    "check_frames",
    "conversion",
    "evaluation_loader",
    "from_atoms",
    "hold_out",
    "is_energy",
    "is_extensive",
    "is_total_energy",
    "random_split",
    "read_ase",
    "read_lmdb",
    "read_molecules",
    "read_npz",
    "read_split",
    "read_structures",
    "sample_path",
    "training_loader",
]
