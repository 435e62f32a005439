"""The published rules for noise levels and Langevin steps, against the published numbers."""

import math

import pytest
import torch

from helpers import float64, normal
from underone.diffusion import Geometric, node_at
from underone.diffusion.score_levels import (
    langevin_rate,
    largest_distance,
    overlap,
    score_levels,
    settled_variance,
    widest_ratio,
)
from underone.errors import UserError

# Song and Ermon 2020, as their configuration files have it: elements, sigma_max, levels, inner
# steps, epsilon; sigma_min is 0.01 in all.
PUBLISHED = {
    "cifar10": (3072, 50, 232, 5, 6.2e-6),
    "celeba": (12288, 90, 500, 5, 3.3e-6),
    "bedroom": (49152, 190, 1086, 3, 1.8e-6),
}
each_published = pytest.mark.parametrize("settings", PUBLISHED.values(), ids=PUBLISHED.keys())


@each_published
def test_the_rules_give_the_published_settings(
    settings: tuple[int, float, int, int, float],
) -> None:
    elements, sigma_max, levels, inner, epsilon = settings
    ratio = (sigma_max / 0.01) ** (1 / (levels - 1))
    assert overlap(ratio, elements) == pytest.approx(0.5, abs=0.07)  # "approximately" there
    assert 1 + math.log(sigma_max / 0.01) / math.log(widest_ratio(elements)) == pytest.approx(
        levels, rel=0.06
    )
    # Two digits of epsilon are given.
    assert langevin_rate(ratio, inner) == pytest.approx(epsilon / 0.01**2, rel=0.02)


@pytest.mark.parametrize("elements", [5, 784, 3072, 10**6])
def test_the_widest_ratio_overlaps_by_half(elements: int) -> None:
    ratio = widest_ratio(elements)
    assert overlap(ratio, elements) == pytest.approx(0.5, abs=1e-9)
    # The upper tail counts for nothing, so that the lower end of the overlap is at the mean.
    assert ratio == pytest.approx((2 * elements) ** 0.5 / ((2 * elements) ** 0.5 - 3), rel=1e-6)


def test_the_overlap_is_that_of_the_norms_of_noise() -> None:
    elements, ratio = 784, 1.06
    norms = normal(5_000, elements).norm(dim=1)
    radius, deviation = ratio * elements**0.5, ratio / 2**0.5
    share = ((norms - radius).abs() < 3 * deviation).double().mean().item()
    assert share == pytest.approx(overlap(ratio, elements), abs=4 * (0.25 / 5_000) ** 0.5 + 0.01)


def test_few_elements_have_no_widest_ratio() -> None:
    with pytest.raises(UserError, match="noise of 4 elements overlaps at any ratio"):
        widest_ratio(4)


@pytest.mark.parametrize("count", [2, 50, 5000])
def test_the_largest_distance_is_that_of_all_pairs(count: int) -> None:
    points = normal(count, 3, 2, 2) * normal(count, 1, 1, 1, seed=1).exp()
    flat = points.flatten(1)
    every = max(torch.cdist(part, flat).max().item() for part in flat.split(500))
    assert largest_distance(points) == pytest.approx(every, rel=1e-5)


def test_one_image_has_no_distance() -> None:
    assert largest_distance(normal(1, 1, 4, 4)) == 0
    with pytest.raises(UserError, match="sigma_min must lie between 0 and the largest distance"):
        score_levels(normal(1, 1, 4, 4))


def test_the_levels_reach_from_sigma_min_to_the_largest_distance_and_overlap() -> None:
    images = normal(300, 1, 8, 8)
    schedule = score_levels(images)
    _, sigmas = schedule(float64(range(1, schedule.steps + 1)) / schedule.steps)
    assert sigmas[0].item() == pytest.approx(0.02)
    assert sigmas[-1].item() == pytest.approx(largest_distance(images))
    ratios = sigmas[1:] / sigmas[:-1]
    assert overlap(ratios.max().item(), 64) >= 0.5
    wider = (sigmas[-1] / sigmas[0]) ** (1 / (schedule.steps - 2))  # with one level less
    assert overlap(wider.item(), 64) < 0.5


@pytest.mark.parametrize("ratio", [1.001, 1.0376, 1.3, 5.0, 300.0])
@pytest.mark.parametrize("inner", [1, 3, 5, 100])
def test_no_other_rate_settles_closer_to_the_level(ratio: float, inner: int) -> None:
    best = settled_variance(langevin_rate(ratio, inner), ratio, inner)
    rates = torch.linspace(1e-6, 1 - 1e-6, 20_001, dtype=torch.float64).tolist()
    others = [settled_variance(rate, ratio, inner) for rate in rates]
    assert 1 <= best <= min(others) + 1e-9


def test_the_rate_of_one_inner_step_is_known() -> None:
    # ratio^2 (1 - rate)^2 + 2 rate is least at rate = 1 - 1 / ratio^2.
    assert langevin_rate(1.5, 1) == pytest.approx(1 - 1 / 1.5**2, abs=1e-6)


def test_the_settled_variance_is_that_of_langevin_steps() -> None:
    rate, ratio, variance = 0.3, 1.4, 1.4**2
    for _ in range(4):
        variance = (1 - rate) ** 2 * variance + 2 * rate
    assert settled_variance(rate, ratio, 4) == pytest.approx(variance)


@pytest.mark.parametrize(("low", "high", "steps"), [(0.0, 1.0, 10), (2.0, 1.0, 10), (1, 2, 1)])
def test_impossible_levels_are_refused(low: float, high: float, steps: int) -> None:
    with pytest.raises(UserError, match=r"0 < sigma_min < sigma_max|2 to 1,000,000 steps"):
        Geometric(sigma_min=low, sigma_max=high, steps=steps)


def test_the_whole_steps_are_the_published_levels() -> None:
    schedule = Geometric(sigma_min=0.01, sigma_max=50.0, steps=232)
    node = node_at(schedule, float64(range(233)) / 232)
    published = torch.linspace(math.log(0.01), math.log(50.0), 232, dtype=torch.float64).exp()
    torch.testing.assert_close(node.sigma[1:], published, rtol=1e-12, atol=0)
    assert node.sigma[0] == 0
    assert (node.alpha == 1).all()
