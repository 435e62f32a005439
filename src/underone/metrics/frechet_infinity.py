"""FID at infinitely many samples, extrapolated from subsets: free of most of FID's bias in N."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from underone.metrics.frechet import Gaussian, frechet_distance
from underone.metrics.moments import Moments

POINTS = 15
FEWEST_REPLICATES = 5


@dataclass(frozen=True, eq=False)
class FrechetInfinity:
    """The FIDs `scores` (R, P) of subsets of `sizes` (P,), and each replicate's `intercepts` (R,).

    The value may be negative: it is an extrapolation to a number that may be 0, not a distance.
    """

    sizes: Tensor
    scores: Tensor
    intercepts: Tensor

    @property
    def value(self) -> float:
        """FID at infinite N: the mean of the replicates' intercepts."""
        return float(self.intercepts.mean())

    @property
    def subset_error(self) -> float:
        """The error of `value` from the choice of subsets: the intercepts' deviation / sqrt(R).

        All replicates share the same samples, whose sampling error it does not include.
        """
        return float(self.intercepts.std()) / len(self.intercepts) ** 0.5


def frechet_infinity(
    features: Tensor,
    reference: Gaussian,
    *,
    replicates: int = FEWEST_REPLICATES,
    smallest: int | None = None,
    classes: Tensor | None = None,
    seed: int = 0,
) -> FrechetInfinity:
    """FID-infinity of features (N, D): FID_N = a + b / N fitted, a returned (Chong, Forsyth 2020).

    15 sizes, evenly spaced from `smallest` (by default a tenth of N) to N, are each scored on
    `replicates` random subsets. The bias is linear in 1 / N only well above D samples, where
    `smallest` should be. The reference's own bias remains. Subsets of one replicate are nested, so
    that moments accumulate from one to the next; replicates are independent shuffles.

    Give `classes` (N,) where the number of each is fixed: every subset then has the same shares of
    them. Subsets of random classes would score higher by about c / n - c / N, with c the cost of
    random labels, and the value would be too low by c / N.
    """
    if replicates < FEWEST_REPLICATES:
        raise ValueError(f"at least {FEWEST_REPLICATES} replicates are needed, got {replicates}")
    sizes = subset_sizes(len(features), smallest)
    generator = torch.Generator().manual_seed(seed)
    scores = torch.tensor(
        [
            [
                frechet_distance(Gaussian.of(moments), reference)
                for moments in _nested_moments(features[order], sizes)
            ]
            for order in (_shuffled(len(features), classes, generator) for _ in range(replicates))
        ],
        dtype=torch.float64,
    )
    return FrechetInfinity(torch.tensor(sizes), scores, intercepts(torch.tensor(sizes), scores))


def _shuffled(count: int, classes: Tensor | None, generator: torch.Generator) -> Tensor:
    """A random order whose every prefix has the shares of the `classes`, if these are given."""
    order = torch.randperm(count, generator=generator)
    if classes is None:
        return order
    shuffled = classes[order]
    counts = shuffled.bincount()
    grouped = shuffled.argsort(stable=True)
    first = counts.cumsum(0) - counts
    rank = torch.empty_like(grouped)
    rank[grouped] = torch.arange(count) - first[shuffled[grouped]]
    return order[((rank + 0.5) / counts[shuffled]).argsort(stable=True)]


def subset_sizes(count: int, smallest: int | None = None) -> list[int]:
    """15 sizes evenly spaced from `smallest` to `count`, rounded down, all different."""
    first = max(count // 10, 2) if smallest is None else smallest
    if first < 2 or count - first < POINTS - 1:
        raise ValueError(
            f"{POINTS} different sizes need 2 <= smallest <= N - {POINTS - 1}, "
            f"got smallest {first} and N {count}"
        )
    return [first + (count - first) * point // (POINTS - 1) for point in range(POINTS)]


def intercepts(sizes: Tensor, scores: Tensor) -> Tensor:
    """The a of each row of scores (R, P) = a + b / sizes (P,), by ordinary least squares, (R,)."""
    inverse = sizes.to(torch.float64).reciprocal()
    centred = inverse - inverse.mean()
    slopes = scores @ centred / centred.square().sum()
    return scores.mean(1) - slopes * inverse.mean()


def _nested_moments(features: Tensor, sizes: Sequence[int]) -> Iterator[Moments]:
    """The moments of the first `size` features, for each of the increasing sizes."""
    moments = Moments.of(features[: sizes[0]])
    yield moments
    for before, size in pairwise(sizes):
        moments = moments.merged(Moments.of(features[before:size]))
        yield moments
