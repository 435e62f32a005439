"""Precision, recall, density and coverage: how far two sets of features cover each other.

Each set stands for the union of the balls around its points that reach to the k-th neighbour within
the set. None of the four has an ideal value: they depend on k, on the sizes of both sets and on the
dimension, so compare them only at equal ones, and with what real images score against real ones.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from underone.metrics.distances import (
    BLOCK,
    comparable,
    neighbour_radii,
    rounding,
    squared_distances,
)


@dataclass(frozen=True)
class ManifoldScores:
    """All four at one k and one strictness. Density may exceed 1, the others lie in [0, 1]."""

    precision: float
    recall: float
    density: float
    coverage: float


class PrecisionRecall(NamedTuple):
    """Shares of fakes that look real, and of real points that fakes reach."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Real balls that a fake lies in, as a share of k, and the share of them that hold a fake."""

    density: float
    coverage: float


def precision_recall(
    *, real: Tensor, fake: Tensor, neighbours: int = 3, strict: bool = False
) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al. 2019): k = 3, a ball holds its surface."""
    scores = manifold_scores(real=real, fake=fake, neighbours=neighbours, strict=strict)
    return PrecisionRecall(scores.precision, scores.recall)


def density_coverage(
    *, real: Tensor, fake: Tensor, neighbours: int = 5, strict: bool = True
) -> DensityCoverage:
    """Density and coverage (Naeem et al. 2020): k = 5, a ball's surface is outside.

    For sets of n fakes and m real points of the same law the expected density is 1, and the
    expected coverage 1 - prod_{i=1..k} (m - i) / (n + m - i), which tends to 1 - 2^-k for n = m.
    """
    scores = manifold_scores(real=real, fake=fake, neighbours=neighbours, strict=strict)
    return DensityCoverage(scores.density, scores.coverage)


def manifold_scores(
    *, real: Tensor, fake: Tensor, neighbours: int, strict: bool, block: int = BLOCK
) -> ManifoldScores:
    """All four of `fake` (N, D) against `real` (M, D), from one pass over their distances.

    With B(z) the ball around z up to the k-th of its `neighbours` in its own set:

        precision = share of fakes x in some B(y), y real
        recall    = share of real y in some B(x), x fake
        density   = sum over fakes x of #{real y: x in B(y)} / (k N)
        coverage  = share of real y with some fake in B(y)

    `strict` says whether a ball is without its surface. Both sets must have more than k points. At
    most `block` rows of distances are in memory; the result does not depend on how many.
    """
    real, fake = comparable(real, fake)
    centre = real.mean(dim=0)
    real, fake = real - centre, fake - centre
    real_reach = _reach(real, neighbours, strict, block)
    fake_reach = _reach(fake, neighbours, strict, block)

    in_some_real_ball, real_balls_entered = 0, 0
    reached, covered = torch.zeros(2, len(real), dtype=torch.bool, device=real.device)
    for fakes, reach in zip(fake.split(block), fake_reach.split(block), strict=True):
        distances = squared_distances(fakes, real)
        in_real_ball = distances <= real_reach
        in_some_real_ball += int(in_real_ball.any(dim=1).count_nonzero())
        real_balls_entered += int(in_real_ball.count_nonzero())
        covered |= in_real_ball.any(dim=0)
        reached |= (distances <= reach[:, None]).any(dim=0)
    return ManifoldScores(
        precision=in_some_real_ball / len(fake),
        recall=int(reached.count_nonzero()) / len(real),
        density=real_balls_entered / (neighbours * len(fake)),
        coverage=int(covered.count_nonzero()) / len(real),
    )


def _reach(points: Tensor, neighbours: int, strict: bool, block: int) -> Tensor:
    """The greatest squared distance from each of `points` that is within its ball, (N,).

    The same distance comes out differently in two matrix products, so that a point on a surface
    would be inside or outside by chance: a copy of the neighbour that the radius was taken from is
    such a point. Hence a margin either way. A point x on the surface of a ball of radius r has
    |x|^2 <= 2 |y|^2 + 2 r^2, so the error of its distance is bounded by what is known of the ball;
    the radius is uncertain as well, and was measured from the mean of its own set.
    """
    radii = neighbour_radii(points, neighbours, block)
    norms = torch.maximum(
        points.square().sum(dim=1), (points - points.mean(dim=0)).square().sum(dim=1)
    )
    margin = 2 * rounding(points.shape[1]) * (3 * norms + 2 * radii)
    return radii - margin if strict else radii + margin
