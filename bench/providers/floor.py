"""The linear floor: what the matrix products of SphereNet's layers cost, with nothing around them.

Every `nn.Linear` that the model applies to edges or atoms is applied once to a tensor with as many rows, and autograd
runs over it as in the procedure that is measured. So for every layer there are the same products as in the model:

    inference               y = x W^T                                                           1 product a layer
    energy_step             and both gradients of y, by W and by x                              3
    energy_and_forces       y and its gradient by x, on the way back to the positions           2
    energy_and_forces_step  y, that gradient, and both gradients of each of the two             6

The layers are linked output to input wherever the widths fit: all that follow each other in the message path, and all
of an output block. Layers that begin with the distance basis, and the chains themselves, are not added up: each ends in
a gradient of its own that is ready before the clock starts. There are no activations, no sums over neighbors, no
elementwise work beside the layers' biases, so the floor counts less than any eager implementation has to do.

Not counted: lin_sbf1, lin_sbf2, lin_t1, lin_t2. The paper applies them to triplets, not to edges or atoms, and here the
gated sum applies them itself. Counted as in the paper, although `SphereNet` spends less on them: `init_e.lin`, with its
whole input of 3 H on every edge (two thirds can be done on atoms), and lin_rbf1 and lin_rbf2 one after the other.
"""

import torch
from torch import Tensor, nn

from spherenet_fast.models import SphereNet


class Chain:
    """Linear layers applied one after the other to a leaf x [rows, in_features of the first]."""

    def __init__(self, layers: list[nn.Linear], rows: int, ends_in_prediction: bool = False):
        weight = layers[0].weight
        self.layers = layers
        self.x = torch.randn(rows, layers[0].in_features, dtype=weight.dtype, device=weight.device, requires_grad=True)
        self.grad_x = torch.randn_like(self.x)  # the gradient of a loss by dy/dx, that is by the forces
        self.grad_y = torch.randn(rows, layers[-1].out_features, dtype=weight.dtype, device=weight.device)
        # In the model the gradient that comes back to a chain depends on the layers after it, except at the
        # prediction itself, where it is a constant.
        self.grad_y_of_forces = self.grad_y if ends_in_prediction else self.grad_y.clone().requires_grad_()

    def __call__(self) -> Tensor:
        y = self.x
        for layer in self.layers:
            # torch's own product, by whatever library the model computes its products
            y = torch.nn.functional.linear(y, layer.weight, layer.bias)
        return y


class Floor:
    """The four procedures over the layers of `model` for a graph of num_edges E and num_atoms N.

    The methods return nothing of meaning. The model is only borrowed: its gradients are reset after every step.
    """

    def __init__(self, model: SphereNet, num_edges: int, num_atoms: int):
        self.model = model
        self.chains = [
            *(Chain(layers, num_edges) for layers in [message_layers(model), *distance_layers(model)]),
            *(Chain(layers, num_atoms, ends_in_prediction=True) for layers in output_layers(model)),
        ]
        self.x = [chain.x for chain in self.chains]
        self.grad_x = [chain.grad_x for chain in self.chains]
        self.grad_y = [chain.grad_y for chain in self.chains]
        self.grad_y_of_forces = [chain.grad_y_of_forces for chain in self.chains]

    def _forward(self) -> list[Tensor]:
        return [chain() for chain in self.chains]

    @torch.no_grad()
    def inference(self) -> None:
        for chain in self.chains:
            chain()

    def energy_step(self) -> None:
        torch.autograd.backward(self._forward(), self.grad_y)
        self._forget_gradients()

    def energy_and_forces(self) -> None:
        torch.autograd.grad(self._forward(), self.x, self.grad_y)

    def energy_and_forces_step(self) -> None:
        y = self._forward()
        slopes = torch.autograd.grad(y, self.x, self.grad_y_of_forces, create_graph=True)
        torch.autograd.backward([*y, *slopes], [*self.grad_y, *self.grad_x])
        self._forget_gradients()

    def _forget_gradients(self) -> None:
        self.model.zero_grad(set_to_none=True)
        for leaf in [*self.x, *self.grad_y_of_forces]:
            leaf.grad = None


def message_layers(model: SphereNet) -> list[nn.Linear]:
    """The layers on edges, in the order of the message path, H wide between them; E rows."""
    layers = [model.init_e.lin]
    for block in model.update_es:
        layers += [block.lin_ji, block.lin_kj, block.lin_down, block.lin_up]
        layers += [layer for residual in block.layers_before_skip for layer in (residual.lin1, residual.lin2)]
        layers += [block.lin]
        layers += [layer for residual in block.layers_after_skip for layer in (residual.lin1, residual.lin2)]
    return layers


def distance_layers(model: SphereNet) -> list[list[nn.Linear]]:
    """The layers on the distance basis of the edges, [E, K]."""
    chains = [[model.init_e.lin_rbf_0], [model.init_e.lin_rbf_1]]
    for block in model.update_es:
        chains += [[block.lin_rbf1, block.lin_rbf2], [block.lin_rbf]]
    return chains


def output_layers(model: SphereNet) -> list[list[nn.Linear]]:
    """The layers on atoms, one list for each output block; N rows."""
    return [[block.lin_up, *block.lins, block.lin] for block in (model.init_v, *model.update_vs)]
