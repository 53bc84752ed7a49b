"""Do the kernels compute what the reference computes? Small enough to run on any machine before anything else."""

from types import SimpleNamespace

import torch
from torch import Tensor

from .. import models

MODELS = (("SphereNet", {}), ("SphereNet", {"torsion": "paper"}), ("SchNet", {}))  # between them they call all kernels
QUANTITIES = ("energy", "forces", "second derivative")
TOLERANCE = 1e-4  # a wrong kernel is off by much more; float32 rounds to 6e-8, all layers together to some 1e-6


def largest_errors(device: torch.device) -> dict[str, float]:
    """The largest errors of float32 on a device, each over the largest number of float64 and the reference on the CPU.

    Those of the energy of ethanol, its forces, and the derivative of a function of the forces by all weights.

    Raises whatever the kernels raise.
    """
    found = torch.tensor([_errors(name, hparams, device) for name, hparams in MODELS])
    return dict(zip(QUANTITIES, found.amax(0).tolist(), strict=True))  # nan where one of them is


def _errors(name: str, hparams: dict, device: torch.device) -> list[float]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = models.MODELS[name](**hparams)
        for weight in model.parameters():
            if not weight.any():  # as the last layers start, by which nothing would depend on the others
                torch.nn.init.normal_(weight, std=0.1)
    exact = models.MODELS[name](**hparams, kernels=False).double()
    exact.load_state_dict(model.state_dict())
    pairs = zip(_quantities(model.to(device)), _quantities(exact), strict=True)
    return [((value.double().cpu() - right).abs().max() / right.abs().max()).item() for value, right in pairs]


def _quantities(model: torch.nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Energy [1, 1], forces [9, 3], and the derivative of their squares by all weights, one after the other."""
    from ase.build import molecule

    ethanol = molecule("CH3CH2OH")
    ethanol.rattle(0.05, seed=0)  # no atom in a plane or on a line with others
    weights = list(model.parameters())
    data = SimpleNamespace(z=torch.tensor(ethanol.numbers), pos=torch.tensor(ethanol.positions), batch=None)
    data.z, data.pos = data.z.to(weights[0].device), data.pos.to(weights[0])
    energy, forces = model.energy_and_forces(data)
    slopes = torch.autograd.grad(forces.square().sum(), weights, allow_unused=True, materialize_grads=True)
    return energy.detach(), forces.detach(), torch.cat([slope.flatten() for slope in slopes])
