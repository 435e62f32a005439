"""Nearest neighbours equal those by direct differences, for any blocks, offset and ties."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from helpers import float64, normal
from underone.metrics.neighbours import nearest


def direct(queries: Tensor, train: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The definition: all differences at once, ties by lower index."""
    squared = (queries[:, None] - train).square().sum(dim=2)
    order = squared.argsort(dim=1, stable=True)[:, :count]
    return squared.gather(1, order).sqrt(), order


@pytest.mark.parametrize("block", [3, 64, 1000])
@pytest.mark.parametrize("count", [1, 2, 90])
def test_it_equals_direct_differences_at_every_block_size(block: int, count: int) -> None:
    queries, train = normal(40, 5), normal(90, 5, seed=1)
    found = nearest(queries, train, count, block)
    distances, indices = direct(queries, train, count)
    assert torch.equal(found.indices, indices)
    assert torch.equal(found.distances, distances)


def test_an_exact_copy_is_at_distance_zero_also_far_from_the_origin() -> None:
    train = (30 + 0.02 * normal(300, 64)).float()
    assert nearest(train[:50], train).distances.eq(0).all()
    assert torch.equal(nearest(train[:50], train).indices[:, 0], torch.arange(50))
    # What the usual shortcut makes of it: kept here to show that the danger is real.
    shortcut = torch.cdist(train, train, compute_mode="use_mm_for_euclid_dist")
    assert shortcut.diagonal().max() > 0.01


@pytest.mark.parametrize("spread", [1e-6, 1e-5, 3e-5])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_neighbours_closer_than_rounding_are_told_apart(offset: float, spread: float) -> None:
    # A far point makes the norms large, so that rounding orders the crowd in the fast form.
    crowd = spread * normal(60, 3) + offset
    train = torch.cat([crowd, torch.full((1, 3), 1e5 + offset, dtype=torch.float64)])
    found = nearest(crowd, train, 2, block=20)
    distances, indices = direct(crowd, train, 2)
    assert found.distances[:, 0].eq(0).all()
    assert torch.equal(found.indices, indices)
    assert torch.equal(found.distances, distances)


def test_equal_distances_go_to_the_lower_index() -> None:
    train = float64([[1], [-1], [1], [-1], [1], [-1], [1], [-1], [1], [3]])
    for block in (1, 3, 100):
        found = nearest(float64([[0], [1]]), train, 3, block)
        assert found.indices.tolist() == [[0, 1, 2], [0, 2, 4]]
        assert found.distances.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_the_order_of_the_training_points_does_not_matter() -> None:
    queries, train = normal(30, 4), normal(80, 4, seed=1)
    there, back = nearest(queries, train, 3), nearest(queries, train.flip(0), 3)
    assert torch.equal(there.distances, back.distances)
    assert torch.equal(there.indices, 79 - back.indices)


class Largest(TorchFunctionMode):
    """Notes the size of the largest tensor any operation returns."""

    size = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.size = max(self.size, result.numel())
        return result


def test_no_matrix_is_larger_than_a_block_or_the_features() -> None:
    queries, train = normal(500, 4), normal(700, 4, seed=1)
    with Largest() as largest:
        nearest(queries, train, block=50)
    assert 50 * 50 <= largest.size <= 700 * 4


@pytest.mark.parametrize(
    ("queries", "train", "options", "message"),
    [
        (normal(3), normal(3, 2), {}, "N, D"),
        (normal(3, 2)[:0], normal(3, 2), {}, "with N, D >= 1"),
        (normal(3, 2), normal(3, 4), {}, "got 2 and 4"),
        (normal(3, 2) / 0, normal(3, 2), {}, "infinite"),
        (normal(3, 2), normal(3, 2), {"count": 4}, r"1\.\.3"),
        (normal(3, 2), normal(3, 2), {"count": 0}, r"1\.\.3"),
        (normal(3, 2), normal(3, 2), {"block": 0}, "block"),
    ],
)
def test_what_does_not_fit_raises(
    queries: Tensor, train: Tensor, options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        nearest(queries, train, **options)
