"""Class consistency: counts, averages, and what is no class at all."""

import math

import pytest
import torch
from torch import Tensor

from helpers import normal
from underone.metrics.consistency import (
    ClassAccuracy,
    ClassConsistency,
    Proportion,
    class_consistency,
)


def logits_of(classes: list[int], count: int = 3) -> Tensor:
    """Logits whose largest is at the given classes."""
    return 5 * torch.eye(count)[classes] - 2


LABELS = torch.tensor([0, 0, 0, 0, 1, 1])
LOGITS = logits_of([0, 0, 0, 1, 1, 2])
ACCURACY = ClassAccuracy((3, 1, 0), (4, 2, 0))


def test_counts_by_class() -> None:
    assert ClassAccuracy.of(LOGITS, LABELS) == ACCURACY


def test_averages() -> None:
    assert ACCURACY.per_class == (Proportion(3, 4), Proportion(1, 2), None)
    assert ACCURACY.micro == Proportion(4, 6)
    assert ACCURACY.macro == (3 / 4 + 1 / 2) / 2
    balanced = ClassAccuracy((3, 1, 4), (4, 4, 4))
    assert balanced.macro == pytest.approx(balanced.micro.value)


def test_proportions_have_wilsons_interval() -> None:
    interval = Proportion(8, 10).interval
    assert interval.low == pytest.approx(0.49016247, abs=1e-8)
    assert interval.high == pytest.approx(0.94331785, abs=1e-8)


def test_the_order_and_the_scale_of_the_logits_do_not_matter() -> None:
    logits, labels = normal(200, 5), torch.arange(200) % 5
    accuracy = ClassAccuracy.of(logits, labels)
    order = normal(200, seed=1).argsort()
    assert ClassAccuracy.of(3 * logits[order] - 7, labels[order]) == accuracy
    # A guess is right one time in five.
    assert accuracy.micro.value == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 200))


def test_equal_logits_go_to_the_first_class() -> None:
    assert ClassAccuracy.of(torch.zeros(2, 3), torch.tensor([0, 1])).correct == (1, 0, 0)


def test_it_stands_beside_the_accuracy_on_real_images() -> None:
    consistency = class_consistency(LOGITS, LABELS, real=ClassAccuracy((9, 8, 9), (10, 10, 10)))
    assert consistency.generated == ACCURACY
    assert consistency.real.micro.value == pytest.approx(26 / 30)


def test_another_number_of_classes_raises() -> None:
    with pytest.raises(ValueError, match="3 classes generated and 2 real"):
        ClassConsistency(ACCURACY, ClassAccuracy((1, 1), (1, 1)))


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (LOGITS, LABELS[:5], r"\(6, 3\) and \(5,\)"),
        (LOGITS[0], LABELS[:3], "N, C"),
        (LOGITS, torch.full((6,), 3), r"0\.\.2"),  # the null label
        (LOGITS, LABELS - 1, r"0\.\.2"),
        (LOGITS, LABELS.float(), "integers"),
        (LOGITS * torch.nan, LABELS, "NaN"),
        (LOGITS[:0], LABELS[:0], "at least one image"),
    ],
)
def test_what_names_no_class_raises(logits: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassAccuracy.of(logits, labels)


@pytest.mark.parametrize(
    ("correct", "totals"), [((1,), (1, 1)), ((2, 0), (1, 1)), ((-1, 0), (1, 1)), ((0,), (0,))]
)
def test_counts_that_cannot_be_raise(correct: tuple[int, ...], totals: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"counts|classes|image"):
        ClassAccuracy(correct, totals)


@pytest.mark.parametrize(("successes", "count"), [(2, 1), (-1, 3), (0, 0)])
def test_proportions_that_cannot_be_raise(successes: int, count: int) -> None:
    with pytest.raises(ValueError, match="a proportion needs"):
        Proportion(successes, count)
