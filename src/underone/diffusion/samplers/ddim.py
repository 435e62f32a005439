"""DDIM: one family from the deterministic sampler to the ancestral one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from underone.diffusion.node import Estimate
from underone.diffusion.samplers.ddpm import posterior_variance
from underone.diffusion.samplers.sampler import Sampler, Step
from underone.errors import UserError


@dataclass(frozen=True)
class DDIM(Sampler):
    """x_s = alpha_s x0 + sqrt(sigma_s^2 - d^2) z + d z' (Song et al. 2021, eq. 12 and 16).

    Here z = (x - alpha_t x0) / sigma_t is the noise that x0 implies, z' is fresh, and the deviation
    d is eta times that of q(x_s | x_t, x0), the root of `posterior_variance`. With
    h = lambda_s - lambda_t, d^2 = eta^2 sigma_s^2 (1 - e^(-2h)), which leaves for z

        sqrt(sigma_s^2 - d^2) = sigma_s sqrt(1 - eta^2 + eta^2 e^(-2h)).

    eta = 0 is deterministic: the Euler method for x / alpha in the variable sigma / alpha, of
    order 1. eta = 1 equals DDPM("small"), others' "Euler ancestral". Where x0 was clipped, z is
    the one the clipped x0 implies.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise UserError(f"DDIM's eta must lie in [0, 1], got {self.eta}")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """One step; fresh noise is drawn only where eta > 0."""
        here, to = at.evaluate(x), at.to
        if self.eta == 0:
            return to.alpha * here.x0 + to.sigma * here.noise, here
        kept = to.sigma * (1 - self.eta**2 + self.eta**2 * torch.exp(-2 * at.h)).sqrt()
        deviation = self.eta * posterior_variance(at.now, to).sqrt()
        return to.alpha * here.x0 + kept * here.noise + deviation * at.noise(), here
