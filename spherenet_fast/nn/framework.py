"""3DGN, the frame of the paper's Eq. (1), and SMP, its filling of Eq. (2): the base classes of all models.

A molecule or crystal is a 3D graph G = (u, V, E, P): a global feature u, features v_i of the atoms, features e_k of
the edges from sender s_k to receiver r_k, and the positions P = {r_h}. A layer computes (Eq. 1)

    e'_k = phi^e(e_k, v_{r_k}, v_{s_k}, E_{s_k}, rho^{p->e}({r_h}, h = r_k, s_k and the neighbors of s_k))
    v'_i = phi^v(v_i, rho^{e->v}(E'_i), rho^{p->v}({r_h}, h = i and its neighbors))
    u'   = phi^u(u, rho^{e->u}(E'), rho^{v->u}(V'), rho^{p->u}({r_h}, all h))

with E_{s_k} the edges into the sender of edge k and E'_i those into atom i. A model is a subclass of `GraphNetwork3D`
that fills in some of these functions; `examples/attention.py` is a whole one in 50 lines.

All of them compute for a whole batch at once, so features are tensors [E, ...], [N, ...] and [B, ...] (or tuples of
such; nothing in the frame looks into them). Positions do not change from layer to layer, so every rho^{p->.} is
computed once. Neither phi^e nor phi^v sees u, and in this frame phi^u does not either: u is computed once, from the
last E' and V'. A model whose layers each add to its prediction adds it up in V.
"""

import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .. import ops
from ..graph import Graph, edge_vectors, radius_graph
from ..graph.given import check_graph, checks_are_on
from ..graph.graph import first_atoms
from ..ops import reference
from . import derivatives
from .blocks import AtomOutput, EdgeEmbedding, Geometry, Interaction, RadialBasis, torsions
from .hessian import hessian
from .hparams import Recorded, check_arguments, checked
from .inputs import Inputs, outside_inference, read_inputs
from .outputs import sum_of_outputs
from .ranges import Cutoff, Layers

MANY_EDGES = 100_000  # from here on forces find again, rather than store, what layers make for all edges


class System(NamedTuple):
    """What the functions of a model know of a batch besides the features: its atoms, its edges, where they are."""

    z: Tensor  # [N] int64
    batch: Tensor  # [N] int64, ascending
    first_atom: Tensor  # [B + 1] int64: molecule b has the atoms first_atom[b]:first_atom[b + 1]
    graph: Graph
    vec: Tensor  # [E, 3] float64, from sender to receiver
    distance: Tensor  # [E] float64
    dtype: torch.dtype  # of the model
    operators: Any  # `spherenet_fast.ops` or, for a model with kernels=False, `spherenet_fast.ops.reference`

    def of_senders(self, v: Tensor) -> Tensor:
        """Rows of v [N, C] at the senders of all edges: [E, C]."""
        graph = self.graph
        return self.operators.gather(v, graph.edge_index[0], graph.out_ptr, graph.out_edge)

    def of_receivers(self, v: Tensor) -> Tensor:
        """Rows of v [N, C] at the receivers of all edges: [E, C]."""
        return self.operators.gather(v, self.graph.edge_index[1], self.graph.in_ptr, None)

    def sum_of_edges(self, e: Tensor) -> Tensor:
        """Sums of e [E, C] over the edges into every atom: [N, C]."""
        return self.operators.segment_sum(e, self.graph.in_ptr, None, self.graph.edge_index[1])

    def sum_of_atoms(self, v: Tensor) -> Tensor:
        """Sums of v [N, C] over the atoms of every molecule: [B, C]."""
        return self.operators.segment_sum(v, self.first_atom, None, self.batch)


class GraphNetwork3D(Recorded, nn.Module):
    """3DGN (Eq. 1). A subclass fills in `embed`, `rho_pe` and the phis; the sums that the models share are here.

    Args:
        cutoff: atoms closer than this are neighbors, in the unit of the positions (Å).
        num_layers: how often Eq. (1) is applied.

    `hparams` is the dict of the arguments of the subclass's own constructor, so that `type(model)(**model.hparams)` has
    the same structure. Of these, "max_num_neighbors" (default None) and "kernels" (default True) are obeyed, and
    training sets "out_channels" to the number of targets. Arguments are checked against their annotations (`int`,
    `float`, `bool`, `str`, a Literal, or one of `spherenet_fast.nn.ranges`). `spherenet-fast train` takes them, and no
    others, as the keys of the config's section model.

    An untrained model of this package predicts 0, so that training starts with the errors of the mean: the weights of
    its last layers start at 0. Let one of yours start so, too.

    Raises ValueError or TypeError, naming the argument, for hyper-parameters out of range.
    """

    renamed_weights: Mapping[str, str] = {}  # {name in the state dicts of earlier versions: name}, which still load
    unstated: Mapping[str, Any] = {}  # hyper-parameters of checkpoints and runs from before there was that argument

    def __init_subclass__(cls, **named: Any):
        super().__init_subclass__(**named)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls, cls.__init__)

    def __init__(self, cutoff: Cutoff, num_layers: Layers):
        super().__init__()
        if isinstance(cutoff, Mapping):
            warnings.warn("hparams are recorded by themselves: pass cutoff alone", DeprecationWarning, stacklevel=4)
            self.hparams, cutoff = dict(cutoff), cutoff["cutoff"]
        check_arguments(GraphNetwork3D, {"cutoff": cutoff, "num_layers": num_layers})
        self.cutoff, self.num_layers = float(cutoff), num_layers

    @classmethod
    def from_pretrained(cls, name: Any, device: Any = "cpu") -> Any:
        """Trained weights that come with the package, or from a hub: a `spherenet_fast.training.Potential`.

            potential = SphereNet.from_pretrained("md17-ethanol")
            energy, forces = potential.energy_and_forces(data)  # in `potential.units`, reference energies included

        The network itself, which predicts neither reference energies nor units, is `potential.model`.

        Args:
            name: one of `spherenet_fast.pretrained.names`, hf://OWNER/REPOSITORY/FILE, or the path of a checkpoint.

        Raises as `Potential.load`, and ValueError where the network is of another class.
        """
        training = import_module("spherenet_fast.training.potential")  # which is built on this module
        potential = training.Potential.load(name, device)
        if not isinstance(potential.model, cls):
            raise ValueError(f"{name}: expected a {cls.__name__}, got a {type(potential.model).__name__}")
        return potential

    @classmethod
    def check_hparams(cls, hparams: Mapping[str, Any]) -> None:
        """Raise ValueError or TypeError naming the first of `hparams` that the constructor does not take.

        A subclass may add what must go together.
        """
        check_arguments(cls, hparams)

    # ---- Eq. (1): what a model fills in

    def rho_pe(self, system: System) -> Any:
        """rho^{p->e}: what the edges see of the positions, of system.vec and system.distance. Autocast is off here."""
        return None

    def rho_pv(self, system: System) -> Any:
        """rho^{p->v}: what the atoms see of the positions."""
        return None

    def rho_pu(self, system: System) -> Any:
        """rho^{p->u}: what the whole sees of the positions."""
        return None

    def embed(self, system: System, p_e: Any) -> tuple[Any, Any]:
        """The first V and E."""
        raise NotImplementedError(f"{type(self).__name__}.embed: expected a method that returns the first V and E")

    def phi_e(self, layer: int, e: Any, v: Any, p_e: Any, system: System) -> Any:
        """phi^e of layer 0, 1, ...: the next E. Default: e as it is."""
        return e

    def rho_ev(self, e: Any, system: System) -> Any:
        """rho^{e->v}. Default: the sum over the edges into every atom."""
        return system.sum_of_edges(e)

    def phi_v(self, layer: int, v: Any, e_v: Any, p_v: Any, system: System) -> Any:
        """phi^v of layer 0, 1, ... from V, rho^{e->v} and rho^{p->v}: the next V. Default: v as it is."""
        return v

    def rho_eu(self, e: Any, system: System) -> Any:
        """rho^{e->u}. Default: not used."""
        return None

    def atom_readout(self, v: Any, system: System) -> Any:
        """What every atom adds to the sum of `rho_vu`, [N, out_channels]. Default: v."""
        return v

    def rho_vu(self, v: Any, system: System) -> Any:
        """rho^{v->u}. Default: the sum of `atom_readout` over the atoms of every molecule."""
        return system.sum_of_atoms(self.atom_readout(v, system))

    def phi_u(self, e_u: Any, v_u: Any, p_u: Any) -> Tensor:
        """phi^u from rho^{e->u}, rho^{v->u} and rho^{p->u}: the prediction [B, out_channels]. Default: v_u."""
        return v_u

    def atom_features(self, v: Any, e: Any, system: System) -> Tensor:
        """What `descriptors` returns, [N, F], from the last V and E. Default: V."""
        return v

    # ---- what all models share

    def forward(self, data: Any, graph: Graph | None = None, per_atom: bool = False) -> Tensor:
        """The prediction for every molecule.

        data: anything with z [N] int64 (atomic numbers 1 to 94), pos [N, 3] (Å, dtype of the model), batch [N] int64
        ascending (None: one molecule), and optionally cell [B, 3, 3] or [3, 3] (Å), pbc [B, 3] or [3] bool, num_graphs
        (int; else counted from batch). A PyTorch Geometric Data or Batch, or a dict, will do.
        graph: the neighbors, where they are known already; else found with `radius_graph`. A given graph is trusted:
        the one of other atoms, or of other positions of the same atoms, gives other numbers without a word. With
        SPHERENET_FAST_CHECKS=1 in the environment it is checked, which takes longer than finding it.
        per_atom: return what every atom contributes, instead of its sum over the atoms of a molecule.
        Returns [num_graphs, out_channels]; if per_atom [N, out_channels]. Raises ValueError or TypeError naming what is
        wrong with data, and ValueError for per_atom of a model that `is_sum_over_atoms` says has no such contributions.
        """
        return self._function(per_atom)(read_inputs(data, self.parameter_like()), graph)

    def energy_and_forces(self, data: Any, graph: Graph | None = None, per_atom: bool = False) -> tuple[Tensor, Tensor]:
        """The prediction, as an energy, and the forces on the atoms: minus its derivative by the positions.

        data, graph, per_atom: as in `forward`; data is left as it is. Returns energy [num_graphs, out_channels], if
        per_atom [N, out_channels], and forces [N, 3], those of the sum of all energies. While `model.training`, both
        can be differentiated again (by pos, too, if it requires a gradient); else both are detached. Works under
        `torch.no_grad()` and `torch.inference_mode()`.
        """
        predict = self._function(per_atom)
        return derivatives.energy_and_forces(predict, data, self.parameter_like(), graph, self.training)

    def energy_forces_stress(
        self, data: Any, graph: Graph | None = None, per_atom: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`energy_and_forces`, and the stress of every structure: its derivative by strain over the volume of its cell.

        data, graph, per_atom: as in `forward`; every structure needs a cell. Returns energy and forces as
        `energy_and_forces`, under the same conditions, and stress [num_graphs, 3, 3] in energy/Å^3: symmetric, positive
        where the cell would rather shrink. Raises ValueError where there is no cell, one without a volume, or one that
        nothing repeats.
        """
        predict = self._function(per_atom)
        return derivatives.energy_forces_stress(predict, data, self.parameter_like(), graph, self.training)

    def hessian(self, data: Any, atoms: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        """The second derivatives of the prediction, as an energy, by the positions of one structure's atoms.

        data: as in `forward`, of one molecule or cell. atoms: [M] int64, the atoms whose block is wanted; default: all
        N. batch_size: rows that are computed at a time, each in a copy of the structure; more of them take more
        memory. Returns [M, 3, M, 3], energy/Å^2, detached: exact, and symmetric up to rounding, for which float64 is
        recommended. Raises ValueError for several structures.
        """
        return hessian(self._predict, data, self.parameter_like(), atoms, batch_size)

    @torch.no_grad()
    def descriptors(self, data: Any, graph: Graph | None = None) -> Tensor:
        """A vector of features of every atom: what the model makes of its environment, before the prediction.

        data, graph: as in `forward`. Returns [N, F], detached, the same wherever and however a structure lies. For
        SphereNet, DimeNet and DimeNet++ these are the sums of the last layer's messages into every atom, of which its
        output block makes its part of the prediction (F = hidden_channels); for the others the last features of the
        atoms, V.
        """
        system, v, e, _ = self._propagate(read_inputs(data, self.parameter_like()), graph)
        return self.atom_features(v, e, system)

    @property
    def is_sum_over_atoms(self) -> bool:
        """Whether the prediction is a sum of contributions of atoms: if rho_vu and phi_u are those of this class."""
        own = type(self)
        return own.rho_vu is GraphNetwork3D.rho_vu and own.phi_u is GraphNetwork3D.phi_u

    def parameter_like(self) -> Tensor:
        """A parameter: positions must have its dtype and device."""
        return next(self.parameters())

    def neighbors(self, inputs: Inputs) -> Graph:
        """The graph that the model sees if none is given."""
        _, pos, batch, _, cell, pbc = inputs
        return radius_graph(pos, batch, self.cutoff, cell, pbc, self.hparams.get("max_num_neighbors"))

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        for old, name in self.renamed_weights.items():
            if prefix + old in state_dict:
                state_dict[prefix + name] = state_dict.pop(prefix + old)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _function(self, per_atom: bool) -> derivatives.Predict:
        """What is predicted: a number for every molecule, or what its atoms contribute to it."""
        if not per_atom:
            return self._predict
        if not self.is_sum_over_atoms:
            raise ValueError(
                "per_atom: expected a model whose prediction is the sum of atom_readout, got a "
                f"{type(self).__name__} with rho_vu or phi_u of its own"
            )
        return self._contributions

    def _predict(self, inputs: Inputs, graph: Graph | None) -> Tensor:
        """[num_graphs, out_channels]."""
        system, v, e, p_u = self._propagate(inputs, graph)
        return self.phi_u(self.rho_eu(e, system), self.rho_vu(v, system), p_u)

    def _contributions(self, inputs: Inputs, graph: Graph | None) -> Tensor:
        """[N, out_channels]."""
        system, v, _, _ = self._propagate(inputs, graph)
        return self.atom_readout(v, system)

    def _propagate(self, inputs: Inputs, graph: Graph | None) -> tuple[System, Any, Any, Any]:
        """The system, V and E after the last layer, and rho^{p->u}."""
        z, pos, batch, num_graphs, cell, pbc = inputs
        if graph is None:
            graph = self.neighbors(inputs)
        elif len(graph.in_ptr) != len(z) + 1:
            raise ValueError(f"graph: expected one of {len(z)} atoms, as in data, got {len(graph.in_ptr) - 1}")
        else:
            graph = Graph(*map(outside_inference, graph))
            if checks_are_on(pos):
                check_graph(graph, pos, batch, self.cutoff, cell, pbc, self.hparams.get("max_num_neighbors"))
        with torch.autocast(pos.device.type, enabled=False):  # positions and what is made of them keep their precision
            # In float64 until there are unit vectors: along a line the energy is steep in their last digits.
            vec = edge_vectors(pos.double(), graph, batch, None if cell is None else cell.double())
        return self._of_edges(z, batch, num_graphs, graph, vec, pos.dtype)

    def _of_edges(
        self, z: Tensor, batch: Tensor, num_graphs: int, graph: Graph, vec: Tensor, dtype: torch.dtype
    ) -> tuple[System, Any, Any, Any]:
        """The same of the edges of a graph. vec [E, 3] float64, along them; dtype: of the model."""
        operators = ops if self.hparams.get("kernels", True) else reference
        with torch.autocast(vec.device.type, enabled=False):
            distance = vec.square().sum(-1).sqrt()
            system = System(z, batch, first_atoms(batch, num_graphs), graph, vec, distance, dtype, operators)
            p_e, p_v, p_u = self.rho_pe(system), self.rho_pv(system), self.rho_pu(system)

        v, e = self.embed(system, p_e)
        for layer in range(self.num_layers):
            e = self.phi_e(layer, e, v, p_e, system)
            v = self.phi_v(layer, v, self.rho_ev(e, system), p_v, system)
        return system, v, e, p_u


class SphericalMessagePassing(GraphNetwork3D):
    """SMP (Eq. 2): 3DGN whose edges see the positions in spherical coordinates,

        rho^{p->e} = Psi(d, theta, phi) for every edge q = k->j into the sender of e = j->i,

    d = |r_j - r_k|, theta the angle at j between k and i, phi the torsion about e. Messages pass from edge to edge:

        e1, e2 = phi^e: interaction blocks over Psi, e1 what they carry on and e2 what the atoms see of it (Eq. 3)
        v'_i   = v_i + MLP(sum of e2 over the edges into i)
        u      = sum of v_i over the atoms

    As no layer looks at v_i, V is the tuple of the sums so far, [N, H] each, and `atom_readout` applies all MLPs.

    A subclass sets the modules `emb` (Psi's functions of the distance), `init_e`, `init_v`, and one of `update_es` and
    `update_vs` for each layer, and `use_angle` and `torsion`, which say what Psi is to contain: no torsion
    (None), the paper's to the next neighbor ("paper"), or a smooth one, "smooth" or "smooth_even".
    """

    use_angle = True
    torsion: str | None = "smooth"
    emb: RadialBasis
    init_e: EdgeEmbedding
    init_v: AtomOutput
    update_es: "nn.ModuleList[Interaction]"
    update_vs: "nn.ModuleList[AtomOutput]"

    def start_at_zero(self) -> None:
        """Let the untrained model predict 0: its errors are then those of the mean, whatever the number of atoms."""
        for output in (self.init_v, *self.update_vs):
            nn.init.zeros_(output.lin.weight)

    def parameter_like(self) -> Tensor:
        return self.init_e.emb.weight

    def rho_pe(self, system: System) -> Geometry:
        vec, distance, dtype = system.vec, system.distance, system.dtype
        bessel, radial = self.emb(distance.to(dtype), system.operators)
        recompute = not self.training and torch.is_grad_enabled() and distance.shape[0] >= MANY_EDGES
        if not self.use_angle:
            return Geometry(system.graph, bessel, None, None, None, recompute)
        direction = (vec / distance[:, None]).to(dtype)
        given = vec, distance, direction, self.emb.cutoff, system.graph, system.operators
        torsion = None if self.torsion is None else torsions(self.torsion, *given)
        return Geometry(system.graph, bessel, radial, direction, torsion, recompute)

    def embed(self, system: System, p_e: Geometry) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        given = system.z, p_e, system.operators
        if p_e.recompute:
            e = checkpoint(self.init_e, *given, use_reentrant=False, preserve_rng_state=False)
        else:
            e = self.init_e(*given)
        return (self.rho_ev(e, system),), e

    def phi_e(self, layer: int, e: tuple[Tensor, Tensor], v: tuple[Tensor, ...], p_e: Geometry, system: System):
        return self.update_es[layer](e[0], p_e, system.operators)

    def rho_ev(self, e: tuple[Tensor, Tensor], system: System) -> Tensor:
        return system.sum_of_edges(e[1])

    def phi_v(self, layer: int, v: tuple[Tensor, ...], e_v: Tensor, p_v: None, system: System) -> tuple[Tensor, ...]:
        return *v, e_v

    def atom_readout(self, v: tuple[Tensor, ...], system: System) -> Tensor:
        blocks = [self.init_v, *self.update_vs]
        return sum_of_outputs(blocks, v, system.operators, system.dtype)  # under autocast, too, sums are not rounded

    def atom_features(self, v: Tensor, e: tuple[Tensor, Tensor], system: System) -> Tensor:
        return self.rho_ev(e, system)
