"""Trains the models of the ablation at equal budgets: `python -m bench.training.train_ablation FOLDER`.

FOLDER has the molecules, packed as <molecule>.npz. One run of `spherenet-fast train ablation:<model>` for each
molecule, seed and model, each on one thread, in OUT; when it has finished its test errors become rows of
bench/results/training/ablation.csv. Started again, it goes on where it was stopped and leaves out what has finished.
Ctrl-C saves the runs and stops. All models of a molecule and seed come before those of the next, so that what has run
can be compared.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bench import machine
from bench.training.run_rows import RESULTS, append, rows_of_run

MODELS = {
    "smooth": "smooth", "smooth_even": "smooth_even", "paper": "full", "no_torsion": "no_torsion",
    "no_angle": "no_angle",
}  # fmt: skip  # name: variant of the config
BATCH = {"ethanol": 8, "malonaldehyde": 8, "toluene": 4, "naphthalene": 4}  # frames a step; 4 for other molecules
TRAIN = [sys.executable, "-m", "spherenet_fast.cli", "train"]
INTERRUPTED = 130  # exit status of the command after Ctrl-C


class Run(NamedTuple):
    molecule: str
    seed: int
    model: str
    labels: str
    steps: int

    @property
    def name(self) -> str:
        suffix = "" if self.labels == "original" else f"-{self.labels}"
        return f"{self.molecule}-{self.model}-seed{self.seed}-{self.steps}{suffix}"

    @property
    def data(self) -> str:
        """As the tables call it; the paper's numbers are for the original labels."""
        return self.molecule.replace("_", " ") + (", rMD17" if self.labels == "revised" else "")


class Queue:
    """Trains runs one after the other in each of several threads, and stops them all at once."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.processes: set[subprocess.Popen] = set()
        self.stopped = False
        self.lock = threading.Lock()

    def train(self, run: Run) -> int:
        """Exit status of the run: 0 if it has finished, now or before."""
        folder, log = self.arguments.out / run.name, self.arguments.out / f"{run.name}.log"
        if not (folder / "results.json").exists():
            code = self._train(run, folder, log)
            if code:
                print(f"{run.name}: {'stopped' if code == INTERRUPTED else f'failed, see {log}'}", flush=True)
                return code
        words = argparse.Namespace(
            experiment="ablation", data=run.data, settings=self.settings(), commit=commit_of(log)
        )
        rows = rows_of_run(folder, words)
        with self.lock:
            append(self.arguments.results / "ablation.csv", rows)
        print(f"{run.name}: " + ", ".join(f"{row['target']} {row['value']} {row['unit']}" for row in rows), flush=True)
        return 0

    def settings(self) -> str:
        return "; ".join(filter(None, [self.arguments.settings, *self.arguments.more]))

    def overrides(self, run: Run) -> list[str]:
        """What differs from the config, as key=value."""
        values = {
            "data.source": (self.arguments.folder / f"{run.molecule}.npz").resolve(), "data.labels": run.labels,
            "training.batch_size": BATCH.get(run.molecule, 4), "training.max_steps": run.steps,
            "training.seed": run.seed, "training.threads": 1,
        }  # fmt: skip
        return [*(f"{key}={value}" for key, value in values.items()), *self.arguments.more]

    def _train(self, run: Run, folder: Path, log: Path) -> int:
        resume = (folder / "last.ckpt").exists()
        if not resume and (folder / "config.yaml").exists():
            shutil.rmtree(folder)  # of a run that was killed before it saved anything
        command = [*TRAIN, f"ablation:{MODELS[run.model]}", "--out", str(folder)]
        command += [word for setting in self.overrides(run) for word in ("--set", setting)]
        command += ["--resume"] if resume else []
        self.arguments.out.mkdir(parents=True, exist_ok=True)
        if not resume:
            log.write_text(f"commit {machine.commit()}\n")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with log.open("a") as output:
            with self.lock:
                if self.stopped:
                    return INTERRUPTED
                process = subprocess.Popen(  # a session of its own: `stop` alone interrupts it
                    command, stdout=output, stderr=output, env=environment, start_new_session=True
                )
                self.processes.add(process)
            code = process.wait()
        self.processes.discard(process)
        return code

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            for process in list(self.processes):
                process.send_signal(signal.SIGINT)


def commit_of(log: Path) -> str:
    """Of the tree with which a run began."""
    return log.read_text().split(maxsplit=2)[1] if log.exists() else "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the packed files, <molecule>.npz")
    parser.add_argument("--molecules", nargs="+", default=list(BATCH), help=f"[{' '.join(BATCH)}]")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="[all]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="[0]")
    parser.add_argument("--steps", type=int, default=4000, help="of each run [4000]")
    parser.add_argument("--labels", nargs="+", choices=("original", "revised"), default=["original"])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time [1]")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"), help="folder of the runs [runs/evidence]")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV files")
    parser.add_argument("--settings", default="", help="what the rows say of the circumstances")
    parser.add_argument("--set", dest="more", action="append", default=[], metavar="KEY=VALUE", help="for every run")
    arguments = parser.parse_args()
    for molecule in arguments.molecules:
        if not (arguments.folder / f"{molecule}.npz").is_file():
            parser.error(f"folder: expected a file {molecule}.npz in {arguments.folder}, found none")
    runs = [
        Run(molecule, seed, model, labels, arguments.steps)
        for labels in arguments.labels
        for molecule in arguments.molecules
        for seed in arguments.seeds
        for model in arguments.models
    ]
    queue = Queue(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where the shell has it ignored, in the background
        signal.signal(number, signal.default_int_handler)
    with ThreadPoolExecutor(arguments.jobs) as pool:  # threads that wait for processes
        try:
            status = list(pool.map(queue.train, runs))
        except KeyboardInterrupt:
            queue.stop()
            status = [INTERRUPTED]
    if failed := [run.name for run, code in zip(runs, status) if code not in (0, INTERRUPTED)]:
        sys.exit(f"failed: {', '.join(failed)}")
    sys.exit(INTERRUPTED if INTERRUPTED in status else 0)


if __name__ == "__main__":
    main()
