"""A model of one's own: hyper-parameters from its constructor, and trained, evaluated and used by its import path."""

import sys
from typing import Literal

import ase.io
import pytest
from ase.build import molecule
from attention import AttentionNet
from commands import call
from training_runs import settings, tiny_settings

from spherenet_fast import GraphNetwork3D, SphereNet
from spherenet_fast.calculators.ase import SphereNetCalculator
from spherenet_fast.models import find_model, model_name
from spherenet_fast.nn.hparams import arguments
from spherenet_fast.training import Potential, load_config
from spherenet_fast.training.prepare import untrained_model

SOURCE = """
from attention import AttentionNet

class MyNet(AttentionNet):
    class Inner(AttentionNet):
        pass

    def __init__(self, width: int, depth: int = 1, cutoff: float = 3.0):
        super().__init__(cutoff, depth, hidden_channels=width, num_radial=3)
"""
TINY = settings({"model.name": "my_nets.MyNet", "model.width": 6})
TINY += [text for text in tiny_settings(training__max_steps=3) if not text.startswith("model.")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a module my_nets, which is forgotten afterwards."""
    (tmp_path / "my_nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    yield tmp_path
    sys.modules.pop("my_nets", None)


def test_trained_evaluated_and_used_by_import_path(folder):
    options = [part for text in TINY for part in ("--set", text)]
    assert call("train", "ethanol", "--out", "run", *options)[0] == 0
    potential = Potential.load("run/best.ckpt")
    assert potential.model.hparams == {"width": 6, "depth": 1, "cutoff": 3.0}
    assert potential.state()["model"] == "my_nets.MyNet"
    assert call("train", "run/config.yaml", "--resume", "--set", "training.max_steps=4")[0] == 0
    assert call("evaluate", "run/best.ckpt")[1].startswith("4 molecules")
    ase.io.write("in.xyz", molecule("CH3CH2OH"))
    assert call("predict", "run/best.ckpt", "in.xyz", "-o", "out.xyz")[0] == 0
    atoms = molecule("CH3CH2OH")
    atoms.calc = SphereNetCalculator("run/best.ckpt")
    # the file keeps eight decimals
    assert atoms.get_forces() == pytest.approx(ase.io.read("out.xyz").get_forces(), abs=1e-7)
    (folder / "my_nets.py").unlink()
    del sys.modules["my_nets"]
    code, _, error = call("evaluate", "run/best.ckpt")
    reason = "ModuleNotFoundError: No module named 'my_nets'; start in the folder that holds it, or set PYTHONPATH"
    expected = f"expected a class that can be imported, got 'my_nets.MyNet': {reason}"
    assert code == 2 and error == f"error: run/best.ckpt: model: {expected}\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.widht": 3}, "'model.widht': expected one of name, width, depth, cutoff; there is no such key"),
        ({"model.depth": "two"}, "'model.depth': expected int, got 'two'"),
        ({"model.name": "my_nets.Nothing"}, "'model.name': expected a class .* got 'my_nets.Nothing': AttributeError"),
        ({"model.name": "my_nets.torch.nn.Linear"}, "'model.name': expected a class that can be imported, got"),
        ({"model.name": "torch.nn.Linear"}, "'model.name': expected a subclass of spherenet_fast.GraphNetwork3D"),
        ({"model.name": "MyNet"}, "'model.name': expected one of SphereNet, .*, or the import path of a class"),
    ],
)
def test_wrong_sections_are_named(folder, changes, message):
    with pytest.raises(ValueError, match=f"^config key {message}"):
        load_config("ethanol", TINY + settings(changes))


def test_an_argument_without_a_default_is_asked_for(folder):
    with pytest.raises(ValueError, match="^config key 'model.width': expected a value, as it has no default"):
        load_config("ethanol", ["model.name=my_nets.MyNet"])


def test_a_model_without_out_channels_has_one_target(folder):
    options = [part for text in TINY for part in ("--set", text)] + ["--set", "data.targets=[mu,alpha]"]
    code, _, error = call("train", "qm9", "--out", "run", *options)
    expected = "expected one, as my_nets.MyNet takes no out_channels, got mu, alpha"
    assert code == 2 and error.splitlines()[-1] == f"error: data.targets: {expected}"


def test_names_of_classes(folder):
    for name in ("my_nets.MyNet", "my_nets:MyNet.Inner", "SphereNet"):
        assert model_name(find_model(name)) == name
    assert find_model("my_nets:MyNet") is find_model("my_nets.MyNet")


class Passing(SphereNet):
    """Has an argument of its own, one that it decides, and passes the others on."""

    def __init__(self, extra: Literal["a", "b"] = "a", **others):
        super().__init__(torsion=None, **others)
        self.extra = extra


def test_hyper_parameters_are_those_of_the_outermost_constructor():
    model = Passing("b", num_layers=1, hidden_channels=8)
    assert model.hparams == {"extra": "b", "num_layers": 1, "hidden_channels": 8}
    assert type(model)(**model.hparams).state_dict().keys() == model.state_dict().keys()
    assert list(arguments(Passing))[:3] == ["extra", "cutoff", "num_layers"]
    assert AttentionNet(3.0, num_radial=2).hparams == dict(cutoff=3.0, num_layers=3, hidden_channels=64, num_radial=2)


def test_a_constructor_that_passes_arguments_on_is_configured_with_all_of_them():
    sizes = {"num_layers": 1, "hidden_channels": 8, "int_emb_size": 4, "extra": "b"}
    path = f"{__name__}.Passing"
    options = settings({"model.name": path} | {f"model.{key}": value for key, value in sizes.items()})
    config = load_config("ethanol", options)
    assert config.model.extra == "b" and config.model.num_spherical == 7
    model = untrained_model(config.model, ("energy",))
    assert model.torsion is None and model.hparams == sizes | {"out_channels": 1}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (dict(extra="c"), ValueError, 'extra: expected "a" or "b", got \'c\''),
        (dict(num_layers=0), ValueError, "num_layers: expected 1 to 100, got 0"),
        (dict(size=3), TypeError, "unexpected keyword argument 'size'"),
    ],
)
def test_wrong_arguments_of_a_subclass_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        Passing(**changes)


def test_hyper_parameters_given_by_hand_still_do():
    class Former(GraphNetwork3D):
        def __init__(self, cutoff=2.0):
            super().__init__(dict(cutoff=cutoff, kernels=False), num_layers=1)

    with pytest.warns(DeprecationWarning, match="hparams are recorded by themselves"):
        model = Former()
    assert model.cutoff == 2 and model.hparams == {"cutoff": 2.0, "kernels": False}
