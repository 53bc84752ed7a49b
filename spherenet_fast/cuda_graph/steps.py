"""Steps of fixed size that are recorded: predictions, and whole steps of training."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..graph import Graph, radius_graph
from ..graph.given import check_graph, checks_are_on
from ..graph.padding import Capacity, PaddedBatch, fixed_radius_graph, padded_graph
from ..nn.framework import GraphNetwork3D
from ..nn.inputs import Inputs, read_inputs
from ..nn.ranges import NUM_ELEMENTS
from .recorded import ReadLater, Recorded


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of values [M, ...] over the rows in mask [M] bool, without knowing on the host how many there are."""
    row = (values * mask.reshape(-1, *[1] * (values.dim() - 1))).sum(0)
    return (row / mask.sum()).mean()


class Step:
    """The batch in place, its neighbors, and the errors that are found on the way.

    Whether the neighbors are searched for in the recorded part is decided by the first call: so if no graph is given,
    nothing repeats, and the model takes all neighbors.
    """

    def __init__(self, model: GraphNetwork3D, capacity: Capacity, atom_labels=(), graph_labels=()):
        if not (isinstance(model, GraphNetwork3D) and model.hparams.get("kernels", True)):
            found = "kernels=False" if isinstance(model, GraphNetwork3D) else type(model).__name__
            raise ValueError(f"model: expected a GraphNetwork3D with its fused kernels, got {found}")
        self.model, self.capacity = model, Capacity(*capacity)
        self.weight = model.parameter_like()
        self.cutoff = model.cutoff
        self.atom_labels, self.graph_labels = tuple(atom_labels), tuple(graph_labels)
        self.batch: PaddedBatch | None = None
        self.graph: Graph | None = None
        self.searches = False

    def put(self, data: Any, graph: Graph | None, recorded: bool) -> Inputs:
        """Copies a batch, and its graph if it is not to be searched for, to where the step reads them.

        A recorded step looks at the values itself and says if something is wrong with them, together with its result.
        """
        inputs = read_inputs(data, self.weight, values=not (recorded and self.searches))
        z, pos, batch, num_graphs, cell, pbc = inputs
        labels = {name: _label(data, name) for name in self.atom_labels + self.graph_labels}
        if self.batch is None:
            examples = [{name: labels[name] for name in names} for names in (self.atom_labels, self.graph_labels)]
            self.searches = graph is None and cell is None and self.model.hparams.get("max_num_neighbors") is None
            self.batch = PaddedBatch(self.capacity, self.cutoff, self.weight.detach(), cell is not None, *examples)
        if self.searches and graph is not None:
            raise ValueError("graph: expected None as in the first call, got one")
        if not self.searches:
            if graph is None:
                graph = self.model.neighbors(inputs)
            if len(graph.in_ptr) != len(z) + 1:
                raise ValueError(f"graph: expected one of {len(z)} atoms, as in data, got {len(graph.in_ptr) - 1}")
            if checks_are_on(pos):
                check_graph(graph, pos, batch, self.cutoff, cell, pbc, self.model.hparams.get("max_num_neighbors"))
            graph = padded_graph(_with_shift(graph, cell is not None), self.capacity)
        self.batch.fill(z, pos, batch, num_graphs, cell, labels)
        if not self.searches:
            self._put_graph(graph)
        return inputs

    def _put_graph(self, graph: Graph) -> None:
        if self.graph is None:
            self.graph = Graph(*(value.clone() if isinstance(value, Tensor) else value for value in graph))
        for name, room, value in zip(Graph._fields, self.graph, graph, strict=True):
            if (room is None) != (value is None):
                here, there = ("none" if array is None else "one" for array in (value, room))
                raise ValueError(f"graph: expected {there} for {name} as in the first call, got {here}")
            if isinstance(room, Tensor):
                room.copy_(value)

    def find(self) -> Tensor:
        """Sets the batch's graph in place. Returns status [4] int64: edges, triplets, wrong atoms, wrong numbers."""
        z, batch = self.batch.z, self.batch.batch
        if not self.searches:
            return z.new_zeros(4)
        wrong = (z < 1) | (z >= NUM_ELEMENTS) | (self.batch.atom_mask & (batch >= self.batch.graph_mask.sum()))
        self.graph, status = fixed_radius_graph(self.batch.pos, batch, self.cutoff, self.capacity)
        # an error is on its way; until then no row is read that is not there
        z.clamp_(1, NUM_ELEMENTS - 1)
        batch.clamp_(0, self.capacity.graphs)
        return torch.cat([status, wrong.sum()[None]])

    def raise_if_wrong(self, status: list[int], data: Any, inputs: Inputs) -> None:
        """status: of `find`. Raises CapacityError, or the error of an uncaptured call."""
        edges, triplets, *wrong = status
        if any(wrong):
            read_inputs(data, self.weight)
            radius_graph(inputs.pos, inputs.batch, self.cutoff)
            raise RuntimeError(f"data: {wrong[0]} wrong positions or entries of batch, {wrong[1]} wrong entries of z")
        self.capacity.check(edges=edges, triplets=triplets)

    def predict(self, slopes: int) -> tuple[Tensor, ...]:
        """Of the batch in place: energies [G, T], and so many of forces [N, 3] and stress [G, 3, 3]; 0 in padding."""
        batch, methods = self.batch, (self.model, self.model.energy_and_forces, self.model.energy_forces_stress)
        found = methods[slopes](batch, self.graph)
        masks = batch.graph_mask[:, None], batch.atom_mask[:, None], batch.graph_mask[:, None, None]
        return tuple(
            torch.where(mask, value[: len(mask)], 0.0) for mask, value in zip(masks, found if slopes else (found,))
        )

    def sizes(self, inputs: Inputs) -> tuple[int, int, int]:
        """How many rows of what `predict` returns belong to the batch."""
        return inputs.num_graphs, len(inputs.z), inputs.num_graphs


class CapturedInference:
    """Energies and forces, as `model.energy_and_forces(data)` or `model(data)`.

    Args:
        model: with its fused kernels, in evaluation mode.
        capacity: of batches, in atoms, edges, triplets and graphs.
        forces: False for energies alone.
        stress: whether to find it, too, as `model.energy_forces_stress(data)`.
    """

    def __init__(self, model: GraphNetwork3D, capacity: Capacity, forces: bool = True, stress: bool = False):
        self.step, self.slopes = Step(model, capacity), 2 if stress else int(forces)
        if model.training:
            raise ValueError("model: expected one in evaluation mode, model.eval(), got one that is training")
        self.run = Recorded(self._compute, self.step.weight.device)

    @property
    def is_recorded(self) -> bool:
        return self.run.graph is not None

    def _compute(self) -> tuple[Tensor, ...]:
        status = self.step.find()
        with torch.no_grad():
            return status, *self.step.predict(self.slopes)

    @torch.inference_mode(False)  # the arrays in place, made by the first call, serve calls from anywhere
    def __call__(self, data: Any, graph: Graph | None = None) -> tuple[Tensor, ...] | Tensor:
        """energy [graphs, out_channels], forces [N, 3] and stress [graphs, 3, 3], or as many of them as are wanted.

        data: what the model takes, on its device; graph: its neighbors, or None: they are found.

        Raises:
            CapacityError: there are more graphs, atoms, edges or triplets than there is room for.
            ValueError, TypeError: as from the model.
        """
        inputs = self.step.put(data, graph, self.run.graph is not None)
        status, *found = self.run()
        self.step.raise_if_wrong(status.tolist(), data, inputs)
        energy, *slopes = (value[:rows].clone() for value, rows in zip(found, self.step.sizes(inputs)))
        return (energy, *slopes) if slopes else energy


class LossOf(torch.nn.Module):
    """The loss as the call of a module, which can be made with other tensors for the weights.

    inputs: what the loss is called with. A loss that is a module may have weights of its own.
    """

    def __init__(self, model: GraphNetwork3D, loss: Callable[..., Any], inputs: Callable[[], tuple]):
        super().__init__()
        self.model, self.loss, self.inputs = model, loss, inputs

    def leaves(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The parameters that want a gradient, by name, and leaves in the same memory with nodes of their own."""
        parameters = {name: p for name, p in self.named_parameters() if p.requires_grad}
        return parameters, {name: p.detach().requires_grad_() for name, p in parameters.items()}

    def forward(self) -> Any:
        return self.loss(*self.inputs())


class CapturedTraining:
    """One optimizer step: predictions, loss, gradients, and the change of the weights.

    The loss sees arrays of fixed size: predictions and labels are 0 in padding, `batch.graph_mask` [G] and
    `batch.atom_mask` [N] say what is present, and a mean has to be taken over that (`masked_mean`):

        def loss(energy, forces, batch):  # [G, T], [N, 3], PaddedBatch
            return masked_mean((energy - batch.y).abs(), batch.graph_mask) + ...

    The search for neighbors, the gradients, and the change of the weights are recorded graphs of their own. The sizes
    that the search has found are read while the gradients are computed, and before the weights change: a batch that
    does not fit, or that is wrong, raises an error and changes no weight.

    The gradients are those of copies of the parameters and end in `parameter.grad`; hooks of parameters are not called.

    Args:
        model: with its fused kernels, in training mode.
        loss: (energy, forces or None, batch) -> 0-dimensional tensor; it must not read values on the host.
        optimizer: of the model's parameters; on a GPU with capturable=True if it has that option. Numbers in its
            groups are recorded as they are; to change the learning rate between steps make it a tensor on the GPU.
        capacity: of batches, in atoms, edges, triplets and graphs.
        forces: False to predict energies alone; the loss gets None for the forces.
        atom_labels, graph_labels: attributes of the data that the loss reads, with one row for every atom or graph.
    """

    def __init__(
        self,
        model: GraphNetwork3D,
        loss: Callable[[Tensor, Tensor | None, PaddedBatch], Tensor],
        optimizer: torch.optim.Optimizer,
        capacity: Capacity,
        forces: bool = True,
        atom_labels: tuple[str, ...] = ("forces",),
        graph_labels: tuple[str, ...] = ("y",),
    ):
        self.step = Step(model, capacity, atom_labels if forces else (), graph_labels)
        self.optimizer = optimizer
        if not model.training:
            raise ValueError("model: expected one in training mode, model.train(), got one in evaluation mode")
        device = self.step.weight.device
        if device.type == "cuda" and not all(group.get("capturable", True) for group in optimizer.param_groups):
            raise ValueError("optimizer: expected capturable=True in all groups, got False")

        def inputs() -> tuple:
            energy, *slopes = self.step.predict(int(forces))
            return energy, slopes[0] if slopes else None, self.step.batch

        self.loss_of = LossOf(model, loss, inputs)
        self.find, self.gradients = Recorded(self.step.find, device), Recorded(self._gradients, device)
        self.change = Recorded(self.optimizer.step, device, beside=self.gradients)
        self.status = ReadLater()

    def _gradients(self) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        # The gradients of leaves made here are summed on this stream. Those of the parameters themselves would be on
        # the stream of the oldest autograd graph that is still alive, and CUDA cannot record the default stream.
        parameters, leaves = self.loss_of.leaves()
        value = torch.func.functional_call(self.loss_of, leaves, ())
        # by the positions, of which forces are derivatives, nobody wants one
        value.backward(inputs=[*leaves.values(), *parameters.values()])
        for name, parameter in parameters.items():
            if parameter.grad is None:
                parameter.grad = leaves[name].grad
            elif leaves[name].grad is not None:  # the optimizer has not that one, or the loss took it from elsewhere
                parameter.grad.add_(leaves[name].grad)
        return value.detach()

    @torch.inference_mode(False)  # the arrays in place, made by the first call, serve calls from anywhere
    def __call__(self, data: Any, graph: Graph | None = None) -> Tensor:
        """The loss before the step, 0-dimensional.

        data, graph, errors: as for CapturedInference; data has the labels, too.
        """
        inputs = self.step.put(data, graph, self.find.graph is not None)
        self.status.begin(self.find())
        # the neighbors stay in place once their search is recorded, the gradients once they are
        value = self.gradients(may_record=self.find.graph is not None)
        self.step.raise_if_wrong(self.status.end(), data, inputs)
        self.change(may_record=self.gradients.graph is not None)
        return value.clone()


def _label(data: Any, name: str) -> Tensor:
    value = data.get(name) if isinstance(data, dict) else getattr(data, name, None)
    if not isinstance(value, Tensor):
        raise TypeError(f"data.{name}: expected a tensor, got {type(value).__name__}")
    return value


def _with_shift(graph: Graph, periodic: bool) -> Graph:
    """Periodic data may come in a batch in which nothing repeats; a recorded step needs the same arrays every time."""
    if periodic and graph.shift is None:
        return graph._replace(shift=graph.rev.new_zeros(len(graph.rev), 3))
    return graph
