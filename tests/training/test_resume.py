"""Runs that a signal, a full disk or a damaged checkpoint has stopped, and how they go on."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from training_runs import before_step, same_run, tiny_config, tiny_settings, untrained
from typer.testing import CliRunner

from spherenet_fast import _files
from spherenet_fast.cli import app
from spherenet_fast.training import Potential, train
from spherenet_fast.training.callbacks.logs import read_metrics
from spherenet_fast.training.callbacks.saving import newest_checkpoint
from spherenet_fast.training.callbacks.signals import Interrupted
from spherenet_fast.training.checkpoint import read_checkpoint
from spherenet_fast.training.metrics import evaluate
from spherenet_fast.training.run import train_to_the_end


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(tiny_config(), out)
    return out


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory):
    class PowerCut(Exception):
        pass

    def cut():
        raise PowerCut

    out = tmp_path_factory.mktemp("runs") / "cut_off"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(PowerCut):
        before_step(patch, 11, cut)
        train(tiny_config(), out)
    return out


@pytest.fixture
def run(cut_off, tmp_path):
    """A run that lost its power in step 11, with checkpoints of steps 10 and 5."""
    return Path(shutil.copytree(cut_off, tmp_path / "run"))


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing the learning curve takes longer than these runs."""
    monkeypatch.setattr("spherenet_fast.training.run.plot_learning_curve", lambda *arguments: None)


# Signals


def send(*numbers):
    return lambda: [os.kill(os.getpid(), number) for number in numbers]


@pytest.fixture
def hangups_arrive():
    """As `interrupts_arrive`, which all tests have: under nohup a hangup is ignored, and stays so in other tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_signals_save_and_give_their_exit_code(tmp_path, monkeypatch, name, hangups_arrive):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    # Schedulers may send a signal more than once.
    before_step(monkeypatch, 3, send(number, number) if name != "SIGINT" else send(number))
    overrides = [part for setting in tiny_settings() for part in ("--set", setting)]
    result = CliRunner().invoke(app, ["train", "ethanol", "--out", str(tmp_path / "run"), *overrides])
    assert result.exit_code == 128 + number
    word = "Ctrl-C" if name == "SIGINT" else name
    assert f"stopped after step 4 by {word}; the same command with --resume continues" in result.stderr
    assert f"{word}: stopping after this step" in result.stderr
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["global_step"] == 4
    assert signal.getsignal(number) is before


def test_resumed_after_sigterm_it_is_the_uninterrupted_run(uninterrupted, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        before_step(patch, 6, send(signal.SIGTERM))
        with pytest.raises(Interrupted) as stop:
            train_to_the_end(tiny_config(), tmp_path / "run")
        assert stop.value.signum == signal.SIGTERM and stop.value.saved
    train(tiny_config(), tmp_path / "run", resume=True)
    same_run(uninterrupted, tmp_path / "run")


def test_weights_that_were_not_validated_do_not_replace_the_best(tmp_path, monkeypatch):
    config = tiny_config(optimizer__lr=0.3, optimizer__schedule="constant", optimizer__ema_decay=None)
    train(config, tmp_path / "whole")
    rows = [row for row in read_metrics(tmp_path / "whole" / "metrics.csv") if "val_loss" in row]
    assert min(rows, key=lambda row: row["val_loss"])["step"] == 5
    mae = json.loads((tmp_path / "whole" / "results.json").read_text())["mae"]
    _, molecules, split = untrained("float32")
    of_best, of_last = (
        evaluate(Potential.load(tmp_path / "whole" / name), molecules, split.test).mae
        for name in ("best.ckpt", "last.ckpt")
    )
    assert mae == pytest.approx(of_best, rel=1e-4)  # float32 sums in batches of other sizes
    assert of_last["forces"] != pytest.approx(of_best["forces"], rel=1e-2)  # or else nothing is tested
    with monkeypatch.context() as patch:
        before_step(patch, 6, send(signal.SIGTERM))
        assert train(config, tmp_path / "run") is None
    train(config, tmp_path / "run", resume=True)
    same_run(tmp_path / "whole", tmp_path / "run")


def test_sigterm_during_a_validation_waits_for_its_end(uninterrupted, tmp_path, monkeypatch):
    """Lightning would leave the validation in the middle."""
    from spherenet_fast.training.module import TrainingModule

    plain = TrainingModule.validation_step
    sent = []

    def step(self, batch, batch_idx):
        if not sent:
            sent.append(send(signal.SIGTERM)())
        return plain(self, batch, batch_idx)

    config = tiny_config(training__eval_batch_size=1)
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "validation_step", step)
        assert train(config, tmp_path / "run") is None
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["global_step"] == 5
    train(config, tmp_path / "run", resume=True)
    same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("val", [3, 0])
def test_a_signal_in_the_last_step_leaves_the_test_to_the_resumed_run(tmp_path, monkeypatch, val):
    config = tiny_config(training__max_steps=2, data__val=val)
    with monkeypatch.context() as patch:
        before_step(patch, 1, send(signal.SIGTERM))
        with pytest.raises(Interrupted):
            train_to_the_end(config, tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()
    assert train(config, tmp_path / "run", resume=True)["step"] == 2


def test_a_signal_during_the_test_is_said(tmp_path, monkeypatch, capsys):
    config = tiny_config(training__max_steps=2)
    with monkeypatch.context() as patch:
        patch.setattr("spherenet_fast.training.run.evaluate", lambda *given: send(signal.SIGTERM)())
        with pytest.raises(Interrupted) as stop:
            train_to_the_end(config, tmp_path / "run")
    assert stop.value.signum == signal.SIGTERM
    assert "test stopped by SIGTERM; the same command" in capsys.readouterr().err
    assert train(config, tmp_path / "run", resume=True)["step"] == 2


def test_a_run_is_resumed_by_its_own_config(run):
    result = CliRunner().invoke(app, ["train", str(run / "config.yaml"), "--resume"])
    assert result.exit_code == 0 and (run / "results.json").is_file(), result.stderr


def test_two_processes_cannot_train_in_one_folder(run):
    with _files.FolderLock() as lock:
        assert lock.take(run)
        with pytest.raises(ValueError, match="--out: expected a folder that no other process trains in, got .*run"):
            train(tiny_config(), run, resume=True)
    assert train(tiny_config(), run, resume=True)


def test_a_second_ctrl_c_stops_at_once(tmp_path, monkeypatch, capsys):
    before_step(monkeypatch, 6, send(signal.SIGINT, signal.SIGINT))
    with pytest.raises(Interrupted) as stop:
        train_to_the_end(tiny_config(), tmp_path / "run")
    assert stop.value.signum == signal.SIGINT and not stop.value.saved
    assert "stopped without saving by Ctrl-C" in capsys.readouterr().err
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["global_step"] == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ignored_signals_stay_ignored(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        before_step(monkeypatch, 1, send(signal.SIGUSR1))
        assert train(tiny_config(training__max_steps=2), tmp_path / "run")["step"] == 2
    finally:
        signal.signal(signal.SIGUSR1, before)


# Checkpoints


def flip(path, place=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 4
    path.write_bytes(content)


def test_a_flipped_bit_is_found_wherever_it_is(run):
    """In the moments of the optimizer as in the weights; only the archive's padding may change."""
    content, state = (run / "last.ckpt").read_bytes(), str(read_checkpoint(run / "last.ckpt"))
    found = 0
    for number in range(24):
        flip(run / "last.ckpt", number / 24)
        try:
            assert str(read_checkpoint(run / "last.ckpt")) == state
        except ValueError as error:
            assert str(error).startswith(f"{run / 'last.ckpt'}: expected")
            found += 1
        (run / "last.ckpt").write_bytes(content)
    assert found > 8


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "another"])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(uninterrupted, run, capsys, damage):
    last = run / "last.ckpt"
    if damage == "flipped":
        number = 0
        while newest_checkpoint(run)[1] == last:  # past the padding
            number += 1
            flip(last, 0.5 + number / 1000)
    elif damage == "cut":
        last.write_bytes(last.read_bytes()[:5000])
    elif damage == "missing":
        last.unlink()
    else:
        shutil.copy(run / "best.ckpt", last)
    capsys.readouterr()
    train(tiny_config(), run, resume=True)
    error = capsys.readouterr().err
    assert error.startswith(f"{last}: ") and "; going on from previous.ckpt, after step 5\n" in error
    same_run(uninterrupted, run)


def test_two_damaged_checkpoints_are_an_error(run):
    for name in ("last.ckpt", "previous.ckpt"):
        (run / name).write_bytes((run / name).read_bytes()[:5000])
    before = sorted(os.listdir(run))
    with pytest.raises(ValueError, match="last.ckpt: expected a checkpoint .* truncated"):
        train(tiny_config(), run, resume=True)
    assert sorted(os.listdir(run)) == before


@pytest.mark.parametrize("content", [None, b"", b"from a later step"])
def test_the_best_weights_come_back_with_the_run(uninterrupted, run, content):
    (run / "best.ckpt").unlink() if content is None else (run / "best.ckpt").write_bytes(content)
    train(tiny_config(), run, resume=True)
    same_run(uninterrupted, run)


def test_checkpoints_of_before_are_resumed(uninterrupted, run):
    """Without digest and best weights, as they were written before there were any."""
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    del checkpoint["potential"]["digest"], checkpoint["callbacks"]["RunControl"]["best_state"]
    torch.save(checkpoint, run / "last.ckpt")
    train(tiny_config(), run, resume=True)
    same_run(uninterrupted, run)


def test_a_run_that_does_not_say_has_the_papers_torsion(run):
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    for options in (checkpoint["potential"]["hparams"], checkpoint["potential"]["config"]["model"]):
        del options["torsion"]
    torch.save(checkpoint, run / "last.ckpt")
    with pytest.raises(ValueError, match="expected model.torsion = 'paper' as in .*last.ckpt, got 'smooth_even'"):
        train(tiny_config(), run, resume=True)


def test_a_run_that_does_not_say_has_adamw(run):
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    del checkpoint["potential"]["config"]["optimizer"]["name"]
    torch.save(checkpoint, run / "last.ckpt")
    with pytest.raises(ValueError, match="expected optimizer.name = 'adamw' as in .*last.ckpt, got 'muon'"):
        train(tiny_config(), run, resume=True)


@pytest.mark.parametrize("other", [None, {}, {"x": 1}, [{}]])
def test_a_checkpoint_with_other_parts_is_a_line_with_the_path(run, other):
    """Lightning would begin with a new optimizer where the states of the old one are missing."""
    (run / "previous.ckpt").unlink()
    before = torch.load(run / "last.ckpt", weights_only=True)
    for name in ("optimizer_states", "callbacks", "run", "loops", "state_dict", "potential", "global_step"):
        torch.save(before | {name: other}, run / "last.ckpt")
        with pytest.raises(ValueError, match="last.ckpt: ") as error:
            train(tiny_config(), run, resume=True)
        assert "expected the checkpoint of a training run" in str(error.value) or other in ({"x": 1}, [{}])


def test_a_last_checkpoint_that_is_a_link_stays_one(uninterrupted, run, tmp_path, capsys):
    """Somebody has put the large files elsewhere."""
    (tmp_path / "scratch").mkdir()
    shutil.move(run / "last.ckpt", tmp_path / "scratch" / "large")
    (run / "last.ckpt").symlink_to(tmp_path / "scratch" / "large")
    train(tiny_config(training__max_steps=11), run, resume=True)
    assert sorted(os.listdir(tmp_path / "scratch")) == ["large", "previous.ckpt"]
    (tmp_path / "scratch" / "large").write_bytes(b"")
    train(tiny_config(), run, resume=True)
    assert "going on from previous.ckpt, after step 10" in capsys.readouterr().err
    assert (run / "last.ckpt").is_symlink()


# Where nothing was saved yet


def test_a_run_that_ended_before_its_first_checkpoint_starts_afresh(uninterrupted, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        before_step(patch, 2, send(signal.SIGINT, signal.SIGINT))
        assert train(tiny_config(), tmp_path / "run") is None
    assert not (tmp_path / "run" / "last.ckpt").exists()
    train(tiny_config(), tmp_path / "run", resume=True)
    assert "no checkpoint was saved before the run ended; it starts afresh" in capsys.readouterr().err
    same_run(uninterrupted, tmp_path / "run")


def test_a_folder_of_other_things_is_not_resumed(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(FileNotFoundError, match="last.ckpt: no such checkpoint"):
        train(tiny_config(), tmp_path, resume=True)
    assert os.listdir(tmp_path) == ["thesis.tex"]


# Full disks


def test_a_folder_that_cannot_be_filled_is_not_claimed(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left on device.*config.yaml"):
        patch.setattr(_files.os, "fsync", full)
        train(tiny_config(), tmp_path / "run")
    assert os.listdir(tmp_path / "run") == []
    assert train(tiny_config(training__max_steps=1), tmp_path / "run")


def test_a_disk_that_is_full_costs_nothing_that_was_saved(uninterrupted, tmp_path, monkeypatch):
    def full(descriptor):
        if json.loads((tmp_path / "full").read_text()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        (tmp_path / "full").write_text("false")
        before_step(patch, 8, lambda: (tmp_path / "full").write_text("true"))
        patch.setattr(_files.os, "fsync", full)
        with pytest.raises(OSError, match="cannot be written: No space left on device"):
            train(tiny_config(), tmp_path / "run")
    assert newest_checkpoint(tmp_path / "run")[0]["global_step"] == 5
    assert Potential.load(tmp_path / "run" / "best.ckpt")
    train(tiny_config(), tmp_path / "run", resume=True)
    same_run(uninterrupted, tmp_path / "run")
