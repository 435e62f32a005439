"""Distances: equal to plain differences, exact for copies, and right where others lose them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers import float64, normal
from underone.metrics.distances import squared_distances, squared_neighbour_distances


def by_differences(x: Tensor, y: Tensor) -> Tensor:
    return (x.double()[:, None] - y.double()).square().sum(dim=2)


def narrow_far_away(count: int, seed: int = 0) -> Tensor:
    """float32 features as activations often are: far from the origin, close to each other."""
    return (30 + 0.02 * normal(count, 64, seed=seed)).float()


def test_they_are_the_squares_of_plain_differences() -> None:
    x, y = normal(40, 7), normal(30, 7, seed=1) + 0.5
    torch.testing.assert_close(squared_distances(x, y), by_differences(x, y), rtol=1e-12, atol=0)
    # One dimension, and float32 given: the arithmetic is in float64 all the same.
    line = squared_distances(torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [3.0], [8.0]]))
    assert line.tolist() == [[1, 9, 64], [4, 0, 25]]


@pytest.mark.parametrize("size", [1, 3, 64, 2048])
@pytest.mark.parametrize("offset", [0, 1e3, 1e8])
def test_copies_are_at_distance_zero_exactly(size: int, offset: float) -> None:
    y = normal(50, size) + offset
    x = y[torch.randperm(50, generator=torch.Generator().manual_seed(0))]
    distances = squared_distances(x, y)
    assert distances.amin(dim=1).tolist() == [0] * 50
    assert (distances == 0).sum() == 50
    assert (distances >= 0).all()


def test_only_what_rounding_leaves_is_taken_for_zero() -> None:
    x = normal(20, 16)
    near = squared_distances(x, x + 1e-5).diagonal()
    torch.testing.assert_close(near, float64([16e-10] * 20), rtol=1e-3, atol=0)


def test_far_from_the_origin_they_stay_exact_where_cdist_in_float32_does_not() -> None:
    x, y = narrow_far_away(100), narrow_far_away(200, seed=1)
    exact = by_differences(x, y)
    torch.testing.assert_close(squared_distances(x, y), exact, rtol=1e-9, atol=0)
    # What torch-fidelity takes: of a true distance of a quarter, most is lost, also for copies.
    assert exact.sqrt().max() < 0.4
    assert (torch.cdist(x, y).double() - exact.sqrt()).abs().max() > 0.1
    assert torch.cdist(x, x).diagonal().max() > 0.1
    assert squared_distances(x, x).diagonal().max() == 0


@given(
    count=st.integers(2, 30),
    block=st.integers(1, 40),
    k=st.integers(1, 29),
    size=st.integers(1, 5),
    seed=st.integers(0, 100),
)
def test_radii_are_the_kth_smallest_distance_to_the_others(
    count: int, block: int, k: int, size: int, seed: int
) -> None:
    k = min(k, count - 1)
    points = normal(count, size, seed=seed)
    # The smallest of each row is the point itself.
    expected = by_differences(points, points).sort(dim=1).values[:, k]
    torch.testing.assert_close(
        squared_neighbour_distances(points, k, block)[:, -1], expected, rtol=1e-9, atol=1e-12
    )


def test_copies_are_neighbours_of_each_other() -> None:
    points = float64([[0], [0], [0], [2], [5]])
    assert squared_neighbour_distances(points, 1)[:, -1].tolist() == [0, 0, 0, 4, 9]
    assert squared_neighbour_distances(points, 2)[:, -1].tolist() == [0, 0, 0, 4, 25]
    assert squared_neighbour_distances(points, 4)[:, -1].tolist() == [25, 25, 25, 9, 25]


def test_what_cannot_be_measured_is_refused() -> None:
    points = normal(4, 2)
    for k in (0, 4):
        with pytest.raises(ValueError, match="1 <= k < 4"):
            squared_neighbour_distances(points, k)
    with pytest.raises(ValueError, match="got 2 and 3"):
        squared_distances(points, normal(4, 3))
    with pytest.raises(ValueError, match=r"\(N, D\)"):
        squared_distances(points[0], points)
    with pytest.raises(ValueError, match=r"\(N, D\)"):
        squared_distances(points, points[:0])
    with pytest.raises(ValueError, match="NaN"):
        squared_distances(points, points / 0)
