"""DPM-Solver++: exponential multistep solvers in log-SNR, for the ODE and the SDE."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from underone.diffusion.node import Estimate
from underone.diffusion.samplers.exponential import exponential_step
from underone.diffusion.samplers.sampler import Sampler, Step
from underone.errors import UserError


@dataclass(frozen=True)
class DPMSolver(Sampler):
    """DPM-Solver++ 1S, 2M, 3M and, with eta > 0, their SDE versions (Lu et al. 2022).

    With lambda = log(alpha / sigma), h = lambda_s - lambda_t and H = (1 + eta) h the solution is

        x_s = sigma_s / sigma_t e^(-eta h) x
              + alpha_s int_t^s (1 + eta) e^(-(1 + eta) (lambda_s - l)) x0(l) dl
              + sigma_s sqrt(1 - e^(-2 eta h)) z.

    x0(l) is extrapolated from the newest estimates m0, m1, m2 at lambda_t, lambda_t - r0 h,
    lambda_t - (r0 + r1) h: with E = 1 - e^(-H), D10 = (m0 - m1) / r0, D11 = (m1 - m2) / r1,
    D2 = (D10 - D11) / (r0 + r1) and D1 = D10 + r0 D2, the integral is

        order 1   E m0
        order 2   E (m0 + D10 / 2)
        order 3   E m0 + (1 - E / H) D1 + (1/2 - (1 - E / H) / H) k D2.

    D1 and D2 approach h x0' and h^2 x0'' / 2, so the integral's Taylor expansion asks for k = 2
    and then the local error is h^4: order 3. The published solver (its appendix B, and the SDE
    one of k-diffusion) has k = 1, which leaves h^3 x0'' / 12 a step: order 2, whatever its name.
    `exact` takes k = 2. The first steps use what is known, the last `order` steps at most as many
    estimates as there are steps left. Order 1 without noise equals DDIM(0); with eta = 1 the mean
    and variance of DDPM("small"); eta is k-diffusion's, about the square of DDIM's. As an SDE
    solver the order, along one Brownian path, is 1.
    """

    order: int = 2
    eta: float = 0.0
    exact: bool = False

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise UserError(f"DPM-Solver++ has the orders 1, 2 and 3, not {self.order}")
        if not 0 <= self.eta < math.inf:
            raise UserError(f"DPM-Solver++'s eta must be at least 0, got {self.eta}")

    @property
    def history(self) -> int:
        return self.order - 1

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @property
    def global_order(self) -> int:
        if self.stochastic:
            return 1
        return 2 if self.order == 3 and not self.exact else self.order

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """One exponential step."""
        here = at.evaluate(x)
        estimates = [here, *reversed(at.past)][: at.left]
        integral = self._integral(estimates, at.h)
        return exponential_step(x, integral, self.eta, at), here

    def _integral(self, estimates: list[Estimate], h: Tensor) -> Tensor:
        m = [estimate.x0 for estimate in estimates]
        big_h = (1 + self.eta) * h
        e = -torch.expm1(-big_h)
        if len(m) == 1:
            return e * m[0]
        lambdas = [estimate.node.log_snr for estimate in estimates]
        r0 = (lambdas[0] - lambdas[1]) / h
        d10 = (m[0] - m[1]) / r0
        if len(m) == 2:
            return e * (m[0] + d10 / 2)
        r1 = (lambdas[1] - lambdas[2]) / h
        d2 = (d10 - (m[1] - m[2]) / r1) / (r0 + r1)
        first = 1 - e / big_h
        second = (2 if self.exact else 1) * (0.5 - first / big_h)
        return e * m[0] + first * (d10 + r0 * d2) + second * d2
