"""Intervals: closed forms, agreement with scipy, and that they cover what they claim to."""

import math

import pytest
import scipy.stats

from helpers import normal
from underone.metrics.uncertainty import (
    Blocks,
    Verdict,
    compare,
    student_t_factor,
    wilson,
)

CONFIDENCES = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 6, 9, 10, 29, 30, 101, 1000])
def test_students_t_is_that_of_scipy(degrees: int) -> None:
    for confidence in CONFIDENCES:
        expected = scipy.stats.t.ppf((1 + confidence) / 2, degrees)
        assert student_t_factor(confidence, degrees) == pytest.approx(expected, rel=1e-10)


def test_students_t_has_closed_forms_for_one_and_two_degrees() -> None:
    for confidence in CONFIDENCES:
        one = math.tan(math.pi / 2 * confidence)
        two = confidence * math.sqrt(2 / (1 - confidence**2))
        assert student_t_factor(confidence, 1) == pytest.approx(one, rel=1e-11)
        assert student_t_factor(confidence, 2) == pytest.approx(two, rel=1e-12)
    assert student_t_factor(0.95, 2) == pytest.approx(4.303, abs=5e-4)


def test_blocks_report_mean_spread_and_minimum() -> None:
    blocks = Blocks((2.0, 4.0, 3.0))
    assert (blocks.mean, blocks.standard_deviation, blocks.minimum) == (3, 1, 2)
    assert str(blocks) == "3 ± 1 (mean ± sd of 3 blocks; minimum 2)"
    half = 4.3026527297 / math.sqrt(3)
    assert blocks.interval().low == pytest.approx(3 - half, rel=1e-10)
    assert blocks.interval().high == pytest.approx(3 + half, rel=1e-10)


def test_the_minimum_of_three_blocks_is_no_estimate_of_the_mean() -> None:
    lows = [Blocks(tuple(row)).minimum for row in normal(2000, 3).tolist()]
    # E min of three standard normals is -3 / (2 sqrt(pi)); its standard deviation is 0.748.
    expected = -3 / (2 * math.sqrt(math.pi))
    assert sum(lows) / len(lows) == pytest.approx(expected, abs=4 * 0.748 / math.sqrt(2000))


def test_the_paired_interval_is_that_of_scipy() -> None:
    a, b = normal(5).tolist(), normal(5, seed=1).tolist()
    result = compare(Blocks(tuple(a)), Blocks(tuple(b)), 0.9)
    expected = scipy.stats.ttest_rel(a, b).confidence_interval(0.9)
    assert result.interval.low == pytest.approx(expected.low, rel=1e-10)
    assert result.interval.high == pytest.approx(expected.high, rel=1e-10)
    assert (result.confidence, result.blocks) == (0.9, 5)


def test_what_both_settings_share_cancels() -> None:
    a, b = Blocks((10.0, 20.0, 30.0)), Blocks((11.0, 21.1, 30.9))
    result = compare(a, b)
    assert result.difference == pytest.approx(-1)
    half = 4.3026527297 / math.sqrt(3) * 0.1
    assert result.interval.low == pytest.approx(-1 - half)
    assert result.verdict is Verdict.A_LOWER
    assert compare(b, a).verdict is Verdict.B_LOWER


def test_verdicts_are_words() -> None:
    same = Blocks((1.0, 2.0))
    assert compare(same, same).verdict == "not separated"
    assert compare(Blocks((1.0, 2.0, 3.0)), Blocks((2.0, 1.0, 4.0))).verdict == "not separated"
    # Exactly equal differences: the interval is a point.
    assert compare(Blocks((1.0, 2.0)), Blocks((2.0, 3.0))).verdict == "A lower"


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_paired_interval_covers_the_true_difference(count: int) -> None:
    runs = 1500
    common = 10 * normal(runs, count)
    a = (common + normal(runs, count, seed=1) + 0.3).tolist()
    b = (common + normal(runs, count, seed=2)).tolist()
    intervals = [
        compare(Blocks(tuple(x)), Blocks(tuple(y))).interval for x, y in zip(a, b, strict=True)
    ]
    covered = sum(interval.low <= 0.3 <= interval.high for interval in intervals) / runs
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / runs))


def test_blocks_that_do_not_pair_or_show_no_spread_raise() -> None:
    with pytest.raises(ValueError, match="got 2 and 3"):
        compare(Blocks((1.0, 2.0)), Blocks((1.0, 2.0, 3.0)))
    with pytest.raises(ValueError, match="at least 2 blocks, got 1"):
        Blocks((1.0,))
    with pytest.raises(ValueError, match="finite"):
        Blocks((1.0, math.nan))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_is_a_probability(confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        student_t_factor(confidence, 2)
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson(1, 2, confidence)


def test_students_t_needs_a_degree_of_freedom() -> None:
    with pytest.raises(ValueError, match="at least 1 degree"):
        student_t_factor(0.95, 0)


@pytest.mark.parametrize(("successes", "count"), [(8, 10), (0, 10), (10, 10), (1, 1), (987, 1000)])
def test_wilsons_interval_is_that_of_scipy(successes: int, count: int) -> None:
    for confidence in CONFIDENCES:
        interval = wilson(successes, count, confidence)
        expected = scipy.stats.binomtest(successes, count).proportion_ci(confidence, "wilson")
        assert interval.low == pytest.approx(expected.low, abs=1e-12)
        assert interval.high == pytest.approx(expected.high, abs=1e-12)
        assert 0 <= interval.low < interval.high <= 1


def test_wilsons_interval_of_eight_in_ten() -> None:
    interval = wilson(8, 10)
    assert interval.low == pytest.approx(0.49016247, abs=1e-8)
    assert interval.high == pytest.approx(0.94331785, abs=1e-8)


@pytest.mark.parametrize(("successes", "count"), [(1, 0), (-1, 5), (6, 5)])
def test_counts_that_are_no_proportion_raise(successes: int, count: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, count)
