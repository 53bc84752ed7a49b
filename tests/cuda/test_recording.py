"""When a step is recorded, on which stream, and what is left of a recording that fails: over a stand-in of torch.cuda.

The stand-in does what torch does where a capture fails: the end of the capture raises, the stream stays the captured
one, random numbers are refused, and before torch 2.12 the allocator takes the capture for unfinished.
test_cuda_device_runtime.py has the same on a GPU.
"""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from molecules import SMALL, labeled_batch

from spherenet_fast.cuda_graph import WARM_UP, Capacity, CapturedTraining, Recorded, RecordingError
from spherenet_fast.cuda_graph import recorded as recorded_module
from spherenet_fast.cuda_graph.derivatives import CapturedPrediction
from spherenet_fast.models import SphereNet


class Stream:
    device = "cpu"

    def __init__(self, name="side"):
        self.name, self.waited_for = name, []

    def wait_stream(self, other):
        self.waited_for.append(other)


class Cuda:
    """Streams, graphs and pools as far as `cuda_graph` uses them."""

    def __init__(self):
        self.default = Stream("default")
        self.current, self.capturing, self.breaks = self.default, None, None  # the version whose captures break
        self.underway, self.pools = [], []  # pools: being filled; ever filled
        self.generator_expects_a_capture = False
        self.replays = 0

    def install(self, monkeypatch):
        graph = type("CUDAGraph", (), {"replay": lambda _: setattr(self, "replays", self.replays + 1)})
        for name, value in dict(
            Stream=Stream, CUDAGraph=graph, current_stream=lambda: self.current, current_device=lambda: 0,
            device=lambda _: contextlib.nullcontext(), stream=self.stream, graph=self.graph,
            graph_pool_handle=lambda: (0, len(self.pools) + 1),
        ).items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end_pool, raising=False)
        monkeypatch.setattr(recorded_module, "_abandoned", [])

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextlib.contextmanager
    def graph(self, graph, pool=None, stream=None, capture_error_mode="global"):
        assert not self.underway, "captures_underway.empty()"  # torch frees memory first
        pool, before = pool or (1, len(self.pools)), self.current
        self.current = self.capturing = stream
        self.underway.append(pool)
        self.pools.append(pool)
        self.generator_expects_a_capture = True
        try:
            yield
        finally:
            self.capturing = None
            if self.breaks:  # an error during the capture, of which capture_end says so
                if self.breaks >= (2, 12):
                    self.end_pool(0, pool)
                self.breaks = None
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
            self.end_pool(0, pool)
            self.generator_expects_a_capture = False
            self.current = before

    def end_pool(self, device, pool):
        if pool not in self.underway:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.underway.remove(pool)

    def assert_as_before(self):
        assert self.current is self.default and self.capturing is None
        assert not self.underway and not self.generator_expects_a_capture


@pytest.fixture
def cuda(monkeypatch):
    found = Cuda()
    found.install(monkeypatch)
    return found


def recorded(cuda, *, fails=None):
    """A function of no tensors that notes where it runs, and what it raises while it is recorded."""
    places = []

    def function():
        places.append((cuda.current, cuda.capturing))
        if cuda.capturing and fails:
            raise fails.pop()
        return len(places)

    return Recorded(function, torch.device("cuda")), places


def test_every_call_before_the_replays_is_on_the_stream_that_is_recorded(cuda):
    run, places = recorded(cuda)
    results = [run() for _ in range(WARM_UP + 4)]
    assert results == [1, 2, 3, 4, 4, 4, 4] and cuda.replays == 4
    stream = places[0][0]
    assert stream is not cuda.default
    assert places == [(stream, None)] * WARM_UP + [(stream, stream)]
    # every warm-up waits for the caller, and the caller for it
    assert stream.waited_for == [cuda.default] * WARM_UP and cuda.default.waited_for == [stream] * WARM_UP
    cuda.assert_as_before()


def test_a_warm_up_that_fails(cuda):
    run = Recorded(lambda: 1 / 0, torch.device("cuda"))
    with pytest.raises(ZeroDivisionError):
        run()
    assert run.calls == 0 and cuda.default.waited_for == [run.stream]
    cuda.assert_as_before()


@pytest.mark.parametrize("breaks", [None, (2, 11), (2, 12)], ids=["its capture ends", "torch 2.11", "torch 2.12"])
def test_a_recording_that_fails_is_cleaned_up_and_tried_again(cuda, breaks):
    run, places = recorded(cuda, fails=[ValueError("the loss reads a value\nhere")])
    for _ in range(WARM_UP):
        run()
    cuda.breaks = breaks
    message = "^the step cannot be recorded as a CUDA graph: the loss reads a value$"
    with pytest.raises(RuntimeError, match=message) as found:
        run()
    assert isinstance(found.value.__cause__, ValueError)
    cuda.assert_as_before()
    before = len(places)
    for _ in range(WARM_UP + 2):
        run()
    assert len(places) == before + WARM_UP + 1 and cuda.replays == 2
    cuda.assert_as_before()
    # the pool of a capture without an end cannot be given back, so the next attempt has it; else it goes with its graph
    assert (cuda.pools[0] == cuda.pools[-1]) == bool(breaks)


def test_nothing_is_recorded_that_reads_what_still_moves(cuda):
    run, places = recorded(cuda)
    for _ in range(WARM_UP + 2):
        run(may_record=False)
    assert run.graph is None and len(places) == WARM_UP + 2
    run(may_record=True)
    run(may_record=False)
    assert len(places) == WARM_UP + 3 and cuda.replays == 2


def test_an_interrupt_of_a_recording_stays_one(cuda):
    run, _ = recorded(cuda, fails=[KeyboardInterrupt()])
    for _ in range(WARM_UP):
        run()
    cuda.breaks = (2, 11)
    with pytest.raises(KeyboardInterrupt):
        run()
    cuda.assert_as_before()


def test_what_goes_on_with_a_result_is_on_its_stream_and_in_its_memory(cuda):
    first, _ = recorded(cuda)
    second = Recorded(lambda: 0, torch.device("cuda"), beside=first)
    for _ in range(WARM_UP + 1):
        first()
        second(may_record=first.graph is not None)
    assert first.graph and second.graph and second.stream is first.stream and cuda.pools == [first.pool, first.pool]


# ---- predictions that are differentiated by the caller ---------------------------------------------------------------


def captured_prediction(breaks=()):
    """On the CPU's tensors and the stand-in's streams, and its data; breaks: of a gradient, while it is recorded."""
    torch.manual_seed(0)
    model, data = SphereNet(**SMALL).double().train(), labeled_batch((5, 4))
    captured = CapturedPrediction(model, Capacity.of([data], 5.0), 1)
    for part in (captured.find, captured.predict, captured.differentiate):
        part.device = torch.device("cuda")
    differentiate = captured.differentiate.function

    def function():
        if breaks and captured.predict.graph is not None:
            raise breaks.pop()
        return differentiate()

    captured.differentiate.function = function
    return captured, data


def test_predictions_and_gradients_are_recorded_one_after_the_other(cuda):
    captured, data = captured_prediction()
    for call in range(WARM_UP + 3):
        energy, _ = captured(data)
        energy.sum().backward()
        # the search first, because it moves what the others read, until it is recorded
        assert (captured.find.graph is not None, captured.is_recorded) == (call >= WARM_UP, call >= WARM_UP)
    assert cuda.pools[1:] == [captured.predict.pool] * 2 and cuda.pools[0] != cuda.pools[1]
    assert cuda.replays == 3 * 3
    cuda.assert_as_before()


def test_gradients_that_cannot_be_recorded(cuda):
    captured, data = captured_prediction(breaks=[ValueError("it reads a value")])
    for _ in range(WARM_UP):
        captured(data)[0].sum().backward()
    with pytest.raises(RecordingError, match="^the step cannot be recorded as a CUDA graph: it reads a value$"):
        captured(data)
    assert captured.predict.graph is None and not captured.is_recorded
    cuda.assert_as_before()


# ---- the gradients of a step -----------------------------------------------------------------------------------------


def summed_in(tensor):
    """The leaves that the backward pass of a tensor sums gradients in."""
    nodes, seen = [tensor.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [following for following, _ in node.next_functions]
    return [node.variable for node in seen if hasattr(node, "variable")]


def test_no_node_of_a_step_is_older_than_the_step():
    """An AccumulateGrad node that an eager graph keeps alive has that graph's stream: none may be in the recording."""
    torch.manual_seed(0)
    model, data = SphereNet(**SMALL).double().train(), labeled_batch((5, 4))
    held = model(data)  # keeps the nodes of all parameters alive
    found = []

    def loss(energy, forces, batch):
        penalty = sum(parameter.square().sum() for parameter in model.parameters())
        value = energy.sum() + forces.square().sum() + penalty
        found.extend(summed_in(value))
        return value

    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    step = CapturedTraining(model, loss, optimizer, Capacity.of([data], 5.0), graph_labels=())
    step(data)
    parameters = list(model.parameters())
    assert len(found) > len(parameters) and len(summed_in(held)) > 10
    assert not {id(leaf) for leaf in found} & {id(parameter) for parameter in parameters}
    energy, forces = model.energy_and_forces(data)
    value = energy.sum() + forces.square().sum() + sum(parameter.square().sum() for parameter in parameters)
    expected = torch.autograd.grad(value, parameters)
    for parameter, gradient in zip(parameters, expected, strict=True):
        # the same sums in float64, in matrix products of other sizes
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-11)


class Weighed(torch.nn.Module):
    """A loss that learns how much the energy counts."""

    def __init__(self):
        super().__init__()
        self.log = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, energy, forces, batch):
        return self.log.exp() * energy.sum() + self.log


def test_a_loss_with_weights_of_its_own():
    torch.manual_seed(0)
    model, data, loss = SphereNet(**SMALL).double().train(), labeled_batch((5, 4)), Weighed()
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.0)
    step = CapturedTraining(model, loss, optimizer, Capacity.of([data], 5.0), forces=False, graph_labels=())
    value = step(data)
    torch.testing.assert_close(loss.log.grad, value + 1, rtol=1e-12, atol=0)  # of exp(w) sum + w at 0


def test_gradients_that_the_optimizer_does_not_reset_add_up():
    torch.manual_seed(0)
    model, data = SphereNet(**SMALL).double().train(), labeled_batch((5, 4))
    first, *rest = model.parameters()
    step = CapturedTraining(
        model, lambda energy, forces, batch: energy.sum(), torch.optim.SGD(rest, lr=0.0), Capacity.of([data], 5.0),
        forces=False, graph_labels=(),
    )  # fmt: skip
    step(data)
    once = first.grad.clone()
    step(SimpleNamespace(**vars(data)))
    torch.testing.assert_close(first.grad, 2 * once)
