"""The weight of the error at each noise level in training."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from underone.diffusion import Node, Prediction
from underone.errors import UserError


class Weighting(Protocol):
    """The weight of the squared error of the network's output."""

    def __call__(self, prediction: Prediction, node: Node) -> Tensor:
        """The weights (B,), float64, at nodes (B,)."""
        ...


@dataclass(frozen=True)
class Simple:
    """The same weight for every error: L_simple (Ho et al. 2020, eq. 14)."""

    name: Literal["simple"] = "simple"

    def __call__(self, prediction: Prediction, node: Node) -> Tensor:
        """1."""
        return torch.ones_like(node.t)


SIMPLE = Simple()


@dataclass(frozen=True)
class MinSNR:
    """The squared error of x0 is weighted by min(SNR, limit), SNR = (alpha / sigma)^2.

    Where the output is off by e, the x0 that it implies is off by c e, so that the squared error of
    the output is weighted by min(SNR, limit) c^2: for noise min(SNR, limit) / SNR, for the velocity
    min(SNR, limit) / (SNR + 1). Hang et al. 2023, arXiv 2303.09556, eq. 7, whose limit is 5.
    """

    limit: float = 5.0
    name: Literal["min-snr"] = "min-snr"

    def __post_init__(self) -> None:
        if not 0 < self.limit < float("inf"):
            raise UserError(f"the limit of min-snr must be finite and above 0, got {self.limit}")

    def __call__(self, prediction: Prediction, node: Node) -> Tensor:
        """min(SNR, limit) c^2."""
        one = torch.ones_like(node.t)
        slope = prediction.to_x0(one, torch.zeros_like(one), node)
        return (node.alpha / node.sigma).square().clamp(max=self.limit) * slope.square()
