"""The standard error of FID: against repeated sampling, and where it does not exist."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from underone.metrics import Gaussian, Moments, frechet_distance
from underone.metrics.frechet_error import (
    frechet_standard_error,
    influence,
    paired_standard_error,
    within_classes,
)

SIZE = 4
SPREADS = torch.tensor([2.0, 1.0, 0.5, 1.5], dtype=torch.float64)


def standard_error(x: Tensor, target: Gaussian) -> float:
    return frechet_standard_error(influence(x, target))


def generated(count: int, generator: torch.Generator) -> Tensor:
    """Samples of a correlated Gaussian, far enough from the reference for FID to be smooth."""
    values = torch.randn(count, SIZE, generator=generator, dtype=torch.float64) * SPREADS
    values[:, 1] += 0.5 * values[:, 0]
    return values + torch.tensor([0.5, 0.0, 0.0, -0.3])


def reference() -> Gaussian:
    covariance = torch.eye(SIZE, dtype=torch.float64)
    covariance[0, 1] = covariance[1, 0] = 0.6
    return Gaussian(torch.zeros(SIZE, dtype=torch.float64), covariance)


def test_it_is_the_spread_that_repeated_sampling_shows() -> None:
    generator, target, count = torch.Generator().manual_seed(0), reference(), 500
    scores, errors = [], []
    for _ in range(600):
        x = generated(count, generator)
        scores.append(frechet_distance(Gaussian.of(Moments.of(x)), target))
        errors.append(standard_error(x, target))
    # A standard deviation from 600 draws is itself known to 3 %; this allows three times that.
    assert np.mean(errors) == pytest.approx(np.std(scores, ddof=1), rel=0.09)
    # Intervals hold the value they are about as often as they say, but for the bias.
    many = generated(400_000, generator)
    limit = frechet_distance(Gaussian.of(Moments.of(many)), target)
    inside = np.abs(np.array(scores) - limit) < 1.96 * np.array(errors)
    assert 0.92 < inside.mean() < 0.98


def test_the_influence_is_the_derivative_of_the_distance() -> None:
    x, target = generated(60, torch.Generator().manual_seed(1)), reference()
    mean, centred, covariance = x.mean(0), x - x.mean(0), x.T.cov()
    psi, step = influence(x, target), 1e-5
    # psi's mean under the Gaussian with this covariance, which has the denominator N - 1.
    expected = psi - psi.sum() / (len(x) - 1)
    for k in (0, 17, 42):
        # Weight goes from all to one sample; from that one to all where it is negative.
        outlier = torch.outer(centred[k], centred[k])
        more, less = (
            frechet_distance(
                Gaussian(
                    mean + weight * centred[k],
                    (1 - weight) * covariance + weight * (1 - weight) * outlier,
                ),
                target,
            )
            for weight in (step, -step)
        )
        assert (more - less) / (2 * step) == pytest.approx(float(expected[k]), rel=1e-6)


def test_in_one_dimension_it_is_the_known_one() -> None:
    # FID = (m_x - m_y)^2 + (s_x - s_y)^2, and T = s_y / s_x.
    x = torch.tensor([[0.0], [1.0], [2.0], [5.0]], dtype=torch.float64)
    target = Gaussian(torch.tensor([1.0]).double(), torch.tensor([[4.0]]).double())
    m, s = 2.0, math.sqrt(14 / 3)
    psi = 2 * (x - m) * (m - 1) + (1 - 2 / s) * (x - m) ** 2
    torch.testing.assert_close(influence(x, target), psi[:, 0], rtol=1e-13, atol=1e-13)
    assert standard_error(x, target) == pytest.approx(float(psi.std()) / 2, rel=1e-13)


def test_it_does_not_depend_on_where_the_origin_is() -> None:
    x, target = generated(200, torch.Generator().manual_seed(2)), reference()
    shifted = Gaussian(target.mean + 1e4, target.covariance)
    error = standard_error(x, target)
    assert standard_error(x + 1e4, shifted) == pytest.approx(error, rel=1e-8)


def test_what_has_no_derivative_is_refused() -> None:
    x, target = generated(SIZE, torch.Generator().manual_seed(3)), reference()
    with pytest.raises(ValueError, match="full rank"):
        standard_error(x, target)
    line = Gaussian(target.mean, torch.ones(SIZE, SIZE, dtype=torch.float64))
    with pytest.raises(ValueError, match="full rank"):
        standard_error(generated(100, torch.Generator()), line)
    flat = generated(100, torch.Generator())
    flat[:, 2] = flat[:, 1] - flat[:, 0]
    with pytest.raises(ValueError, match="full rank"):
        standard_error(flat, target)


def test_the_error_of_a_difference_is_the_spread_over_repeated_pairs() -> None:
    # Two generators that make almost the same of the same noise, in two classes of fixed numbers.
    target, generator = Gaussian(torch.zeros(6).double(), torch.eye(6).double()), torch.Generator()
    labels = torch.arange(1000) % 2
    means = torch.zeros(2, 6, dtype=torch.float64)
    means[1, 0] = 3
    differences, errors, alone = [], [], []
    for _ in range(200):
        noise = torch.randn(1000, 6, generator=generator, dtype=torch.float64)
        own = torch.randn(1000, 6, generator=generator, dtype=torch.float64)
        a, b = means[labels] + 0.8 * noise, means[labels] + 0.8 * noise + 0.2 * own
        fids = [frechet_distance(Gaussian.of(Moments.of(x)), target) for x in (a, b)]
        differences.append(fids[0] - fids[1])
        influences = [influence(x, target) for x in (a, b)]
        errors.append(paired_standard_error(*(within_classes(i, labels) for i in influences)))
        alone.append(sum(frechet_standard_error(i) ** 2 for i in influences) ** 0.5)
    true = torch.tensor(differences).std().item()
    # 200 pairs tell their spread to 5 %.
    assert sum(errors) / 200 == pytest.approx(true, rel=0.15)
    assert sum(alone) / 200 > 3 * true
