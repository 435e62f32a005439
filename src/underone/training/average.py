"""The moving average of the weights that is sampled from."""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

# The width of the narrow average, as a share of the other's.
NARROW = 0.5


@lru_cache
def profile_exponent(relative_width: float) -> float:
    """The k of an averaging profile t^k whose standard deviation is `relative_width` of the run.

    Solves width^2 = (k + 1) / ((k + 2)^2 (k + 3)) (Karras et al. 2024, eq. 123) by bisection.
    """
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = 0.5 * (low + high)
        width = math.sqrt((middle + 1) / ((middle + 2) ** 2 * (middle + 3)))
        low, high = (middle, high) if width > relative_width else (low, middle)
    return low


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, step: int, exponent: float) -> None:
    """average <- beta average + (1 - beta) weights, beta = (1 - 1/n)^(k + 1), after update n.

    The average of a power-function profile (Karras et al. 2024, eq. 127): beta is 0 at the first
    update, so there is no trace of the initial weights and no warm-up to choose. `step` is n >= 1.
    Buffers are copied, never averaged.
    """
    beta = (1 - 1 / step) ** (exponent + 1)
    targets: list[Tensor] = list(average.parameters())
    torch._foreach_lerp_(targets, list(network.parameters()), 1 - beta)
    for target, source in zip(average.buffers(), network.buffers(), strict=True):
        target.copy_(source)
