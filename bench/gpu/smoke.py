"""The first thing to run on a GPU: do the kernels load, follow streams and graphs, and give the CPU's numbers?

    python -m bench.gpu.smoke [--device cpu]

Every check runs, whatever became of the others, and prints a line; the exit status says whether one failed. On the CPU,
which has no streams, the checks try themselves.
"""

import argparse
import contextlib
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from operator_cases import (  # noqa: E402
    CASES,
    MODEL_SIZES,
    assert_close,
    case,
    cast,
    derivatives,
    gated_function,
    gated_inputs,
    operator_of,
)
from operator_graphs import GRAPHS, crowd, on_device  # noqa: E402

from spherenet_fast import _library, ops  # noqa: E402
from spherenet_fast.ops import reference  # noqa: E402

SHAPE = dict(num_spherical=7, num_radial=6, channels=64, angle_size=8, torsion_size=8)  # as in the default model
# float64 sums of some thousand products; float32 rounds to 6e-8, TF32 to 5e-4
PRECISIONS = {"float64": (torch.float64, 1e-11), "float32": (torch.float32, 1e-5), "TF32": (torch.float32, 5e-3)}


def the_library(device: str) -> None:
    if device == "cuda":
        assert _library.has_cuda_kernels(), "the library was built without CUDA kernels"


def silu_on(stream_of: Callable, device: str) -> None:
    """Behind a kernel that takes long and makes its input, so that on any other stream it would be too early."""
    x, given = torch.zeros(4099, device=device), torch.randn(4099, device=device)
    if device == "cuda":
        torch.cuda.synchronize()
    with stream_of() if device == "cuda" else contextlib.nullcontext():
        if device == "cuda":
            torch.cuda._sleep(50_000_000)
        x.copy_(given)
        found = ops.silu(x).cpu()
    assert_close({"silu": found}, {"silu": reference.silu(given.double())}, 1e-6)


def another_stream():
    return torch.cuda.stream(torch.cuda.Stream())


def silu_in_a_graph(device: str) -> None:
    x = torch.zeros(4099, device=device)
    if device != "cuda":
        return
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        ops.silu(x)
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph, stream=stream):
        found = ops.silu(x)
    for _ in range(2):
        x.normal_()
        graph.replay()
        assert_close({"silu": found}, {"silu": reference.silu(x.double())}, 1e-6)


def gated_sum(precision: str, graph_name: str, device: str) -> None:
    """All three passes, of which the last two take more shared memory than a kernel has unasked."""
    dtype, tolerance = PRECISIONS[precision]
    vec, graph = crowd() if graph_name == "crowd" else GRAPHS[graph_name]
    inputs = cast(gated_inputs(vec, **SHAPE), dtype)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "TF32" else "highest")
    try:
        function = gated_function(ops, vec.to(device), on_device(graph, device))
        found = derivatives(function, cast(inputs, dtype, device))
    finally:
        torch.set_float32_matmul_precision(before)
    expected = derivatives(gated_function(reference, vec, graph), cast(inputs, torch.float64))
    assert_close(found, expected, tolerance)


def of_the_table(name: str, device: str) -> None:
    """Values and derivatives against the reference; the CPU's numbers where there is no derivative."""
    chosen = case(name, *GRAPHS["batch"], MODEL_SIZES)
    given = cast(chosen.inputs, torch.float64, device)
    if chosen.derivatives:
        expected = derivatives(chosen.function(reference), chosen.inputs)
        return assert_close(derivatives(chosen.function(ops), given), expected, 1e-11)
    found, expected = (chosen.function(ops)(*some.values()) for some in (given, chosen.inputs))
    for value, exact in zip(*(v if isinstance(v, tuple) else (v,) for v in (found, expected)), strict=True):
        assert torch.equal(value.cpu(), exact)


def checks(device: str) -> dict[str, Callable[[str], None]]:
    """By name. On the CPU the largest graph, which takes a second, in one precision."""
    found = {
        "library": the_library,
        "silu on the default stream": lambda device: silu_on(contextlib.nullcontext, device),
        "silu on another stream": lambda device: silu_on(another_stream, device),
        "silu in a graph": silu_in_a_graph,
    }
    for name in CASES:
        if operator_of(name) != "gated_sum":
            found[name] = partial(of_the_table, name)
    for graph in ("three triplets", "batch", "crowd"):
        for precision in ["TF32"] if device == "cpu" and graph == "crowd" else PRECISIONS:
            found[f"gated_sum, {graph}, {precision}"] = lambda device, graph=graph, precision=precision: gated_sum(
                precision, graph, device
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    device = parser.parse_args().device
    torch.manual_seed(0)
    failed = []
    for name, check in checks(device).items():
        start = time.perf_counter()
        try:
            check(device)
            if device == "cuda":
                torch.cuda.synchronize()
            verdict = "ok"
        except Exception as error:
            failed.append(name)
            verdict = "FAILED"
            traceback.print_exc(file=sys.stdout)
            print(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        print(f"{verdict:6} {time.perf_counter() - start:6.2f} s  {name}", flush=True)
    if failed:
        sys.exit(f"smoke: {len(failed)} of {len(checks(device))} failed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
