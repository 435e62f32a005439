"""Ancestral sampling: the reverse Markov chain of the DDPM paper, at any number of steps."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from underone.diffusion.node import Estimate, Node, step_size
from underone.diffusion.samplers.sampler import Sampler, Step
from underone.errors import unknown

# With h = lambda_s - lambda_t, (alpha_t / alpha_s)^2 sigma_s^2 = sigma_t^2 e^(-2h). Written by h no
# variance can come out negative, and at sigma_s = 0, where h is infinite, all have their limits.


def added_variance(now: Node, to: Node) -> Tensor:
    """S^2 = sigma_t^2 (1 - e^(-2h)): what the forward chain adds from s to t.

    The same as sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2. Between neighbouring steps of a DDPM
    this is beta_t; between any two it is beta after respacing.
    """
    return now.sigma**2 * _lost_share(now, to)


def posterior_variance(now: Node, to: Node) -> Tensor:
    """sigma_s^2 (1 - e^(-2h)) = S^2 sigma_s^2 / sigma_t^2: the variance of q(x_s | x_t, x0).

    The paper's beta-tilde; S^2 is `added_variance`.
    """
    return to.sigma**2 * _lost_share(now, to)


def posterior_share(now: Node, to: Node) -> Tensor:
    """alpha_s (1 - e^(-2h)) = alpha_s S^2 / sigma_t^2: what x0 counts in `posterior_mean`."""
    return to.alpha * _lost_share(now, to)


def posterior_mean(here: Estimate, to: Node) -> Tensor:
    """(sigma_s / sigma_t) e^(-h) x + alpha_s (1 - e^(-2h)) x0: the mean of q(x_s | x_t, x0).

    Ho et al. 2020, eq. 7: (alpha_s S^2 x0 + (alpha_t / alpha_s) sigma_s^2 x) / sigma_t^2.
    """
    now = here.node
    kept = to.sigma / now.sigma * torch.exp(-step_size(now, to))
    return kept * here.x + posterior_share(now, to) * here.x0


def _lost_share(now: Node, to: Node) -> Tensor:
    """1 - e^(-2h) = 1 - SNR_t / SNR_s: the share of the signal-to-noise ratio lost from s to t."""
    return -torch.expm1(-2 * step_size(now, to))


VARIANCES: dict[str, Callable[[Node, Node], Tensor]] = {
    "large": added_variance,
    "small": posterior_variance,
}


@dataclass(frozen=True)
class DDPM(Sampler):
    """x_s ~ N(mean of q(x_s | x_t, x0), variance) (Ho et al. 2020, eq. 6 and 7, section 3.2).

    From t to s, with h = lambda_s - lambda_t and lambda = log(alpha / sigma),

        mean = (sigma_s / sigma_t) e^(-h) x + alpha_s (1 - e^(-2h)) x0,
        variance = sigma_t^2 (1 - e^(-2h)) ("large": beta)
                   or sigma_s^2 (1 - e^(-2h)) ("small": beta-tilde).

    "large" is the optimal choice where the data are standard normal, "small" where they are one
    point; both are taken between the two nodes, so they are right after respacing too.
    DDPM("small") equals DDIM(eta=1), and is term by term the `exponential_step` of eta = 1 with
    constant x0: DPMSolver(1, eta=1).
    """

    stochastic: ClassVar[bool] = True

    # Not to be changed by an option: the names ddpm-large and ddpm-small say which it is.
    variance: Literal["large", "small"] = field(default="large", metadata={"option": False})

    def __post_init__(self) -> None:
        if self.variance not in VARIANCES:
            raise unknown("DDPM variance", self.variance, VARIANCES)

    @property
    def exact_for_one_image(self) -> bool:
        return self.variance == "small"  # the large one over-disperses

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

        variance = sigma_s^2 (1 - e^(-2h)) + alpha_s^2 (1 - e^(-2h))^2 v_t,

    so that the mean square of x is right at any number of steps: exactly, for Gaussian data.
    `data_variance` gives v_t of an unguided model; see `underone.analytic`. `visible` is the
    paper's clipping of the last noise (its appendix F.2): to nodes so close to the data that
    sigma_s is below it, no more than this standard deviation is added, because no evaluation
    there could tell more from the image. The default is 2 grey levels of mean noise.
    """

    stochastic: ClassVar[bool] = True

    data_variance: Callable[[Node], Tensor]
    visible: float | None = 2 * (2 / 255) * (math.pi / 2) ** 0.5

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """One draw of the reverse chain."""
        here, now, to = at.evaluate(x), at.now, at.to
        variance = posterior_variance(now, to)
        variance = variance + posterior_share(now, to) ** 2 * self.data_variance(now)
        if self.visible is not None and to.sigma < self.visible:
            variance = variance.clamp(max=self.visible**2)
        return posterior_mean(here, to) + variance.sqrt() * at.noise(), here
