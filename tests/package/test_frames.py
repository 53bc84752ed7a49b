"""Files with several structures: a command takes all of them, or says how to choose one."""

import ase.io
import pytest
from ase.build import molecule
from commands import call


@pytest.mark.parametrize("command", ["vib", "check", "sample"])
def test_commands_of_one_structure_say_how_to_choose_it(tmp_path, command):
    """Before a checkpoint or a calculator is looked for."""
    path = tmp_path / "several.xyz"
    ase.io.write(path, [molecule("H2O"), molecule("CH4")])
    given = {"vib": ["none.ckpt", path], "check": ["none.ckpt", path], "sample": [path, "-o", tmp_path / "out.extxyz"]}
    status, _, err = call(command, *given[command])
    assert status == 2 and err.count("\n") == 1
    assert f"{path}: expected one structure, got 2; --frame 0 to 1 chooses one" in err
