"""The features of images in a model's own network, and the distance to the data in them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional

from underone.checkpoint import DiffusionModel
from underone.diffusion import Node, node_at, noised
from underone.diffusion.network_call import call_network, mixed_precision
from underone.errors import UserError

# At low noise the network's features describe texture, at higher noise whole objects.
FEATURE_TIMES = (0.01, 0.1, 0.2)
# The weight of class means beside pooled features: their errors are far smaller.
_CLASS_WEIGHT = 5.0
# Below this share of the squares, a variance within classes is rounding.
_NOTHING = 1e-9


class HasFeatureMaps(Protocol):
    """A U-Net that returns its feature maps."""

    def feature_maps(
        self, x: Tensor, condition: Tensor | None, label: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The feature maps after the first level, after the last and after the middle."""
        ...


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Statistics of the features of a set of images, float64.

    `pooled`: features, each (N, D), averaged over pixels. `sums`: whole feature maps summed over
    the images of each class, each (C, E), and `squares`, each (C,), their squared norms summed
    alike. `counts` (C,): the images of each class.
    """

    pooled: tuple[Tensor, ...]
    sums: tuple[Tensor, ...]
    squares: tuple[Tensor, ...]
    counts: Tensor

    def detached(self) -> "FeatureStatistics":
        """The same without gradients."""
        pooled, sums, squares = (
            tuple(each.detach() for each in part) for part in (self.pooled, self.sums, self.squares)
        )
        return FeatureStatistics(pooled, sums, squares, self.counts)


def merged(parts: Iterable[FeatureStatistics]) -> FeatureStatistics:
    """The statistics of several sets as one."""
    every = list(parts)
    return FeatureStatistics(
        tuple(torch.cat(same) for same in zip(*(each.pooled for each in every), strict=True)),
        _added(each.sums for each in every),
        _added(each.squares for each in every),
        reduce(torch.add, (each.counts for each in every)),
    )


def _added(parts: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(reduce(torch.add, each) for each in zip(*parts, strict=True))


@dataclass(frozen=True)
class NetworkFeatures:
    """The features of images in the network of `model`, after noise is added to them.

    At each of `FEATURE_TIMES` the maps after its first level, its last and its middle, averaged
    over pixels; and the latter two whole, summed over each class.
    """

    model: DiffusionModel
    autocast: torch.dtype | None

    def __call__(
        self, x0: Tensor, labels: Tensor, network_labels: Tensor | None, noise: Callable[[], Tensor]
    ) -> FeatureStatistics:
        """The statistics of x0 (B, C, H, W) in [-1, 1], whose classes are `labels` (B,).

        `network_labels` (B,) are those that the network is given; None where it knows no classes.
        Differentiable in x0.
        """
        maps = self.maps(x0, network_labels, noise)
        classes = functional.one_hot(labels, self.model.num_classes or 1).double()
        whole = [each.flatten(1).double() for _, *deep in maps for each in deep]
        return FeatureStatistics(
            tuple(each.double().mean(dim=(2, 3)) for at_time in maps for each in at_time),
            tuple(classes.T @ each for each in whole),
            tuple(classes.T @ each.square().sum(1) for each in whole),
            classes.sum(0),
        )

    def maps(
        self, x0: Tensor, network_labels: Tensor | None, noise: Callable[[], Tensor]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The maps themselves, (B, ...), at each of `FEATURE_TIMES`. Differentiable in x0."""
        return [self._maps(x0, self._node(time), network_labels, noise()) for time in FEATURE_TIMES]

    def _node(self, time: float) -> Node:
        return node_at(self.model.config.schedule, torch.tensor(time, dtype=torch.float64))

    def _maps(
        self, x0: Tensor, node: Node, network_labels: Tensor | None, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        # A U-Net, or a wrapper that makes one faster.
        network = cast("HasFeatureMaps", self.model.network)
        x = noised(x0, node, noise)
        with mixed_precision(x.device, self.autocast):
            return call_network(
                network.feature_maps, self.model.config.prediction, x, node, network_labels
            )


@dataclass(frozen=True)
class FrechetDistance:
    """|m - mean|^2 + tr(S + covariance - 2 (covariance^1/2 S covariance^1/2)^1/2).

    The squared Fréchet distance of Gaussians (Dowson and Landau 1982), as in FID, but
    differentiable in the features, whose mean is m and covariance S.
    """

    mean: Tensor
    covariance: Tensor
    root: Tensor

    @classmethod
    def to(cls, features: Tensor) -> "FrechetDistance":
        """The distance to the distribution of `features` (N, D)."""
        covariance = _covariance(features)
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp(min=0).sqrt() @ vectors.T
        return cls(features.mean(0), covariance, root)

    def __call__(self, features: Tensor) -> Tensor:
        """The distance of `features` (M, D), a scalar. M should be well above D."""
        covariance = _covariance(features)
        values = torch.linalg.eigvalsh(self.root @ covariance @ self.root)
        # Rounding may put values below 0, where the root is NaN, and at 0 it has no gradient. They
        # are squares of variances, so they are compared with the trace squared.
        cross = values.clamp(min=1e-12 * self.covariance.trace() ** 2).sqrt().sum()
        shift = (features.mean(0) - self.mean).square().sum()
        return shift + covariance.trace() + self.covariance.trace() - 2 * cross

    def share(self, features: Tensor) -> Tensor:
        """The distance of `features` as a share of the variance of those it is measured to."""
        return self(features) / self.covariance.trace()


def _covariance(features: Tensor) -> Tensor:
    """Of features (N, D): (D, D), also where D is 1."""
    return torch.cov(features.T).reshape(features.shape[1], features.shape[1])


@dataclass(frozen=True)
class ClassMeanDistance:
    """The mean over classes of (|m_c - mean_c|^2 - v_c / n_c) / v, for n_c images of mean m_c.

    v is the variance of the data's images about the means of their classes, and v_c that of the n_c
    images about m_c, so that v_c / n_c is what chance alone adds to the first term; where n_c is 1,
    v stands in for v_c. Classes without an image are left out; `known` (C,): those with data.
    """

    means: Tensor
    variance: Tensor
    known: Tensor

    def __call__(self, sums: Tensor, squares: Tensor, counts: Tensor) -> Tensor:
        """The distance, a scalar, from class `sums` (C, E), `squares` and `counts` (C,)."""
        there = (counts > 0) & self.known
        count, means = counts[there], sums[there] / counts[there, None]
        about_mean = squares[there] - count * means.square().sum(1)
        own = torch.where(count > 1, about_mean / (count - 1).clamp(min=1), self.variance)
        gaps = (means - self.means[there]).square().sum(1) - own / count
        return gaps.mean() / self.variance


@dataclass(frozen=True)
class FeatureDistance:
    """The distance between two sets of images: about 0 where they are alike in distribution.

    The mean over all pooled features of their Fréchet distance, divided by their variance in the
    data, so that no depth counts for more because its numbers are larger; plus 5 times the mean
    `ClassMeanDistance` over all maps, because pooled features describe texture, and hardly whether
    a coat looks like a coat.
    """

    distances: tuple[FrechetDistance, ...]
    class_means: tuple[ClassMeanDistance, ...]

    @classmethod
    def to(cls, data: FeatureStatistics) -> "FeatureDistance":
        """The distance to data of these statistics."""
        gaps = []
        for sums, squares in zip(data.sums, data.squares, strict=True):
            means = sums / data.counts.clamp(min=1)[:, None]
            explained = (data.counts[:, None] * means.square()).sum()
            within = squares.sum() - explained
            if not within > _NOTHING * squares.sum():
                raise UserError(
                    "the images of a class are all alike, so that nothing can be told from how "
                    "they vary: this takes a data set with several different images a class"
                )
            gaps.append(ClassMeanDistance(means, within / data.counts.sum(), data.counts > 0))
        distances = tuple(FrechetDistance.to(each) for each in data.pooled)
        return cls(distances, tuple(gaps))

    def __call__(self, found: FeatureStatistics) -> Tensor:
        """The distance of images with these statistics, a scalar."""
        shares = [
            distance.share(each)
            for distance, each in zip(self.distances, found.pooled, strict=True)
        ]
        gaps = [
            distance(sums, squares, found.counts)
            for distance, sums, squares in zip(
                self.class_means, found.sums, found.squares, strict=True
            )
        ]
        return torch.stack(shares).mean() + _CLASS_WEIGHT * torch.stack(gaps).mean()
