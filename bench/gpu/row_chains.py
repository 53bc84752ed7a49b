"""The longer chain of a block in Triton's kernels against torch's products: `python -m bench.gpu.row_chains`.

Medians of recorded calls of values, gradients and second derivatives, for as many edges as 32 molecules of QM9, 8 and 1
of aspirin have, and by how much the results differ. On the CPU, `--device cpu`, the operator against its layers.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from spherenet_fast import ops
from spherenet_fast.nn.blocks import Interaction
from spherenet_fast.ops import triton_kernels

SIZES = dict(hidden_channels=128, int_emb_size=64, basis_emb_size_dist=8, basis_emb_size_angle=8)
SIZES |= dict(basis_emb_size_torsion=8, num_spherical=3, num_radial=6, num_before_skip=1, num_after_skip=2)
SIZES |= dict(use_angle=True, torsion="smooth", basis="paper")


class LayerByLayer:
    """The operators, with chains as a call of their function."""

    def __getattr__(self, name):
        return getattr(ops, name)

    @staticmethod
    def row_chain(function, *rows, recompute=False):
        return function(*rows)


def procedures(rows: int, device: str, operators) -> dict[str, Callable]:
    """Name -> a call that returns tensors."""
    torch.manual_seed(0)
    block = Interaction(**SIZES).to(device)
    e1, bessel, message = (torch.randn(rows, n, device=device, requires_grad=True) for n in (128, 6, 64))

    def after(e1, bessel, message):
        x_ji = block.lin_ji.silu(e1, operators)
        return block.end(x_ji + block.lin_up.silu(message, operators), e1, bessel, operators)

    def values():
        return operators.row_chain(after, e1, bessel, message)

    def loss():
        return sum(value.square().sum() for value in values())

    leaves = [e1, bessel, message]
    parameters = [p for name, p in block.named_parameters() if name.split(".")[0] in USED]

    def no_grad():
        with torch.no_grad():
            return values()

    def second():
        first = torch.autograd.grad(loss(), leaves, create_graph=True)
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in first), parameters)

    return {
        "values": no_grad,
        "values and gradients": lambda: torch.autograd.grad(loss(), leaves + parameters),
        "and second derivatives": second,
    }


USED = ("lin_ji", "lin_up", "layers_before_skip", "lin", "layers_after_skip", "lin_rbf")


def recorded(call: Callable, device: str) -> Callable:
    """The call as a CUDA graph; on the CPU as it is."""
    if device == "cpu":
        return call
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        call()
    return graph.replay


def microseconds(call: Callable, device: str, replays: int) -> float:
    times = []
    for _ in range(replays):
        start = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, nargs="+", default=[9162, 3360, 420])
    parser.add_argument("--replays", type=int, default=50)
    chosen = parser.parse_args()
    if chosen.device != "cpu":
        print("Triton" if triton_kernels.AVAILABLE else "no Triton: both are torch's")
    for rows in chosen.rows:
        chains, layers = (procedures(rows, chosen.device, operators) for operators in (ops, LayerByLayer()))
        for name in chains:
            pairs = list(zip(chains[name](), layers[name](), strict=True))
            error = max(((one - other).norm() / other.norm()).item() for one, other in pairs)
            one, other = (
                microseconds(recorded(which[name], chosen.device), chosen.device, chosen.replays)
                for which in (chains, layers)
            )
            print(
                f"{rows} rows, {name}: {one:.0f} us, layer by layer {other:.0f} us, difference {error:.1e}", flush=True
            )


if __name__ == "__main__":
    main()
