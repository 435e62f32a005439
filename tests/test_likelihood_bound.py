"""The variational bound: a bound where it is one, always unbiased."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from helpers import draws, each_schedule, float64, normal
from likelihoods import SHIRT, step, within
from underone.conformance.oracles import GaussianData, SingleImage
from underone.data import to_model_range
from underone.diffusion import LinearBeta, Node, Schedule, count_evaluations
from underone.diffusion.node import Estimate
from underone.diffusion.samplers.ddpm import VARIANCES, posterior_mean, posterior_variance
from underone.diffusion.schedule import DiscreteSchedule
from underone.diffusion.variational_bound import (
    discretised_log_likelihood,
    strata,
    transition_kl,
    variational_bound,
)
from underone.errors import UserError
from underone.likelihood import Chain

each_variance = pytest.mark.parametrize("variance", VARIANCES.values(), ids=VARIANCES.keys())


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.123, 1.0, 40.0])
@pytest.mark.parametrize("deviation", [1e-3, 0.05, 2.0])
def test_the_masses_of_the_grey_levels_sum_to_one(mean: float, deviation: float) -> None:
    levels = to_model_range(torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1))
    means = torch.full_like(levels, mean)
    found = discretised_log_likelihood(levels, means, float64(deviation**2))
    assert found.logsumexp(0).item() == pytest.approx(0.0, abs=1e-6)
    assert found.isfinite().all()


def test_the_mass_of_a_grey_level_by_its_plain_formula() -> None:
    level = to_model_range(torch.full((1, 1, 1, 1), 100, dtype=torch.uint8))
    law = torch.distributions.Normal(float64(-0.2), float64(0.1))
    x = level.double().item()
    plain = (law.cdf(float64(x + 1 / 255)) - law.cdf(float64(x - 1 / 255))).log()
    found = discretised_log_likelihood(level, torch.full_like(level, -0.2), float64(0.01))
    assert found.item() == pytest.approx(plain.item(), abs=1e-5)


@each_schedule
@each_variance
def test_transitions_are_the_kl_divergences_of_their_gaussians(
    schedule: Schedule, variance: Callable[[Node, Node], Tensor]
) -> None:
    x0, guess, x = (normal(3, 5, seed=seed) for seed in range(3))
    for k in (2, 3, 400, 1000):
        now, to = step(schedule, k), step(schedule, k - 1)
        true, modelled = (
            torch.distributions.Normal(posterior_mean(Estimate(now, x, mean), to), spread.sqrt())
            for mean, spread in (
                (x0, posterior_variance(now, to)),
                (guess, variance(now, to)),
            )
        )
        expected = torch.distributions.kl_divergence(true, modelled).sum(1)
        error = (x0 - guess).square().sum(1)
        found = transition_kl(error, 5, now, to, variance)
        assert torch.allclose(found, expected, rtol=1e-6)


def test_a_chain_of_two_steps_by_hand() -> None:
    schedule = LinearBeta(steps=2, beta_min=0.1, beta_max=0.3)
    image, guess = 1 / 255, 0.5
    denoiser = SingleImage(schedule, float64([guess]))
    positions = torch.zeros(1, 1)
    x0 = float64([[image]])
    error = (guess - image) ** 2
    # alpha^2 = 0.9 and 0.63: beta-tilde_2 = 0.3 * 0.1 / 0.37; the mean's share is below.
    small = 0.3 * 0.1 / 0.37
    share = 0.9**0.5 * 0.3 / 0.37
    prior = 0.63 / (2 * 0.37) * image**2
    cell = torch.distributions.Normal(float64(guess), float64(small**0.5))
    edges = cell.cdf(float64([image - 1 / 255, image + 1 / 255]))
    for name, transition in (
        ("small", share**2 * error / (2 * small)),
        ("large", 0.5 * (small / 0.3 - 1 - math.log(small / 0.3) + share**2 * error / 0.3)),
    ):
        bound = variational_bound(denoiser, x0, None, draws(1, 1), positions, VARIANCES[name])
        assert bound.prior.item() == pytest.approx(prior, rel=1e-9)
        assert bound.transitions.item() == pytest.approx(transition, rel=1e-9)
        decoded = -(edges[1] - edges[0]).log().item()
        assert bound.reconstruction.item() == pytest.approx(decoded, rel=1e-9)
        total = bound.prior + bound.transitions + bound.reconstruction
        assert torch.equal(bound.total, total)


def scaled(steps: int) -> LinearBeta:
    """The linear schedule with the same noise in all, in fewer steps."""
    return LinearBeta(steps=steps, beta_min=0.1 / steps, beta_max=20 / steps)


def marginal(
    oracle: GaussianData, variance: Callable[[Node, Node], Tensor]
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the chain's x_1: its states are Gaussian, as its means are affine."""
    path = [step(oracle.schedule, k) for k in range(oracle.schedule.steps, 0, -1)]
    mean, spread = float64(0.0), path[0].sigma ** 2
    for now, to in pairwise(path):
        slope, offset = oracle.affine(now)
        intercept = posterior_mean(Estimate(now, float64(0.0), offset), to)
        factor = posterior_mean(Estimate(now, float64(1.0), slope + offset), to) - intercept
        mean, spread = factor * mean + intercept, factor**2 * spread + variance(now, to)
    return mean, spread


def exact_nats(
    oracle: GaussianData, image: Tensor, variance: Callable[[Node, Node], Tensor]
) -> Tensor:
    """-log P(image) of the chain itself."""
    mean, spread = marginal(oracle, variance)
    second, first = (step(oracle.schedule, k) for k in (2, 1))
    slope, offset = oracle.affine(first)
    decoded = (slope * mean + offset).expand_as(image)
    added = posterior_variance(second, first)
    return -discretised_log_likelihood(image, decoded, slope**2 * spread + added)


@each_variance
@pytest.mark.parametrize("level", [51, -151])
def test_the_bound_lies_above_what_it_bounds(
    variance: Callable[[Node, Node], Tensor], level: int
) -> None:
    oracle, rows = GaussianData(scaled(22), 0.1, 0.5), 20_000
    image = float64([[level / 255]])
    bound = variational_bound(
        oracle, image.expand(rows, 1), None, draws(rows, 1), torch.zeros(rows, 21), variance
    )
    gap = bound.total - exact_nats(oracle, image, variance)
    assert gap.mean() > 3 * gap.std() / rows**0.5


@dataclass(frozen=True, kw_only=True)
class EvenLogSNR(DiscreteSchedule):
    """lambda in equal steps from 3 to -4, so that with more steps each is narrower."""

    def betas(self) -> Tensor:
        squares = torch.sigmoid(2 * torch.linspace(3, -4, self.steps, dtype=torch.float64))
        return 1 - squares / torch.cat([float64([1.0]), squares[:-1]])


@each_variance
def test_the_bound_closes_as_steps_grow_in_number(
    variance: Callable[[Node, Node], Tensor],
) -> None:
    # Without the decoder, L_T and the transitions bound KL(q(x_1 | x_0) || p(x_1)). They are
    # quadratic in the noise, so that its values 1 and -1 give their mean.
    gaps = []
    signs, x0 = float64([[1.0], [-1.0]]), 51 / 255
    for steps in (20, 80, 320):
        oracle = GaussianData(EvenLogSNR(steps=steps), 0.1, 0.5)
        image, positions = torch.full_like(signs, x0), torch.zeros(2, steps - 1)
        bound = variational_bound(oracle, image, None, lambda: signs, positions, variance)
        first = step(oracle.schedule, 1)
        mean, spread = marginal(oracle, variance)
        exact = torch.distributions.kl_divergence(
            torch.distributions.Normal(first.alpha * x0, first.sigma),
            torch.distributions.Normal(mean, spread.sqrt()),
        )
        gaps.append((bound.prior + bound.transitions).mean().item() - exact.item())
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2] > 0


@pytest.mark.parametrize("schedule", [scaled(25), scaled(400)])
@pytest.mark.parametrize("wanted", [1, 2, 7, 24])
def test_strata_are_all_the_steps_once(schedule: Schedule, wanted: int) -> None:
    edges = strata(schedule, wanted)
    assert len(edges) == wanted + 1
    assert edges[0] == 2
    assert edges[-1] == schedule.steps + 1
    assert (edges.diff() >= 1).all()
    if schedule.steps == 400:
        widths = float64([step(schedule, int(edge) - 1).log_snr for edge in edges]).diff().abs()
        # But where one step alone is wider than that.
        assert widths[edges.diff() > 1].max() < 1.5 * widths.mean()


@pytest.mark.parametrize("wanted", [0, 25])
def test_more_or_fewer_strata_than_steps_are_refused(wanted: int) -> None:
    with pytest.raises(UserError, match=r"takes 2\.\.25 evaluations"):
        strata(scaled(25), wanted)


@each_variance
def test_a_few_random_steps_mean_all_of_them(variance: Callable[[Node, Node], Tensor]) -> None:
    # With an estimate that knows one image, the terms differ but are not random.
    schedule = scaled(25)
    oracle = SingleImage(schedule, float64([0.7]))

    def transitions(rows: int, evaluations: int) -> Tensor:
        positions = torch.special.ndtr(normal(rows, evaluations - 1, seed=3))
        x0 = torch.full((rows, 1), 1 / 255, dtype=torch.float64)
        return variational_bound(oracle, x0, None, draws(rows, 1), positions, variance).transitions

    whole = transitions(2, 25)
    assert whole[0] == whole[1]
    for evaluations in (2, 4, 9):
        assert within(transitions(5000, evaluations), whole[0].item())


def test_a_bound_costs_the_evaluations_asked_for() -> None:
    for evaluations in (2, 40):
        with count_evaluations() as counter:
            Chain(evaluations).bits(SHIRT, torch.zeros(3, 1, 2, 2), None, [(0, 0), (0, 1), (0, 2)])
        assert counter == {"oracle": 3 * evaluations}
