"""Training runs of every model, chosen by name."""

import pytest
import torch
from molecules import with_outputs
from small_models import EXAMPLE, NAMES
from training_runs import settings, tiny_settings

from spherenet_fast.models import MODELS, SphereNet
from spherenet_fast.training import Potential, load_config, train
from spherenet_fast.training.config.files import config_from_dict, config_to_dict
from spherenet_fast.training.config.models import model_section
from spherenet_fast.training.normalization import Normalization
from spherenet_fast.training.potential import read_checkpoint

TINY = {
    "SchNet": dict(num_interactions=1, hidden_channels=8, num_filters=8, num_gaussians=5),
    "PhysNet": dict(num_blocks=1, hidden_channels=8, num_gaussians=5),
    "DimeNet": dict(num_blocks=1, hidden_channels=8, num_bilinear=2, num_spherical=2, num_radial=2),
    "DimeNetPlusPlus": dict(num_blocks=1, hidden_channels=8, int_emb_size=4, num_spherical=2, num_radial=2),
}


def tiny_run(name):
    """The shipped ethanol config with a tiny model of that name, three steps."""
    others = [text for text in tiny_settings(training__max_steps=3) if not text.startswith("model.")]
    return load_config(
        "ethanol", settings({"model.name": name} | {f"model.{k}": v for k, v in TINY[name].items()}) + others
    )


def test_every_model_is_tried():
    """SphereNet is what all other tests of training train."""
    assert {"SphereNet", *TINY} == set(MODELS)
    assert {name.split()[0] for name in NAMES if name != EXAMPLE} == set(MODELS)


@pytest.mark.parametrize("name", TINY)
def test_a_model_is_trained_and_saved_by_name(name, tmp_path):
    config = tiny_run(name)
    assert train(config, tmp_path / "run") is not None
    checkpoint = tmp_path / "run" / "best.ckpt"
    assert read_checkpoint(checkpoint)["model"] == name
    potential = Potential.load(checkpoint)
    assert type(potential.model) is MODELS[name] and potential.model.hparams["hidden_channels"] == 8
    assert config_from_dict(potential.config) == config
    assert train(load_config(tmp_path / "run" / "config.yaml", ["training.max_steps=4"]), tmp_path / "run", resume=True)


@pytest.mark.parametrize("name", MODELS)
def test_configs_have_the_arguments_of_the_models(name):
    hparams = MODELS[name]().hparams
    assert hparams.pop("out_channels") == 1  # the number of targets
    assert vars(model_section(MODELS[name], name)()) == hparams | {"name": name}


def test_another_model_starts_from_its_own_defaults():
    assert load_config("ethanol").model.num_spherical == 3
    assert load_config("ethanol", ["model.name=SphereNet"]).model.num_spherical == 3
    assert load_config("ethanol", ["model.name=DimeNet"]).model.num_spherical == 7
    changed = load_config("ethanol", ["model.num_spherical=2", "model.name=DimeNet"]).model
    assert changed.num_spherical == 2 and changed.num_bilinear == 8
    assert load_config("ablation:no_torsion", ["model.name=DimeNet"]).model.num_spherical == 7


def test_a_variant_may_be_another_model(tmp_path):
    text = "data: {source: ethanol}\nmodel: {num_spherical: 3}\ntraining: {max_steps: 1}\n"
    text += "variants:\n  plain: {}\n  other: {model: {name: SchNet, num_gaussians: 9}}\n"
    path = tmp_path / "two.yaml"
    path.write_text(text)
    assert load_config(f"{path}:plain").model.num_spherical == 3
    other = load_config(f"{path}:other").model
    assert other.num_gaussians == 9 and other.cutoff == 10
    assert load_config(f"{path}:other", ["model.name=SphereNet"]).model.num_spherical == 3


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["model.name=GemNet"], "config key 'model.name': expected one of SphereNet, SchNet, .*, got 'GemNet'"),
        (
            ["model.name=SchNet", "model.num_spherical=3"],
            "config key 'model.num_spherical': expected one of name, cutoff",
        ),
        (
            ["model.name=SchNet", "model.num_gaussians=1"],
            "config key 'model.num_gaussians': expected at least 2, got 1",
        ),
        (["model.name=PhysNet", "model.num_blocks=two"], "config key 'model.num_blocks': expected int, got 'two'"),
    ],
)
def test_wrong_models(overrides, message):
    with pytest.raises(ValueError, match=message):
        load_config("ethanol", overrides)


def test_configs_and_checkpoints_without_a_name_are_of_a_spherenet(tmp_path):
    values = config_to_dict(load_config("ethanol"))
    del values["model"]["name"]
    assert config_from_dict(values) == load_config("ethanol")
    config = load_config("ethanol", tiny_settings(training__max_steps=1))
    train(config, tmp_path / "run")
    state = read_checkpoint(tmp_path / "run" / "best.ckpt")
    del state["model"]
    torch.save(state, tmp_path / "old.ckpt")
    assert type(Potential.load(tmp_path / "old.ckpt").model) is SphereNet
    torch.save(state | {"model": "GemNet"}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="other.ckpt: .*GemNet"):
        Potential.load(tmp_path / "other.ckpt")


def test_a_potential_takes_what_a_model_takes_and_no_class_that_it_could_not_find_again():
    class Own(SphereNet):
        pass

    normalization = Normalization(torch.ones(1, 95).double(), torch.zeros(1).double(), torch.ones(1).double())
    tiny = dict(num_layers=1, hidden_channels=8, int_emb_size=4, out_emb_channels=8, num_spherical=2, num_radial=2)
    with pytest.raises(ValueError, match="model: expected one of SphereNet, .* or a class of a module, got .*Own"):
        Potential(Own(**tiny), normalization, ("energy",), ("eV",)).state()
    potential = Potential(with_outputs(SphereNet(**tiny)), normalization, ("energy",), ("eV",))
    data = dict(z=torch.tensor([8, 1, 1]), pos=torch.tensor([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
    assert torch.equal(potential(data), 3 + potential.model(data).double())
