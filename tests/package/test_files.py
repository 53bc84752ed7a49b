"""Files are whole or absent, whatever happens while they are written."""

import errno
import os
import resource
import stat
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from ase.build import molecule
from matplotlib.figure import Figure
from training_runs import random_molecules, untrained

from spherenet_fast import _files
from spherenet_fast._files import append_line, check_output, remove_partial_files, write_file
from spherenet_fast.data import random_split, read_split
from spherenet_fast.plots.files import save
from spherenet_fast.training.callbacks.logs import MetricsFile, read_metrics
from spherenet_fast.training.predict import write_structures

SPLIT = random_split(random_molecules(40), 20, 10, 10, seed=0)
WRITERS = {
    "a checkpoint": lambda path: untrained()[0].save(path),
    "a split": SPLIT.save,
    "structures": lambda path: write_structures(path, [molecule("H2O")] * 10),
    "a picture": lambda path: save(Figure(), path),
    "metrics": lambda path: MetricsFile(path, [f"column{number}" for number in range(100)]),
}
writers = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


@contextmanager
def room_for(size: int):
    """Files of this process cannot grow beyond `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@writers
def test_what_does_not_fit_leaves_what_was_there(tmp_path, write):
    path = tmp_path / "a.png"
    for before in (None, b"before"):
        if before is not None:
            path.write_bytes(before)
        with room_for(200), pytest.raises(OSError, match="cannot be written: File too large: .*a.png'"):
            write(path)
        assert os.listdir(tmp_path) == ([] if before is None else ["a.png"])
        assert before is None or path.read_bytes() == before


@writers
def test_a_folder_is_not_written_over(tmp_path, write):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(IsADirectoryError, match="cannot be written: expected a file, got a folder"):
        write(tmp_path / "a.png")
    assert os.listdir(tmp_path) == ["a.png"]


@writers
def test_a_link_stays_a_link(tmp_path, write):
    (tmp_path / "there").mkdir()
    for number, target in enumerate(("there/file", "there/nothing yet")):
        (tmp_path / "there/file").write_text("before")
        link = tmp_path / f"{number}.png"
        link.symlink_to(target)
        write(link)
        assert link.is_symlink() and link.stat().st_size > 100
    assert sorted(os.listdir(tmp_path / "there")) == ["file", "nothing yet"]


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_an_error_of_the_disk_names_the_file(tmp_path, monkeypatch, call):
    def broken(*arguments, **named):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "f").write_bytes(b"before")
    monkeypatch.setattr(_files.os, call, broken)
    with pytest.raises(OSError, match="cannot be written: Input/output error: .*f'"):
        write_file(tmp_path / "f", b"after")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["f"] and (tmp_path / "f").read_bytes() == b"before"


def test_the_replaced_file_can_be_kept(tmp_path):
    for number in range(3):
        write_file(tmp_path / "last", b"%d" % number, keep="previous")
        assert (tmp_path / "previous").exists() == (number > 0)
    assert (tmp_path / "previous").read_bytes() == b"1" and (tmp_path / "last").read_bytes() == b"2"


def test_permissions_are_those_of_any_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_file(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "ours").chmod(0o640)
    write_file(tmp_path / "ours", b"again")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == 0o640


def test_a_file_without_permission_to_write_is_left_alone(tmp_path, monkeypatch):
    write_file(tmp_path / "f", b"before")
    monkeypatch.setattr(_files.os, "access", lambda path, mode: not mode & os.W_OK)  # root may write anything
    with pytest.raises(PermissionError, match="cannot be written: Permission denied: .*f'"):
        write_file(tmp_path / "f", b"after")
    with pytest.raises(PermissionError, match="cannot be written: its folder .* may not be written to"):
        check_output(tmp_path / "f", overwrite=True)
    assert (tmp_path / "f").read_bytes() == b"before"


def test_pipes_and_devices_are_written_into(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    check_output(tmp_path / "pipe", overwrite=False)
    write_file(tmp_path / "pipe", b"x" * 200_000)
    reader.join(timeout=60)
    assert found == [b"x" * 200_000] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    controller, terminal = os.openpty()
    (tmp_path / "device").symlink_to(os.ttyname(terminal))
    write_file(tmp_path / "device", b"hello")
    assert os.read(controller, 100) == b"hello" and stat.S_ISCHR((tmp_path / "device").stat().st_mode)
    os.close(controller), os.close(terminal)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("away/f", "--out: there is no folder .*away"),
        ("folder", "folder'?$|folder"),
        ("n" * 300, "File name too long"),
        ("file/f", "Not a directory"),
        ("file", "--out: .*file is there already; --overwrite replaces it"),
    ],
)
def test_outputs_are_checked_before_the_work(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=message):
        check_output(tmp_path / name, overwrite=False)


def test_outputs_that_may_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    check_output(tmp_path / "file", overwrite=True)
    check_output(tmp_path / "other", overwrite=False)
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_killed_process_left_is_removed(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*arguments):
        raise Killed

    monkeypatch.setattr(_files.os, "replace", kill)
    monkeypatch.setattr(_files.os, "unlink", kill)
    with pytest.raises(Killed):
        write_file(tmp_path / "f", b"")
    monkeypatch.undo()
    (tmp_path / "a.partial").write_text("the user's")
    assert len(os.listdir(tmp_path)) == 2
    remove_partial_files(tmp_path)
    assert os.listdir(tmp_path) == ["a.partial"]


# Rows of metrics are added one by one, to the same file.


def test_a_row_that_does_not_fit_leaves_no_part_of_itself(tmp_path):
    append_line(tmp_path / "m", b"step\n")
    with room_for(8), pytest.raises(OSError, match="cannot be written: .*m'"):
        append_line(tmp_path / "m", b"1234567\n")
    assert (tmp_path / "m").read_bytes() == b"step\n"


def test_metrics_stay_as_they_were_written(tmp_path):
    path = tmp_path / "metrics.csv"
    log = MetricsFile(path, ["epoch", "loss"])
    rows = [{"epoch": 1, "loss": 0.1 + 0.2}, {"epoch": 2}, {"loss": 1e-300}, {"loss": float("nan")}]
    for step, row in enumerate(rows, 1):
        log.log_metrics(row, step)
    before = path.read_bytes()
    MetricsFile(path, ["epoch", "loss"], resume_step=4)
    assert path.read_bytes() == before and before.splitlines()[1] == b"1,1,0.30000000000000004"
    MetricsFile(path, ["epoch", "loss"], resume_step=2)
    assert path.read_bytes() == b"".join(before.splitlines(keepends=True)[:3])
    MetricsFile(path, ["loss", "more"], resume_step=2)
    assert read_metrics(path) == [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2}]


def test_a_row_that_was_cut_off_is_no_row(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,loss\r\n10,2.5\r\n12")  # the beginning of 120,...
    assert read_metrics(path) == [{"step": 10, "loss": 2.5}]
    MetricsFile(path, ["loss"], resume_step=50).log_metrics({"loss": 1.0}, 60)
    assert read_metrics(path) == [{"step": 10, "loss": 2.5}, {"step": 60, "loss": 1.0}]


@pytest.mark.parametrize("line", [b"11,many", b",3", b"11,1,2,3", b"\x00\x00", b"\xff,1"])
def test_a_damaged_row_is_named(tmp_path, line):
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,loss\r\n10,2.5\r\n" + line + b"\r\n12,3\r\n")
    with pytest.raises(ValueError, match="metrics.csv: line 3: expected a step and numbers, got"):
        read_metrics(path)


def test_a_split_survives_its_file(tmp_path):
    SPLIT.save(tmp_path / "split")  # the name is taken as it is
    assert all(np.array_equal(*parts) for parts in zip(SPLIT, read_split(tmp_path / "split", 40), strict=True))
