"""The optimizer of a run: AdamW, or Muon for the large weight matrices and AdamW for all else.

Muon (K. Jordan et al., https://kellerjordan.github.io/posts/muon) replaces the gradient of a weight matrix by the
nearest orthogonal one, so that all directions of a layer learn at the same rate. `torch.optim.Muon` does so matrix by
matrix, and in bfloat16 even where a processor has to emulate it; here all matrices of one shape go through the same
few batched products.
"""

from collections import defaultdict
from functools import cache

import torch
from torch import Tensor, nn

from ..config import OptimizerConfig

SMALLEST_SIDE = 32  # of a matrix for Muon; narrower ones and all vectors are AdamW's
QUINTIC = (3.4445, -4.7750, 2.0315)  # Newton-Schulz coefficients of Muon's authors
ITERATIONS = 5
STEP = 0.4  # root mean square of a step over the learning rate; AdamW's is near 0.2


@cache
def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where `device` multiplies it faster than float32, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # not in every torch from 2.11 on
    return torch.bfloat16 if device.type == "cpu" and capabilities.get("avx512_bf16") else torch.float32


def orthogonalized(matrices: Tensor) -> Tensor:
    """Roughly U V^T of every matrix U S V^T. [M, m, n] -> [M, m, n].

    Five quintic Newton-Schulz iterations bring singular values above some thousandths of the matrix' norm to 0.7 to 1.2
    and smaller ones nearer to 1 than they were, so bfloat16 is enough; matrices of zeros stay so.
    """
    transposed = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if transposed else matrices
    x = (x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]).to(fast_dtype(x.device))
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if transposed else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov's momentum, orthogonalized; all matrices of one shape at once.

        m <- momentum m + g,    w <- (1 - lr weight_decay) w - 0.4 lr sqrt(max(shape)) orthogonalized(g + momentum m)

    The factor makes the largest steps the same for all shapes, and twice as large as AdamW's, so that one learning rate
    serves both.

    Args:
        params: matrices.
    """

    def __init__(self, params, lr: float, weight_decay: float = 0.0, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        """One step; parameters without a gradient stay. Returns the closure's loss, or None."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            same_shape = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    same_shape[parameter.shape].append(parameter)
            for shape, parameters in same_shape.items():
                self._step(parameters, STEP * group["lr"] * max(shape) ** 0.5, group)
        return loss

    def _step(self, parameters: list[nn.Parameter], rate: float, group: dict) -> None:
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, gradients)
        direction = torch.stack(gradients).add_(torch.stack(momenta), alpha=group["momentum"])
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, list(orthogonalized(direction).unbind()), alpha=-rate)


class Together(torch.optim.Optimizer):
    """Several optimizers, each with parameters of its own, as one. Their parameter groups are its groups."""

    def __init__(self, *optimizers: torch.optim.Optimizer):
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})
        self.optimizers = optimizers

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"optimizers": self.optimizers}

    def add_param_group(self, param_group: dict) -> None:
        """Later ones go to the last optimizer."""
        if "optimizers" in vars(self):
            self.optimizers[-1].add_param_group(param_group)
            param_group = self.optimizers[-1].param_groups[-1]
        super().add_param_group(param_group)

    def step(self, closure=None):
        """One step of each. Returns the closure's loss, or None."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def state_dict(self) -> dict:
        """As of one optimizer: parameters are numbered through all parts."""
        state, groups, first = {}, [], 0
        for part in (optimizer.state_dict() for optimizer in self.optimizers):
            state |= {first + number: values for number, values in part["state"].items()}
            for group in part["param_groups"]:
                groups.append(group | {"params": [first + number for number in group["params"]]})
            first += sum(len(group["params"]) for group in part["param_groups"])
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict) -> None:
        groups = iter(state_dict["param_groups"])
        for optimizer in self.optimizers:
            own = [next(groups) for _ in optimizer.param_groups]
            numbers = {number for group in own for number in group["params"]}
            state = {number: values for number, values in state_dict["state"].items() if number in numbers}
            optimizer.load_state_dict({"state": state, "param_groups": own})
        self.param_groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]


def muon_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The weights of linear layers between wide features, each once, in the model's order."""
    weights = (module.weight for module in model.modules() if isinstance(module, nn.Linear))
    wide = (weight for weight in weights if min(weight.shape) >= SMALLEST_SIDE and weight.requires_grad)
    return list({id(weight): weight for weight in wide if isinstance(weight, nn.Parameter)}.values())


def make_optimizer(model: nn.Module, options: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of the model's parameters that the config names. Raises ValueError for an unknown name."""
    if options.name not in ("muon", "adamw"):
        raise ValueError(f"name: expected muon or adamw, got {options.name!r}")
    matrices = muon_matrices(model) if options.name == "muon" else []
    taken = {id(matrix) for matrix in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in taken]
    parts = []
    if matrices:
        parts.append(Muon(matrices, options.lr, options.weight_decay))
    if others:
        fused = others[0].device.type in ("cpu", "cuda")
        betas = (0.9, options.beta2)
        parts.append(torch.optim.AdamW(others, options.lr, betas, weight_decay=options.weight_decay, fused=fused))
    return parts[0] if len(parts) == 1 else Together(*parts)
