"""The operators alone, each with its derivatives, on the geometry of a batch."""

from collections.abc import Callable

import torch
from torch import Tensor

from spherenet_fast import ops
from spherenet_fast.graph import Graph, edge_vectors
from spherenet_fast.models import SphereNet
from spherenet_fast.nn.basis import spherical_bessel_constants
from spherenet_fast.ops import reference

# case -> operator
OPERATORS = {"radial_basis": "radial_basis", "paper_torsions": "torsion_neighbor", "gated_sum": "gated_sum"}
SOURCES = {"ours": ops, "reference": reference}


class OperatorUse:
    """One operator as `model` uses it (in its first block), on atoms at pos [N, 3].

    Attributes:
        modes: "forward", "backward", "double_backward", as far as the operator has them.
        per, unit: the number by which a time is to be divided, and the unit that results.
        moving: how many of the inputs, the first ones, move with the positions: a training on forces differentiates
            the gradients by these once more.
    """

    def __init__(self, operator: str, model: SphereNet, pos: Tensor, graph: Graph):
        torch.manual_seed(0)
        vec = edge_vectors(pos, graph)
        distance = vec.norm(dim=1)
        hparams, block = model.hparams, model.update_es[0]
        num_spherical, num_radial = hparams["num_spherical"], hparams["num_radial"]
        roots, scale = spherical_bessel_constants(num_spherical, num_radial, hparams["basis"])
        roots, scale = (torch.tensor(constant, device=pos.device) for constant in (roots, scale))
        basis = roots, scale, hparams["cutoff"], hparams["envelope_exponent"]
        frequency = torch.pi * torch.arange(1, num_radial + 1, dtype=pos.dtype, device=pos.device)
        self.modes = ("forward", "backward", "double_backward")
        self.per, self.unit = graph.num_triplets - int((graph.rev >= 0).sum()), "ns/triplet"
        if operator == "radial_basis":
            self.per, self.unit = len(distance), "ns/edge"
            self.constants = basis
            variables, self.moving = [distance, frequency], 1
        elif operator == "paper_torsions":
            self.modes = ("forward",)
            self.constants = (graph,)
            variables, self.moving = [vec], 1
        else:
            x = torch.randn(len(distance), block.lin_down.out_features, device=pos.device)
            radial = ops.radial_basis(distance, frequency, *basis)[1]
            weights = [layer.weight for layer in (block.lin_sbf1, block.lin_sbf2, block.lin_t1, block.lin_t2)]
            self.constants = (ops.torsion_neighbor(vec, graph), graph)
            variables, self.moving = [x, radial, vec / distance[:, None], *weights], 3
        self.operator = OPERATORS[operator]
        self.variables = [tensor.detach() for tensor in variables]

    def call(self, provider: str, mode: str) -> Callable[[], object]:
        """The call to measure. A backward costs only that: autograd's graph is made here, of new leaves, and kept."""
        if mode == "forward":
            return torch.no_grad()(lambda: self._apply(provider, self.variables))
        variables = [tensor.detach().requires_grad_() for tensor in self.variables]
        outputs = self._apply(provider, variables)
        grads = [torch.randn_like(tensor).requires_grad_() for tensor in outputs]
        if mode == "backward":
            fixed = [grad.detach() for grad in grads]
            return lambda: torch.autograd.grad(outputs, variables, fixed, retain_graph=True)
        slopes = torch.autograd.grad(outputs, variables[: self.moving], grads, create_graph=True)
        tangents = [torch.randn_like(tensor) for tensor in slopes]
        return lambda: torch.autograd.grad(slopes, [*variables, *grads], tangents, retain_graph=True)

    def _apply(self, provider: str, variables: list[Tensor]) -> tuple[Tensor, ...]:
        function = getattr(SOURCES[provider], self.operator)
        if self.operator == "gated_sum":
            x, radial, direction, *weights = variables
            return (function(x, radial, direction, *self.constants, *weights),)
        outputs = function(*variables, *self.constants)
        return outputs if isinstance(outputs, tuple) else (outputs,)
