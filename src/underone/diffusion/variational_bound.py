"""The variational bound of a DDPM on the negative log-likelihood of 8-bit images, in nats.

L_T + sum_{k=2..T} L_{k-1} + L_0 (Ho et al. 2020, eq. 5; Nichol and Dhariwal 2021, eq. 4 to 7) for
the chain p(x_{k-1} | x_k) = N(mean of q(x_{k-1} | x_k, x0(x_k)), variance I) over all whole steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from underone.diffusion.denoiser import Denoiser
from underone.diffusion.likelihood import GREY_LEVEL
from underone.diffusion.node import Node, Schedule, node_at, noised
from underone.diffusion.samplers.ddpm import posterior_share, posterior_variance
from underone.errors import UserError

Variance = Callable[[Node, Node], Tensor]
"""The variance of p(x_s | x_t), an element, from the nodes t and s."""


@dataclass(frozen=True)
class VariationalBound:
    """The parts of the bound on -log P(x0), each (B,) float64 in nats."""

    prior: Tensor
    """L_T = KL(q(x_T | x0) || N(0, sigma_T^2 I))."""
    transitions: Tensor
    """sum_{k=2..T} KL(q(x_{k-1} | x_k, x0) || p(x_{k-1} | x_k)), estimated."""
    reconstruction: Tensor
    """L_0 = -log P(x0 | x_1), estimated."""

    @property
    def total(self) -> Tensor:
        """The bound, (B,)."""
        return self.prior + self.transitions + self.reconstruction


def variational_bound(
    denoiser: Denoiser,
    images: Tensor,
    label: Tensor | None,
    noise: Callable[[], Tensor],
    positions: Tensor,
    variance: Variance,
) -> VariationalBound:
    """An unbiased estimate of the bound for each of `images` (B, ...), at K evaluations each.

    `images` hold grey levels p as p / 127.5 - 1. One evaluation is at k = 1, and one in each of the
    K - 1 `strata` of the other steps, at the step that `positions` (B, K - 1), uniform in [0, 1),
    point to; its term is multiplied by the number of steps of the stratum. At K = T every step is
    evaluated once. `noise()` draws z of x_k = alpha x0 + sigma z.

    The prior is N(0, sigma_T^2 I), what sampling starts from; Ho et al. write N(0, I), which
    makes a difference of about d (1 - sigma_T^2)^2 (1 - 2 m) / 4 nats in d elements of mean square
    m where the schedule preserves variance. The denoiser decides whether the estimate is clipped,
    as it is in DDPM.
    """
    schedule = denoiser.schedule
    first, last = (_node(schedule, torch.tensor(k)) for k in (1, schedule.steps))

    def estimate(node: Node) -> Tensor:
        return denoiser(noised(images, node, noise()), node, label)

    reconstruction = -discretised_log_likelihood(
        images, estimate(first), _decoder_variance(schedule)
    )
    edges = strata(schedule, positions.shape[1])
    transitions = torch.zeros(len(images), dtype=torch.float64)
    for low, high, position in zip(edges[:-1], edges[1:], positions.double().cpu().T, strict=True):
        # Rounding may turn a position just below 1 into 1.
        k = torch.minimum(low + (position * (high - low)).long(), high - 1)
        now, to = _node(schedule, k), _node(schedule, k - 1)
        error = _squared_error(images, estimate(now))
        kl = transition_kl(error, images[0].numel(), now, to, variance)
        transitions = transitions + (high - low) * kl
    squares = images.double().square().flatten(1).sum(1).cpu()
    return VariationalBound(
        prior=0.5 * (last.alpha / last.sigma) ** 2 * squares,
        transitions=transitions,
        reconstruction=reconstruction.cpu(),
    )


def transition_kl(
    squared_error: Tensor, elements: int, now: Node, to: Node, variance: Variance
) -> Tensor:
    """KL(q(x_s | x_t, x0) || p(x_s | x_t)) in nats, (B,), from |x0 - x0(x_t)|^2 (B,).

    Two Gaussians of d = `elements` elements, whose means differ by c = alpha_s (1 - e^(-2h)) times
    the error of x0 (`posterior_share`), and with r the ratio of the posterior's variance to the
    model's v,

        KL = d/2 (r - 1 - log r) + c^2 |x0 - x0(x_t)|^2 / (2 v).
    """
    share = posterior_share(now, to)
    modelled = variance(now, to)
    ratio = posterior_variance(now, to) / modelled
    spread = elements * (ratio - 1 - ratio.log())
    return 0.5 * (spread + share**2 * squared_error / modelled)


def discretised_log_likelihood(images: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log P(images) in nats, (B,) float64: the mass N(mean, variance I) puts on their grey levels.

    Ho et al. 2020, eq. 13: level p / 127.5 - 1 owns all within 1/255, and the darkest and the
    brightest all that lies beyond, so that the masses of the 256 levels sum to 1.
    """
    x, mean, deviation = images.double(), mean.double(), variance.sqrt()
    darkest, brightest = x < -1 + GREY_LEVEL / 2, x > 1 - GREY_LEVEL / 2
    below = torch.where(darkest, -torch.inf, (x - GREY_LEVEL / 2 - mean) / deviation)
    above = torch.where(brightest, torch.inf, (x + GREY_LEVEL / 2 - mean) / deviation)
    return _log_normal_mass(below, above).flatten(1).sum(1)


def strata(schedule: Schedule, count: int) -> Tensor:
    """Runs of consecutive steps that make up 2..T: stratum j is edges[j]..edges[j + 1] - 1.

    `count` + 1 ascending int64 edges, 1 <= `count` <= T - 1. They are as even in lambda as whole
    steps allow, because there the terms of the bound, |z - z(x_t)|^2 d lambda, vary least.
    """
    if not 1 <= count <= schedule.steps - 1:
        raise UserError(
            f"a bound over {schedule.steps} steps takes 2..{schedule.steps} evaluations an image, "
            f"got {count + 1}"
        )
    log_snr = _node(schedule, torch.arange(1, schedule.steps + 1)).log_snr
    ranks = torch.arange(count + 1)
    wanted = torch.lerp(log_snr[0], log_snr[-1], ranks.double() / count)
    # How many of the steps 2..T end above each wanted level; at least one more each time, and
    # one is left for each stratum to come.
    passed = torch.searchsorted(-log_snr[1:], -wanted, right=True)
    passed[0], passed[-1] = 0, schedule.steps - 1
    passed = (passed - ranks).cummax(0).values + ranks
    return 2 + torch.minimum(passed, schedule.steps - 1 - count + ranks)


def _node(schedule: Schedule, k: Tensor) -> Node:
    return node_at(schedule, k.to(torch.float64) / schedule.steps)


def _decoder_variance(schedule: Schedule) -> Tensor:
    """The variance at k = 1, where q's own is 0: that of k = 2, as in the DDPM paper's code."""
    return posterior_variance(*(_node(schedule, torch.tensor(k)) for k in (2, 1)))


def _squared_error(images: Tensor, estimate: Tensor) -> Tensor:
    return (images.double() - estimate.double()).square().flatten(1).sum(1).cpu()


def _log_normal_mass(below: Tensor, above: Tensor) -> Tensor:
    """log(Phi(above) - Phi(below)), also where both lie so far out that the difference is 0."""
    # In the lower tail small numbers are subtracted, not numbers close to 1.
    upper = below > 0
    low, high = torch.where(upper, -above, below), torch.where(upper, -below, above)
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return log_high + torch.log(-torch.expm1(log_low - log_high))
