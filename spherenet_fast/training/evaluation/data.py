"""Which molecules a trained potential is evaluated on."""

from pathlib import Path

import torch
from torch import Tensor

from ...data import Molecules, StreamedMolecules, read_molecules, read_split
from ...data.checks import check_frames, check_labels, check_volumes
from ..config.files import config_from_dict
from ..config.paths import moved_paths
from ..potential import Potential
from ..prepare import prepare_split

PARTS = ("test", "val", "train", "all")


def evaluation_data(
    potential: Potential,
    data=None,
    split=None,
    part: str = "test",
    *,
    file_units: dict[str, str] | None = None,
    keys: dict[str, str] | None = None,
    run=None,
) -> tuple[Molecules | StreamedMolecules, Tensor]:
    """Molecules with the potential's targets and units, and the indices to evaluate.

    Args:
        potential: as loaded.
        data: a source for `read_molecules`; None: that of the training run.
        split: a split file; None: the split of the training run, or all molecules where `data` is given.
        part: "test", "val", "train" or "all".
        file_units: of `data`, as for `read_molecules`; the training run's own data has the units of its config.
        keys: {target or "forces": its name in the data}; None: those of the training run.
        run: folder of the training run, beside which data is looked for that is not where it was.

    Raises:
        FileNotFoundError, ValueError: the data or split do not exist or do not fit, or the part is empty.
    """
    if part not in PARTS:
        raise ValueError(f"--part: expected one of {', '.join(PARTS)}, got {part!r}")
    if file_units and data is None:
        raise ValueError("--file-units: expected --data with it, as the config of the run has its own, got none")
    if potential.config is None and data is None:
        raise ValueError("--data: expected a source, as the checkpoint does not say where its data was, got none")
    config = None if potential.config is None else config_from_dict(potential.config)
    if config is not None:
        config = (config if run is None or data is not None else moved_paths(config, run)).data
    forces, options = potential.forces, {} if config is None else config.read_options()
    options |= {"dtype": next(potential.parameters()).dtype, "forces": forces}
    options |= {} if data is None else {"file_units": file_units}
    options |= {} if keys is None else {"keys": keys}
    read = read_molecules(config.source if data is None else data, **options)
    units = {name: unit for name, unit in zip(potential.names, potential.units, strict=True) if unit is not None}
    stated = dict(zip(read.names, read.units, strict=True))
    for name in potential.names:
        if data is not None and name not in units and stated.get(name) is not None:
            raise ValueError(
                f"--unit: expected the unit of {name}, which the checkpoint does not know, as {data} is in "
                f"{stated[name]}, got none"
            )
    stress = potential.stress and (data is None or read.has_stress)
    molecules = read.choose(potential.names, units, forces, stress)
    check_labels(read, potential.names, forces, stress=stress)
    if isinstance(molecules, Molecules):  # else their files have been looked through
        check_frames(molecules)
    if stress:
        check_volumes(molecules)
    if part == "all" or (data is not None and split is None):
        indices = torch.arange(len(molecules))
    elif split is not None:
        indices = getattr(read_split(Path(split), len(molecules)), part)
    elif run is not None and (Path(run) / "split.npz").is_file():
        own = None if keys else molecules  # under other names there are other labels
        indices = getattr(read_split(Path(run) / "split.npz", len(molecules), own), part)
    else:
        indices = getattr(prepare_split(config, molecules), part)
    if len(indices) == 0:
        raise ValueError(f"--part: expected molecules in the {part} set, got none")
    return molecules, indices
