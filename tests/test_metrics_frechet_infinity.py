"""FID at infinitely many samples: the fit, the subsets, and the bias that goes away."""

import numpy as np
import pytest
import torch
from torch import Tensor

from underone.metrics import Gaussian, Moments, frechet_distance
from underone.metrics.frechet_error import frechet_standard_error, influence
from underone.metrics.frechet_infinity import (
    _shuffled,
    frechet_infinity,
    intercepts,
    subset_sizes,
)

SIZE = 6


def normal(count: int, seed: int, mean: float = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, SIZE, generator=generator, dtype=torch.float64) + mean


def exact() -> Gaussian:
    return Gaussian(torch.zeros(SIZE).double(), torch.eye(SIZE).double())


def test_the_intercept_of_a_line_in_the_inverse_size_is_exact() -> None:
    sizes = torch.tensor(subset_sizes(50_000))
    scores = torch.stack([2.5 + 7 / sizes.double(), -0.5 - 3 / sizes.double()])
    expected = torch.tensor([2.5, -0.5], dtype=torch.float64)
    torch.testing.assert_close(intercepts(sizes, scores), expected, rtol=1e-12, atol=0)


def test_the_fit_is_numpys_least_squares() -> None:
    sizes = torch.tensor(subset_sizes(900, smallest=100))
    scores = torch.rand(4, len(sizes), generator=torch.Generator().manual_seed(0)).double()
    expected = np.polyfit(1 / sizes.numpy(), scores.numpy().T, 1)[1]
    np.testing.assert_allclose(intercepts(sizes, scores).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("count", "smallest", "first"),
    [(50_000, None, 5000), (10_000, None, 1000), (20, None, 2), (600, 300, 300)],
)
def test_sizes_are_those_of_the_paper(count: int, smallest: int | None, first: int) -> None:
    expected = np.linspace(first, count, 15).astype(int)
    assert subset_sizes(count, smallest) == expected.tolist()


@pytest.mark.parametrize(("count", "smallest"), [(15, None), (100, 1), (100, 87)])
def test_sizes_that_would_repeat_are_refused(count: int, smallest: int | None) -> None:
    with pytest.raises(ValueError, match="15 different sizes"):
        subset_sizes(count, smallest)


def test_every_score_is_the_fid_of_a_nested_subset() -> None:
    x, reference = normal(400, 0), exact()
    result = frechet_infinity(x, reference, smallest=100, seed=3)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(3))
    for size, score in zip(result.sizes.tolist(), result.scores[0].tolist(), strict=True):
        subset = Gaussian.of(Moments.of(x[order[:size]]))
        assert score == pytest.approx(frechet_distance(subset, reference), rel=1e-9)
    # Replicates are different subsets of the same samples: the largest is all of them.
    assert len(result.scores[:, 0].unique()) == len(result.scores) == 5
    assert float(result.scores[:, -1].std()) < 1e-12


def test_the_bias_in_the_number_of_samples_goes_away() -> None:
    # The truth is 0, and E FID_N = d/N + d (d + 1) / (4 (N - 1)) > 0.
    results = [frechet_infinity(normal(600, seed), exact(), smallest=100) for seed in range(20)]
    values = np.array([result.value for result in results])
    error = values.std(ddof=1) / np.sqrt(len(values))
    bias = SIZE / 600 + SIZE * (SIZE + 1) / (4 * 599)
    plain = np.mean([float(result.scores[0, -1]) for result in results])
    assert plain == pytest.approx(bias, rel=0.2)
    assert abs(values.mean()) < 4 * error
    assert abs(values.mean()) < bias / 4
    # An estimate of 0 without bias is negative about half of the time; it is not clamped.
    assert 2 <= (values < 0).sum() <= 18


def test_balanced_samples_are_given_balanced_subsets() -> None:
    # Two classes far apart, in equal numbers: what a random subset has of each moves its moments.
    classes = torch.arange(2000) % 2
    apart = torch.zeros(SIZE).double()
    apart[0] = 2
    covariance = torch.eye(SIZE).double()
    covariance[0, 0] += 4
    reference = Gaussian(torch.zeros(SIZE).double(), covariance)
    found = []
    for seed in range(6):
        features = normal(2000, seed) + torch.where(classes[:, None] == 0, -apart, apart)
        found.append(
            [
                frechet_infinity(features, reference, smallest=100, classes=told, seed=seed).value
                for told in (None, classes)
            ]
        )
    blind, balanced = torch.tensor(found).unbind(1)
    error = balanced.std().item() / 6**0.5
    assert abs(balanced.mean().item()) < 4 * error
    # The cost of random labels is |apart|^2, of which 1 / N is missing.
    assert (balanced - blind).mean().item() == pytest.approx(4 / 2000, rel=0.5)
    order = _shuffled(2000, classes, torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(2000))
    assert [int(classes[order[:size]].sum()) for size in (100, 500, 1234)] == [50, 250, 617]


def test_where_the_distance_is_large_it_is_kept() -> None:
    result = frechet_infinity(normal(3000, 1, mean=1), exact())
    assert result.value == pytest.approx(SIZE, rel=0.05)
    assert 0 < result.subset_error < 0.05


def test_the_error_of_choosing_subsets_is_the_spread_over_seeds() -> None:
    x, reference = normal(600, 1, mean=0.3), exact()
    results = [frechet_infinity(x, reference, smallest=100, seed=seed) for seed in range(40)]
    spread = np.std([result.value for result in results], ddof=1)
    claimed = np.sqrt(np.mean([result.subset_error**2 for result in results]))
    assert claimed == pytest.approx(spread, rel=0.35)


def test_with_the_error_of_fid_it_is_the_spread_over_repeated_draws() -> None:
    reference, found, claimed = exact(), [], []
    for seed in range(60):
        x = normal(600, seed, mean=0.3)
        result = frechet_infinity(x, reference, smallest=100)
        found.append(result.value)
        error = frechet_standard_error(influence(x, reference))
        claimed.append(np.hypot(error, result.subset_error))
    assert np.mean(claimed) == pytest.approx(np.std(found, ddof=1), rel=0.25)


def test_it_is_the_seeds_doing_alone() -> None:
    x, reference = normal(300, 0), exact()
    first, again, other = (frechet_infinity(x, reference, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(first.scores, again.scores)
    assert not torch.equal(first.scores, other.scores)
    assert first.value != other.value
    assert frechet_infinity(x, reference, replicates=6).intercepts.shape == (6,)


def test_too_few_replicates_for_a_spread_are_refused() -> None:
    with pytest.raises(ValueError, match="5 replicates"):
        frechet_infinity(normal(300, 0), exact(), replicates=4)
