"""UniPC: a predictor-corrector of any order at one evaluation a step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from underone.diffusion.node import Estimate, Node, step_size
from underone.diffusion.samplers.polynomial import gauss_legendre
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
        if self.variant not in _SCALES:
            raise unknown("UniPC variant", self.variant, _SCALES)

    @property
    def history(self) -> int:
        return self.order

    @property
    def global_order(self) -> int:
        return self.order + 1  # by the corrector

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """Correct x with the estimate made from it, then predict."""
        here = self._settled(x, at)
        known = [here, *reversed(at.past)][: min(self.order, at.left)]
        decay = at.to.sigma / at.now.sigma
        first_order = decay * here.x - at.to.alpha * torch.expm1(-at.h) * here.x0
        return first_order + self._higher_order(known, at.to), here

    def finish(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """x = x0; the state it was estimated at is corrected as ever, for those who look at it."""
        here = self._settled(x, at)
        return here.x0, here

    def _settled(self, x: Tensor, at: Step) -> Estimate:
        """The estimate from x, with x corrected by it: what both have in common drops out."""
        here = at.evaluate(x)
        if not at.past:
            return here
        known = list(reversed(at.past))[: min(self.order, at.left + 1)]
        change = self._higher_order([*known, here], at.now) - self._higher_order(known, at.now)
        return Estimate(at.now, x + change, here.x0)

    def _higher_order(self, known: Sequence[Estimate], to: Node) -> Tensor:
        """What the other estimates add to a step from the first of `known`: alpha B sum(...)."""
        newest, others = known[0], known[1:]
        if not others:
            return torch.zeros_like(newest.x)
        h = step_size(newest.node, to)
        ratios = torch.stack([step_size(newest.node, m.node) / h for m in others])
        scale = _SCALES[self.variant](h)
        weights = to.alpha * scale * _rho(ratios, h, scale) / ratios
        terms = [w * (m.x0 - newest.x0) for w, m in zip(weights, others, strict=True)]
        return torch.stack(terms).sum(0)


# B of the step h.
_SCALES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "bh1": lambda h: h,
    "bh2": lambda h: -torch.expm1(-h),
}


def _rho(ratios: Tensor, h: Tensor, scale: Tensor) -> Tensor:
    """The weights of the differences: R rho = b, with R_ij = r_j^(i-1).

    b_i = h / B int_0^1 e^(-h (1 - u)) u^i du. The paper's recursion for it divides by h at every
    i, and so loses all digits where nodes lie close together.
    """
    if len(ratios) == 1:
        return torch.full_like(ratios, 0.5)
    points, point_weights = gauss_legendre()
    kernel = h / scale * point_weights * torch.exp(-h * (1 - points))
    powers = range(1, len(ratios) + 1)
    moments = torch.stack([(kernel * points**i).sum() for i in powers])
    matrix = torch.stack([ratios ** (i - 1) for i in powers])
    return torch.linalg.solve(matrix, moments)
