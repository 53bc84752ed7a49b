"""Checkpoints that are damaged, foreign or changed: a ValueError that names the file, never other numbers."""

import copy
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training_runs import untrained

from spherenet_fast.models import MODELS, SchNet, SphereNet
from spherenet_fast.training import Potential
from spherenet_fast.training.checkpoint import digest


@pytest.fixture(scope="module")
def potential():
    return untrained()[0]


@pytest.fixture(scope="module")
def molecules():
    return untrained()[1][:2]


def refusal(path) -> str | None:
    """What `Potential.load` says against a file, or None; other errors than a ValueError with the path pass."""
    try:
        Potential.load(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: expected ") or re.match(f"{path}: [a-z ]+: ", str(error)), error
        return str(error)


def saved(path, state) -> object:
    torch.save(state, path)
    return path


def damaged(content: bytes, draw) -> bytes:
    """`content` with a few bits flipped, a part lost, repeated or blank, or the end missing."""
    data = bytearray(content)
    at, size = int(draw.integers(len(data))), int(draw.integers(1, 400))
    kind = draw.integers(6)
    if kind <= 1:
        for place in draw.integers(0, len(data), 1 + 7 * kind):
            data[place] ^= 1 << int(draw.integers(8))
    elif kind == 2:
        del data[at:]
    elif kind == 3:
        del data[at : at + size]
    elif kind == 4:
        data[at:at] = data[at : at + size]
    else:
        data[at : at + size] = bytes(len(data[at : at + size]))
    return bytes(data)


def test_damaged_files_are_refused_or_harmless(tmp_path, potential):
    """Bytes between the entries of the archive mean nothing; no other change may load."""
    path = tmp_path / "p.ckpt"
    potential.save(path)
    content, state = path.read_bytes(), potential.state()
    draw = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        path.write_bytes(damaged(content, draw))
        if refusal(path) is not None:
            refused += 1
            continue
        again = Potential.load(path).state()
        assert again["digest"] == state["digest"]
        assert all(again[name] == state[name] for name in state if name not in ("weights", "normalization"))
    assert 120 < refused < 200  # a third of the file is padding


def replaced(state: dict, draw):
    """A copy of `state` in which one entry, at the top or within one, is another value or missing; and its name."""
    state = copy.deepcopy(state)
    where, name = state, draw.choice(list(state))
    if isinstance(state[name], dict) and draw.random() < 0.6:
        where, name = state[name], draw.choice(list(state[name]))
    others = [None, -1, 0, 3, 40, 1e300, float("nan"), "", "x", True, [], [1]]
    others += [["x", None], {}, {"x": 1}, {1: {}}]
    others += [torch.ones(2), torch.tensor(float("nan")), torch.ones(1, 95).to_sparse(), torch.ones(3, device="meta")]
    choice = int(draw.integers(len(others) + 2))
    if choice < len(others):
        where[name] = others[choice]
    elif choice == len(others):
        del where[name]
    elif isinstance(where[name], torch.Tensor):
        where[name] = where[name].half()
    return state


def test_changed_entries_are_refused_or_work(tmp_path, potential, molecules):
    """With or without a digest: what loads also predicts."""
    draw = np.random.default_rng(0)
    refused = 0
    for number in range(200):
        state = replaced(potential.state(), draw)
        if number % 2:
            state.pop("digest", None)
        path = saved(tmp_path / "p.ckpt", state)
        if refusal(path) is not None:
            refused += 1
            continue
        loaded = Potential.load(path)
        assert len(loaded(molecules)) == 2
        assert loaded.all_units() and loaded.ewt_threshold is None or loaded.ewt_threshold
    assert 120 < refused < 200


def test_a_digest_holds_the_weights(tmp_path, potential):
    state = potential.state()
    name = next(iter(state["weights"]))
    state["weights"][name] = state["weights"][name].clone()
    state["weights"][name].view(-1)[0] *= 1 + 1e-15 if state["weights"][name].dtype == torch.float64 else 1 + 1e-6
    message = refusal(saved(tmp_path / "p.ckpt", state))
    assert "weights: expected those of the digest beside them, got others" in message
    state = potential.state()
    state["normalization"]["scale"] = 2 * state["normalization"]["scale"]
    assert "digest" in refusal(saved(tmp_path / "p.ckpt", state))


def test_a_digest_is_of_names_dtypes_shapes_and_bytes():
    weight = torch.arange(6.0)
    plain = digest({"a": weight, "b": weight}, {})
    assert plain == digest({"b": weight.clone(), "a": weight}, {})
    others = [{"a": weight, "c": weight}, {"a": weight, "b": weight.view(2, 3)}, {"a": weight, "b": -weight}]
    others += [{"a": weight, "b": weight.view(torch.int32)}, {"a": weight}]
    assert len({plain, *(digest(other, {}) for other in others), digest({"a": weight}, {"b": weight})}) == 7


def test_checkpoints_of_before_have_no_digest(tmp_path, potential, molecules):
    state = potential.state()
    del state["digest"]
    again = Potential.load(saved(tmp_path / "p.ckpt", state))
    assert torch.equal(again(molecules), potential(molecules))


def test_a_checkpoint_with_the_names_of_version_0_1():
    """fixtures/schnet_0.1.0.ckpt: "normalisation", a buffer "centres", and a digest over these names."""
    path = Path(__file__).parents[1] / "fixtures/schnet_0.1.0.ckpt"
    potential = Potential.load(path)
    water = SimpleNamespace(
        z=torch.tensor([8, 1, 1]), pos=torch.tensor([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]), batch=None
    )
    energy, forces = potential.energy_and_forces(water)
    # what 0.1.0 computed; the network's part of the energy, 2 eV, and the forces are float32
    assert abs(energy.item() + 2068.7428086698055) < 1e-6
    expected = [[0.122782715, 0.158500952, 0], [-0.471443713, 0.238512084, 0], [0.348660976, -0.397013038, 0]]
    torch.testing.assert_close(forces, torch.tensor(expected), rtol=1e-5, atol=1e-7)
    state = torch.load(path, weights_only=True)
    assert "normalisation" in state and "centres" in state["weights"]
    other = SchNet(**potential.model.hparams)
    other.load_state_dict(state["weights"])
    assert torch.equal(other.centers, potential.model.centers)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("group", ["weights", "normalization"])
def test_numbers_that_are_not_finite_are_refused(tmp_path, potential, group, value):
    state = copy.deepcopy(potential.state())
    name, tensor = list(state[group].items())[-1]
    tensor.view(-1)[-1] = value
    state["digest"] = digest(state["weights"], state["normalization"])
    message = refusal(saved(tmp_path / "p.ckpt", state))
    assert f"{group}: {name}: expected finite numbers, got others" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": None}, "weights: expected a dictionary of tensors, got a NoneType"),
        ({"names": "energy"}, "names: expected a list of names, got a str"),
        ({"model": "MyNet"}, "model: expected one of SphereNet, .*, or the import path of a class"),
        ({"hparams": {"size": 3}}, "does not fit this version of the models: hparams: .*size"),
        ({"units": ["eV", "eV"]}, "units: expected one for each of at least one target, got 2 for 1"),
        ({"elements": [1, 200]}, "elements: expected atomic numbers 1 to 94, got 200"),
        ({"config": {"seed": 3}}, "config: expected a section data"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, potential, changes, message):
    assert re.search(message, refusal(saved(tmp_path / "p.ckpt", potential.state() | changes)))


def test_a_normalization_of_a_wrong_shape_is_refused(tmp_path, potential):
    state = potential.state()
    del state["digest"]
    state["normalization"]["shift"] = torch.zeros(3, dtype=torch.float64)
    message = refusal(saved(tmp_path / "p.ckpt", state))
    assert "normalization: shift: expected torch.float64 [1], got torch.float64 [3]" in message


def test_hyper_parameters_take_no_memory_before_they_fit(tmp_path, potential):
    state = potential.state()
    state["hparams"] = state["hparams"] | {"hidden_channels": 4096, "num_layers": 100}  # weights of 65 GB
    assert re.search("does not fit .*: expected .*4096.*, got .*8", refusal(saved(tmp_path / "p.ckpt", state)))


def test_a_class_of_one_s_own_is_asked_for_by_name(tmp_path, potential, monkeypatch):
    class MyNet(SphereNet):
        pass

    monkeypatch.setitem(MODELS, "MyNet", MyNet)
    path = saved(tmp_path / "p.ckpt", potential.state() | {"model": "MyNet"})
    assert isinstance(Potential.load(path).model, MyNet)
    monkeypatch.delitem(MODELS, "MyNet")
    assert "got 'MyNet'" in refusal(path)


def test_a_checkpoint_that_does_not_say_has_the_papers_torsion(tmp_path, potential):
    assert potential.model.hparams["torsion"] == "smooth_even"
    state = potential.state()
    del state["hparams"]["torsion"]
    assert Potential.load(saved(tmp_path / "p.ckpt", state)).model.torsion == "paper"
    state["hparams"]["use_torsion"] = False
    state["weights"] = {name: value for name, value in state["weights"].items() if "lin_t" not in name}
    del state["digest"]
    assert Potential.load(saved(tmp_path / "q.ckpt", state)).model.torsion is None
