"""The density by the probability flow: exact where it is known, always unbiased."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from helpers import SmoothNetwork, each_schedule, float64, normal
from likelihoods import SHIRT, step, within
from underone.conformance.oracles import GaussianData, Mixture, SingleImage, plane_mixture
from underone.data import to_model_range
from underone.diffusion import LinearBeta, Node, Schedule, count_evaluations
from underone.diffusion.likelihood import (
    GREY_LEVEL,
    bits_per_dimension,
    dequantised,
    log_density,
    rademacher,
)
from underone.errors import UserError
from underone.likelihood import Flow


def log_normal(x: Tensor, mean: Tensor | float, variance: Tensor | float) -> Tensor:
    """log N(x; mean, variance I) of each row."""
    terms = (x - mean) ** 2 / variance + torch.as_tensor(2 * math.pi * variance).log()
    return -0.5 * terms.flatten(1).sum(1)


def unit_probes(rows: int, elements: int) -> Tensor:
    """Probes whose mean is the divergence itself: sqrt(d) e_i, (d, rows, d)."""
    return (elements**0.5 * torch.eye(elements, dtype=torch.float64))[:, None].expand(-1, rows, -1)


@each_schedule
@pytest.mark.parametrize("first_step", [1.0, 12.5])
def test_the_density_of_a_gaussian_is_exact_for_every_probe(
    schedule: Schedule, first_step: float
) -> None:
    oracle = GaussianData(schedule, 0.3, 0.4)
    y = 0.3 + 0.5 * normal(5, 1, 4, 4)
    clean, noisy = step(schedule, first_step), step(schedule, schedule.steps)
    exact = log_normal(y, 0.3, 0.4**2 + clean.noise_ratio**2)  # of the blurred data
    # The flow of a Gaussian is the affine map between its marginals.
    stretched = (oracle.variance(noisy) / oracle.variance(clean)).sqrt()
    x = 0.3 * noisy.alpha + stretched * clean.alpha * (y - 0.3)
    prior = log_normal(x, 0.0, noisy.sigma**2) - log_normal(
        x, 0.3 * noisy.alpha, oracle.variance(noisy)
    )
    # Its Jacobian is a multiple of I, of which every v^T J v is the divergence.
    probes = rademacher(normal(3, 5, 1, 4, 4, seed=1))
    found = log_density(oracle, y, None, probes, steps=200, first_step=first_step)
    assert found.shape == (3, 5)
    assert (found - exact - prior).abs().max() < 1e-4
    assert (found - found[0]).abs().max() < 1e-9
    assert prior.abs().max() < 3 / noisy.noise_ratio


def test_the_density_of_one_image_is_its_blur() -> None:
    oracle = SingleImage(LinearBeta(), torch.zeros(2, dtype=torch.float64))
    y = 0.01 * normal(4, 2)
    found = log_density(oracle, y, None, torch.ones(1, 4, 2), steps=50)[0]
    exact = log_normal(y, 0.0, step(LinearBeta(), 1).noise_ratio ** 2)
    assert (found - exact).abs().max() < 1e-3


def blurred_density(mixture: Mixture, y: Tensor, label: Tensor | None) -> Tensor:
    blur = step(mixture.schedule, 1).noise_ratio ** 2
    components = [
        log_normal(y, mean, deviation**2 + blur) + weight.log()
        for mean, deviation, weight in zip(
            mixture.means, mixture.deviations, mixture.weights, strict=True
        )
    ]
    terms = torch.stack(components, 1)
    if label is None:
        return terms.logsumexp(1)
    of_class = label[:, None] == mixture.classes
    total = torch.where(of_class, mixture.weights, 0.0).sum(1).log()
    return torch.where(of_class, terms, -math.inf).logsumexp(1) - total


@pytest.mark.parametrize("labelled", [False, True])
def test_the_density_of_a_mixture_at_order_four(labelled: bool) -> None:
    mixture = plane_mixture(LinearBeta())
    y = float64([[0.4, 0.5], [0.1, -0.5], [-0.5, 0.1], [0.8, -0.3]])
    label = torch.tensor([0, 1, 0, 2]) if labelled else None
    exact = blurred_density(mixture, y, label)
    probes = unit_probes(4, 2)

    def found(steps: int) -> Tensor:
        return log_density(mixture, y, label, probes, steps=steps).mean(0)

    fine = found(256)
    assert (fine - exact).abs().max() < 0.01  # the prior's error, not the solver's
    errors = [(found(steps) - fine).abs().max().item() for steps in (32, 64, 128)]
    assert errors[0] < 1e-3
    for coarse, halved in pairwise(errors):
        assert 10 < coarse / halved < 24


def test_random_probes_are_unbiased() -> None:
    mixture = plane_mixture(LinearBeta())
    y = float64([[0.4, 0.5]])
    exact = log_density(mixture, y, None, unit_probes(1, 2), steps=25).mean()
    many = y.expand(4000, 2)
    for probes in (rademacher(normal(1, 4000, 2)), normal(1, 4000, 2)):
        found = log_density(mixture, many, None, probes, steps=25)[0]
        assert within(found, exact.item())


def test_rademacher_probes_are_signs() -> None:
    noise = normal(1000)
    noise[0] = 0.0
    probes = rademacher(noise)
    assert torch.equal(probes.abs(), torch.ones_like(noise))
    assert torch.equal(probes[1:], noise[1:].sign())


def test_evaluations_do_not_depend_on_the_probes() -> None:
    for repetitions in (1, 3):
        probes = torch.ones(repetitions, 2, 1)
        with count_evaluations() as counter:
            log_density(SHIRT, normal(2, 1), None, probes, steps=7)
        assert counter == {"oracle": 2 * 4 * 7}


def test_a_float32_network_is_carried_in_float64() -> None:
    network = SmoothNetwork()
    seen = []

    class Field:
        schedule = LinearBeta()

        def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
            seen.append(x.dtype)
            return network(x, node.t.expand(len(x)) * 1000, label)

    images = normal(2, 1, 4, 4).float()
    with torch.no_grad():  # gradients of x are taken whatever the caller's mode
        found = log_density(Field(), images, None, torch.ones(1, 2, 1, 4, 4), steps=3)
    assert set(seen) == {torch.float32}
    assert found.dtype == torch.float64
    assert not found.requires_grad


@pytest.mark.parametrize(("steps", "first_step"), [(0, 1.0), (5, 0.0), (5, 1000.0), (5, math.nan)])
def test_a_path_that_cannot_be_followed_is_refused(steps: int, first_step: float) -> None:
    with pytest.raises(UserError, match="the flow"):
        log_density(
            SHIRT, normal(1, 1), None, torch.ones(1, 1, 1), steps=steps, first_step=first_step
        )


def test_dequantised_images_fill_the_cells_of_their_levels() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0]).repeat(20_000, 1)
    offset = (dequantised(x, normal(20_000, 3)).double() - x) / GREY_LEVEL
    assert offset.abs().max() <= 0.5 + 1e-4
    for column in offset.T:
        assert within(column, 0.0)
        assert within(column**2, 1 / 12)


def test_bits_of_the_uniform_density_are_eight() -> None:
    # Of 256 cells all alike one is found in 8 bits; the range they cover is 256 * 2/255 wide.
    uniform = torch.tensor([-12 * math.log(256 * 2 / 255)], dtype=torch.float64)
    assert bits_per_dimension(uniform, 12).item() == pytest.approx(8.0, abs=1e-12)


def quantised_gaussian(images: int, side: int) -> tuple[Tensor, float]:
    """Images of N(0.1, 0.2^2) rounded to grey levels; exact bits under its blurred density."""
    levels = float64(range(256)) / 127.5 - 1
    law = torch.distributions.Normal(float64(0.1), float64(0.2))
    mass = law.cdf(levels + GREY_LEVEL / 2) - law.cdf(levels - GREY_LEVEL / 2)
    variance = 0.2**2 + step(LinearBeta(), 1).noise_ratio ** 2
    # The mean over a cell of (x - m)^2 is that at its centre plus width^2 / 12.
    squares = (levels - 0.1) ** 2 + GREY_LEVEL**2 / 12
    log_p = -0.5 * (squares / variance + torch.log(2 * math.pi * variance))
    bits = -((mass * log_p).sum() / mass.sum() + math.log(GREY_LEVEL)) / math.log(2)
    drawn = (0.1 + 0.2 * normal(images, 1, side, side) + 1) * 127.5
    return to_model_range(drawn.round().to(torch.uint8)), bits.item()


def test_bits_of_quantised_images_are_right() -> None:
    images, expected = quantised_gaussian(300, 4)
    keys = [(0, index) for index in range(len(images))]
    oracle = GaussianData(LinearBeta(), 0.1, 0.2)
    bits = Flow(steps=40).bits(oracle, images, None, keys)[:, 0]
    assert within(bits, expected)
