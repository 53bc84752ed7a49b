"""SphereNet as a module: its size, its start, its hyper-parameters, its compilation."""

import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from molecules import rattled, with_outputs
from torch.fx.experimental.proxy_tensor import make_fx

from spherenet_fast.graph import radius_graph
from spherenet_fast.models import SphereNet
from spherenet_fast.nn import basis
from spherenet_fast.ops import reference

TINY = dict(
    num_layers=1, hidden_channels=6, int_emb_size=4, basis_emb_size_dist=2, basis_emb_size_angle=3,
    basis_emb_size_torsion=3, out_emb_channels=5, num_spherical=3, num_radial=2, num_output_layers=1,
)  # fmt: skip


@pytest.fixture(params=[False, True], ids=["reference", "kernels"])
def tiny(request):
    """Hyper-parameters of a small model, for both implementations of the operators."""
    return dict(TINY, kernels=request.param)


def test_parameter_counts():
    model = SphereNet()
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_898_566  # Table 5 of the paper
    assert sum(parameter.numel() for parameter in SphereNet(num_spherical=3).parameters()) == 1_890_118
    without_torsion = SphereNet(use_torsion=False)
    assert not [name for name in without_torsion.state_dict() if "lin_t" in name]
    without_angle = SphereNet(use_torsion=False, use_angle=False)
    assert not [name for name in without_angle.state_dict() if "lin_t" in name or "lin_sbf" in name]
    assert SphereNet(**model.hparams).hparams == model.hparams


def test_the_model_is_built_quickly():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that the processor time does not depend on what else the machine does
    seconds = []
    for _ in range(3):  # a processor that shares its units with another process can take several times as long
        basis.spherical_bessel_roots.cache_clear()
        start = time.process_time()
        SphereNet()
        seconds.append(time.process_time() - start)
    torch.set_num_threads(threads)
    assert min(seconds) < 0.3  # 0.06 is usual


def test_initial_weights():
    torch.manual_seed(0)
    last_layers = {"init_v.lin.weight", *(f"update_vs.{layer}.lin.weight" for layer in range(4))}
    for name, value in SphereNet().state_dict().items():
        if name.endswith("bias") or name in last_layers:
            assert (value == 0).all()
        elif name.endswith("freq"):
            torch.testing.assert_close(value, math.pi * torch.arange(1.0, 7.0))
        elif name.endswith("emb.weight"):
            assert value.abs().max() < 3**0.5 and abs(value.std().item() - 1) < 0.05
        elif "lin_t1" in name:  # the first basis channel of the torsion is nearly constant
            assert (value[0, :6] != 0).all() and (value[0, 6:] == 0).all()
        elif "lin_t2" in name:  # and goes into all channels
            assert (value[:, 0] == 1).all()
        else:  # orthogonal: the mean square is exact up to rounding
            assert value.square().mean().item() == pytest.approx(2 / sum(value.shape), rel=1e-4)


@pytest.mark.parametrize(
    "hparams, error, message",
    [
        (dict(cutoff=0.0), ValueError, "cutoff: expected a positive number, got 0.0"),
        (dict(cutoff=math.nan), ValueError, "cutoff: expected a positive number, got nan"),
        (dict(cutoff="5"), TypeError, "cutoff: expected a number, got '5'"),
        (dict(num_layers=0), ValueError, "num_layers: expected 1 to 100, got 0"),
        (dict(num_spherical=9), ValueError, "num_spherical: expected 1 to 8, got 9"),
        (dict(num_radial=17), ValueError, "num_radial: expected 1 to 16, got 17"),
        (dict(hidden_channels=3.5), TypeError, "hidden_channels: expected an int, got 3.5"),
        (dict(basis="other"), ValueError, 'basis: expected "paper" or "dig", got \'other\''),
        (dict(use_angle=False), ValueError, "torsion: expected None where use_angle is False"),
        (dict(use_torsion=1), TypeError, "use_torsion: expected True or False, got 1"),
        (dict(max_num_neighbors=0), ValueError, "max_num_neighbors: expected 1 to 2147483647 or None, got 0"),
    ],
)
def test_wrong_hyper_parameters(hparams, error, message):
    with pytest.raises(error, match=message):
        SphereNet(**hparams)


def test_precision_of_the_constants(tiny):
    """They are not in the state, and no conversion rounds them."""
    model = SphereNet(**tiny)
    assert not [name for name in model.state_dict() if "roots" in name or "scale" in name]
    roots = torch.from_numpy(np.array(basis.spherical_bessel_roots(3, 2)))
    for converted in (model, model.double(), model.float()):
        assert torch.equal(converted.emb.roots, roots)


def compiled_inputs(num_atoms):
    pos = rattled(num_atoms, num_atoms)
    batch = torch.zeros(num_atoms, dtype=torch.int64)
    data = SimpleNamespace(z=torch.full((num_atoms,), 6), pos=pos, batch=batch, num_graphs=1)
    return data, radius_graph(pos, batch, 5.0)


def test_inference_compiles_to_one_graph():
    torch.manual_seed(0)
    model = with_outputs(SphereNet(**TINY)).double().eval()
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    with torch.no_grad():
        compiled(*compiled_inputs(5))
        first = counter.frame_count
        for num_atoms in (5, 7, 6):
            data, graph = compiled_inputs(num_atoms)
            torch.testing.assert_close(compiled(data, graph), model(data, graph))
    assert counter.frame_count == first  # other sizes do not compile again


def test_training_step_is_traced():
    """make_fx takes the forces apart, so that what trains on forces can be compiled: the trace differentiates again."""
    torch.manual_seed(0)
    model = with_outputs(SphereNet(**TINY)).double().train()
    data, graph = compiled_inputs(5)

    def step(pos):
        return model.energy_and_forces(SimpleNamespace(**vars(data) | dict(pos=pos)), graph)

    def gradients(step):
        energy, forces = step(data.pos)
        return torch.autograd.grad(energy.sum() + forces.square().sum(), list(model.parameters()))

    for traced, expected in zip(gradients(make_fx(step)(data.pos)), gradients(step), strict=True):
        torch.testing.assert_close(traced, expected, rtol=1e-12, atol=1e-12)  # the same operations


def test_the_former_name_of_from_dig():
    state = SphereNet(**TINY, basis="dig").state_dict()
    with pytest.warns(DeprecationWarning, match="use from_dig"):
        assert SphereNet.from_released(state, **TINY, basis="released").hparams["basis"] == "dig"


def test_the_former_name_of_a_basis():
    with pytest.warns(DeprecationWarning, match='basis="released" is deprecated: use "dig"'):
        assert SphereNet(**TINY, basis="released").hparams["basis"] == "dig"


def test_the_torsion_filters_start_near_one():
    """Evaluated as the gated sum does, over distances and angles; the other basis channels begin at random."""
    model = SphereNet().double()
    distance = torch.linspace(1.0, 4.5, 20, dtype=torch.float64)
    radial = model.emb(distance, reference)[1]
    harmonics = reference.spherical_harmonics(*torch.randn(3, 20, dtype=torch.float64), 7)
    for block in model.update_es:
        first = block.lin_t1.weight[:1], block.lin_t2.weight[:, :1]
        factor = reference.torsion_filter(radial, harmonics, *first)
        assert (factor - 1).abs().max() < 0.25  # six functions that are 0 at 5 Å cannot do better there
