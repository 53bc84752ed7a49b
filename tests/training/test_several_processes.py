"""Trainings of two processes: the run of one process with batches twice as large, whatever happens to either."""

import json
import os
import subprocess
import sys

import pytest
import together
import torch
from training_runs import tiny_config, tiny_settings

from spherenet_fast.training.callbacks.logs import read_metrics
from spherenet_fast.training.checkpoint import read_checkpoint
from spherenet_fast.training.config.sections import TrainingConfig
from spherenet_fast.training.distributed.processes import Processes
from spherenet_fast.training.distributed.start import processes_of
from spherenet_fast.training.run import same_batches, train

# A sum of float32 over two processes is rounded otherwise than over one; Muon and Adam pass that on for twelve steps.
ROUNDING = 1e-5
LIMIT = 120  # seconds; a process that waited for a dead one would do so for 30 minutes


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run for each of `together.scenes`, and how their processes ended."""
    folder = tmp_path_factory.mktemp("together")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, together.__file__, folder]
    child = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=600)
    assert child.returncode == 0, child.stderr[-3000:]
    return folder, json.loads(child.stdout.splitlines()[-1]), child


def codes(runs, name):
    ended, seconds = runs[1][name]
    assert seconds < LIMIT
    return ended


def same_to_rounding(one, two):
    """Whether metrics, results and weights of two runs agree to ROUNDING, learning rates and counts to the bit."""
    rows = [read_metrics(folder / "metrics.csv") for folder in (one, two)]
    assert len(rows[0]) == len(rows[1]) == 7
    for left, right in zip(*rows, strict=True):
        assert left.keys() == right.keys()
        clocks = {"minutes", "molecules_per_s"}
        assert {k: left[k] for k in left.keys() - clocks} == pytest.approx(
            {k: right[k] for k in right.keys() - clocks}, rel=ROUNDING
        )
        assert [left.get(k) for k in ("step", "epoch", "lr")] == [right.get(k) for k in ("step", "epoch", "lr")]
    results = [json.loads((folder / "results.json").read_text()) for folder in (one, two)]
    for kind in ("mae", "rmse"):
        assert results[0][kind] == pytest.approx(results[1][kind], rel=10 * ROUNDING)  # differences of predictions


def same_to_the_bit(one, two):
    """`same_to_rounding` (a resume adds up the errors of a row in another order), and the same weights."""
    same_to_rounding(one, two)
    a, b = (read_checkpoint(folder / "last.ckpt") for folder in (one, two))
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (a, b)]
    pairs = [(a["state_dict"], b["state_dict"]), (a["potential"]["weights"], b["potential"]["weights"])]
    pairs += [(states[0][number], states[1][number]) for number in states[0]]
    assert all(torch.equal(left[name], right[name]) for left, right in pairs for name in left)


def test_two_processes_are_one_with_batches_twice_as_large(runs):
    """Parts of a batch have other numbers of molecules with forces, and of atoms; mirror images are drawn."""
    assert codes(runs, "one") == [[0]] and codes(runs, "two") == [[0, 0]]
    same_to_rounding(runs[0] / "one", runs[0] / "two")


def test_one_process_writes(runs):
    names = {"config.yaml", "split.npz", "metrics.csv", "results.json", "last.ckpt", "previous.ckpt", "best.ckpt"}
    assert set(os.listdir(runs[0] / "two")) == names
    trainings = sum(len(ended) for ended, _ in runs[1].values())
    assert runs[2].stdout.count("test set, 5 molecules") == trainings - 3  # three were stopped before
    assert runs[2].stderr.count("validation: step 5 of") == len(runs[1])


def test_a_signal_to_one_of_them_stops_both_and_resumed_they_are_the_uninterrupted_run(runs):
    assert codes(runs, "stopped") == [[143, 143], [0, 0]]
    same_to_the_bit(runs[0] / "two", runs[0] / "stopped")
    assert "stopped after step 10 by SIGTERM" in runs[2].stderr


@pytest.mark.parametrize("name, ended", [("killed", [2, -9]), ("first killed", [-9, 2])])
def test_when_one_is_killed_the_other_stops_with_a_message(runs, name, ended):
    assert codes(runs, name)[0] == ended
    survivor = ended.index(2)
    text = f"process {survivor} of 2 stops: another one has ended, or does not answer; the same command with --resume"
    assert text in runs[2].stderr


def test_after_a_kill_training_goes_on_as_if_nothing_had_happened(runs):
    assert codes(runs, "killed")[1] == [0, 0]
    same_to_the_bit(runs[0] / "two", runs[0] / "killed")


def test_it_may_go_on_with_another_number_of_processes(runs):
    assert codes(runs, "first killed")[1] == [0]
    same_to_rounding(runs[0] / "two", runs[0] / "first killed")


def test_the_clock_of_the_first_process_decides(runs):
    """Each process saves only if all have the same weights, so the same learning rates; see `together.by_the_clock`."""
    assert codes(runs, "clock") == [[0, 0]]
    assert read_checkpoint(runs[0] / "clock" / "last.ckpt")["global_step"] == 10


def test_batches_with_a_limit_on_their_edges(runs):
    assert codes(runs, "edges") == [[0, 0]]
    rows = read_metrics(runs[0] / "edges" / "metrics.csv")
    assert [row["step"] for row in rows if "val_loss" in row] == [5, 10, 12]


def test_a_command_starts_its_other_processes(tmp_path):
    overrides = tiny_settings(training__devices=2, training__max_steps=2, training__log_every=1, data__val=2)
    command = [sys.executable, "-m", "spherenet_fast.cli", "train", "ethanol", "--out", tmp_path / "run"]
    command += [part for setting in overrides for part in ("--set", setting)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("results in") == 1 and done.stdout.count("test set, 4 molecules") == 1
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.csv")] == [1, 2, 2]


# Errors


@pytest.mark.parametrize(
    "variables, changes, text",
    [
        ({"TORCHELASTIC_RUN_ID": "7", "WORLD_SIZE": "4"}, {}, "training.devices x .*: expected 4, as torchrun"),
        (
            {"TORCHELASTIC_RUN_ID": "7", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"},
            {"devices": 4},
            "training.devices: expected 2, as torchrun",
        ),
        ({"SLURM_STEP_NUM_TASKS": "3"}, {"devices": 2}, "training.devices x .*: expected 3, as srun .* got 2"),
        ({}, {"num_nodes": 2}, "training.num_nodes: expected torchrun, srun, or MASTER_ADDR, .* got 2"),
        ({"NODE_RANK": "one"}, {"devices": 2}, "NODE_RANK: expected a number in the environment, got 'one'"),
    ],
    ids=["torchrun", "torchrun, a node", "srun", "nodes", "no number"],
)
def test_numbers_of_processes_that_do_not_fit(monkeypatch, variables, changes, text):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=text):
        processes_of(TrainingConfig(device="cpu", **changes))


def test_a_session_cannot_be_repeated(monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(ValueError, match="training.devices: expected 1 in an interactive session, .* got 2"):
        processes_of(TrainingConfig(device="cpu", devices=2))


def test_another_number_of_processes_makes_the_same_batches_or_is_refused(tmp_path):
    train(tiny_config(training__max_steps=1), tmp_path / "run")
    with pytest.raises(ValueError, match="--resume: expected training.batch_size = 2 .*, got 1"):
        train(tiny_config(training__batch_size=1), tmp_path / "run", resume=True)
    one, two = vars(TrainingConfig(batch_size=4)), vars(TrainingConfig(devices=2, batch_size=2))
    assert same_batches(one, two)
    assert not same_batches(one | {"max_edges": 9}, two | {"max_edges": 9})


# One process


def test_one_process_has_everything_and_says_everything(capsys):
    alone = Processes()
    assert alone.share(torch.arange(3)).tolist() == [0, 1, 2] and alone.sum({"a": None}) == {"a": None}
    assert alone.all_do(lambda: 1) == alone.first_does(lambda: 1) == 1 and alone.objects("a") == ["a"]
    with alone.one_voice():
        print("heard")
    with Processes(rank=1, count=2).one_voice():
        print("unheard")
    assert capsys.readouterr().out == "heard\n"
