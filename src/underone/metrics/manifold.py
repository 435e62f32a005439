"""Precision, recall, density and coverage: how far two sets of features cover each other.

Each set is represented by the union of balls around its points, each of which reaches to the k-th
neighbour in the set. None of the four has an ideal value: they depend on k, the sizes of both sets
and the dimension, so compare them only where these are equal, and with what real images score
against real ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from underone.metrics.distances import (
    BLOCK,
    comparable,
    rounding,
    squared_distances,
    squared_neighbour_distances,
)


@dataclass(frozen=True)
class ManifoldScores:
    """All four at one k and one strictness. Density may exceed 1, the others lie in [0, 1]."""

    precision: float
    recall: float
    density: float
    coverage: float


class Balls(NamedTuple):
    """Balls that reach to a point's k-th neighbour, k = `neighbours`; open ones if `strict`."""

    neighbours: int
    strict: bool


# As their authors define them (Kynkaanniemi et al. 2019; Naeem et al. 2020).
PRECISION_RECALL = Balls(3, strict=False)
DENSITY_COVERAGE = Balls(5, strict=True)


@dataclass(frozen=True, eq=False)
class Manifold:
    """A set's points (N, D), and the squared distances of each to its K nearest others, (N, K).

    Points are float64, relative to `centre` (D,). Making this is the most expensive part of the
    scores, and done once for all sets that this one is compared with.
    """

    points: Tensor
    centre: Tensor
    squared: Tensor

    @classmethod
    def of(
        cls, points: Tensor, neighbours: int, centre: Tensor | None = None, block: int = BLOCK
    ) -> "Manifold":
        """From more than `neighbours` points, relative to `centre` or by default their mean."""
        points, _ = comparable(points, points)
        centre = points.mean(dim=0) if centre is None else centre
        centred = points - centre
        return cls(centred, centre, squared_neighbour_distances(centred, neighbours, block))

    def reach(self, balls: Balls) -> Tensor:
        """The greatest squared distance from each point that is within its ball, (N,).

        Two matrix products may round the same distance differently, so that a point on a surface,
        like a copy of the neighbour that defines the radius, would be inside or outside by chance.
        Hence a margin, outwards or, if strict, inwards. A point x on the surface of the ball of
        radius r around y has |x|^2 <= 2 |y|^2 + 2 r^2, so the ball bounds the error of its
        distance; the radius has an error too, and was measured about the mean of its own set.
        """
        radii, points = self.squared[:, balls.neighbours - 1], self.points
        norms = torch.maximum(
            points.square().sum(dim=1), (points - points.mean(dim=0)).square().sum(dim=1)
        )
        margin = 2 * rounding(points.shape[1]) * (3 * norms + 2 * radii)
        if balls.strict:
            # Below the radius even where it and the margin are 0, as among copies.
            return torch.nextafter(radii - margin, torch.full_like(radii, -torch.inf))
        return radii + margin


def manifold_scores(
    *, real: Tensor, fake: Tensor, neighbours: int, strict: bool, block: int = BLOCK
) -> ManifoldScores:
    """All four of `fake` (N, D) against `real` (M, D), from one pass over their distances.

    With B(z) the ball around z that reaches to its k-th neighbour in its own set, k = `neighbours`:

        precision = share of fakes x in some B(y), y real
        recall    = share of real y in some B(x), x fake
        density   = sum over fakes x of #{real y: x in B(y)} / (k N)
        coverage  = share of real y with some fake in B(y)

    If `strict`, balls are without their surface. Both sets must have more than k points. At most
    `block` rows of distances are in memory, on which the result does not depend.

    For n fakes and m real points of the same distribution the expected density is 1, and the
    expected coverage of strict balls 1 - prod_{i=1..k} (m - i) / (n + m - i), which tends to
    1 - 2^-k for n = m.
    """
    real, fake = comparable(real, fake)
    theirs = Manifold.of(real, neighbours, block=block)
    ours = Manifold.of(fake, neighbours, theirs.centre, block)
    return scores_between(theirs, ours, [Balls(neighbours, strict)], block)[0]


def scores_between(
    real: Manifold, fake: Manifold, balls: Sequence[Balls], block: int = BLOCK
) -> list[ManifoldScores]:
    """`manifold_scores` for each of `balls`, of sets that share a centre."""
    tallies = [_Tally.between(real, fake, each) for each in balls]
    for start in range(0, len(fake.points), block):
        distances = squared_distances(fake.points[start : start + block], real.points)
        for tally in tallies:
            tally.add(distances, start)
    return [tally.scores() for tally in tallies]


@dataclass(eq=False)
class _Tally:
    """Running counts over blocks of fakes, for one kind of balls."""

    balls: Balls
    real_reach: Tensor
    fake_reach: Tensor
    reached: Tensor
    covered: Tensor
    in_some_real_ball: int = 0
    real_balls_entered: int = 0

    @classmethod
    def between(cls, real: Manifold, fake: Manifold, balls: Balls) -> "_Tally":
        """The counts before the first block."""
        none = torch.zeros(len(real.points), dtype=torch.bool, device=real.points.device)
        return cls(balls, real.reach(balls), fake.reach(balls), none, none)

    def add(self, distances: Tensor, start: int) -> None:
        """Count the distances (B, M) of the fakes from `start` on."""
        in_real_ball = distances <= self.real_reach
        self.in_some_real_ball += int(in_real_ball.any(dim=1).count_nonzero())
        self.real_balls_entered += int(in_real_ball.count_nonzero())
        self.covered = self.covered | in_real_ball.any(dim=0)
        reach = self.fake_reach[start : start + len(distances), None]
        self.reached = self.reached | (distances <= reach).any(dim=0)

    def scores(self) -> ManifoldScores:
        """The scores, once all blocks are added."""
        fakes, reals = len(self.fake_reach), len(self.real_reach)
        return ManifoldScores(
            precision=self.in_some_real_ball / fakes,
            recall=int(self.reached.count_nonzero()) / reals,
            density=self.real_balls_entered / (self.balls.neighbours * fakes),
            coverage=int(self.covered.count_nonzero()) / reals,
        )
