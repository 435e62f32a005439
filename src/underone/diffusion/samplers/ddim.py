"""DDIM: one family from the deterministic sampler to the ancestral one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from underone.diffusion.denoiser import Model
from underone.diffusion.node import Estimate, Node
from underone.diffusion.samplers.ddpm import posterior_variance
from underone.diffusion.samplers.sampler import EndsAtEstimate
from underone.errors import UserError


@dataclass(frozen=True)
class DDIM(EndsAtEstimate):
    """x_s = alpha_s x0 + sqrt(sigma_s^2 - s^2) z + s z' (Song et al. 2021, eq. 12 and 16).

    Here z = (x - alpha_t x0) / sigma_t is the noise that x0 implies, z' is fresh, and
    s = eta sqrt(S^2) sigma_s / sigma_t, eta times the standard deviation of q(x_s | x_t, x0).
    eta = 0 is deterministic: the Euler method for x / alpha in the variable sigma / alpha.
    eta = 1 equals DDPM("small"). Where x0 was clipped, z is the one the clipped x0 implies.
    """

    eta: float = 0.0
    history: ClassVar[int | None] = 0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise UserError(f"DDIM's eta must lie in [0, 1], got {self.eta}")

    def step(
        self,
        x: Tensor,
        now: Node,
        to: Node,
        past: Sequence[Estimate],
        model: Model,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Estimate]:
        """One step; fresh noise is drawn only where eta > 0."""
        here = model(x, now)
        implied = (x - now.alpha * here.x0) / now.sigma
        if self.eta == 0:
            return to.alpha * here.x0 + to.sigma * implied, here
        variance = self.eta**2 * posterior_variance(now, to)
        direction = (to.sigma**2 - variance).sqrt() * implied
        return to.alpha * here.x0 + direction + variance.sqrt() * noise(), here
