"""All models, small, with random weights everywhere: what the tests of models run over."""

import torch
from attention import AttentionNet
from molecules import SMALL

from spherenet_fast.models import MODELS

_DIRECTIONAL = dict(num_blocks=2, hidden_channels=10, num_spherical=4, num_radial=3, num_output_layers=1)
_SPHERENET = {**SMALL, "num_spherical": 4, "hidden_channels": 10}
_HPARAMS = {
    "SphereNet": _SPHERENET,
    "SphereNet with the paper's torsion": dict(_SPHERENET, torsion="paper"),
    "SphereNet even under reflection": dict(_SPHERENET, torsion="smooth_even"),
    "SphereNet without torsion": dict(_SPHERENET, use_torsion=False),
    "SphereNet without angle": dict(_SPHERENET, use_torsion=False, use_angle=False),
    "SchNet": dict(cutoff=5.0, num_interactions=2, hidden_channels=10, num_filters=12, num_gaussians=7),
    "PhysNet": dict(cutoff=5.0, num_blocks=2, hidden_channels=10, num_gaussians=7, num_residual_interaction=1),
    "DimeNet": dict(_DIRECTIONAL, num_bilinear=3),
    "DimeNetPlusPlus": dict(_DIRECTIONAL, int_emb_size=7, basis_emb_size=4, out_emb_channels=9),
}
EXAMPLE = "the example"
NAMES = [*_HPARAMS, EXAMPLE]
# with kernels and with the readable operators; the example has no such choice
IMPLEMENTATIONS = [(name, kernels) for name in _HPARAMS for kernels in (True, False)] + [(EXAMPLE, True)]
IDS = [name if kernels else f"{name}, reference" for name, kernels in IMPLEMENTATIONS]


def untrained_model(name, kernels=True, **changes):
    """A model as it starts."""
    torch.manual_seed(0)
    if name == EXAMPLE:
        return AttentionNet(num_layers=2, hidden_channels=10, num_radial=3)
    return MODELS[name.split()[0]](**_HPARAMS[name] | dict(kernels=kernels) | changes)


def small_model(name, kernels=True, **changes):
    """A model in float64 and training mode."""
    model = untrained_model(name, kernels, **changes)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if (parameter == 0).all():  # the last layers, and PhysNet's masks, start at 0
            parameter.data.normal_(std=0.3, generator=generator)
    if name == "DimeNet":  # whose bilinear forms are made for 128 channels: with 10 they would grow from layer to layer
        for block in model.update_es:
            block.W.data *= 0.1
    return model.double()
