"""Runs dynamics in child processes that are killed at chosen moments: `python killed_dynamics.py FOLDER MOMENT ...`.

What the children use is imported here, once. FOLDER holds potential.ckpt. Of every ensemble there is a run in
FOLDER/<ensemble>, killed at each moment in turn, and one in FOLDER/<ensemble>-whole that is not. Prints how many lives
ended by themselves.
"""

import os
import signal
import sys
from pathlib import Path

import ase.io
import ase.io.ulm
import matplotlib.backends.backend_agg  # noqa: F401
from ase.build import molecule
from killed_runs import countdown, half_of_the_row, life

from spherenet_fast import _files
from spherenet_fast.dynamics import Settings, md, records, run_dynamics
from spherenet_fast.training import Potential

STEPS = 40
ENSEMBLES = ("nve", "langevin", "npt")


def die_at(moment: int) -> None:
    """SIGKILL at the `moment`-th of: a step that is done, half a row, half a frame, a file that gets its name."""
    before = countdown(moment)
    md.check_temperature = before(md.check_temperature)
    records.append_line = before(records.append_line, half_of_the_row)
    ase.io.ulm.writeint = before(ase.io.ulm.writeint, lambda file, *numbers: file.flush())
    _files.os.replace = before(os.replace)


def move(out: Path, ensemble: str) -> None:
    potential = Potential.load(out.parent / "potential.ckpt")
    cell = dict(cell=[5, 5.5, 6], pbc=True) if ensemble == "npt" else {}
    settings = Settings(ensemble, STEPS, save_every=0, every=4, log_every=2, allow_apart=True)
    run_dynamics(potential, molecule("CH3OH", **cell), settings, out, resume=out.exists())


def killed(out: Path, ensemble: str, moment: int) -> int:
    """The wait status of a life in `out`; the trajectory that it leaves can be read."""

    def deeds():
        die_at(moment)
        move(out, ensemble)

    status = life(deeds)
    if (out / md.TRAJECTORY).exists():
        frames = ase.io.read(out / md.TRAJECTORY, ":")
        assert [frame.info["step"] for frame in frames] == list(range(0, 4 * len(frames), 4))
        assert all(frame.get_forces().shape == (6, 3) for frame in frames)
    return status


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    statuses = []
    for ensemble in ENSEMBLES:
        move(folder / f"{ensemble}-whole", ensemble)
        statuses += [killed(folder / ensemble, ensemble, int(moment)) for moment in sys.argv[2:]]
    assert set(statuses) <= {0, signal.SIGKILL}, statuses
    print(statuses.count(0))
