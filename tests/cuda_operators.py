"""The CUDA kernels under the names and signatures of `spherenet_fast.ops`, run on the CPU: see cuda_harness.py.

Results are written into arrays full of NaN, so a number that a kernel leaves out shows.
"""

import math
from collections import namedtuple

import torch

from spherenet_fast.ops._register import graph_arrays

PASSES = {"forward": 0, "backward": 1, "double backward": 2}

# The three passes of an operator, each a function of tuples of tensors that returns a tuple:
#   forward(inputs) -> outputs, backward(inputs, cotangents) -> gradients of the inputs,
#   double_backward(inputs, cotangents, tangents) -> gradients of the cotangents, then of the inputs
Kernel = namedtuple("Kernel", "forward backward double_backward")


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kernel, *inputs):
        ctx.kernel = kernel
        ctx.save_for_backward(*inputs)
        return kernel.forward(inputs)

    @staticmethod
    def backward(ctx, *cotangents):
        inputs = ctx.saved_tensors
        return None, *_Backward.apply(ctx.kernel, len(inputs), *inputs, *cotangents)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kernel, num_inputs, *tensors):
        ctx.kernel, ctx.num_inputs = kernel, num_inputs
        ctx.save_for_backward(*tensors)
        return kernel.backward(tensors[:num_inputs], tensors[num_inputs:])

    @staticmethod
    def backward(ctx, *tangents):
        inputs, cotangents = ctx.saved_tensors[: ctx.num_inputs], ctx.saved_tensors[ctx.num_inputs :]
        found = ctx.kernel.double_backward(inputs, cotangents, tangents)
        return None, None, *found[len(cotangents) :], *found[: len(cotangents)]


def differentiable(kernel, inputs):
    """The outputs of a Kernel for a tuple of tensors or None, as a tuple that can be differentiated twice."""
    return _Forward.apply(kernel, *inputs)


def array(tensor):
    """What a kernel takes for a tensor or None."""
    return None if tensor is None else tensor.detach().contiguous().numpy()


def unwritten(like, *shape):
    return torch.full(shape, math.nan, dtype=like.dtype)


def graph_arguments(graph):
    names = ("in_ptr", "out_ptr", "out_edge", "rev", "triplet_ptr")
    return {"num_nodes": len(graph.in_ptr) - 1} | dict(zip(names, map(array, graph_arrays(graph)), strict=True))


def padded(vec, graph, extra):
    """A graph of fixed capacity: `extra` edges past the end of in_ptr, of no atom and with NaN for vectors.

    Returns vec [E + extra, 3] and the graph.
    """
    more = torch.arange(len(vec), len(vec) + extra)
    graph = graph._replace(
        edge_index=torch.cat([graph.edge_index, torch.zeros(2, extra, dtype=torch.int64)], dim=1),
        out_edge=torch.cat([graph.out_edge, more]),
        rev=torch.cat([graph.rev, torch.full_like(more, -1)]),
    )
    return torch.cat([vec, vec.new_full((extra, 3), math.nan)]), graph


class Operators:
    """Operators over a module that cuda_harness.build_module has built."""

    def __init__(self, kernels):
        self.kernels = kernels

    def call(self, name, **arguments):
        """A launcher, tensors among its arguments being given as arrays."""
        plain = {key: array(value) if isinstance(value, torch.Tensor) else value for key, value in arguments.items()}
        getattr(self.kernels, name)(**plain)

    def radial_basis(self, distance, frequency, roots, scale, cutoff, envelope_exponent):
        num_spherical, num_radial = roots.shape

        def run(name, inputs, cotangents=(None, None), tangents=(None, None)):
            distance, frequency = inputs
            edges, chunks = len(distance), -(-len(distance) // 128)
            outputs = unwritten(distance, edges, num_radial), unwritten(distance, edges, num_spherical, num_radial)
            gradient, parts = unwritten(distance, edges), unwritten(distance, chunks, num_radial)
            self.call(
                "radial_basis", **{"pass": PASSES[name]}, num_edges=edges, num_spherical=num_spherical,
                num_radial=num_radial, envelope_exponent=envelope_exponent, cutoff=cutoff, distance=distance,
                frequency=frequency, roots=roots, scale=scale, grad_bessel=cotangents[0], grad_radial=cotangents[1],
                distance_tangent=tangents[0], frequency_tangent=tangents[1], bessel=outputs[0], radial=outputs[1],
                grad_distance=gradient, grad_frequency=parts,
            )  # fmt: skip
            return outputs, (gradient, self.sum_chunks(parts) if name != "forward" else None)

        kernel = Kernel(
            lambda inputs: run("forward", inputs)[0],
            lambda *arguments: run("backward", *arguments)[1],
            lambda *arguments: sum(run("double backward", *arguments), ()),
        )
        return differentiable(kernel, (distance, frequency))

    def torsion_reference(self, vec, graph):
        reference = torch.full((graph.num_triplets,), -9, dtype=torch.int32)
        self.call("torsion_reference", vec=vec, reference=reference, **graph_arguments(graph))
        return reference

    def smooth_torsion(self, direction, fade, graph, even=False):
        edges = len(direction)

        def run(name, inputs, cotangents=(None,), tangents=(None, None)):
            point, grad_fade = unwritten(direction, 2, graph.num_triplets), unwritten(direction, edges)
            parts = [unwritten(direction, edges, 3) for _ in range(2)]
            self.call(
                "smooth_torsion", **{"pass": PASSES[name]}, **graph_arguments(graph), num_edges=edges,
                num_triplets=graph.num_triplets, even=even, direction=inputs[0], fade=inputs[1],
                direction_tangent=tangents[0], fade_tangent=tangents[1], grad_point=cotangents[0], point=point,
                grad_direction_in=parts[0], grad_direction_out=parts[1], grad_fade=grad_fade,
                scratch=unwritten(direction, edges, 8),
            )  # fmt: skip
            return (point,), (parts[0] + parts[1], grad_fade)

        kernel = Kernel(
            lambda inputs: run("forward", inputs)[0],
            lambda *arguments: run("backward", *arguments)[1],
            lambda *arguments: sum(run("double backward", *arguments), ()),
        )
        return differentiable(kernel, (direction, fade))[0]

    def radial_filter(self, x, bessel, weight):
        (edges, channels), num_radial = x.shape, bessel.shape[1]

        def run(name, inputs, cotangents=(None,), tangents=(None, None, None)):
            out, grad_x = unwritten(x, *x.shape), unwritten(x, *x.shape)
            grad_bessel, parts = unwritten(x, *bessel.shape), unwritten(x, -(-edges // 32), weight.numel())
            names = "x", "bessel", "weight"
            self.call(
                "radial_filter", **{"pass": PASSES[name]}, num_edges=edges, channels=channels, num_radial=num_radial,
                **dict(zip(names, inputs)), **{f"{key}_tangent": value for key, value in zip(names, tangents)},
                grad_out=cotangents[0], out=out, grad_x=grad_x, grad_bessel=grad_bessel, grad_weight=parts,
            )  # fmt: skip
            sums = self.sum_chunks(parts).reshape(weight.shape) if name != "forward" else None
            return (out,), (grad_x, grad_bessel, sums)

        kernel = Kernel(
            lambda inputs: run("forward", inputs)[0],
            lambda *arguments: run("backward", *arguments)[1],
            lambda *arguments: sum(run("double backward", *arguments), ()),
        )
        return differentiable(kernel, (x, bessel, weight))[0]

    def silu(self, x):
        def run(name, x, grad=None, tangent=None):
            y, grad_x = unwritten(x, *x.shape), unwritten(x, *x.shape)
            self.call(
                "silu", **{"pass": PASSES[name]}, size=x.numel(), x=x, grad=grad, tangent=tangent, y=y, grad_x=grad_x
            )
            return y, grad_x

        kernel = Kernel(
            lambda inputs: run("forward", *inputs)[:1],
            lambda inputs, cotangents: run("backward", *inputs, *cotangents)[1:],
            lambda inputs, cotangents, tangents: run("double backward", *inputs, *cotangents, *tangents),
        )
        return differentiable(kernel, (x,))[0]

    def segment_sum(self, x, ptr, index=None, segment=None):
        out = unwritten(x, len(ptr) - 1, x.shape[1])
        self.call("segment_sum", x=x, ptr=ptr, index=index, num_segments=len(out), channels=x.shape[1], out=out)
        return out

    def gather(self, x, index, ptr=None, perm=None):
        out = unwritten(x, len(index), x.shape[1])
        self.call("gather", x=x, index=index, num_rows=len(index), channels=x.shape[1], out=out)
        return out

    def gated_sum(
        self, x, radial, direction, torsion, graph, angle_weight, angle_expand, torsion_weight, torsion_expand,
        basis="paper", angle_at="sender", geometry=True, weights=True, allow_tf32=False,
    ):  # fmt: skip
        """`ops.gated_sum`; the gradients of one group (geometry: radial and direction; weights) may be left out."""
        names = "x", "radial", "direction", "point", "angle_weight", "angle_expand", "torsion_weight", "torsion_expand"
        smooth = torsion is not None and torsion.is_floating_point()
        num_edges, channels = x.shape
        num_spherical, num_radial = radial.shape[1:] if angle_weight is not None else (0, 0)
        sizes = [0 if up is None else up.shape[1] for up in (angle_expand, torsion_expand)]

        def run(name, inputs, grad_out=None, tangents=(None,) * 8):
            forward = name == "forward"
            out = unwritten(x, num_edges, channels)
            grads = {
                key: unwritten(value, *value.shape)
                for key, value in zip(names, inputs, strict=True)
                if value is not None
            }
            with_geometry = geometry and angle_weight is not None and not forward
            directions = [unwritten(x, num_edges, 3) for _ in range(2)]
            sums = [grads[key] for key in names[4:] if key in grads]
            parts = unwritten(x, self.kernels.gated_sum_chunks, sum(value.numel() for value in sums))
            self.call(
                "gated_sum", **{"pass": PASSES[name]}, **graph_arguments(graph), num_edges=num_edges, channels=channels,
                num_spherical=num_spherical, num_radial=num_radial, angle_size=sizes[0], torsion_size=sizes[1],
                dig=basis == "dig", angle_at_receiver=angle_at == "receiver",
                reference=torsion if sizes[1] and not smooth else None, allow_tf32=allow_tf32,
                num_triplets=graph.num_triplets,
                inputs=dict(zip(names, map(array, inputs), strict=True)),
                tangents=dict(zip(names, map(array, tangents), strict=True)),
                grad_out=x if forward else grad_out, out=None if name == "backward" else out,
                grad_x=None if forward else grads["x"], grad_radial=grads["radial"] if with_geometry else None,
                direction_in=directions[0] if with_geometry else None,
                direction_out=directions[1] if with_geometry else None,
                grad_point=grads.get("point") if with_geometry else None,
                weights=parts if weights and not forward else None,
            )  # fmt: skip
            if with_geometry:
                grads["direction"] = directions[0] + directions[1]
            if weights and not forward:
                for value, part in zip(
                    sums, self.sum_chunks(parts).split([value.numel() for value in sums]), strict=True
                ):
                    value.copy_(part.reshape(value.shape))
            asked = {"x", *names[1:4] * with_geometry, *names[4:] * weights}
            return (out,), tuple(grads[key] if key in asked and key in grads else None for key in names)

        kernel = Kernel(
            lambda inputs: run("forward", inputs)[0],
            lambda inputs, cotangents: run("backward", inputs, *cotangents)[1],
            lambda inputs, cotangents, tangents: sum(run("double backward", inputs, *cotangents, tangents), ()),
        )
        point = torsion if smooth else None
        inputs = (x, radial, direction, point, angle_weight, angle_expand, torsion_weight, torsion_expand)
        return differentiable(kernel, inputs)[0]

    def sum_chunks(self, parts, sizes=None):
        """parts [chunks, size]. Returns [size], or a list of [sizes[k]] if the columns belong to several arrays."""
        sums = [unwritten(parts, size) for size in sizes or [parts.shape[1]]]
        self.call("sum_chunks", parts=parts, chunks=len(parts), sums=[array(part) for part in sums])
        return sums if sizes else sums[0]

    def neighbor_pointers(self, pos, batch, cutoff, edge_capacity=-1, triplet_capacity=-1):
        in_ptr, triplet_ptr, status = (torch.full((size,), -9) for size in (len(pos) + 1, len(pos) + 1, 3))
        degree = torch.full((len(pos),), -9, dtype=torch.int32)
        self.call(
            "count_neighbors", num_atoms=len(pos), pos=pos, batch=batch, cutoff=cutoff, edge_capacity=edge_capacity,
            triplet_capacity=triplet_capacity, degree=degree, in_ptr=in_ptr, triplet_ptr=triplet_ptr, status=status,
        )  # fmt: skip
        return in_ptr, triplet_ptr, status

    def neighbor_edges(self, pos, batch, in_ptr, cutoff, num_edges):
        edge_index, out_edge, rev = (torch.full(shape, -9) for shape in ((2, num_edges), (num_edges,), (num_edges,)))
        self.call(
            "find_neighbors", num_atoms=len(pos), pos=pos, batch=batch, cutoff=cutoff, in_ptr=in_ptr,
            num_edges=num_edges, edge_index=edge_index, out_edge=out_edge, rev=rev,
        )  # fmt: skip
        return edge_index, out_edge, rev
