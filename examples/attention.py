"""A new model in 50 lines: atoms pay attention to their neighbors, the more the better both and their distance fit.

    spherenet-fast train ethanol --set model.name=examples.attention.AttentionNet --set model.hidden_channels=32

    rho^{p->e} = Psi(d), Bessel functions of the distance with an envelope
    phi^e:  e'_k = sigmoid(Q v_{r_k} . K v_{s_k} / sqrt(H)) (A v_{s_k}) * W Psi
    phi^v:  v'_i = v_i + silu(B sum over the edges into i of e'_k)
    phi^u:  u = sum over the atoms of MLP(v_i)

What is not written here comes from `GraphNetwork3D`: reading data, neighbors, periodic cells, forces and stress, the
sums over edges and atoms, hyper-parameters from the constructor. W Psi is 0 at the cutoff, so energy and forces are
continuous.
"""

import torch
from torch import Tensor, nn

from spherenet_fast.nn.blocks import Dense, RadialBasis
from spherenet_fast.nn.framework import GraphNetwork3D, System
from spherenet_fast.nn.ranges import NUM_ELEMENTS


class AttentionLayer(nn.Module):
    def __init__(self, channels: int, num_radial: int):
        super().__init__()
        self.query, self.key, self.value, self.update = (Dense(channels, channels) for _ in range(4))
        self.gate = Dense(num_radial, channels, bias=False)


class AttentionNet(GraphNetwork3D):
    """cutoff in Å; hidden_channels: H, width of all features; num_radial: Bessel functions, up to 16."""

    def __init__(self, cutoff: float = 5.0, num_layers: int = 3, hidden_channels: int = 64, num_radial: int = 8):
        super().__init__(cutoff, num_layers)
        self.emb = nn.Embedding(NUM_ELEMENTS, hidden_channels)
        self.basis = RadialBasis(1, num_radial, cutoff, envelope_exponent=5, basis="paper")
        self.layers = nn.ModuleList(AttentionLayer(hidden_channels, num_radial) for _ in range(num_layers))
        self.lin1, self.lin2 = Dense(hidden_channels, hidden_channels), Dense(hidden_channels, 1)
        nn.init.zeros_(self.lin2.weight)  # an untrained model predicts 0

    def rho_pe(self, system: System) -> Tensor:
        bessel, _ = self.basis(system.distance.to(system.dtype), system.operators)
        return bessel

    def embed(self, system: System, p_e: Tensor) -> tuple[Tensor, None]:
        return self.emb(system.z), None

    def phi_e(self, layer: int, e: Tensor | None, v: Tensor, p_e: Tensor, system: System) -> Tensor:
        this, operators = self.layers[layer], system.operators
        query, key = system.of_receivers(this.query(v, operators)), system.of_senders(this.key(v, operators))
        attention = torch.sigmoid((query * key).sum(1, keepdim=True) / v.shape[1] ** 0.5)
        value = system.of_senders(this.value(v, operators))
        return attention * this.gate.times(value, p_e, operators)

    def phi_v(self, layer: int, v: Tensor, e_v: Tensor, p_v: None, system: System) -> Tensor:
        return v + self.layers[layer].update.silu(e_v, system.operators)

    def atom_readout(self, v: Tensor, system: System) -> Tensor:
        return self.lin2(self.lin1.silu(v, system.operators), system.operators)
