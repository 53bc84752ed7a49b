"""The kernels of row chains compiled for GPUs that are not there: registers, stack and shared memory of each.

    python tests/triton_compiled.py 80 90 [--rows 9000] [--width 128]

prints a line of JSON for each kernel that values and both derivatives of a block of SphereNet launch. TRITON_INTERPRET
must not be set.
"""

import argparse
import importlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

sys.path.append(str(Path(__file__).parents[1]))

from spherenet_fast import ops  # noqa: E402

assert "spherenet_fast.ops.triton_kernels.row_chain" not in sys.modules  # until it is called

from spherenet_fast.ops import triton_kernels  # noqa: E402
from spherenet_fast.ops.triton_kernels import passes, row_chain, sums  # noqa: E402

OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
TYPES = {torch.float32: "*fp32", torch.int64: "*i64"}


class Launches:
    """Stands for a kernel and writes down what it is launched with."""

    def __init__(self, kernel, found):
        self.kernel, self.found = kernel, found

    def __getitem__(self, grid):
        return lambda *arguments, **constants: self.found.setdefault(self.kernel.__name__, []).append(
            (self.kernel, dict(zip(self.kernel.arg_names, arguments)) | constants)
        )


def launches(rows, width):
    """name -> the launches of a block's second chain, whose numbers are never computed. width: of its layers."""
    generator = torch.Generator().manual_seed(0)
    sizes = dict(x=(rows, width), bessel=(rows, 6), message=(rows, 64))
    sizes |= dict(
        a=(width, width), a_bias=(width,), up=(width, 64), b=(width, width), b_bias=(width,), radial=(width, 6)
    )
    given = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}

    def block(x, bessel, message, a, a_bias, up, b, b_bias, radial):
        def chain(x, bessel, message):
            h = ops.linear_silu(x, a, a_bias)
            h = h + ops.linear_silu(message, up)
            h = ops.linear_silu(h, b, b_bias) + x
            return h, ops.radial_filter(h, bessel, radial)

        return ops.row_chain(chain, x, bessel, message)

    found = {}
    for module, names in ((passes, ("forward", "backward", "double_backward")), (sums, ("outer_sums", "add_parts"))):
        for name in names:
            setattr(module, name, Launches(getattr(module, name), found))

    class Compiled:
        def __getattr__(self, name):
            return getattr(row_chain if name in triton_kernels.NAMES else torch.ops.spherenet_fast, name)

    importlib.import_module("spherenet_fast.ops.row_chain").compiled = Compiled()
    leaves = [value.requires_grad_() for value in given.values()]
    values = block(*leaves)
    forces = torch.autograd.grad(sum(value.sum() for value in values), leaves[:3], create_graph=True)
    torch.autograd.grad(sum(force.sum() for force in forces), leaves)
    return found


def compiled(kernel, given, architecture):
    """Registers, stack [bytes a thread] and shared memory [bytes] of a launch's program."""
    names, constants, signature, attributes = kernel.arg_names, {}, {}, {}
    for place, name in enumerate(names):
        value = given[name]
        if kernel.params[place].is_constexpr:
            signature[name], constants[(place,)] = "constexpr", value
        elif isinstance(value, tuple):
            signature[name] = tuple(TYPES[tensor.dtype] for tensor in value)
            attributes |= {(place, k): [["tt.divisibility", 16]] for k in range(len(value))}
        elif isinstance(value, torch.Tensor):
            signature[name], attributes[(place,)] = TYPES[value.dtype], [["tt.divisibility", 16]]
        else:
            signature[name] = "i32"
    options = {name: given[name] for name in OPTIONS if name in given}
    source = ASTSource(kernel, signature, constants, attributes)
    done = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(done.asm["cubin"])
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout + usage.stderr).groups())
    return dict(registers=registers, stack=stack, shared=done.metadata.shared)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("architectures", type=int, nargs="+")
    parser.add_argument("--rows", type=int, default=8448)
    parser.add_argument("--width", type=int, default=128)
    chosen = parser.parse_args()
    for name, found in launches(chosen.rows, chosen.width).items():
        for architecture in chosen.architectures:
            result = dict(kernel=name, architecture=architecture) | compiled(*found[0], architecture)
            print(json.dumps(result), flush=True)
