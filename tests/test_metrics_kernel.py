"""The kernel distance: closed forms, no bias, an honest error, and KID as others have it."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers import float64, normal
from peer_frechet import Identity
from peers import import_cleanfid, import_torch_fidelity, import_torchmetrics
from underone.metrics.kernel import (
    kernel_distance,
    kernel_distance_with_error,
)

pytestmark = pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features")


def by_loops(x: Tensor, y: Tensor) -> float:
    """The U-statistic, one pair at a time."""

    def mean(pairs: list[tuple[Tensor, Tensor]]) -> float:
        return math.fsum((float(a @ b) / len(a) + 1) ** 3 for a, b in pairs) / len(pairs)

    within = mean(list(itertools.permutations(x, 2))) + mean(list(itertools.permutations(y, 2)))
    return within - 2 * mean(list(itertools.product(x, y)))


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([[0], [1]], [[0], [1]], -3.5),  # with the diagonals, and so biased, it would be 0
        ([[0]] * 3, [[1]] * 2, 7),
        ([[1, 0]] * 2, [[0, 1]] * 4, 4.75),
    ],
    ids=["a set with itself", "two points", "two axes"],
)
def test_closed_forms(x: list[list[float]], y: list[list[float]], expected: float) -> None:
    assert kernel_distance(float64(x), float64(y)) == pytest.approx(expected, rel=1e-14)


@given(n=st.integers(2, 9), m=st.integers(2, 9), size=st.integers(1, 4), tile=st.integers(1, 10))
def test_in_any_tiles_it_is_the_sum_over_pairs(n: int, m: int, size: int, tile: int) -> None:
    x, y = normal(n, size), 2 * normal(m, size, seed=1) + 0.5
    expected = pytest.approx(by_loops(x, y), rel=1e-10, abs=1e-10)
    assert kernel_distance(x, y, tile=tile) == expected
    assert kernel_distance(y.flip(0), x.flip(0)) == expected


def test_of_unequal_sets_it_is_the_mean_over_all_pairs_of_subsets() -> None:
    x, y = normal(4, 2), normal(5, 2, seed=1) + 1
    subsets = itertools.product(itertools.combinations(x, 2), itertools.combinations(y, 3))
    values = [kernel_distance(torch.stack(a), torch.stack(b)) for a, b in subsets]
    assert kernel_distance(x, y) == pytest.approx(math.fsum(values) / len(values), rel=1e-12)


def test_between_equal_laws_it_is_zero_on_average_and_often_below() -> None:
    values = [
        kernel_distance(normal(20, 3, seed=2 * i), normal(30, 3, seed=2 * i + 1))
        for i in range(500)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values, ddof=1) / math.sqrt(len(values)) < 0.1
    assert 0.3 < np.mean(np.array(values) < 0) < 0.8


def test_the_standard_error_is_the_deviation_between_repetitions() -> None:
    estimates = [
        kernel_distance_with_error(
            normal(200, 2, seed=2 * i), normal(300, 2, seed=2 * i + 1) + 0.5, blocks=20
        )
        for i in range(100)
    ]
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    claimed = np.sqrt(np.mean([estimate.standard_error**2 for estimate in estimates]))
    assert claimed == pytest.approx(spread, rel=0.25)


def test_of_two_blocks_the_standard_error_is_half_their_difference() -> None:
    x, y = normal(4, 2), normal(4, 2, seed=1)
    halves = list(itertools.combinations(range(4), 2))
    possible = []
    for a, b in itertools.product(halves, halves):
        rest_of_x, rest_of_y = ([i for i in range(4) if i not in half] for half in (a, b))
        first, second = (x[list(a)], y[list(b)]), (x[rest_of_x], y[rest_of_y])
        possible.append(abs(kernel_distance(*first) - kernel_distance(*second)) / 2)
    error = kernel_distance_with_error(x, y, blocks=2).standard_error
    assert min(abs(error - value) for value in possible) < 1e-12


def test_between_equal_laws_the_standard_error_errs_on_the_safe_side() -> None:
    estimates = [
        kernel_distance_with_error(normal(200, 2, seed=2 * i), normal(200, 2, seed=2 * i + 1))
        for i in range(30)
    ]
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    assert np.mean([estimate.standard_error for estimate in estimates]) > 2 * spread


def test_blocks_are_mixed_whatever_the_order_of_the_samples() -> None:
    # Two classes far apart: in blocks of one class each the error would be of the classes' size.
    x = torch.cat([normal(100, 2), normal(100, 2, seed=1) + 5])
    y = torch.cat([normal(100, 2, seed=2), normal(100, 2, seed=3) + 5]).flip(0)
    sorted_apart = [kernel_distance(a, b) for a, b in zip(x.split(20), y.split(20), strict=True)]
    state = torch.get_rng_state()
    estimate = kernel_distance_with_error(x, y, blocks=10)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert estimate.value == kernel_distance(x, y)
    assert estimate.standard_error < 0.5 * np.std(sorted_apart, ddof=1) / math.sqrt(10)
    assert estimate == kernel_distance_with_error(x, y, blocks=10, seed=0)
    assert estimate != kernel_distance_with_error(x, y, blocks=10, seed=1)


def test_of_fewer_samples_than_a_subset_of_others_there_is_a_distance() -> None:
    x, y = normal(40, 4), normal(25, 4, seed=1)
    assert math.isfinite(kernel_distance(x, y))
    with pytest.raises(ValueError, match="subset size 1000"):
        import_torch_fidelity().metric_kid.kid_features_to_metric(x, y, verbose=False)


def torch_fidelity_kid(x: Tensor, y: Tensor) -> float:
    metric = import_torch_fidelity().metric_kid.kid_features_to_metric
    result = metric(x, y, kid_subsets=1, kid_subset_size=len(x), verbose=False)
    return float(result["kernel_inception_distance_mean"])


def clean_fid_kid(x: Tensor, y: Tensor) -> float:
    distance = import_cleanfid().fid.kernel_distance
    return float(distance(x.numpy(), y.numpy(), num_subsets=1, max_subset_size=len(x)))


def torchmetrics_kid(x: Tensor, y: Tensor) -> float:
    metric = import_torchmetrics().image.kid.KernelInceptionDistance(
        feature=Identity(x.shape[1]), subsets=1, subset_size=len(x)
    )
    metric.set_dtype(x.dtype)
    metric.update(x, real=False)
    metric.update(y, real=True)
    return float(metric.compute()[0])


each_peer = pytest.mark.parametrize(
    "peer", [torch_fidelity_kid, clean_fid_kid, torchmetrics_kid], ids=lambda peer: peer.__name__
)


@each_peer
@pytest.mark.parametrize("size", [1, 8, 300])
def test_it_equals_other_packages(peer: Callable[[Tensor, Tensor], float], size: int) -> None:
    x, y = normal(80, size), 1.2 * normal(80, size, seed=1) + 0.2
    assert kernel_distance(x, y) == pytest.approx(peer(x, y), rel=1e-9)


def test_over_random_subsets_it_has_the_mean_and_deviation_of_torch_fidelity() -> None:
    # Theirs draws other subsets: the two distributions of 300 subset values agree.
    x, y = normal(300, 8), normal(250, 8, seed=1) + 0.3
    theirs = import_torch_fidelity().metric_kid.kid_features_to_metric(
        x, y, kid_subsets=300, kid_subset_size=50, verbose=False
    )
    generator = torch.Generator().manual_seed(0)

    def subset(features: Tensor) -> Tensor:
        return features[torch.randperm(len(features), generator=generator)[:50]]

    ours = [kernel_distance(subset(x), subset(y)) for _ in range(300)]
    mean, error = float(np.mean(ours)), 4 * float(np.std(ours)) * math.sqrt(2 / 300)
    assert abs(mean - theirs["kernel_inception_distance_mean"]) < error
    assert np.std(ours) == pytest.approx(theirs["kernel_inception_distance_std"], rel=0.25)
    # Which is what all samples say at once.
    assert kernel_distance(x, y) == pytest.approx(mean, abs=error)


@each_peer
def test_float32_features_are_right_here_and_wrong_in_others(
    peer: Callable[[Tensor, Tensor], float],
) -> None:
    # Features with a mean, as activations have: the kernel is near 1000, the distance near 3e-6,
    # and a unit in float32's last place of 1000 is 6e-5.
    x, y = ((3 + 0.02 * normal(500, 64, seed=seed)).float() for seed in (4, 5))
    exact = peer(x.double(), y.double())
    assert kernel_distance(x, y) == pytest.approx(exact, rel=1e-5)
    assert abs(peer(x, y) / exact - 1) > 0.5


def test_what_has_no_kernel_distance_is_refused() -> None:
    x = normal(10, 2)
    with pytest.raises(ValueError, match="2 samples of each, got 10 and 1"):
        kernel_distance(x, x[:1])
    with pytest.raises(ValueError, match="got 2 and 3"):
        kernel_distance(x, normal(10, 3))
    for invalid in (x / 0, x * math.inf):
        with pytest.raises(ValueError, match="NaN"):
            kernel_distance(x, invalid)
        with pytest.raises(ValueError, match="NaN"):
            kernel_distance_with_error(x, torch.cat([x, invalid]), blocks=2)
    for blocks in (1, 6):
        with pytest.raises(ValueError, match="blocks of 10 samples"):
            kernel_distance_with_error(x, normal(40, 2), blocks=blocks)
