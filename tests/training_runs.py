"""Tiny models, data and configs for the tests of training."""

import json

import numpy as np
import torch
from molecules import with_outputs

from spherenet_fast.data import Molecules
from spherenet_fast.training import Potential
from spherenet_fast.training.callbacks.logs import read_metrics
from spherenet_fast.training.config.files import load_config
from spherenet_fast.training.module import TrainingModule
from spherenet_fast.training.potential import read_checkpoint
from spherenet_fast.training.prepare import prepare_molecules, prepare_potential, prepare_split

# Small enough for steps of a few milliseconds; computed by the kernels, as the model that ships.
TINY_MODEL = {
    "cutoff": 3.0,
    "num_layers": 1,
    "hidden_channels": 8,
    "int_emb_size": 4,
    "basis_emb_size_dist": 2,
    "basis_emb_size_angle": 2,
    "basis_emb_size_torsion": 2,
    "out_emb_channels": 8,
    "num_spherical": 2,
    "num_radial": 2,
    "num_output_layers": 1,
}


def settings(values: dict) -> list[str]:
    """{key: value} as overrides."""
    return [f"{key}={'null' if value is None else value}" for key, value in values.items()]


def tiny_settings(**changes) -> list[str]:
    """Overrides that turn a shipped config into a run of a few seconds; `changes` with __ for the dot."""
    values = {f"model.{name}": value for name, value in TINY_MODEL.items()}
    values |= {"training.batch_size": 2, "training.max_time": None, "training.max_steps": 12, "training.val_every": 5}
    values |= {"training.log_every": 3, "training.tensorboard": False, "training.device": "cpu", "training.threads": 1}
    values |= {"training.eval_batch_size": 4, "data.train": 9, "data.val": 3, "data.test": 4}
    values |= {"optimizer.warmup_steps": 2}
    values |= {name.replace("__", "."): value for name, value in changes.items()}
    return settings(values)


def tiny_config(name="ethanol", **changes):
    """The shipped config `name`, made tiny."""
    return load_config(name, tiny_settings(**changes))


def random_molecules(count=7, periodic=False, seed=0) -> Molecules:
    """Molecules of 1 to 6 atoms H, C, N, O at least about 1 Å apart, with targets energy (eV) and gap, and forces."""
    draw = np.random.default_rng(seed)
    n_atoms = draw.integers(1, 7, count)
    grid = np.stack(np.meshgrid(*[range(3)] * 3), -1).reshape(-1, 3) * 1.3
    pos = [grid[draw.permutation(len(grid))[:n]] + draw.uniform(-0.15, 0.15, (n, 3)) for n in n_atoms]
    total = int(n_atoms.sum())
    return Molecules(
        n_atoms=torch.from_numpy(n_atoms),
        z=torch.from_numpy(draw.choice([1, 6, 7, 8], total)),
        pos=torch.from_numpy(np.concatenate(pos)).float(),
        y=torch.from_numpy(draw.normal(size=(count, 2))),
        names=("energy", "gap"),
        units=("eV", "Hartree"),
        forces=torch.from_numpy(draw.normal(size=(total, 3))).float(),
        cell=torch.from_numpy(draw.normal(size=(count, 3, 3)) + 8 * np.eye(3)).float() if periodic else None,
        pbc=torch.from_numpy(draw.integers(0, 2, (count, 3)).astype(bool)) if periodic else None,
    )


def untrained(dtype="float64", **changes):
    """A tiny potential whose predictions are random numbers, its molecules and its split."""
    config = tiny_config(data__dtype=dtype, **changes)
    molecules = prepare_molecules(config.data)
    split = prepare_split(config.data, molecules)
    potential = prepare_potential(config, molecules, split).eval()
    with_outputs(potential.model)
    return potential, molecules, split


def same_run(one, two):
    """Whether two folders hold the same weights, averages, optimizer states and metrics to the last bit."""
    a, b = (read_checkpoint(folder / "last.ckpt") for folder in (one, two))
    pairs = [(a["state_dict"], b["state_dict"]), (a["potential"]["weights"], b["potential"]["weights"])]
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (a, b)]
    pairs += [(states[0][k], states[1][k]) for k in states[0]]
    clocks = ("minutes", "molecules_per_s")
    rows = [
        [{k: v for k, v in row.items() if k not in clocks} for row in read_metrics(folder / "metrics.csv")]
        for folder in (one, two)
    ]
    assert all(torch.equal(left[k], right[k]) for left, right in pairs for k in left)
    assert rows[0] == rows[1]
    best = [Potential.load(folder / "best.ckpt").state()["digest"] for folder in (one, two)]
    assert best[0] == best[1]
    assert json.loads((one / "results.json").read_text()) == json.loads((two / "results.json").read_text())


def before_step(monkeypatch, number, action):
    """Make `action` happen inside training step `number`."""
    plain = TrainingModule.training_step

    def step(self, batch, batch_idx):
        if self.global_step == number:
            action()
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", step)
