"""The configuration of a training run: one dataclass per section, with the limits of every number."""

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from omegaconf import MISSING

from ...data.reading import ReadOptions
from ...models import SphereNet
from .models import ModelConfig, model_section
from .option import LARGEST_SEED, count, option


@dataclass
class DataConfig:
    """Where the molecules come from and what is learned."""

    source: str = MISSING  # ethanol, qm9, fcc111 (shipped); a file, folder or LMDB; pyg:QM9, pyg:MD17/<molecule>
    # Leave structures in their files (LMDBs, .npz, ASE databases, or a folder of one of these) until a batch needs
    # them; none: where the files are larger than an eighth of the machine's memory.
    stream: bool | None = None
    index: str | None = None  # folder of what is known of structures read so; none: spherenet_fast in the user's cache
    workers: int | None = count(None, low=0, high=1024)  # processes that read them; none: one a core, at most 4
    root: str | None = None  # folder of PyTorch Geometric's data sets
    labels: str = option("original", choices=("original", "revised"))  # of MD17's frames, where a file has both
    targets: list[str] = field(default_factory=lambda: ["energy"])  # names of the labels that are learned
    forces: bool = False  # learn the forces, too: the target is then the energy alone
    # Target, forces or stress -> its name in the file, as {energy: REF_energy, forces: REF_forces}; --keys is short for
    # it.
    keys: dict[str, str] = field(default_factory=dict)
    # Molecules without one of the labels: skip, leave them out of that part of loss and errors; error, refuse the data.
    missing: str = option("skip", choices=("skip", "error"))
    # Of relaxations, learn from the initial structure alone: targets relaxed_energy, initial_energy; else every frame.
    relaxations: bool = False
    # Report the share of errors up to this one, in the unit of the target (EwT is that of 0.02 eV).
    ewt_threshold: float | None = option(None, above=0, high=1e9)
    units: dict[str, str] = field(default_factory=dict)  # target -> unit of training, reports and predictions
    # What the file does not say, or says wrongly: target -> unit, length -> unit of positions and cells (else Ang),
    # forces -> unit, as eV/Ang (else that of the energy over that of the length), stress -> unit, as GPa.
    file_units: dict[str, str] = field(default_factory=dict)
    dtype: str = option("float32", choices=("float32", "float64"))  # of positions, weights and arithmetic
    train: int | None = count(None)  # number of molecules to train on; none: all that remain
    val: int = count(0, low=0)  # number of molecules for validation, which chooses the best weights
    test: int | None = count(None, low=0)  # number of molecules for the test at the end; none: all that remain
    seed: int = count(42, 0, LARGEST_SEED)  # of the split
    held_out: list[str] = field(default_factory=list)  # elements; all structures with one of them, and no others, test
    split: str | None = None  # an .npz file with index arrays train, val, test instead of the numbers

    def read_options(self) -> dict[str, Any]:
        """The options of `read_molecules`."""
        options = {option.name: getattr(self, option.name) for option in fields(ReadOptions)}
        return options | {"dtype": getattr(torch, self.dtype)}


@dataclass
class LossConfig:
    """sum of weight * loss, of errors divided by the scale of the labels."""

    energy: str = option("l1", choices=("l1", "mse", "huber"))  # of energies or other targets
    forces: str = option("l1", choices=("l1", "mse", "huber", "norm"))  # norm: length of the error vector
    energy_weight: float = option(1.0, low=0, high=1e9)  # of energies or other targets
    forces_weight: float = option(100.0, low=0, high=1e9)  # of forces
    # Of the stress, which takes cells with labels; 1000 makes it count as much as forces. 0: it is not learned.
    stress_weight: float = option(0.0, low=0, high=1e9)
    # What is subtracted from the labels before training: see `normalization.fit_normalization`.
    references: str = option("auto", choices=("auto", "elements", "mean", "none"))
    # What labels are divided by: auto, the size of forces, else the spread of the labels; none, 1.
    scale: str = option("auto", choices=("auto", "none"))


@dataclass
class OptimizerConfig:
    """The optimizer, its learning rate over time, and the average of the weights that is evaluated and kept."""

    name: str = option("muon", choices=("muon", "adamw"))  # muon: for large weight matrices, AdamW for all else
    lr: float = option(1e-3, above=0, high=1)  # the highest learning rate
    # Of a linear rise; where training.max_time is the budget, it takes at most a tenth of that time.
    warmup_steps: int = count(0, low=0)
    # The learning rate after that: cosine, to 0 at the end of the budget; step, see step_size; constant.
    schedule: str = option("cosine", choices=("cosine", "step", "constant"))
    step_size: int = count(10000)  # schedule step: lr is multiplied by step_factor every step_size steps
    step_factor: float = option(0.5, above=0, high=1)  # schedule step
    beta2: float = option(0.999, low=0, below=1)  # of AdamW
    weight_decay: float = option(0.0, low=0, high=1000)  # decoupled, as in AdamW
    gradient_clip: float | None = option(None, above=0, high=1e30)  # longest gradient
    ema_decay: float | None = option(0.999, low=0, high=1)  # none: keep the weights themselves


@dataclass
class TrainingConfig:
    """How long, in what portions, and how often to look."""

    batch_size: int = count(32)  # molecules in a batch of one process; a step takes those of all of them
    # Edges in a batch of one process, which then has fewer molecules than batch_size where that is needed; batches are
    # drawn so that all have about as many edges. none: any number.
    max_edges: int | None = count(None)
    accumulate: int = count(1)  # batches in a step, whose gradients are averaged: large steps in little memory
    eval_batch_size: int | None = count(None)  # none: four times batch_size
    max_epochs: int | None = count(None)  # passes over the molecules; a run ends at the first of its limits
    max_steps: int | None = count(None)  # steps of the optimizer, another limit
    max_time: float | None = option(None, above=0, high=1e7, unit="minutes")  # of training, all resumed parts
    val_every: int | None = count(None)  # steps between validations; none: once an epoch
    log_every: int = count(20)  # steps between rows of training errors
    # A checkpoint, or pretrained weights, that the training begins with (fine-tuning): a path, md17-ethanol, hf://...
    init_from: str | None = None
    seed: int = count(0, 0, LARGEST_SEED)  # of the initial weights, the order of the molecules and the mirror images
    # Show every molecule as its mirror image half of the time: its labels are the same, SphereNet's torsions are not.
    augment_reflections: bool = False
    device: str = option("auto", choices=("auto", "cpu", "gpu"))  # auto: a GPU if there is one
    devices: int = count(1, high=1024)  # GPUs (or processes on the CPU) of each node that train together
    num_nodes: int = count(1, high=65536)  # machines that train together
    threads: int | None = count(None, high=1024)  # on the CPU; none: all or one, whichever is faster
    tensorboard: bool = True  # write files for TensorBoard, too
    # Log to Weights & Biases, too (pip install wandb): online takes an account; offline, files in the run's folder that
    # `wandb sync` sends later.
    wandb: str = option("off", choices=("off", "offline", "online"))
    wandb_project: str = "spherenet_fast"  # of Weights & Biases


@dataclass
class Config:
    """Everything that `train` needs."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=model_section(SphereNet, "SphereNet"))
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
