"""FID from moments: closed forms, invariances, and the cases where other implementations break."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from underone.metrics import Gaussian, Moments, frechet_distance


def random_features(count: int, size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.logspace(0, -4, size, dtype=torch.float64)
    values = torch.randn(count, size, generator=generator, dtype=torch.float64)
    return values * spectrum.sqrt() + torch.rand(size, generator=generator, dtype=torch.float64)


def fid(x: Tensor, y: Tensor) -> float:
    return frechet_distance(Gaussian.of(Moments.of(x)), Gaussian.of(Moments.of(y)))


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


CROSS = tensor([[1, 0], [-1, 0], [0, 1], [0, -1]])


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (2 * CROSS + tensor([3, 4]), CROSS, 79 / 3),  # with the covariance's n - 1; n gives 26
        (tensor([[0, 0]] * 3), tensor([[3, 4]] * 5), 25),
        (tensor([[0], [1]]), tensor([[0], [3]]), 1 + (math.sqrt(4.5) - math.sqrt(0.5)) ** 2),
    ],
    ids=["scaled cross", "two points", "one dimension"],
)
def test_closed_forms_of_samples(x: Tensor, y: Tensor, expected: float) -> None:
    assert fid(x, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([[4, 0], [0, 1]], [[2.5, 1.5], [1.5, 2.5]], 10 - math.sqrt(82)),
        ([[1, 0], [0, 0]], [[1e-18, 1e-9], [1e-9, 1]], 1.999999998),
        ([[1, 0], [0, 1]], [[1, 0], [0, 1]], 0),
    ],
    ids=["rotated", "nearly orthogonal lines", "equal"],
)
def test_closed_forms_of_covariances(
    x: list[list[float]], y: list[list[float]], expected: float
) -> None:
    zero = tensor([0, 0])
    distance = frechet_distance(Gaussian(zero, tensor(x)), Gaussian(zero, tensor(y)))
    assert distance == pytest.approx(expected, abs=1e-9)


def test_it_equals_the_matrix_square_root_where_that_is_exact() -> None:
    x, y = random_features(500, 32, 0), random_features(400, 32, 1)
    a, b = np.cov(x.numpy(), rowvar=False), np.cov(y.numpy(), rowvar=False)
    difference = x.mean(0).numpy() - y.mean(0).numpy()
    root = scipy.linalg.sqrtm(a @ b).real
    expected = difference @ difference + np.trace(a + b - 2 * root)
    assert fid(x, y) == pytest.approx(expected, rel=1e-9)


def test_of_a_set_with_itself_it_is_zero() -> None:
    x = random_features(300, 64, 0)
    assert 0 <= fid(x, x.flip(0)) < 1e-6


@pytest.mark.slow
def test_it_is_finite_and_real_with_far_fewer_samples_than_dimensions() -> None:
    x, y = random_features(64, 512, 0), random_features(64, 512, 1)
    distance = fid(x, y)
    assert Moments.of(x).rank_deficient
    # Both covariances are tiny in most directions: the distance lies between its plain bounds.
    mean = (x.mean(0) - y.mean(0)).square().sum().item()
    traces = x.var(0).sum().item() + y.var(0).sum().item()
    assert mean < distance < mean + traces


def test_it_does_not_change_under_a_large_common_offset() -> None:
    x, y = random_features(200, 8, 0), random_features(200, 8, 1)
    assert fid(x + 1e8, y + 1e8) == pytest.approx(fid(x, y), abs=1e-6)
    # What the usual sums of squares make of it: kept here to show that the danger is real.
    shifted = x + 1e8
    raw = shifted.T @ shifted / 200 - torch.outer(shifted.mean(0), shifted.mean(0))
    assert (raw - x.T.cov(correction=0)).abs().max() > 1


def test_the_bias_at_finite_n_is_the_known_one() -> None:
    # E FID_N = d/N + d (d + 1) / (4 (N - 1)) against the exact standard normal.
    size, count = 16, 2000
    exact = Gaussian(torch.zeros(size).double(), torch.eye(size).double())
    generator = torch.Generator().manual_seed(0)
    scores = [
        frechet_distance(
            Gaussian.of(Moments.of(torch.randn(count, size, generator=generator).double())), exact
        )
        for _ in range(60)
    ]
    error = np.std(scores, ddof=1) / math.sqrt(len(scores))
    assert abs(np.mean(scores) - 0.0420) < 4 * error
    assert error < 0.001


@settings(deadline=None, max_examples=25)
@given(cuts=st.lists(st.integers(1, 99), max_size=6), order=st.randoms(use_true_random=False))
def test_moments_do_not_depend_on_batches_or_order(cuts: list[int], order: object) -> None:
    x = random_features(100, 5, 3) + 1e4
    bounds = [0, *sorted(set(cuts)), 100]
    parts = [Moments.of(x[a:b]) for a, b in pairwise(bounds)]
    order.shuffle(parts)  # type: ignore[attr-defined]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merged(part)
    whole = Moments.of(x)
    assert merged.count == 100
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(merged.scatter, whole.scatter, rtol=1e-9, atol=1e-9)


def test_what_has_no_covariance_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        _ = Moments.of(torch.zeros(1, 3)).covariance
    with pytest.raises(ValueError, match="NaN"):
        Moments.of(tensor([[math.nan], [1]]))
    with pytest.raises(ValueError, match=r"\(N, D\)"):
        Moments.of(torch.zeros(4))
    with pytest.raises(ValueError, match="symmetric"):
        _ = Gaussian(tensor([0, 0]), tensor([[1, 0.5], [0, 1]])).factor


def test_inconsistent_moments_are_told_not_hidden() -> None:
    negative = Gaussian(tensor([0.0]), tensor([[-1.0]]))
    with pytest.warns(UserWarning, match="inconsistent"):
        assert frechet_distance(negative, Gaussian(tensor([0.0]), tensor([[0.0]]))) == -1
