"""Memorisation: closed forms, planted copies that must show, unseen images that must not."""

import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers import float64, normal
from underone.metrics.memorisation import (
    Memorisation,
    authentic_percent,
    data_copying,
    k_means,
    lloyd,
    mann_whitney_u,
    mann_whitney_z,
    memorisation,
    memorised_share,
)
from underone.metrics.neighbours import nearest

CENTRES = 4 * torch.eye(3, 8, dtype=torch.float64)


def images(count: int, seed: int) -> Tensor:
    """Features of three classes in turn, each a normal cloud."""
    return CENTRES[torch.arange(count) % 3] + normal(count, 8, seed=seed)


TRAIN, TEST, UNSEEN = images(1500, 0), images(900, 1), images(600, 2)
COPIES = TRAIN[normal(1500, seed=3).argsort()[:600]]
NEAR_COPIES = COPIES + 0.05 * normal(600, 8, seed=4)


def measured(generated: Tensor, train: Tensor = TRAIN, block: int = 1000) -> Memorisation:
    return memorisation(train=train, test=TEST, generated=generated, block=block)


def authenticity(generated: Tensor, train: Tensor) -> float:
    found = nearest(generated, train)
    spacing = nearest(train[found.indices[:, 0]], train, 2).distances[:, 1]
    return authentic_percent(found.distances[:, 0], spacing)


# Closed forms


def test_authenticity_of_four_points() -> None:
    # 5 is as far from 3 as 3 is from 1: a tie, not authentic. Only -2 is.
    assert authenticity(float64([[0.1], [5], [3], [-2]]), float64([[0], [1], [3]])) == 25


@pytest.mark.parametrize(
    ("generated", "expected"), [([0.1, 0.2, 0.3], -4), ([1, 2, 3], 0.5), ([4, 5, 6], 5)]
)
def test_z_of_three_points(generated: list[float], expected: float) -> None:
    z = mann_whitney_z(float64(generated), float64([1, 2, 3]))
    assert z == pytest.approx(expected / math.sqrt(5.25), rel=1e-15)


def test_the_share_of_near_first_neighbours() -> None:
    distances = float64([[0, 1], [0.99, 3], [1, 3.0001], [1, 3], [2, 3], [0, 0]])
    assert memorised_share(distances) == pytest.approx(4 / 6)


def test_data_copying_weighs_cells_by_their_test_samples() -> None:
    # Cell 0 has Z = -4 / sqrt(5.25) and three tests; cell 1 has n m = 2, U = 1 and one test.
    generated, generated_cells = float64([0.1, 0.2, 0.3, 1, 1]), torch.tensor([0, 0, 0, 1, 1])
    test, test_cells = float64([1, 2, 3, 1]), torch.tensor([0, 0, 0, 1])
    both = data_copying(generated, test, generated_cells, test_cells, least=0)
    assert both == pytest.approx((3 * -4 / math.sqrt(5.25) + 0.5 / math.sqrt(8 / 12)) / 4)
    # A cell of two generated samples is left out when more than two are asked for.
    first = data_copying(generated, test, generated_cells, test_cells, least=2)
    assert first == pytest.approx(-4 / math.sqrt(5.25))
    with pytest.raises(ValueError, match="more than 3 generated"):
        data_copying(generated, test, generated_cells, test_cells, least=3)


def test_cells_without_test_or_generated_samples_are_skipped() -> None:
    generated, test = float64([0.1, 0.2, 0.3, 9]), float64([1, 2, 3, 9])
    score = data_copying(
        generated, test, torch.tensor([2, 2, 2, 0]), torch.tensor([2, 2, 2, 1]), least=0
    )
    assert score == pytest.approx(-4 / math.sqrt(5.25))


# Ranks and cells


numbers = st.lists(st.integers(0, 6), min_size=1, max_size=20)


@settings(max_examples=60)
@given(x=numbers, y=numbers)
def test_u_is_that_of_scipy_also_with_ties(x: list[int], y: list[int]) -> None:
    expected = scipy.stats.mannwhitneyu(x, y).statistic
    assert mann_whitney_u(float64(x), float64(y)) == expected


def test_z_has_the_p_value_of_scipy_where_nothing_is_tied() -> None:
    x, y = normal(40) - 0.3, normal(55, seed=1)
    z = mann_whitney_z(x, y)
    expected = scipy.stats.mannwhitneyu(x, y, alternative="less", method="asymptotic").pvalue
    assert scipy.stats.norm.cdf(z) == pytest.approx(expected, rel=1e-12)


def test_k_means_finds_clusters_and_ends_at_their_means() -> None:
    points = images(300, 5) + 10 * CENTRES[torch.arange(300) % 3]
    for seed in range(3):
        centres = k_means(points, 3, seed)
        cells = nearest(points, centres).indices[:, 0]
        for cell in range(3):
            assert cells[cell::3].unique().numel() == 1  # a class is a cell
            torch.testing.assert_close(centres[cell], points[cells == cell].mean(dim=0))
    assert torch.equal(k_means(points, 3, 0), k_means(points, 3, 0))


def test_a_centre_without_points_stays() -> None:
    moved = lloyd(float64([[0], [2], [9]]), float64([[0], [10], [99]]))
    assert moved.tolist() == [[1], [9], [99]]


def test_k_means_needs_as_many_distinct_points() -> None:
    points = float64([[0], [1], [1], [1]])
    assert k_means(points, 2, 0).sort(dim=0).values.tolist() == [[0], [1]]
    with pytest.raises(ValueError, match="3 cells"):
        k_means(points, 3, 0)


# Planted sets


def test_unseen_images_look_like_held_out_ones() -> None:
    result = measured(UNSEEN)
    assert result.memorised_share.generated <= 0.01
    assert result.memorised_share.held_out <= 0.01
    authentic = result.authentic_percent
    # Two independent percentages of 600 each differ by about 3.
    assert abs(authentic.generated - authentic.held_out) < 10
    assert abs(result.data_copying.generated) < 3
    assert abs(result.data_copying.held_out) < 3


@pytest.mark.parametrize("copies", [COPIES, NEAR_COPIES], ids=["exact", "near"])
def test_copies_show_in_every_measure(copies: Tensor) -> None:
    result = measured(copies)
    assert result.memorised_share.generated > 0.95
    assert result.authentic_percent.generated < 1
    assert result.data_copying.generated < -8


def test_the_control_is_the_end_of_each_scale() -> None:
    result = measured(UNSEEN)
    assert result.memorised_share.copies == 1
    assert result.authentic_percent.copies == 0
    exact = measured(COPIES).data_copying
    assert exact.copies < -8
    # The shares of the cells differ a little between the two draws of copies.
    assert exact.copies == pytest.approx(exact.generated, rel=0.05)


def test_a_third_of_copies_among_unseen_images_shows() -> None:
    mixed = torch.cat([COPIES[:200], UNSEEN[:400]])
    result = measured(mixed)
    assert result.memorised_share.generated == pytest.approx(1 / 3, abs=0.01)
    assert result.authentic_percent.generated < result.authentic_percent.held_out - 10
    assert result.data_copying.generated < -3


def test_samples_further_off_than_real_images_are_no_copies() -> None:
    result = measured(UNSEEN + 0.7 * normal(600, 8, seed=6))
    assert result.data_copying.generated > 3
    assert result.authentic_percent.generated > result.authentic_percent.held_out


def test_copies_of_an_image_that_is_in_the_training_set_twice_show() -> None:
    doubled = torch.cat([TRAIN, TRAIN])
    assert measured(NEAR_COPIES, doubled) == measured(NEAR_COPIES)
    # What comes of not counting equal images once: kept here to show that the danger is real.
    assert memorised_share(nearest(NEAR_COPIES, doubled, 2).distances) == 0
    assert authenticity(NEAR_COPIES, doubled) == 100


def test_copies_of_mirror_images_show_where_training_was_shown_them() -> None:
    mirror = torch.eye(8, dtype=torch.float64)[[1, 0, *range(2, 8)]]  # swaps two features
    copies = NEAR_COPIES @ mirror
    # Without its mirror images the training set is far from most of them.
    assert measured(copies).memorised_share.generated < 0.2
    result = memorisation(train=TRAIN, mirrored=TRAIN @ mirror, test=TEST, generated=copies)
    assert result.memorised_share.generated > 0.95
    assert result.authentic_percent.generated < 1
    assert result.data_copying.generated < -8
    assert result.memorised_share.copies == 1
    unseen = memorisation(train=TRAIN, mirrored=TRAIN @ mirror, test=TEST, generated=UNSEEN)
    assert unseen.memorised_share.generated <= 0.01
    assert abs(unseen.data_copying.generated) < 3


def test_an_image_that_is_its_own_mirror_is_no_neighbour_of_itself() -> None:
    assert memorisation(train=TRAIN, mirrored=TRAIN, test=TEST, generated=NEAR_COPIES) == measured(
        NEAR_COPIES
    )
    # What comes of stacking mirror images as if they were others: the danger is real.
    stacked = torch.cat([TRAIN, TRAIN + 1e-9])
    assert memorised_share(nearest(NEAR_COPIES, stacked, 2).distances) == 0


def test_the_held_out_score_has_mean_zero_and_the_spread_of_three_cells() -> None:
    runs = 40
    scores = float64(
        [
            memorisation(
                train=TRAIN[:300], test=images(300, 100 + run), generated=UNSEEN[:150], seed=run
            ).data_copying.held_out
            for run in range(runs)
        ]
    )
    # A mean of three independent standard normal Z.
    assert abs(scores.mean()) < 4 / math.sqrt(3 * runs)
    assert scores.std() == pytest.approx(1 / math.sqrt(3), rel=4 / math.sqrt(2 * runs))


# Invariances and sizes


def test_neither_blocks_nor_the_order_of_the_sets_matter() -> None:
    expected = measured(UNSEEN)
    assert measured(UNSEEN, block=170) == expected
    assert measured(UNSEEN, TRAIN.flip(0)) == expected
    shuffled = measured(UNSEEN.flip(0))
    assert shuffled.memorised_share == expected.memorised_share
    assert shuffled.authentic_percent == expected.authentic_percent


def test_it_does_not_change_under_a_common_offset() -> None:
    shifted = memorisation(train=TRAIN + 1e4, test=TEST + 1e4, generated=NEAR_COPIES + 1e4)
    expected = measured(NEAR_COPIES)
    assert shifted.memorised_share == expected.memorised_share
    assert shifted.authentic_percent == expected.authentic_percent


@pytest.mark.parametrize(
    ("generated", "count", "half"), [(600, 600, 450), (200, 200, 200), (1200, 900, 450)]
)
def test_all_columns_have_one_size(generated: int, count: int, half: int) -> None:
    result = measured(images(generated, 7))
    assert result.memorised_share.count == result.authentic_percent.count == count
    assert result.data_copying.count == half


def test_too_few_samples_for_any_cell_raise() -> None:
    with pytest.raises(ValueError, match="no cell"):
        measured(UNSEEN[:20])
