"""From a finished run of `spherenet-fast train` to weights that come with the package: a small checkpoint and its card.

    python -m bench.training.pretrained RUN md17-ethanol --source ethanol --check ethanol --every 10

Written are spherenet_fast/pretrained/NAME.ckpt and NAME.yaml; what is to be known of the data, by the word before the
first hyphen of NAME, is in DATA. The averaged weights are stored, large matrices with BITS significant bits. Of what
that changes in the targets of the training molecules the part that reference energies can hold is put back into them.
Errors on the card are those of the stored file.
"""

import argparse
import hashlib
import io
import json
import zipfile
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import torch
import yaml
from torch import Tensor

from bench.training.run_rows import model_name, rows_of_run
from spherenet_fast._files import write_file
from spherenet_fast.data import Split, read_split
from spherenet_fast.training import Potential
from spherenet_fast.training.checkpoint import serialized
from spherenet_fast.training.evaluation import Predictions, evaluation_data, predictions
from spherenet_fast.training.metrics import Errors
from spherenet_fast.training.potential import refit

BITS = 9  # with which the forces of ethanol change by 0.005 kcal/mol/Ang, of a model whose error is 0.13
LARGE = 4096  # numbers; smaller matrices, the basis functions' among them, weigh nothing and cost precision
DATA = {
    "md17": {
        "data": "MD17 (Chmiela et al., Sci. Adv. 3, e1603015, 2017), with its own labels, frames that are among those "
        "of rMD17 (Christensen and von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018, 2020)",
        "license of the data": "CC0 (the archive of rMD17, which repeats MD17's labels)",
        "level of theory": "DFT, PBE+vdW-TS",
        "temperature": "500 K, of the dynamics that the frames are from",
        "limits": "This one molecule, with its bonds whole, in geometries as dynamics at 500 K visits them. Of other "
        "molecules, of several at once, of reactions and of stronger distortions nothing was learned, and the "
        "elements being the same is no reason to trust a prediction.",
    },
    "qm9": {
        "data": "QM9 (Ramakrishnan et al., Sci. Data 1, 140022, 2014): 24,334 of its molecules, no uniform draw, "
        "without fluorine and without duplicates by SMILES, and 1,447 spread evenly over all of it, each of which "
        "counts three times in training; none is in the sample `qm9`",
        "license of the data": "CC0",
        "level of theory": "DFT, B3LYP/6-31G(2df,p)",
        "temperature": "none, the geometries are relaxed",
        "limits": "One number of a molecule, no energy: nothing can be relaxed or moved by it. Molecules of up to nine "
        "atoms of C, N and O (of F there were a handful), in geometries relaxed with B3LYP, without charges and open "
        "shells. The test molecules of the split are from the part that is no uniform draw; the check is on an even "
        "draw of all of QM9, whose error is larger.",
    },
}


def rounded(weight: Tensor) -> Tensor:
    """A large matrix as float16 with BITS significant bits; anything else as it is."""
    if weight.dim() < 2 or weight.numel() < LARGE:
        return weight
    mantissa, exponent = torch.frexp(weight)
    return torch.ldexp((mantissa * 2**BITS).round() / 2**BITS, exponent).half()


def round_weights(potential: Potential, molecules, split: Split) -> dict[str, Tensor]:
    """Round the weights of a potential, and refit its references to what it predicted; the weights as stored."""
    before = predictions(potential, replace(molecules, forces=None), split.train)
    labels = molecules.y.clone()
    labels[split.train] = before.y
    weights = {name: rounded(weight) for name, weight in potential.model.state_dict().items()}
    potential.model.load_state_dict(weights)
    found = refit(potential, replace(molecules, y=labels), split.train)
    potential.atomic_energies.copy_(found.elements)
    potential.shift.copy_(found.shift)
    return weights


def deflated(checkpoint: bytes) -> bytes:
    """The same archive with its entries compressed, which PyTorch reads as well."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as given:
        with zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as smaller:
            for entry in given.infolist():
                smaller.writestr(zipfile.ZipInfo(entry.filename), given.read(entry), zipfile.ZIP_DEFLATED)
    return result.getvalue()


def check_predictions(potential: Potential, data: str, every: int) -> Predictions:
    """Of every so many of the frames in `data`; of its test frames alone where it has training frames, too."""
    molecules, indices = evaluation_data(potential, data)
    return predictions(potential, molecules, (indices if molecules.test is None else molecules.test)[::every])


def table(potential: Potential, errors: Errors) -> dict[str, dict]:
    """{target or "forces": {"MAE", "RMSE", "unit"}}."""
    units = potential.all_units()
    return {
        name: {"MAE": float(f"{mae:.5g}"), "RMSE": float(f"{errors.rmse[name]:.5g}"), "unit": units[name]}
        for name, mae in errors.mae.items()
    }


def card_of(potential: Potential, run: Path, name: str, split: Split, drawn: str, hardware: str | None) -> dict:
    """The facts of a card without those that are measured with the file."""
    from ase.data import chemical_symbols

    row = rows_of_run(run, argparse.Namespace(experiment="", data=None, settings=None, commit=None))[0]
    config = potential.config
    train, val, test = (len(part) for part in split)
    threads = f"{row['threads']} thread{'s' if row['threads'] != '1' else ''}"
    return {
        "model": f"{model_name(config['model'])}; {sum(w.numel() for w in potential.model.parameters()):,} parameters, "
        f"cutoff {potential.model.cutoff:g} Ang",
        "elements": [chemical_symbols[z] for z in potential.elements],
        "units": potential.all_units(),
        **DATA[name.partition("-")[0]],
        "split": f"{train:,} structures for training, {val} for validation, {test:,} for the test, {drawn}",
        "seed": config["training"]["seed"],
        "budget": f"{int(row['steps']):,} steps of {row['batch']} structures, {float(row['minutes']):.0f} minutes",
        "hardware": f"{hardware or row['hardware']}, {threads}, torch {row['torch']}, {row['date']}",
        "precision": f"averaged weights, float32, matrices of {LARGE:,} numbers and more rounded to {BITS} "
        "significant bits; the errors are those of the rounded ones",
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("name", help="what the weights are called; before the first hyphen a key of DATA")
    parser.add_argument("--source", help="sample that holds the run's data, if there is one", default=None)
    parser.add_argument("--check", help="sample with test frames, on which a test repeats the errors", required=True)
    parser.add_argument("--every", type=int, help="of the frames of --check", default=1)
    parser.add_argument("--hardware", help="default: this machine's processor")
    parser.add_argument("--out", type=Path, default=Path(str(files("spherenet_fast") / "pretrained")), help="folder")
    given = parser.parse_args(arguments)

    torch.set_num_threads(1)
    potential = Potential.load(given.run / "best.ckpt")
    molecules, test = evaluation_data(potential, run=given.run)
    split = read_split(given.run / "split.npz", len(molecules))
    data = potential.config["data"]
    drawn = f"drawn with seed {data['seed']}" if data["split"] is None else "as a split file says"
    data.update(source=given.source or Path(data["source"]).name, root=None, split=None)
    weights = round_weights(potential, molecules, split)
    content = deflated(serialized(potential.state() | {"weights": weights}))  # the digest is that of the float32 ones
    path = given.out / f"{given.name}.ckpt"
    write_file(path, content)

    potential = Potential.load(path.absolute())
    errors = table(potential, predictions(potential, molecules, test).errors(potential))
    repeated = table(potential, check_predictions(potential, given.check, given.every).errors(potential))
    card = card_of(potential, given.run, given.name, split, drawn, given.hardware) | {
        "errors": errors,
        "check": {"data": given.check, "every": given.every, "errors": repeated},
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=120)
    write_file(path.with_suffix(".yaml"), text.encode())
    before = json.loads((given.run / "results.json").read_text())["mae"]
    print(f"{path}: {len(content):,} bytes; test MAE {errors}, before rounding {before}")


if __name__ == "__main__":
    main()
