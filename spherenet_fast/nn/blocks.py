"""The blocks of SphereNet: small modules over the operators, with the released code's parameter names.

N atoms, E edges j->i sorted by receiver, H hidden channels, C channels of the gated sum, L x K radial functions.
`operators` is one of the two modules with the same functions: `spherenet_fast.ops` or `spherenet_fast.ops.reference`.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..graph import Graph
from ..ops.reference import envelope
from .basis import spherical_bessel_constants
from .ranges import NUM_ELEMENTS


class Geometry(NamedTuple):
    """What the blocks know of the positions."""

    graph: Graph
    bessel: Tensor  # [E, K], of the distance, with the envelope
    radial: Tensor | None  # [E, L, K], of the distance, for angle and torsion; None without angles
    direction: Tensor | None  # [E, 3], unit vectors from sender to receiver; None without angles
    torsion: Tensor | None  # as `ops.gated_sum` takes it; None without torsions
    recompute: bool = False  # whether the backward pass finds again, rather than stored, what layers make for all edges


class Dense(nn.Linear):
    """A linear layer with orthogonal weights of Glorot's variance 2 / (fan_in + fan_out), and zero bias."""

    def forward(self, x: Tensor, operators) -> Tensor:
        return operators.linear(x, self.weight, self.bias)

    def silu(self, x: Tensor, operators) -> Tensor:
        """silu(self(x))."""
        return operators.linear_silu(x, self.weight, self.bias)

    def times(self, x: Tensor, features: Tensor, operators) -> Tensor:
        """x * self(features), without bias, whose second factor is never stored. x [E, H]; features [E, K], K <= 16."""
        return operators.radial_filter(x, features, self.weight)

    def reset_parameters(self) -> None:
        # an orthogonal m x n matrix has mean square 1 / max(m, n)
        gain = (2 * max(self.weight.shape) / sum(self.weight.shape)) ** 0.5
        nn.init.orthogonal_(self.weight, gain)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def shifted_softplus(x: Tensor) -> Tensor:
    """ln((1 + e^x) / 2), which is 0 at 0. x: any shape."""
    return torch.nn.functional.softplus(x) - math.log(2)


def harmonics_with_cosines(num_spherical: int) -> Tensor:
    """1 for the harmonics with m >= 0, 0 for the others, in the order of `gated_sum`. [L^2], L = num_spherical."""
    numbers = [(degree, order) for degree in range(num_spherical) for order in range(2 * degree + 1)]
    return torch.tensor([float(order <= degree) for degree, order in numbers])


def fade_out(x: Tensor) -> Tensor:
    """1 - 10 x^3 + 15 x^4 - 6 x^5, which falls from 1 at x = 0 to 0 at x = 1 with two derivatives; 0 beyond.

    x: any shape, distance / cutoff. Returns the same shape.
    """
    x = x.clamp(max=1)
    return 1 - x**3 * (10 - x * torch.rsub(x, 15, alpha=6))


def torsions(
    kind: str, vec: Tensor, distance: Tensor, direction: Tensor, cutoff: float, graph: Graph, operators
) -> Tensor:
    """What `gated_sum` takes as the torsions: the paper's ("paper"), or smooth ones ("smooth", "smooth_even").

    vec [E, 3]; distance [E]; direction [E, 3] in the dtype of smooth torsions.
    """
    if kind == "paper":
        return operators.torsion_neighbor(vec.detach(), graph)
    fade = fade_out(distance / cutoff).to(direction.dtype)
    return operators.smooth_torsion(direction, fade, graph, kind == "smooth_even")


class Residual(nn.Module):
    """x + silu(lin2(silu(lin1(x)))). x [E, H] -> [E, H]."""

    def __init__(self, channels: int):
        super().__init__()
        self.lin1 = Dense(channels, channels)
        self.lin2 = Dense(channels, channels)

    def forward(self, x: Tensor, operators) -> Tensor:
        return x + self.lin2.silu(self.lin1.silu(x, operators), operators)


class Frequencies(nn.Module):
    """Trainable frequencies of the distance basis, n pi at the start."""

    def __init__(self, num_radial: int):
        super().__init__()
        self.freq = nn.Parameter(torch.pi * torch.arange(1, num_radial + 1, dtype=torch.get_default_dtype()))


class RadialBasis(nn.Module):
    """Distances [E] -> bessel [E, K], radial [E, L, K]: the functions of the distance in all three bases.

    enveloped: whether radial has the envelope, too, as in DimeNet.
    """

    def __init__(
        self,
        num_spherical: int,
        num_radial: int,
        cutoff: float,
        envelope_exponent: int,
        basis: str,
        enveloped: bool = False,
    ):
        super().__init__()
        self.dist_emb = Frequencies(num_radial)
        self.cutoff = float(cutoff)
        self.envelope_exponent = envelope_exponent
        self.enveloped = enveloped
        self.constants = spherical_bessel_constants(num_spherical, num_radial, basis)
        for name in ("roots", "scale"):
            self.register_buffer(name, torch.empty(num_spherical, num_radial), persistent=False)
        self._refresh_constants()

    @torch.inference_mode(False)  # a model that is moved inside inference mode can still be trained outside
    def _refresh_constants(self) -> None:
        for name, exact in zip(("roots", "scale"), self.constants, strict=True):
            setattr(self, name, torch.tensor(exact, dtype=torch.float64, device=getattr(self, name).device))

    def _apply(self, fn, recurse: bool = True):
        """As in every module, but the constants stay float64 and exact whatever dtype the model takes."""
        super()._apply(fn, recurse)
        self._refresh_constants()
        return self

    def forward(self, distance: Tensor, operators) -> tuple[Tensor, Tensor]:
        bessel, radial = operators.radial_basis(
            distance, self.dist_emb.freq, self.roots, self.scale, self.cutoff, self.envelope_exponent
        )
        if not distance.requires_grad:  # radial does not depend on the frequencies: nobody wants its gradient
            radial = radial.detach()
        if self.enveloped:
            radial = radial * envelope(distance / self.cutoff, self.envelope_exponent)[:, None, None]
        return bessel, radial


class EdgeEmbedding(nn.Module):
    """The first messages: e1 = silu(lin([x_i, x_j, silu(lin_rbf_0(bessel))])), e2 = lin_rbf_1(bessel) * e1.

    z [N] -> e1, e2 [E, H]. `lin` is applied in three parts, those of the atoms before they are copied to the edges.
    """

    def __init__(self, num_radial: int, hidden_channels: int):
        super().__init__()
        self.emb = nn.Embedding(NUM_ELEMENTS, hidden_channels)
        nn.init.uniform_(self.emb.weight, -(3**0.5), 3**0.5)
        self.lin_rbf_0 = Dense(num_radial, hidden_channels)
        self.lin = Dense(3 * hidden_channels, hidden_channels)
        self.lin_rbf_1 = Dense(num_radial, hidden_channels, bias=False)

    def forward(self, z: Tensor, geometry: Geometry, operators) -> tuple[Tensor, Tensor]:
        graph = geometry.graph
        of_receiver, of_sender, of_distance = self.lin.weight.chunk(3, dim=1)
        x = self.emb(z)
        e1 = operators.linear(self.lin_rbf_0.silu(geometry.bessel, operators), of_distance, self.lin.bias)
        e1 = e1 + operators.gather(operators.linear(x, of_receiver), graph.edge_index[1], graph.in_ptr, None)
        e1 = e1 + operators.gather(operators.linear(x, of_sender), graph.edge_index[0], graph.out_ptr, graph.out_edge)
        e1 = operators.silu(e1)
        return e1, self.lin_rbf_1.times(e1, geometry.bessel, operators)


class EdgeUpdate(nn.Module):
    """How a round of message passing between edges ends.

    A subclass has the modules layers_before_skip, lin, layers_after_skip and lin_rbf.
    """

    def end(self, h: Tensor, e1: Tensor, bessel: Tensor, operators) -> tuple[Tensor, Tensor]:
        """Updated messages h and e1 [E, H], bessel [E, K] -> the next e1, e2 [E, H]."""
        for layer in self.layers_before_skip:
            h = layer(h, operators)
        h = self.lin.silu(h, operators) + e1
        for layer in self.layers_after_skip:
            h = layer(h, operators)
        return h, self.lin_rbf.times(h, bessel, operators)


class Interaction(EdgeUpdate):
    """One round of message passing between edges (Eq. 3 of the paper). e1 [E, H] -> e1, e2 [E, H]."""

    def __init__(
        self,
        hidden_channels: int,
        int_emb_size: int,
        basis_emb_size_dist: int,
        basis_emb_size_angle: int,
        basis_emb_size_torsion: int,
        num_spherical: int,
        num_radial: int,
        num_before_skip: int,
        num_after_skip: int,
        use_angle: bool,
        torsion: str | None,
        basis: str,
    ):
        super().__init__()
        self.basis = basis
        self.lin_rbf1 = Dense(num_radial, basis_emb_size_dist, bias=False)
        self.lin_rbf2 = Dense(basis_emb_size_dist, hidden_channels, bias=False)
        self.lin_sbf1 = self.lin_sbf2 = self.lin_t1 = self.lin_t2 = None
        if use_angle:
            self.lin_sbf1 = Dense(num_spherical * num_radial, basis_emb_size_angle, bias=False)
            self.lin_sbf2 = Dense(basis_emb_size_angle, int_emb_size, bias=False)
        if torsion is not None:
            self.lin_t1 = Dense(num_spherical**2 * num_radial, basis_emb_size_torsion, bias=False)
            self.lin_t2 = Dense(basis_emb_size_torsion, int_emb_size, bias=False)
        # of the columns of lin_t1: those of the sines have no place in an energy that is even under reflection
        even = harmonics_with_cosines(num_spherical).repeat_interleave(num_radial) if torsion == "smooth_even" else None
        self.register_buffer("even", even, persistent=False)
        self.lin_rbf = Dense(num_radial, hidden_channels, bias=False)
        self.lin_kj = Dense(hidden_channels, hidden_channels)
        self.lin_ji = Dense(hidden_channels, hidden_channels)
        self.lin_down = Dense(hidden_channels, int_emb_size, bias=False)
        self.lin_up = Dense(int_emb_size, hidden_channels, bias=False)
        self.layers_before_skip = nn.ModuleList(Residual(hidden_channels) for _ in range(num_before_skip))
        self.lin = Dense(hidden_channels, hidden_channels)
        self.layers_after_skip = nn.ModuleList(Residual(hidden_channels) for _ in range(num_after_skip))

    @torch.no_grad()
    def start_near_one(self, constant: np.ndarray) -> None:
        """Let the factor of the torsions start near 1, so that messages pass it and it learns what differs.

        One basis channel begins as a constant and goes into all channels with weight 1; the others begin at random.
        constant [K]: weights of the radial functions of degree 0 whose sum is near 1 over distances.
        """
        row = torch.from_numpy(constant * math.sqrt(4 * math.pi))  # Y_00 = 1 / sqrt(4 pi)
        self.lin_t1.weight[0] = 0
        self.lin_t1.weight[0, : len(row)] = row.to(self.lin_t1.weight)
        self.lin_t2.weight[:, 0] = 1

    def forward(self, e1: Tensor, geometry: Geometry, operators) -> tuple[Tensor, Tensor]:
        # K is small: one product with lin_rbf2 lin_rbf1 is cheaper than two over all edges
        weight = operators.linear(self.lin_rbf2.weight, self.lin_rbf1.weight.t())

        def before(e1, bessel):  # [E, H], [E, K] -> [E, C]
            x_kj = operators.radial_filter(self.lin_kj.silu(e1, operators), bessel, weight)
            return (self.lin_down.silu(x_kj, operators),)

        def after(e1, bessel, message):  # [E, H], [E, K], [E, C] -> the next e1, e2
            x_ji = self.lin_ji.silu(e1, operators)
            return self.end(x_ji + self.lin_up.silu(message, operators), e1, bessel, operators)

        (x_kj,) = operators.row_chain(before, e1, geometry.bessel, recompute=geometry.recompute)
        weights = [layer and layer.weight for layer in (self.lin_sbf1, self.lin_sbf2, self.lin_t1, self.lin_t2)]
        if self.even is not None:
            weights[2] = weights[2] * self.even
        message = operators.gated_sum(
            x_kj, geometry.radial, geometry.direction, geometry.torsion, geometry.graph, *weights, self.basis
        )
        return operators.row_chain(after, e1, geometry.bessel, message, recompute=geometry.recompute)


class AtomOutput(nn.Module):
    """What an atom's incoming messages add to the prediction. Their sums [N, H] -> [N, out_channels].

    out_emb_channels: width of the layers; None: H, without the layer `lin_up` that leads to it. up_bias: of `lin_up`.
    """

    def __init__(
        self,
        hidden_channels: int,
        out_emb_channels: int | None,
        out_channels: int,
        num_output_layers: int,
        up_bias: bool = True,
    ):
        super().__init__()
        width = hidden_channels if out_emb_channels is None else out_emb_channels
        self.lin_up = None if out_emb_channels is None else Dense(hidden_channels, width, bias=up_bias)
        self.lins = nn.ModuleList(Dense(width, width) for _ in range(num_output_layers))
        self.lin = Dense(width, out_channels, bias=False)

    def forward(self, e_v: Tensor, operators) -> Tensor:
        def output(v):
            if self.lin_up is not None:
                v = self.lin_up(v, operators)
            for layer in self.lins:
                v = layer.silu(v, operators)
            return (self.lin(v, operators),)

        return operators.row_chain(output, e_v)[0]
