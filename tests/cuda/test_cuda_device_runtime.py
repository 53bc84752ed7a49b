"""How the operators run on a GPU: streams, threads, devices, CUDA graphs, errors. Everything is marked cuda."""

import copy
import threading

import pytest
import torch
from compiled_calls import REGISTERED, calls
from gpu import DEVICE, needs_gpu
from molecules import SMALL, labeled_batch, moved, with_outputs
from operator_cases import assert_close, cast, gated_function, gated_inputs, paper_torsions
from operator_graphs import GRAPHS, on_device, small_graph

from spherenet_fast import ops
from spherenet_fast.cuda_graph import (
    Capacity,
    CapacityError,
    CapturedInference,
    CapturedModel,
    CapturedTraining,
    masked_mean,
)
from spherenet_fast.graph import edge_vectors, radius_graph
from spherenet_fast.graph.padding import fixed_radius_graph
from spherenet_fast.models import SphereNet
from spherenet_fast.ops._register import CPU_ONLY

pytestmark = pytest.mark.cuda
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
SHAPE = dict(num_spherical=7, num_radial=6, channels=64, angle_size=8, torsion_size=8)


# ---- streams, threads, devices ---------------------------------------------------------------------------------------


@needs_gpu
def test_work_follows_the_current_stream():
    """The operators run behind a kernel that takes long and makes their input: on any other stream too early."""
    vec, graph = GRAPHS["batch"]
    inputs = cast(gated_inputs(vec, **SHAPE), torch.float64, DEVICE)
    function = gated_function(ops, vec.to(DEVICE), on_device(graph, DEVICE))
    expected = function(*inputs.values())
    x = torch.zeros_like(inputs["x"])
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        x.copy_(inputs["x"])
        found = function(*(inputs | {"x": x}).values())
        late = ops.silu(x)
    stream.synchronize()
    assert torch.equal(found, expected) and torch.equal(late, ops.silu(inputs["x"]))


@needs_gpu
def test_nothing_waits_for_the_gpu():
    model = with_outputs(SphereNet(**SMALL)).to(DEVICE).train()
    data = moved(labeled_batch((9, 12)), DEVICE, torch.float32)
    capacity = Capacity(2, len(data.z), 400, 8000)
    graph = radius_graph(data.pos, data.batch, 5.0)
    model.energy_and_forces(data, graph)
    vec = edge_vectors(data.pos, graph)
    torch.cuda.set_sync_debug_mode("error")
    try:
        fixed_radius_graph(data.pos, data.batch, 5.0, capacity)
        leaf = vec.clone().requires_grad_()
        distance = leaf.square().sum(1).sqrt()
        bessel, radial = model.emb(distance, ops)
        torsions = paper_torsions(ops, leaf, graph)
        x = bessel.new_ones(len(vec), 12, requires_grad=True)
        weights = [getattr(model.update_es[0], name).weight for name in ("lin_sbf1", "lin_sbf2", "lin_t1", "lin_t2")]
        message = ops.gated_sum(x, radial, leaf / distance[:, None], torsions, graph, *weights)
        atoms = ops.segment_sum(ops.silu(message), graph.in_ptr, None, graph.edge_index[1])
        (slope,) = torch.autograd.grad(atoms.sum(), leaf, create_graph=True)
        torch.autograd.grad(slope.square().sum(), [x, *weights])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
def test_several_threads_with_streams_of_their_own():
    model = with_outputs(SphereNet(**SMALL)).double().to(DEVICE).eval()
    batches = [moved(labeled_batch((6, 5), seed), DEVICE) for seed in range(4)]
    expected = [model.energy_and_forces(data) for data in batches]
    torch.cuda.synchronize()
    found, errors = [None] * len(batches), []

    def work(number):
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(10):
                    found[number] = model.energy_and_forces(batches[number])
            stream.synchronize()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for mine, other in zip(found, expected, strict=True):
        # the matrix products of torch may take other ways on other streams
        assert_close(dict(enumerate(mine)), dict(enumerate(other)), 1e-11)


@two_gpus
def test_a_device_that_is_not_the_current_one():
    model = with_outputs(SphereNet(**SMALL)).double().eval()
    data = labeled_batch((6, 5))
    expected = dict(zip(("energy", "forces"), model.energy_and_forces(data), strict=True))
    with torch.cuda.device(0):
        energy, forces = model.to("cuda:1").energy_and_forces(moved(data, "cuda:1"))
    assert energy.device.index == 1 and torch.cuda.current_device() == 0
    assert_close({"energy": energy, "forces": forces}, expected, 1e-10)


@two_gpus
def test_tensors_on_two_gpus_are_an_error():
    with pytest.raises(RuntimeError, match="grad: expected device cuda:0 as for x, got cuda:1"):
        torch.ops.spherenet_fast.silu_backward(torch.ones(3, device="cuda:1"), torch.ones(3, device="cuda:0"))


# ---- CUDA graphs -----------------------------------------------------------------------------------------------------


@needs_gpu
def test_an_operator_is_replayed():
    vec, graph = GRAPHS["batch"]
    inputs = cast(gated_inputs(vec, **SHAPE), torch.float32, DEVICE)
    function = gated_function(ops, vec.to(DEVICE), on_device(graph, DEVICE))
    x = inputs["x"].clone().requires_grad_()

    def run():
        (slope,) = torch.autograd.grad(function(x, *list(inputs.values())[1:]).square().sum(), x, create_graph=True)
        return slope, torch.autograd.grad(slope.square().sum(), x)[0]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded, stream=stream):
        results = run()
    for _ in range(3):
        with torch.no_grad():
            x.copy_(torch.randn_like(x))
        recorded.replay()
        assert all(torch.equal(mine, other) for mine, other in zip(results, run(), strict=True))


BATCHES = [((6, 9, 1, 4), 0), ((5,), 1), ((9, 9, 9), 2), ((1, 1), 3)] * 3


@pytest.mark.parametrize("forces", [True, False])
def test_captured_inference(forces):
    model = with_outputs(SphereNet(**SMALL)).double().to(DEVICE).eval()
    batches = [moved(labeled_batch(sizes, seed), DEVICE) for sizes, seed in BATCHES]
    predict = CapturedInference(model, Capacity.of(batches, 5.0), forces)
    for data in batches:
        found, expected = predict(data), model.energy_and_forces(data) if forces else model(data)
        found, expected = (result if forces else (result,) for result in (found, expected))
        # the same sums in matrix products of other sizes
        assert_close(dict(enumerate(found)), dict(enumerate(t.detach() for t in expected)), 1e-11)
    assert (predict.run.graph is not None) == (DEVICE == "cuda")


@pytest.mark.parametrize("forces", [True, False])
def test_captured_training(forces):
    model = with_outputs(SphereNet(**SMALL)).double().to(DEVICE).train()
    twin = copy.deepcopy(model)
    batches = [moved(labeled_batch(sizes, seed), DEVICE) for sizes, seed in BATCHES]

    def masked_loss(energy, force, batch):
        loss = masked_mean((energy - batch.y).square(), batch.graph_mask)
        return loss if force is None else loss + masked_mean((force - batch.forces).square(), batch.atom_mask)

    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-3, capturable=DEVICE == "cuda") for m in (model, twin)]
    step = CapturedTraining(model, masked_loss, optimizers[0], Capacity.of(batches, 5.0), forces)
    for data in batches:
        loss = step(data)
        optimizers[1].zero_grad()
        energy, force = twin.energy_and_forces(data) if forces else (twin(data), None)
        expected = (energy - data.y).square().mean() + (0 if force is None else (force - data.forces).square().mean())
        expected.backward()
        optimizers[1].step()
        assert_close({"loss": loss}, {"loss": expected.detach()}, 1e-6)  # after up to 12 steps from the same start
    assert (step.change.graph is not None) == (DEVICE == "cuda")


def test_a_recorded_step_says_what_does_not_fit():
    batches = [moved(labeled_batch(sizes, seed), DEVICE) for sizes, seed in BATCHES]
    model = with_outputs(SphereNet(**SMALL)).double().to(DEVICE).train()
    small = Capacity.of(batches[1:2], 5.0, spare=0)._replace(atoms=40, graphs=4)
    step = CapturedTraining(
        model, lambda energy, forces, batch: forces.square().sum(), torch.optim.SGD(model.parameters(), lr=1e-9), small
    )
    for _ in range(6):
        step(batches[1])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CapacityError, match=f"edges: expected at most {small.edges}, the capacity, got"):
        step(batches[0])
    bad = copy.copy(batches[1])
    bad.z = torch.full_like(bad.z, 200)
    with pytest.raises(ValueError, match="data.z: expected atomic numbers 1 to 94, got 200 to 200"):
        step(bad)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    step(batches[1])


def sum_of_squares(energy, forces, batch):
    return energy.square().sum() + forces.square().sum()


def training_step(model, data, loss):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    return CapturedTraining(model, loss, optimizer, Capacity.of([data], 5.0), graph_labels=(), atom_labels=())


def test_a_step_is_recorded_beside_eager_graphs():
    """Which keep autograd's nodes for the parameters alive, on the default stream."""
    model = SphereNet(**SMALL).double().to(DEVICE).train()
    data = moved(labeled_batch((6, 5)), DEVICE)
    held = sum_of_squares(*model.energy_and_forces(data), None)
    expected = torch.autograd.grad(held, list(model.parameters()), retain_graph=True)
    step = training_step(model, data, sum_of_squares)
    for _ in range(6):
        loss = step(data)
    assert (step.change.graph is not None) == (DEVICE == "cuda")
    # the same sums in matrix products of other sizes
    assert_close({"loss": loss}, {"loss": held.detach()}, 1e-10)
    gradients = [parameter.grad for parameter in model.parameters()]
    assert_close(dict(enumerate(gradients)), dict(enumerate(expected)), 1e-10)


class OnThisDevice(CapturedModel):
    device = DEVICE


@pytest.mark.parametrize("training", [True, False])
def test_graphs_without_being_asked(training):
    """Of changing sizes, one of which needs more room, beside the graphs of autograd that a loop holds."""
    model = with_outputs(SphereNet(**SMALL)).double().to(DEVICE).train(training)
    predict = OnThisDevice(model)
    for sizes, seed in [((6, 5), 0), ((5, 5), 1), ((7, 6), 2), ((6, 6), 3)] * 4:
        data = moved(labeled_batch(sizes, seed), DEVICE)
        found, expected = predict.energy_and_forces(data), model.energy_and_forces(data)
        # the same sums in matrix products of other sizes
        assert_close(dict(enumerate(found)), dict(enumerate(t.detach() for t in expected)), 1e-10)
        if training:
            parameters = list(model.parameters())
            grads = [
                torch.autograd.grad(sum_of_squares(*result, None), parameters, materialize_grads=True)
                for result in (found, expected)
            ]
            assert_close(dict(enumerate(grads[0])), dict(enumerate(grads[1])), 1e-9)
    captured = list(predict._captured.values())
    assert captured and not predict._refused
    assert DEVICE != "cuda" or all(one.is_recorded for one in captured)


# ---- errors ----------------------------------------------------------------------------------------------------------


@needs_gpu
def test_shapes_dtypes_and_devices_are_checked_before_any_launch():
    vec, graph = small_graph()
    room = on_device(graph, DEVICE)
    given = cast(gated_inputs(vec), torch.float64, DEVICE)
    torsions = paper_torsions(ops, vec.to(DEVICE), room)
    cases = [
        (dict(radial=given["radial"].float()), "radial: expected dtype Double, got Float"),
        (dict(direction=given["direction"][:, :2]), r"direction: expected shape \[12, 3\], got \[12, 2\]"),
        (dict(radial=given["radial"].cpu()), "radial: expected device cuda:0 as for x, got cpu"),
        (dict(x=given["x"].cpu()), "expected device cpu as for x, got cuda:0"),
        (dict(graph=room._replace(rev=graph.rev)), "rev: expected device cuda:0 as for x, got cpu"),
        (dict(graph=room._replace(in_ptr=room.in_ptr.int())), "in_ptr: expected dtype Long, got Int"),
    ]
    for change, message in cases:
        arguments = dict(given, torsion=torsions, graph=room) | change
        with pytest.raises(RuntimeError, match=message):
            ops.gated_sum(**arguments)


def test_values_are_checked_if_asked_for(monkeypatch):
    """The messages of the CPU, and no launch with the bad indices."""
    monkeypatch.setenv("SPHERENET_FAST_CHECKS", "1")
    vec, graph = small_graph()
    room = on_device(graph, DEVICE)
    given = cast(gated_inputs(vec), torch.float64, DEVICE)
    torsions = paper_torsions(ops, vec.to(DEVICE), room)
    expected = ops.gated_sum(**given, torsion=torsions, graph=room)
    for field, message in (
        ("in_ptr", "in_ptr: expected ascending offsets from 0 to at most 12"),
        ("out_edge", "out_edge: expected values in 0 .. 11, got 99 at position 2"),
        ("rev", "rev: expected values in -1 .. 11, got 99 at position 2"),
        ("triplet_ptr", "triplet_ptr: expected 18 at atom 2, got 99"),
    ):
        bad = getattr(room, field).clone()
        bad[2] = 99
        with pytest.raises(RuntimeError, match=message):
            ops.gated_sum(**given, torsion=torsions, graph=room._replace(**{field: bad}))
        with pytest.raises(RuntimeError, match=message):
            paper_torsions(ops, vec.to(DEVICE), room._replace(**{field: bad}))
    bad = torsions.clone()
    bad[10] = 7
    with pytest.raises(RuntimeError, match="torsion: expected values in -2 .. 2 around atom 1, got others"):
        ops.gated_sum(**given, torsion=bad, graph=room)
    with pytest.raises(RuntimeError, match="index: expected values in -1 .. 3, got 4 at position 0"):
        ops.gather(vec[:4].to(DEVICE), room.edge_index[0] * 0 + 4, room.in_ptr)
    # nothing has been written out of range, and the device is as well as before
    assert torch.equal(ops.gated_sum(**given, torsion=torsions, graph=room), expected)


@pytest.mark.parametrize("name", sorted(REGISTERED - (CPU_ONLY if DEVICE == "cuda" else set())))
def test_every_operator_under_opcheck(name):
    torch.library.opcheck(getattr(torch.ops.spherenet_fast, name).default, calls(torch.float64, DEVICE)[name][0])


# ---- last, because whatever it leaves behind would fail the others --------------------------------------------------


@needs_gpu
def test_a_recording_that_fails_leaves_nothing_behind():
    """A loss that reads a value on the host, once: then the same process records, draws numbers and frees memory."""
    model = SphereNet(**SMALL).double().cuda().train()
    data = moved(labeled_batch((6, 5)), "cuda")
    predict = CapturedInference(copy.deepcopy(model).eval(), Capacity.of([data], 5.0))
    before = [predict(data) for _ in range(5)][-1]
    reads = [True]

    def loss(energy, forces, batch):
        value = sum_of_squares(energy, forces, batch)
        if torch.cuda.is_current_stream_capturing() and reads:
            reads.clear()
            value.item()
        return value

    step = training_step(model, data, loss)
    first = [step(data) for _ in range(3)][-1]
    with pytest.raises(RuntimeError, match="the step cannot be recorded as a CUDA graph: "):
        step(data)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.cuda.empty_cache()
    assert torch.randn(5, device="cuda").isfinite().all()
    assert all(torch.equal(mine, other) for mine, other in zip(predict(data), before, strict=True))
    last = [step(data) for _ in range(5)][-1]
    assert step.change.graph is not None
    assert_close({"loss": last}, {"loss": first}, 1e-10)
