"""Precision, recall, density, coverage: closed forms, ties, invariances, and other packages."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers import float64, normal
from peers import import_prdc, import_torch_fidelity
from underone.metrics.manifold import (
    DENSITY_COVERAGE,
    PRECISION_RECALL,
    Manifold,
    ManifoldScores,
    manifold_scores,
    scores_between,
)

each_strictness = pytest.mark.parametrize("strict", [False, True], ids=["<=", "<"])


def line(*values: float) -> Tensor:
    return float64(values)[:, None]


def shuffled(points: Tensor, seed: int = 0) -> Tensor:
    return points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))]


def by_definition(real: Tensor, fake: Tensor, k: int, strict: bool) -> ManifoldScores:
    """All four as their papers write them, with plain differences of whole matrices."""

    def between(x: Tensor, y: Tensor) -> Tensor:
        return (x.double()[:, None] - y.double()).square().sum(dim=2)

    def inside(points: Tensor, centres: Tensor) -> Tensor:
        radii = between(centres, centres).sort(dim=1).values[:, k]
        distances = between(points, centres)
        return distances < radii if strict else distances <= radii

    in_real, in_fake = inside(fake, real).double(), inside(real, fake).double()
    return ManifoldScores(
        precision=float(in_real.amax(dim=1).mean()),
        recall=float(in_fake.amax(dim=1).mean()),
        density=float(in_real.sum()) / (k * len(fake)),
        coverage=float(in_real.amax(dim=0).mean()),
    )


REAL, SHIFTED = line(0, 1, 2, 3), line(4, 5, 6, 7)


@each_strictness
def test_one_fake_among_the_real_and_three_far_away(strict: bool) -> None:
    real, fake = line(0, 1, 2, 3), line(0.5, 10, 11, 12)
    scores = manifold_scores(real=real, fake=fake, neighbours=1, strict=strict)
    assert scores == ManifoldScores(precision=0.25, recall=1, density=0.5, coverage=0.5)


def test_on_the_surface_strictness_decides() -> None:
    inside = manifold_scores(real=REAL, fake=SHIFTED, neighbours=1, strict=False)
    assert inside == ManifoldScores(precision=0.25, recall=0.25, density=0.25, coverage=0.25)
    assert manifold_scores(real=REAL, fake=SHIFTED, neighbours=1, strict=True) == ManifoldScores(
        0, 0, 0, 0
    )


def test_where_all_points_are_one_balls_are_empty_without_their_surface() -> None:
    points = normal(1, 5).expand(6, 5)
    inside = manifold_scores(real=points, fake=points, neighbours=3, strict=False)
    assert inside == ManifoldScores(precision=1, recall=1, density=2, coverage=1)
    outside = manifold_scores(real=points, fake=points, neighbours=3, strict=True)
    assert outside == ManifoldScores(0, 0, 0, 0)


def test_both_kinds_of_balls_are_those_of_their_papers() -> None:
    real, fake = normal(60, 2), normal(50, 2, seed=1)
    theirs = Manifold.of(real, 5)
    ours = Manifold.of(fake, 5, theirs.centre)
    improved, naeem = scores_between(theirs, ours, [PRECISION_RECALL, DENSITY_COVERAGE])
    three = manifold_scores(real=real, fake=fake, neighbours=3, strict=False)
    five = manifold_scores(real=real, fake=fake, neighbours=5, strict=True)
    assert (improved, naeem) == (three, five)
    # With each other's convention all change: a figure needs its k and its strictness.
    assert improved.precision != naeem.precision
    assert improved.recall != naeem.recall
    assert improved.density != naeem.density
    assert improved.coverage != naeem.coverage


@pytest.mark.parametrize("offset", [0, 1e3])
@pytest.mark.parametrize("size", [1, 2, 10, 100])
@pytest.mark.parametrize("block", [16, 37, 512])
def test_copies_tie_with_what_they_are_copies_of(size: int, offset: float, block: int) -> None:
    # Each ball holds its centre and k - 1 neighbours, and the k-th is on its surface: counted in
    # a matrix product of another shape, its distance is another in the last digit.
    real = normal(200, size) + offset
    fake = shuffled(real)
    without = manifold_scores(real=real, fake=fake, neighbours=4, strict=True, block=block)
    assert without == ManifoldScores(precision=1, recall=1, density=1, coverage=1)
    with_surface = manifold_scores(real=real, fake=fake, neighbours=4, strict=False, block=block)
    assert with_surface == ManifoldScores(precision=1, recall=1, density=1.25, coverage=1)


def test_a_strict_ball_without_radius_holds_nothing() -> None:
    copies = float64([(0, 0)] * 3)
    scores = manifold_scores(real=copies, fake=copies, neighbours=1, strict=True)
    assert scores == ManifoldScores(precision=0, recall=0, density=0, coverage=0)


lattice = st.lists(st.tuples(*[st.integers(-3, 3)] * 2), min_size=3, max_size=12)


@given(
    real=lattice,
    fake=lattice,
    offset=st.integers(-(10**6), 10**6),
    k=st.integers(1, 2),
    strict=st.booleans(),
    block=st.integers(1, 15),
    order=st.integers(0, 100),
)
def test_ties_and_all_are_kept_under_translation_order_and_blocks(
    real: list[tuple[int, int]],
    fake: list[tuple[int, int]],
    offset: int,
    k: int,
    strict: bool,
    block: int,
    order: int,
) -> None:
    # On a lattice nearly every comparison is a tie, and plain differences of integers are exact.
    expected = by_definition(float64(real), float64(fake), k, strict)
    moved = [shuffled(float64(points) + offset, order) for points in (real, fake)]
    scores = manifold_scores(real=moved[0], fake=moved[1], neighbours=k, strict=strict, block=block)
    assert scores.__dict__ == pytest.approx(expected.__dict__, rel=1e-12)


@given(count=st.integers(6, 40), block=st.integers(1, 50), strict=st.booleans())
def test_random_sets_score_what_the_definitions_say(count: int, block: int, strict: bool) -> None:
    real, fake = normal(count, 3, seed=count), 0.8 * normal(25, 3, seed=1) + 0.3
    scores = manifold_scores(real=real, fake=fake, neighbours=5, strict=strict, block=block)
    assert scores.__dict__ == pytest.approx(by_definition(real, fake, 5, strict).__dict__)
    # Precision and recall are each other's with the roles exchanged.
    swapped = manifold_scores(real=fake, fake=real, neighbours=5, strict=strict, block=block)
    assert (swapped.precision, swapped.recall) == (scores.recall, scores.precision)


def test_a_distant_outlier_does_not_blur_the_other_balls() -> None:
    real, fake = normal(100, 8), normal(80, 8, seed=1)
    far = torch.full((1, 8), 1e7, dtype=torch.float64)
    expected = by_definition(torch.cat([real, far]), torch.cat([fake, -far]), 3, strict=True)
    scores = manifold_scores(
        real=torch.cat([real, far]), fake=torch.cat([fake, -far]), neighbours=3, strict=True
    )
    assert scores.__dict__ == pytest.approx(expected.__dict__)


def test_between_equal_laws_density_and_coverage_are_what_theory_says() -> None:
    m, n, k = 60, 40, 5
    found = [
        manifold_scores(
            real=normal(m, 4, seed=2 * i),
            fake=normal(n, 4, seed=2 * i + 1),
            neighbours=k,
            strict=True,
        )
        for i in range(400)
    ]
    scores = [(each.density, each.coverage) for each in found]
    density, coverage = np.mean(scores, axis=0)
    errors = np.std(scores, axis=0, ddof=1) / math.sqrt(len(scores))
    expected = 1 - math.prod((m - i) / (n + m - i) for i in range(1, k + 1))
    assert expected == pytest.approx(0.93, abs=1e-4)
    assert abs(density - 1) < 4 * errors[0] < 0.05
    assert abs(coverage - expected) < 4 * errors[1] < 0.02


@pytest.mark.parametrize(("m", "n", "size"), [(120, 90, 8), (60, 100, 64), (50, 50, 1)])
def test_they_equal_prdc(m: int, n: int, size: int) -> None:
    real, fake = normal(m, size), 0.9 * normal(n, size, seed=1) + 0.1
    theirs = import_prdc().compute_prdc(real.numpy(), fake.numpy(), nearest_k=5)
    ours = manifold_scores(real=real, fake=fake, neighbours=5, strict=True)
    assert ours.__dict__ == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize(("m", "n", "size"), [(120, 90, 8), (60, 100, 64), (50, 50, 1)])
def test_they_equal_torch_fidelity(m: int, n: int, size: int) -> None:
    real, fake = normal(m, size), 0.9 * normal(n, size, seed=1) + 0.1
    # Theirs takes the fakes first, and averages in float32.
    theirs = import_torch_fidelity().metric_prc.prc_features_to_metric(
        fake, real, prc_neighborhood=3, verbose=False
    )
    expected = (theirs["precision"], theirs["recall"])
    ours = manifold_scores(real=real, fake=fake, neighbours=3, strict=False)
    assert (ours.precision, ours.recall) == pytest.approx(expected, abs=1e-7)


def test_float32_features_far_from_the_origin_are_right_here_and_wrong_in_torch_fidelity() -> None:
    real, fake = ((30 + 0.02 * normal(200, 64, seed=seed)).float() for seed in (0, 1))
    expected = by_definition(real, fake, 3, strict=False)
    assert manifold_scores(real=real, fake=fake, neighbours=3, strict=False) == expected
    theirs = import_torch_fidelity().metric_prc.prc_features_to_metric(
        fake, real, prc_neighborhood=3, verbose=False
    )
    assert theirs["precision"] - expected.precision > 0.1
    assert theirs["recall"] - expected.recall > 0.1


def test_ties_survive_what_floats_cannot_hold_here_and_not_in_prdc() -> None:
    real = float64([[7 * i % 5, 3 * i % 7] for i in range(35)])
    fake = shuffled(real)[:20] + float64([1, 0])
    expected = by_definition(real, fake, 4, strict=True)
    # A third rounds differently for each number it is added to.
    real, fake = real + 1 / 3, fake + 1 / 3
    scores = manifold_scores(real=real, fake=fake, neighbours=4, strict=True)
    assert scores.__dict__ == pytest.approx(expected.__dict__)
    theirs = import_prdc().compute_prdc(real.numpy(), fake.numpy(), nearest_k=4)
    assert theirs["density"] - expected.density > 0.1


def test_one_point_more_than_neighbours_is_enough_here_and_too_few_for_prdc() -> None:
    real, fake = line(0, 1, 2, 3), line(0.5, 1.5, 2.5, 9)
    scores = manifold_scores(real=real, fake=fake, neighbours=3, strict=True)
    # Radii of the real points: 3, 2, 2, 3; of the fakes: 8.5, 7.5, 6.5, 8.5.
    assert scores == ManifoldScores(precision=0.75, recall=1, density=1, coverage=1)
    with pytest.raises(ValueError, match="out of bounds"):
        import_prdc().compute_prdc(real.numpy(), fake.numpy(), nearest_k=3)


def test_what_cannot_be_scored_is_refused() -> None:
    enough, few = normal(4, 2), normal(3, 2)
    for real, fake in ((enough, few), (few, enough)):
        with pytest.raises(ValueError, match="1 <= k < 3"):
            manifold_scores(real=real, fake=fake, neighbours=3, strict=False)
    with pytest.raises(ValueError, match="got 2 and 3"):
        manifold_scores(real=normal(9, 2), fake=normal(9, 3), neighbours=5, strict=True)
    with pytest.raises(ValueError, match="NaN"):
        manifold_scores(real=normal(9, 2), fake=normal(9, 2) / 0, neighbours=5, strict=True)
