"""What the command says of itself, and how little it loads for it."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import spherenet_fast
from spherenet_fast.cli import app


def shown(*arguments):
    """The output of the command in a window wide enough for every line."""
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert result.exit_code == 0
    return result.stdout


def printed(program, folder):
    """What a Python program prints, run in `folder`: not the source folder."""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=folder
    ).stdout


@pytest.mark.parametrize(
    ("command", "defaults"),
    [
        ("init", ["(<data's name>.yaml)"]),
        ("options", ["(all)"]),
        ("train", ["(runs/<config's name>)", "(one)"]),
        ("evaluate", ["(those of the training run)", "test", "32", "cpu"]),
        ("predict", ["forces", "32", "cpu"]),
        ("relax", ["bfgs", "0.01", "500", "(the checkpoint's)", "cpu"]),
        (
            "md",
            ["langevin", "(300)", "0.5", "(1)", "(0.01)", "(0)", "0", "(all in one batch)", "10", "10", "10"]
            + ["(the checkpoint's)", "cpu"],
        ),
        ("export", ["(extensions, beside --out)", "(the checkpoint's)", "cpu"]),
        (
            "sample",
            ["tblite:GFN2-xTB", "(500)", "1200", "5fs", "0.5ps", "0.5", "0.02", "0", "(the only one)"]
            + ["(move by the calculator)", "10", "10", "cpu"],
        ),
        (
            "check",
            ["(none)", "(the only one)", "0.0001", "0.1", "0.001", "5.0", "0.1", "30", "41", "1.0", "0.5", "300.0", "0"]
            + ["(the checkpoint's)", "cpu"],
        ),
        (
            "vib",
            ["(none)", "(none)", "0.001", "500", "(all that are not fixed)", "(the only one)", "298.15", "100000", "1"]
            + ["0", "float64", "cpu"],
        ),
        ("filters", ["0", "(six)"]),
        ("geometry", ["(the shortest without hydrogen)", "0", "(1.3 times the bond)"]),
    ],
)
def test_help_shows_the_defaults(command, defaults):
    text = shown(command, "--help")
    assert [part.split("]")[0] for part in text.split("[default: ")[1:]] == defaults


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_loads_neither_torch_nor_lightning(tmp_path, arguments):
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom spherenet_fast.cli import app\n"
        f"assert CliRunner().invoke(app, {arguments}).exit_code == 0\n"
        "print([name for name in ('torch', 'lightning', 'numpy', 'ase') if name in sys.modules])"
    )
    assert printed(program, tmp_path) == "[]\n"


def test_using_a_model_does_not_load_lightning(tmp_path):
    program = "import sys, spherenet_fast.calculators.ase\nprint('lightning' in sys.modules)"
    assert printed(program, tmp_path) == "False\n"


def test_the_version():
    assert shown("--version") == f"spherenet_fast {spherenet_fast.__version__}\n"


def test_names_of_the_package():
    assert set(spherenet_fast.__all__) | {"__version__"} <= set(dir(spherenet_fast))
    assert all(getattr(spherenet_fast, name).__name__ == name for name in spherenet_fast.__all__)
    assert spherenet_fast.models.MODELS["SphereNet"] is spherenet_fast.SphereNet
    with pytest.raises(AttributeError, match="module 'spherenet_fast' has no attribute 'nothing'"):
        spherenet_fast.nothing
