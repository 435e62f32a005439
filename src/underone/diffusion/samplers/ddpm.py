"""Ancestral sampling: the reverse Markov chain of the DDPM paper, at any number of steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from underone.diffusion.denoiser import Model
from underone.diffusion.node import Estimate, Node
from underone.diffusion.samplers.sampler import EndsAtEstimate
from underone.errors import unknown


def added_variance(now: Node, to: Node) -> Tensor:
    """S^2 = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2: what the forward chain adds from s to t.

    Between neighbouring steps of a DDPM this is beta_t; between any two it is beta after respacing.
    """
    return now.sigma**2 - (now.alpha / to.alpha) ** 2 * to.sigma**2


def posterior_variance(now: Node, to: Node) -> Tensor:
    """S^2 sigma_s^2 / sigma_t^2: the variance of q(x_s | x_t, x0), the paper's beta-tilde."""
    return added_variance(now, to) * to.sigma**2 / now.sigma**2


_VARIANCES: dict[str, Callable[[Node, Node], Tensor]] = {
    "large": added_variance,
    "small": posterior_variance,
}


@dataclass(frozen=True)
class DDPM(EndsAtEstimate):
    """x_s ~ N(mean of q(x_s | x_t, x0), variance) (Ho et al. 2020, eq. 6 and 7, section 3.2).

    From t to s, with a = alpha_t / alpha_s and S^2 = sigma_t^2 - a^2 sigma_s^2,

        mean = (alpha_s S^2 x0 + a sigma_s^2 x) / sigma_t^2,
        variance = S^2 ("large": beta) or S^2 sigma_s^2 / sigma_t^2 ("small": beta-tilde).

    "large" is the optimal choice where the data are standard normal, "small" where they are one
    point; both are taken between the two nodes, so they are right after respacing too.
    DDPM("small") equals DDIM(eta=1).
    """

    variance: Literal["large", "small"] = "large"
    history: ClassVar[int | None] = 0

    def __post_init__(self) -> None:
        if self.variance not in _VARIANCES:
            raise unknown("DDPM variance", self.variance, _VARIANCES)

    def step(
        self,
        x: Tensor,
        now: Node,
        to: Node,
        past: Sequence[Estimate],
        model: Model,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Estimate]:
        """One draw of the reverse chain."""
        here = model(x, now)
        added = added_variance(now, to)
        mean = (
            to.alpha * added / now.sigma**2 * here.x0
            + now.alpha / to.alpha * to.sigma**2 / now.sigma**2 * x
        )
        return mean + _VARIANCES[self.variance](now, to).sqrt() * noise(), here
