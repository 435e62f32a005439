"""How much the error at each noise level counts in training."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from underone.diffusion import Node, Prediction
from underone.errors import UserError


class Weighting(Protocol):
    """What the squared error of the network's output counts."""

    def __call__(self, prediction: Prediction, node: Node) -> Tensor:
        """The weights (B,), float64, at nodes (B,)."""
        ...


@dataclass(frozen=True)
class Simple:
    """Every error counts alike: L_simple (Ho et al. 2020, eq. 14)."""

    name: Literal["simple"] = "simple"

    def __call__(self, prediction: Prediction, node: Node) -> Tensor:
        """1."""
        return torch.ones_like(node.t)


SIMPLE = Simple()


@dataclass(frozen=True)
class MinSNR:
    """The error of x0 counts min(SNR, limit), SNR = (alpha / sigma)^2 (Hang et al. 2023, eq. 7).

    Of an output that differs by e the x0 that it implies differs by c e, so that the error of the
    output counts min(SNR, limit) c^2: of noise min(SNR, limit) / SNR, of the velocity
    min(SNR, limit) / (SNR + 1). arXiv 2303.09556, whose limit is 5.
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
