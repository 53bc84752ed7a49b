"""All output blocks of a model at once, as on a GPU, against one after the other."""

import pytest
import torch
from molecules import rattled_batch
from operator_cases import assert_close
from small_models import small_model

from spherenet_fast.nn import outputs

# the same products in float64, summed by other routines
ROUNDING = 1e-12


@pytest.fixture
def joined(monkeypatch):
    """How many blocks were joined in every call."""
    found, join = [], outputs._joined

    def counted(layers):
        found.append(len(layers))
        return join(layers)

    monkeypatch.setattr(outputs, "_worth_joining", lambda x: True)
    monkeypatch.setattr(outputs, "_joined", counted)
    return found


def results(model, data):
    energy, forces = model.energy_and_forces(data)
    parameters = dict(model.named_parameters())
    loss = energy.square().sum() + forces.square().sum()
    gradients = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    return dict(zip(parameters, gradients)) | {"energy": energy.detach(), "forces": forces.detach()}


@pytest.mark.parametrize("name", ["SphereNet", "DimeNet", "DimeNetPlusPlus"])
def test_results_and_gradients(name, monkeypatch, joined):
    model, data = small_model(name), rattled_batch((5, 3))
    found = results(model, data)
    assert joined == [3]  # the first block and those of two layers
    monkeypatch.undo()
    assert_close(found, results(model, data), ROUNDING)


def test_blocks_that_are_not_alike(joined):
    """With another layer in the place of one, or a hook that waits for it, each block is called."""
    model, data, calls = small_model("SphereNet"), rattled_batch((5, 3)), []

    class OfSomeoneElse(type(model.init_v.lin)):
        pass

    expected = model(data)
    handle = model.update_vs[1].register_forward_hook(lambda *_: calls.append(1))
    assert joined == [3]
    assert_close({"energy": model(data)}, {"energy": expected}, ROUNDING)
    assert joined == [3] and calls == [1]
    handle.remove()
    lin = model.init_v.lin
    model.init_v.lin = OfSomeoneElse(lin.in_features, lin.out_features, bias=False).double()
    model(data)
    assert joined == [3]
