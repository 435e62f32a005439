"""Ancestral sampling: the reverse Markov chain of the DDPM paper, at any number of steps."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from underone.diffusion.node import Estimate, Node
from underone.diffusion.samplers.sampler import Sampler, Step
from underone.errors import unknown


def added_variance(now: Node, to: Node) -> Tensor:
    """S^2 = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2: what the forward chain adds from s to t.

    Between neighbouring steps of a DDPM this is beta_t; between any two it is beta after respacing.
    """
    return now.sigma**2 - (now.alpha / to.alpha) ** 2 * to.sigma**2


def posterior_variance(now: Node, to: Node) -> Tensor:
    """S^2 sigma_s^2 / sigma_t^2: the variance of q(x_s | x_t, x0), the paper's beta-tilde."""
    return added_variance(now, to) * to.sigma**2 / now.sigma**2


def posterior_share(now: Node, to: Node) -> Tensor:
    """alpha_s S^2 / sigma_t^2: what x0 counts in the mean of q(x_s | x_t, x0) (the paper's eq. 7).

    S^2 is `added_variance`.
    """
    return to.alpha * added_variance(now, to) / now.sigma**2


def posterior_mean(here: Estimate, to: Node) -> Tensor:
    """(alpha_s S^2 x0 + (alpha_t / alpha_s) sigma_s^2 x) / sigma_t^2: the mean of q(x_s | x_t, x0).

    Ho et al. 2020, eq. 7.
    """
    now = here.node
    from_x = now.alpha / to.alpha * to.sigma**2 / now.sigma**2
    return posterior_share(now, to) * here.x0 + from_x * here.x


VARIANCES: dict[str, Callable[[Node, Node], Tensor]] = {
    "large": added_variance,
    "small": posterior_variance,
}


@dataclass(frozen=True)
class DDPM(Sampler):
    """x_s ~ N(mean of q(x_s | x_t, x0), variance) (Ho et al. 2020, eq. 6 and 7, section 3.2).

    From t to s, with a = alpha_t / alpha_s and S^2 = sigma_t^2 - a^2 sigma_s^2,

        mean = (alpha_s S^2 x0 + a sigma_s^2 x) / sigma_t^2,
        variance = S^2 ("large": beta) or S^2 sigma_s^2 / sigma_t^2 ("small": beta-tilde).

    "large" is the optimal choice where the data are standard normal, "small" where they are one
    point; both are taken between the two nodes, so they are right after respacing too.
    DDPM("small") equals DDIM(eta=1).
    """

    # Not to be changed by an option: the names ddpm-large and ddpm-small say which it is.
    variance: Literal["large", "small"] = field(default="large", metadata={"option": False})

    def __post_init__(self) -> None:
        if self.variance not in VARIANCES:
            raise unknown("DDPM variance", self.variance, VARIANCES)

    @property
    def stochastic(self) -> bool:
        """Always."""
        return True

    @property
    def exact_for_one_image(self) -> bool:
        """The small variance is; the large one over-disperses."""
        return self.variance == "small"

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """One draw of the reverse chain."""
        here = at.evaluate(x)
        variance = VARIANCES[self.variance](at.now, at.to)
        return posterior_mean(here, at.to) + variance.sqrt() * at.noise(), here


@dataclass(frozen=True)
class AnalyticDDPM(Sampler):
    """DDPM with the optimal variance of each step (Bao et al. 2022, eq. 7 to 11).

    What x0 may still be, given x_t, adds to the posterior's own variance. Where it is taken to
    be N(x0, v_t I), with v_t its mean variance an element,

        variance = S^2 sigma_s^2 / sigma_t^2 + (alpha_s S^2 / sigma_t^2)^2 v_t,

    so that the mean square of x is right at any number of steps: exactly, for Gaussian data.
    `data_variance` gives v_t of an unguided model; see `underone.analytic`. `visible` is the
    paper's clipping of the last noise (its appendix F.2): to nodes so close to the data that
    sigma_s is below it, no more than this standard deviation is added, because no evaluation
    there could tell more from the image. The default is 2 grey levels of mean noise.
    """

    data_variance: Callable[[Node], Tensor]
    visible: float | None = 2 * (2 / 255) * (math.pi / 2) ** 0.5

    @property
    def stochastic(self) -> bool:
        """Always."""
        return True

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """One draw of the reverse chain."""
        here, now, to = at.evaluate(x), at.now, at.to
        variance = posterior_variance(now, to)
        variance = variance + posterior_share(now, to) ** 2 * self.data_variance(now)
        if self.visible is not None and to.sigma < self.visible:
            variance = variance.clamp(max=self.visible**2)
        return posterior_mean(here, to) + variance.sqrt() * at.noise(), here
