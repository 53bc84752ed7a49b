"""A committee: the same training from several seeds, one after the other."""

import json
import statistics
from dataclasses import replace
from pathlib import Path

from .._files import write_file
from ..data import Molecules, StreamedMolecules
from .config import Config
from .distributed.start import processes_of
from .evaluation import evaluation_data, predictions
from .evaluation.predictions import mean
from .metrics import aligned
from .potential import Potential
from .run import check_folder, train_to_the_end, training_device
from .trainer import eval_batch_size


def train_seeds(
    config: Config, count: int, out, resume: bool = False, read: Molecules | StreamedMolecules | None = None
) -> dict:
    """Train `count` models as `config` says, with training.seed, training.seed + 1, ...; see `train_to_the_end`.

    The runs are in the folders seed0, seed1, ... of `out`; all have the same split. A table of their errors on the test
    set is printed: of each, their mean and standard deviation, and of the mean of their predictions (the committee);
    results.json holds it.

    Args:
        out: a folder that does not exist or is empty, unless `resume`.
        resume: go on with the run that was interrupted, and those after it.
        read: see `train_to_the_end`.

    Returns:
        {"seeds": [{"mae": {name: error}, "rmse": {...}, ...} of each], "mean": {name: MAE}, "spread": {...},
        "committee": {"mae": {...}, "rmse": {...}}, "units": {...}}; without test molecules the errors are empty.

    Raises what `train_to_the_end` raises.
    """
    out = Path(out)
    processes = processes_of(config.training)

    def check() -> None:
        if resume and not out.is_dir():
            raise FileNotFoundError(f"--resume: expected the folder of a run, there is no {out}")
        check_folder(out, resume)

    processes.first_does(check)
    folders, found = [out / f"seed{number}" for number in range(count)], []
    for number, folder in enumerate(folders):
        seed = config.training.seed + number
        with processes.one_voice():
            print(f"model {number + 1} of {count}: seed {seed}, in {folder}", flush=True)
        one = replace(config, training=replace(config.training, seed=seed))
        begun = processes.first_does(lambda folder=folder: resume and folder.is_dir())
        found.append(train_to_the_end(one, folder, begun, read))
    names = list(found[0]["mae"])
    results = {
        "seeds": found,
        "mean": {name: statistics.fmean(one["mae"][name] for one in found) for name in names},
        "spread": {name: statistics.pstdev([one["mae"][name] for one in found]) for name in names},
        "units": found[0]["units"],
    }

    def report() -> dict:
        results["committee"] = _committee_errors(config, folders) if names else {"mae": {}, "rmse": {}}
        write_file(out / "results.json", (json.dumps(results, indent=1) + "\n").encode())
        if names:
            print(f"MAE on the test set\n{_table(results)}")
        return results

    return processes.first_does(report)


def _committee_errors(config: Config, folders: list[Path]) -> dict[str, dict[str, float]]:
    """Errors of the mean of the predictions of all models on the test set."""
    potentials = [Potential.load(folder / "best.ckpt", training_device(config)) for folder in folders]
    molecules, test = evaluation_data(potentials[0], run=folders[0])
    found = [predictions(potential, molecules, test, eval_batch_size(config)) for potential in potentials]
    errors = mean(found).errors(potentials[0])
    return {"mae": errors.mae, "rmse": errors.rmse}


def _table(results: dict) -> str:
    rows = {f"seed{number}": one["mae"] for number, one in enumerate(results["seeds"])}
    rows |= {"mean": results["mean"], "standard deviation": results["spread"], "committee": results["committee"]["mae"]}
    names = list(results["mean"])
    head = ("", *(f"{name} ({results['units'][name] or 'as in the data'})" for name in names), "")
    return aligned([head, *((label, *(f"{row[name]:.5g}" for name in names), "") for label, row in rows.items())])
