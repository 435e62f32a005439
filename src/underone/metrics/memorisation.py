"""Measures of whether samples are copies of training images, each with its values on controls."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from underone.metrics.neighbours import nearest


@dataclass(frozen=True)
class Controlled:
    """A measure of generated samples, and of both controls; `count` samples each.

    `held_out`: of real images that were not trained on, as without any memorisation.
    `copies`: of training images themselves, as with nothing but memorisation.
    """

    generated: float
    held_out: float
    copies: float
    count: int


@dataclass(frozen=True)
class Memorisation:
    """Three measures, from the one that only plain copies change to the most sensitive one.

    `memorised_share` is in [0, 1] and rises with copying; `authentic_percent` in [0, 100] and
    `data_copying` (C_T, in standard deviations) fall with it.
    """

    memorised_share: Controlled
    authentic_percent: Controlled
    data_copying: Controlled


def memorisation(
    *,
    train: Tensor,
    test: Tensor,
    generated: Tensor,
    mirrored: Tensor | None = None,
    cells: int = 3,
    least: int = 20,
    seed: int = 0,
    block: int = 1000,
) -> Memorisation:
    """All measures of `generated` (G, D), with held-out images and exact copies as controls.

    The features of `train` (M, D), `test` (T, D) and `generated` must be from one extractor at one
    precision. Where training used flips, `mirrored` (M, D) are the features of the training images'
    mirror images, row by row: the distance to a training image is then that to the nearer of its
    two rows, and the second nearest must be another image, so that copies of nearly symmetric
    images are found too. Equal rows of `train` count once: otherwise a near copy of a duplicated
    image would have a second neighbour as near as the first, and look authentic.

    Generated samples and controls are equally many: min(G, T, M) for the two measures that compare
    them with the training set alone. C_T compares them with test images as well, and test images
    cannot be compared with themselves. So `test` is split at random: one half is the held-out
    control, and the rest is what generated samples and controls, min(G, T // 2, M) of each, are
    compared with. The held-out C_T is then that of independent images, about standard normal where
    one cell prevails and narrower over several, and all three have equal power. `seed` decides the
    split, which samples are used where there are more than needed, which training images are the
    copies, and the cells.

    Too few samples for any cell, or fewer than `cells` distinct training images, raise
    `ValueError`.
    """
    views = _Views.of(train, mirrored)
    train = views.images
    count = min(len(generated), len(test), len(train))
    half = min(len(generated), len(test) // 2, len(train))
    generator = torch.Generator().manual_seed(seed)
    columns = (
        _shuffled(generated, generator)[:count],
        _shuffled(test, generator),
        _shuffled(train, generator)[:count],
    )
    centres = k_means(train, cells, seed, block=block)
    located = [_locate(features, views, centres, block) for features in columns]
    reference = located[1].part(half, None)

    def copying(samples: _Located) -> float:
        return data_copying(
            samples.to_train, reference.to_train, samples.cells, reference.cells, least
        )

    return Memorisation(
        _controlled(lambda samples: memorised_share(samples.distances), located, count),
        _controlled(
            lambda samples: authentic_percent(samples.to_train, samples.spacing), located, count
        ),
        _controlled(copying, located, half),
    )


def memorised_share(distances: Tensor, ratio: float = 1 / 3) -> float:
    """share of d_1 < ratio d_2, from the distances (N, 2) to the two nearest training images.

    A third is the threshold of Yoon et al. (2023), for distinct training images. Where d_2 = 0
    the sample equals two of them, and counts as memorised.
    """
    first, second = distances[:, 0], distances[:, 1]
    memorised = (first < ratio * second) | (second == 0)
    return int(memorised.sum()) / len(distances)


def authentic_percent(to_train: Tensor, spacing: Tensor) -> float:
    """AuthPct = 100 mean(d(t*, train without t*) < d(x, t*)) (Alaa et al. 2022), in [0, 100].

    t* is the training image nearest to x; `to_train` (N,) holds d(x, t*) and `spacing` (N,) the
    distance from t* to the nearest other. Where they are equal x is not authentic.
    """
    return 100 * int((spacing < to_train).sum()) / len(to_train)


def mann_whitney_u(x: Tensor, y: Tensor) -> float:
    """U = #(x > y) + 1/2 #(x = y) over all pairs of x (n,) and y (m,), from average ranks."""
    _, inverse, counts = torch.cat([x, y]).unique(return_inverse=True, return_counts=True)
    # Ties share the mean of their ranks, the last of which is the cumulative count.
    ranks = counts.cumsum(0) - (counts - 1) / 2
    rank_sum = float(ranks.to(torch.float64)[inverse[: len(x)]].sum())
    return rank_sum - len(x) * (len(x) + 1) / 2


def mann_whitney_z(x: Tensor, y: Tensor) -> float:
    """Z = (U - (n m / 2 - 1/2)) / sqrt(n m (n + m + 1) / 12): below 0 where x tends to be lower.

    As in Meehan et al. (2020): with a continuity correction but none for ties, which makes it a
    little smaller where there are many.
    """
    n, m = len(x), len(y)
    return (mann_whitney_u(x, y) - (n * m / 2 - 0.5)) / math.sqrt(n * m * (n + m + 1) / 12)


def data_copying(
    generated: Tensor,
    test: Tensor,
    generated_cells: Tensor,
    test_cells: Tensor,
    least: int = 20,
) -> float:
    """C_T = sum_c P(c) Z_c / sum_c P(c): far below 0 for copies, above for samples further off.

    From Meehan, Chaudhuri and Dasgupta (2020). `generated` (n,) and `test` (m,) are distances to
    the nearest training image, in any cell; `generated_cells` and `test_cells` say in
    which cell of feature space each sample lies. Z_c compares the distances within cell c, and
    P(c) is the share of test samples in it. Cells without test samples, or with no more than
    `least` generated ones (the paper's tau = least / n), are left out, so that what a model never
    generates does not count as not copied; if none is left, that is a `ValueError`.
    """
    weighted, weights = 0.0, 0
    for cell in test_cells.unique():
        of_generated, of_test = generated[generated_cells == cell], test[test_cells == cell]
        if len(of_generated) > least:
            weighted += len(of_test) * mann_whitney_z(of_generated, of_test)
            weights += len(of_test)
    if not weights:
        raise ValueError(f"no cell has test samples and more than {least} generated ones")
    return weighted / weights


def k_means(
    points: Tensor, count: int, seed: int, iterations: int = 100, block: int = 1000
) -> Tensor:
    """Cells of feature space: `count` centres (count, D), float64, from `points` (N, D).

    Started from distinct points drawn with probability proportional to the squared distance to
    those drawn before (k-means++, Arthur and Vassilvitskii 2007), then improved by `lloyd`. Fewer
    distinct points than `count` raise `ValueError`.
    """
    generator = torch.Generator().manual_seed(seed)
    points = points.to(torch.float64)
    chances = points.new_ones(len(points))
    centres = points[:0]
    while len(centres) < count:
        if not chances.any():
            raise ValueError(f"{count} cells need at least as many distinct points")
        centres = torch.cat([centres, points[chances.multinomial(1, generator=generator)]])
        chances = nearest(points, centres, block=block).distances[:, 0].square()
    return lloyd(points, centres, iterations, block)


def lloyd(points: Tensor, centres: Tensor, iterations: int = 100, block: int = 1000) -> Tensor:
    """Move each centre to the mean of the points nearest to it, until none moves (Lloyd 1982).

    A centre that has lost all its points stays where it is.
    """
    for _ in range(iterations):
        cells = nearest(points, centres, block=block).indices[:, 0]
        sizes = cells.bincount(minlength=len(centres))[:, None]
        sums = torch.zeros_like(centres).index_add(0, cells, points)
        moved = torch.where(sizes > 0, sums / sizes, centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


@dataclass(frozen=True, eq=False)
class _Located:
    """What the three measures are computed from, for N samples.

    `distances` (N, 2) to the two nearest training images, `spacing` (N,) from the nearest of them
    to its nearest other, and the `cells` (N,) that the samples lie in.
    """

    distances: Tensor
    spacing: Tensor
    cells: Tensor

    @property
    def to_train(self) -> Tensor:
        """The distances (N,) to the nearest training image."""
        return self.distances[:, 0]

    def part(self, start: int, stop: int | None) -> "_Located":
        """The samples from `start` up to `stop`."""
        chosen = slice(start, stop)
        return _Located(self.distances[chosen], self.spacing[chosen], self.cells[chosen])


def _controlled(
    measure: Callable[[_Located], float], columns: list[_Located], count: int
) -> Controlled:
    """`measure` of the first `count` samples of each column."""
    generated, held_out, copies = (measure(samples.part(0, count)) for samples in columns)
    return Controlled(generated, held_out, copies, count)


@dataclass(frozen=True, eq=False)
class _Views:
    """Training images, with their mirror images if given: `rows` (V M, D), view after view.

    All V views have the images in the same order, so that row r is of image r mod M.
    """

    rows: Tensor
    views: int

    @classmethod
    def of(cls, train: Tensor, mirrored: Tensor | None) -> "_Views":
        every = [train] if mirrored is None else [train, mirrored]
        distinct = torch.cat(every, dim=1).to(torch.float64).unique(dim=0)
        return cls(torch.cat(distinct.split(train.shape[1], dim=1)), len(every))

    @property
    def images(self) -> Tensor:
        """The images (M, D), not mirrored."""
        return self.rows[: len(self.rows) // self.views]

    def two_nearest(self, features: Tensor, block: int) -> tuple[Tensor, Tensor]:
        """The distances (N, 2) to the two nearest images, and the row (N,) of the nearest."""
        found = nearest(features, self.rows, count=self.views + 1, block=block)
        images = found.indices % len(self.images)
        # An image has one row per view, so one of these rows is of another image than the first.
        second = 1 + (images[:, 1:] != images[:, :1]).int().argmax(dim=1, keepdim=True)
        distances = torch.cat([found.distances[:, :1], found.distances.gather(1, second)], dim=1)
        return distances, found.indices[:, 0]


def _locate(features: Tensor, train: _Views, centres: Tensor, block: int) -> _Located:
    distances, rows = train.two_nearest(features, block)
    met, which = rows.unique(return_inverse=True)
    # A training image is nearest to itself, so the second is its nearest other.
    spacing = train.two_nearest(train.rows[met], block)[0][which, 1]
    cells = nearest(features, centres, block=block).indices[:, 0]
    return _Located(distances, spacing, cells)


def _shuffled(features: Tensor, generator: torch.Generator) -> Tensor:
    return features[torch.randperm(len(features), generator=generator)]
