"""The Inception Score: closed forms, its bounds, and where others answer NaN."""

import math
import statistics
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers import float64, normal
from peers import import_torch_fidelity, import_torchmetrics
from underone.metrics.inception import InceptionScore, inception_score

# Both are torchmetrics', of a buffer and of the deviation of a single number.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features"),
    pytest.mark.filterwarnings(r"ignore:std\(\). degrees of freedom"),
]

CERTAIN = float64([[1000, 0]] * 8)


class InSplits(NamedTuple):
    """The mean over equal parts of the samples, and the deviation between them (ddof 0)."""

    mean: float
    std: float


def in_splits(logits: Tensor, splits: int) -> InSplits:
    """As papers report it: part i is the rows from i N // splits to (i + 1) N // splits."""
    bounds = [i * len(logits) // splits for i in range(splits + 1)]
    scores = [inception_score(logits[a:b]).value for a, b in pairwise(bounds)]
    return InSplits(statistics.fmean(scores), statistics.pstdev(scores))


def torch_fidelity_score(logits: Tensor, splits: int) -> InSplits:
    metric = import_torch_fidelity().metric_isc.isc_features_to_metric
    result = metric(logits, splits, shuffle=False)
    return InSplits(result["inception_score_mean"], result["inception_score_std"])


def torchmetrics_score(logits: Tensor, splits: int) -> InSplits:
    """Theirs shuffles: only what does not depend on the order compares."""
    metric = import_torchmetrics().image.inception.InceptionScore(
        feature=torch.nn.Identity(), splits=splits
    )
    metric.update(logits)
    mean, std = metric.compute()
    return InSplits(float(mean), float(std))


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        (1000 * torch.eye(4), 4),
        (torch.zeros(4, 3), 1),
        (float64([[0.9, 0.1], [0.1, 0.9]]).log(), 2 * 0.9**0.9 * 0.1**0.1),
        (CERTAIN, 1),
        (torch.zeros(5, 1), 1),
    ],
    ids=["each class once", "uniform", "nine to one", "one class for certain", "a single class"],
)
def test_closed_forms(logits: Tensor, expected: float) -> None:
    assert inception_score(logits).value == pytest.approx(expected, rel=1e-14)


def test_a_class_without_any_share_is_no_nan_here_but_in_others() -> None:
    assert inception_score(CERTAIN) == InceptionScore(1, standard_error=0)
    assert math.isnan(torch_fidelity_score(CERTAIN, 1).mean)
    assert math.isnan(torchmetrics_score(CERTAIN, 1).mean)


@given(rows=st.lists(st.tuples(*[st.floats(-1e300, 1e300)] * 3), min_size=1, max_size=12))
def test_it_lies_between_one_and_the_number_of_classes(
    rows: list[tuple[float, float, float]],
) -> None:
    assert 1 <= inception_score(float64(rows)).value <= 3


@pytest.mark.parametrize("classes", range(1, 12))
def test_at_its_bounds_rounding_does_not_go_past_them(classes: int) -> None:
    for count in (classes, 7, 12, 13, 60):
        certain = 1000 * torch.eye(classes)[torch.arange(count) % classes]
        same = torch.arange(classes).expand(count, classes)
        for logits in (certain, same.double(), torch.zeros(count, classes)):
            assert 1 <= inception_score(logits).value <= classes


def test_float32_logits_lose_nothing_more() -> None:
    logits = (20 * normal(500, 10)).float()
    exact = inception_score(logits.double()).value
    assert inception_score(logits).value == pytest.approx(exact, rel=1e-14)
    assert torchmetrics_score(logits, 1).mean != pytest.approx(exact, rel=1e-9)


@given(
    seed=st.integers(0, 1000),
    scale=st.floats(0.1, 30),
    offset=st.floats(-100, 100),
    classes=st.integers(1, 6),
)
def test_order_offsets_and_names_of_classes_do_not_matter(
    seed: int, scale: float, offset: float, classes: int
) -> None:
    logits = scale * normal(20, classes, seed=seed)
    expected = inception_score(logits).value
    for same in (logits.flip(0), logits + offset, logits.flip(1)):
        assert inception_score(same).value == pytest.approx(expected, rel=1e-10)


def test_it_is_the_entropy_of_the_classes_less_that_of_each_sample() -> None:
    logits = 3 * normal(50, 7)
    p = logits.softmax(dim=1)
    entropies = torch.special.entr(p.mean(dim=0)).sum() - torch.special.entr(p).sum(dim=1).mean()
    assert inception_score(logits).value == pytest.approx(entropies.exp().item())


def test_few_samples_score_less_by_the_known_bias() -> None:
    # -IS sum_c Var(p_c) / (2 N q_c), with the variances and the score of the law itself.
    size, repeats = 100, 400
    law = 2 * normal(size * repeats, 4)
    p, score = law.softmax(dim=1), inception_score(law).value
    predicted = -score * float((p.var(dim=0) / p.mean(dim=0)).sum()) / (2 * size)
    parts = in_splits(law, repeats)
    assert abs(parts.mean - score - predicted) < 4 * parts.std / math.sqrt(repeats)
    assert predicted == pytest.approx(parts.mean - score, rel=0.5)


@pytest.mark.parametrize("splits", [1, 3, 10])
@pytest.mark.parametrize("scale", [0.5, 5, 50])
def test_it_equals_torch_fidelity_unshuffled(splits: int, scale: float) -> None:
    logits = scale * normal(101, 10)
    ours, theirs = in_splits(logits, splits), torch_fidelity_score(logits, splits)
    assert ours.mean == pytest.approx(theirs.mean, rel=1e-12)
    assert ours.std == pytest.approx(theirs.std, rel=1e-9, abs=1e-14)


def test_one_split_equals_torchmetrics_whose_deviation_is_nan() -> None:
    logits = 5 * normal(60, 10)
    ours, theirs = inception_score(logits), torchmetrics_score(logits, 1)
    assert ours.value == pytest.approx(theirs.mean, rel=1e-12)
    assert ours.standard_error > 0
    assert math.isnan(theirs.std)


def test_all_samples_are_scored_at_once_where_torchmetrics_makes_six_splits_of_ten() -> None:
    # Each of 11 samples is of its own class, so a split scores its size, in any order. Logits of
    # 100 do not underflow.
    logits = 100 * torch.eye(11, dtype=torch.float64)
    assert inception_score(logits).value == pytest.approx(11)
    assert in_splits(logits, 10).mean == pytest.approx((9 * 1 + 2) / 10)
    assert torchmetrics_score(logits, 10).mean == pytest.approx((5 * 2 + 1) / 6)


def test_what_has_no_score_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        inception_score(float64([[math.nan, 0]]))
    with pytest.raises(ValueError, match="NaN"):
        inception_score(float64([[-math.inf, 0]]))
    for shape in ((4,), (4, 0), (0, 4)):
        with pytest.raises(ValueError, match=r"\(N, C\) with N, C >= 1"):
            inception_score(torch.zeros(shape))


def test_its_standard_error_is_the_spread_over_repeated_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [2 * torch.randn(400, 5, generator=generator) for _ in range(200)]
    scores = [inception_score(draw) for draw in draws]
    spread = torch.tensor([score.value for score in scores]).std().item()
    assert scores[0].standard_error == pytest.approx(spread, rel=0.2)
