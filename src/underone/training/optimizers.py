"""Which optimiser moves which parameters, and what each keeps of them."""

from collections.abc import Sequence

import torch
from torch import nn

from underone.training.muon import Muon
from underone.training.recipe import Optimisation

# The state that each optimiser keeps for a parameter from one update to the next.
MOMENTS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.AdamW: ("exp_avg", "exp_avg_sq"),
    Muon: ("momentum",),
}
# The layers that read the image and write the output, which are not hidden.
_ENDS = ("stem", "out")


def optimizers_for(
    network: nn.Module, optimisation: Optimisation
) -> tuple[torch.optim.Optimizer, ...]:
    """AdamW of all parameters, or Muon of the hidden weights and AdamW of the others."""
    parameters = list(network.parameters())
    if optimisation.optimiser == "adamw":
        return (_adamw(parameters, optimisation),)
    hidden = hidden_weights(network)
    chosen = {id(weight) for weight in hidden}
    others = [parameter for parameter in parameters if id(parameter) not in chosen]
    return Muon(hidden, lr=0.0), _adamw(others, optimisation)


def hidden_weights(network: nn.Module) -> list[nn.Parameter]:
    """The matrices and kernels that lead from hidden features to hidden features."""
    return [
        layer.get_parameter("weight")
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and name not in _ENDS
    ]


def _adamw(parameters: Sequence[nn.Parameter], optimisation: Optimisation) -> torch.optim.Optimizer:
    """AdamW; only matrices and kernels decay, not biases and gains."""
    groups = [
        {
            "params": [p for p in parameters if p.ndim >= 2],
            "weight_decay": optimisation.weight_decay,
        },
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=optimisation.betas, fused=True)
