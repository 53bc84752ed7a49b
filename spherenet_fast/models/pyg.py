"""Weights of PyTorch Geometric's models in ours; PyTorch Geometric itself is not needed."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def refuse(model: nn.Module, name: str, **expected: Any) -> None:
    """TypeError unless `model` is of the class `name`; ValueError naming the first attribute not as expected."""
    if type(model).__name__ != name:
        raise TypeError(f"model: expected a torch_geometric.nn.models.{name}, got {type(model).__name__}")
    for attribute, value in expected.items():
        found = getattr(model, attribute)
        if found is not value:
            raise ValueError(f"model.{attribute}: expected {value}, got {found}")


def refuse_other_activation(activation: Any) -> None:
    """ValueError unless it is the SiLU."""
    x = torch.linspace(-3, 3, 7)
    if not torch.allclose(activation(x), torch.nn.functional.silu(x)):
        raise ValueError(f"model.act: expected the SiLU (swish), got {activation}")


def copied(own: Model, state: Mapping[str, Tensor], model: nn.Module) -> Model:
    """`own` with that state, in the dtype, on the device and in the mode of `model`."""
    like = next(model.parameters())
    own = own.to(like.device, like.dtype)
    own.load_state_dict(state)
    return own.train(model.training)


def dimenet_hparams(model: nn.Module, name: str) -> dict[str, Any]:
    """The hyper-parameters that DimeNet and DimeNet++ share, of a model of the class `name`, under our names."""
    refuse(model, name)
    if not len(model.interaction_blocks):
        raise ValueError("model.num_blocks: expected at least 1, got 0")
    block, output = model.interaction_blocks[0], model.output_blocks[0]
    refuse_other_activation(block.act)
    return dict(
        cutoff=model.cutoff,
        num_blocks=len(model.interaction_blocks),
        hidden_channels=model.emb.emb.embedding_dim,
        out_channels=output.lin.out_features,
        num_spherical=model.sbf.num_spherical,
        num_radial=model.sbf.num_radial,
        envelope_exponent=model.rbf.envelope.p - 1,
        num_before_skip=len(block.layers_before_skip),
        num_after_skip=len(block.layers_after_skip),
        num_output_layers=len(output.lins),
        basis="dig",  # its constants are rounded in the same way
    )


def dimenet_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of its DimeNet or DimeNet++ under the names of `SphericalMessagePassing`, tensors of our own.

    What gates the messages on their way to the atoms belongs to the edges here, and to the output blocks there.
    """
    state = {}
    for name, value in model.state_dict().items():
        module, *rest = name.split(".")
        if module == "rbf":
            name = "emb.dist_emb.freq"
        elif module == "emb":
            name = ".".join(["init_e", *rest]).replace("lin_rbf", "lin_rbf_0")
        elif module == "interaction_blocks":
            # DimeNet's gate of the incoming messages; its other one, for the atoms, has our name lin_rbf
            name = ".".join(["update_es", *("lin_rbf1" if part == "lin_rbf" else part for part in rest)])
        else:
            layer = int(rest[0]) - 1  # the first output block sees the messages before the first layer
            if rest[1] == "lin_rbf":
                name = "init_e.lin_rbf_1.weight" if layer < 0 else f"update_es.{layer}.lin_rbf.weight"
            else:
                name = ".".join(["init_v" if layer < 0 else f"update_vs.{layer}", *rest[1:]])
        state[name] = value.clone()
    return state
