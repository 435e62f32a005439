"""UniPC: a predictor-corrector of any order at one evaluation a step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from underone.diffusion.node import Estimate, Node
from underone.diffusion.samplers.sampler import Sampler, Step
from underone.errors import UserError, unknown


@dataclass(frozen=True)
class UniPC(Sampler):
    """UniPC-p with data prediction (Zhao et al. 2023, eq. 3, 5 and 9, algorithm 8).

    From t to s, with lambda = log(alpha / sigma), h = lambda_s - lambda_t, m0 the newest estimate
    and m_k those before it at r_k = (lambda_k - lambda_t) / h < 0,

        x_s = sigma_s / sigma_t x + alpha_s ((1 - e^(-h)) m0 + B sum_k rho_k (m_k - m0) / r_k),

    with B = h ("bh1") or 1 - e^(-h) ("bh2"), and rho solving sum_k rho_k r_k^(i-1) = b_i, the
    moments of the exponential integral, for i = 1, 2, ... The predictor uses p estimates. The
    estimate m_s it is then asked for is used twice: as the newest of the next step, and, with
    r = 1, to correct x_s with p + 1 estimates. Local errors are h^(p+1) of the predictor and
    h^(p+2) of the corrector, whose m_s is off by h^(p+1) only: order p + 1. For p = 1 the
    corrector, and for p = 2 the predictor, takes rho = 1/2, the same to leading order. The last
    steps use at most as many estimates as there are steps left.
    """

    order: int = 3
    variant: Literal["bh1", "bh2"] = "bh2"

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise UserError(f"UniPC has the orders 1, 2 and 3, not {self.order}")
        if self.variant not in ("bh1", "bh2"):
            raise unknown("UniPC variant", self.variant, ("bh1", "bh2"))

    @property
    def history(self) -> int:
        """The order."""
        return self.order

    @property
    def global_order(self) -> int:
        """One more than the order, by the corrector."""
        return self.order + 1

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """Correct x with the estimate made from it, then predict."""
        here = self._settled(x, at)
        known = [here, *reversed(at.past)][: min(self.order, at.left)]
        return self._advance(known, at.to, None), here

    def finish(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """x = x0; the state it was estimated at is corrected as ever, for those who look at it."""
        here = self._settled(x, at)
        return here.x0, here

    def _settled(self, x: Tensor, at: Step) -> Estimate:
        """The estimate from x, with x corrected by it."""
        here = at.evaluate(x)
        if not at.past:
            return here
        known = list(reversed(at.past))[: min(self.order, at.left + 1)]
        return Estimate(at.now, self._advance(known, at.now, here), here.x0)

    def _advance(self, known: Sequence[Estimate], to: Node, reached: Estimate | None) -> Tensor:
        """From the newest of `known` to `to`; corrected where the estimate `reached` is given."""
        newest = known[0]
        now, m0 = newest.node, newest.x0
        h = to.log_snr - now.log_snr
        others = [*known[1:], *([reached] if reached is not None else [])]
        base = to.sigma / now.sigma * newest.x - to.alpha * torch.expm1(-h) * m0
        if not others:
            return base
        ratios = torch.stack([(m.node.log_snr - now.log_snr) / h for m in others])
        scale = -h if self.variant == "bh1" else torch.expm1(-h)
        weights = to.alpha * scale * _rho(ratios, -h, scale) / ratios
        for weight, other in zip(weights, others, strict=True):
            base = base - weight * (other.x0 - m0)
        return base


def _rho(ratios: Tensor, z: Tensor, scale: Tensor) -> Tensor:
    """The weights of the differences: R rho = b, with R_ij = r_j^(i-1).

    b_i = i! g_i / B, with g_1 = (e^z - 1) / z - 1 and g_(i+1) = g_i / z - 1 / (i + 1)!, z = -h.
    """
    if len(ratios) == 1:
        return torch.full_like(ratios, 0.5)
    moments, g = [], torch.expm1(z) / z - 1
    for i in range(1, len(ratios) + 1):
        moments.append(g * math.factorial(i) / scale)
        g = g / z - 1 / math.factorial(i + 1)
    powers = torch.stack([ratios**i for i in range(len(ratios))])
    return torch.linalg.solve(powers, torch.stack(moments))
