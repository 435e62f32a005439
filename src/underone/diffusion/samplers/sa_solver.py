"""SA-Solver: stochastic Adams methods in log-SNR, predictor and corrector at one evaluation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underone.diffusion.node import Estimate, Node, step_size
from underone.diffusion.samplers.exponential import exponential_step
from underone.diffusion.samplers.polynomial import gauss_legendre, lagrange
from underone.diffusion.samplers.sampler import Sampler, Step
from underone.errors import UserError


@dataclass(frozen=True)
class SASolver(Sampler):
    """Stochastic Adams-Bashforth and Adams-Moulton steps (Xue et al. 2023, section 4).

    With lambda = log(alpha / sigma), h = lambda_s - lambda_t and the paper's tau^2 = eta,

        x_s = sigma_s / sigma_t e^(-eta h) x + sigma_s sqrt(1 - e^(-2 eta h)) z
              + alpha_s int_t^s (1 + eta) e^(-(1 + eta) (lambda_s - l)) x0(l) dl.

    The predictor puts for x0(l) the polynomial through the newest `predictor` estimates. The
    estimate at s that it is then asked for is used twice: as the newest of the next step, and to
    correct x_s, with the same noise, by the polynomial through it and the newest `corrector` - 1
    before it; `corrector` = 0 does not. The weights are integrals of Lagrange's polynomials, by
    Gauss-Legendre quadrature with 24 points, exact to rounding where (1 + eta) h < 50. Without
    noise local errors are h^(p+1) of the predictor and h^(c+1) of the corrector, whose new estimate
    is off by h^(p+1) only: order min(c, p + 1), and p where nothing is corrected; a corrector of
    fewer estimates than the predictor lowers it. As an SDE solver, along one Brownian path, the
    order is 1. The last steps use at most as many estimates as there are steps left: with c = 4 the
    state at the last noisy node, which the result does not depend on, is of lower order. eta is
    the same at all noise levels; the authors' code and diffusers' have tau = 1 in the middle ones
    only.
    """

    predictor: int = 2
    corrector: int = 2
    eta: float = 1.0

    def __post_init__(self) -> None:
        if self.predictor not in (1, 2, 3, 4) or self.corrector not in (0, 1, 2, 3, 4):
            raise UserError(
                "SA-Solver has predictors of 1 to 4 and correctors of 0 to 4 estimates, not "
                f"{self.predictor} and {self.corrector}"
            )
        if not 0 <= self.eta < math.inf:
            raise UserError(f"SA-Solver's eta must be at least 0, got {self.eta}")

    @property
    def history(self) -> int:
        return max(self.predictor, self.corrector - 1)

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @property
    def global_order(self) -> int:
        if self.stochastic:
            return 1
        corrected = min(self.corrector, self.predictor + 1)
        return corrected if self.corrector else self.predictor

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """Correct x with the estimate made from it, then predict."""
        here = self._settled(x, at)
        known = [here, *reversed(at.past)][: min(self.predictor, at.left)]
        integral = self._integral(known, at.now, at.to)
        return exponential_step(here.x, integral, self.eta, at), here

    def finish(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """x = x0; the state it was estimated at is corrected as ever, for those who look at it."""
        here = self._settled(x, at)
        return here.x0, here

    def _settled(self, x: Tensor, at: Step) -> Estimate:
        """The estimate from x, with x corrected by it: what both have in common drops out."""
        here = at.evaluate(x)
        if not at.past or not self.corrector:
            return here
        past = list(reversed(at.past))
        before = past[0].node
        predicted = past[: min(self.predictor, at.left + 1)]
        corrected = [here, *past][: min(self.corrector, at.left + 1)]
        change = self._integral(corrected, before, at.now)
        change = change - self._integral(predicted, before, at.now)
        return Estimate(at.now, x + at.now.alpha * change, here.x0)

    def _integral(self, known: Sequence[Estimate], now: Node, to: Node) -> Tensor:
        """Of the polynomial through the estimates `known`, from `now` to `to`."""
        points, point_weights = gauss_legendre()
        h = step_size(now, to)
        positions = torch.stack([step_size(now, m.node) / h for m in known])
        rate = (1 + self.eta) * h
        kernel = point_weights * rate * torch.exp(-rate * (1 - points))
        weights = [(kernel * lagrange(positions, j, points)).sum() for j in range(len(known))]
        return torch.stack([w * m.x0 for w, m in zip(weights, known, strict=True)]).sum(0)
