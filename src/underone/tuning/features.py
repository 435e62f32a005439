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

# At little noise the network's features are of texture, at more of it of whole things.
FEATURE_TIMES = (0.01, 0.1, 0.2)
# How much more than a pooled feature the means of a class count, whose errors are far smaller.
_CLASS_WEIGHT = 5.0
# A variance within classes that is this part of the squares is rounding.
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

    `pooled`: features, each (N, D), averaged over pixels. `sums`: of each class the sum of whole
    feature maps, each (C, E), over as many images as `counts` (C,) says, and `squares`, each (C,),
    the sum of their squared norms.
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
    """What the network of `model` makes of images that are noised again.

    At each of `FEATURE_TIMES` the activations of its first level, of its last and of its middle,
    averaged over pixels; and of the latter two the whole maps, summed over each class.
    """

    model: DiffusionModel
    autocast: torch.dtype | None

    def __call__(
        self, x0: Tensor, labels: Tensor, network_labels: Tensor | None, noise: Callable[[], Tensor]
    ) -> FeatureStatistics:
        """Those of x0 (B, C, H, W) in [-1, 1], whose classes are `labels` (B,).

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
        # Whatever wraps it to make it faster, it is a U-Net.
        network = cast("HasFeatureMaps", self.model.network)
        x = noised(x0, node, noise)
        with mixed_precision(x.device, self.autocast):
            return call_network(
                network.feature_maps, self.model.config.prediction, x, node, network_labels
            )


@dataclass(frozen=True)
class FrechetDistance:
    """|m - mean|^2 + tr(S + covariance - 2 (covariance^1/2 S covariance^1/2)^1/2), S and m given.

    The squared Fréchet distance of Gaussians (Dowson and Landau 1982), as FID has it, but
    differentiable in the features it is given.
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
        # The root of a rounding error below 0 has no value, and that of 0 no gradient; the values
        # are squares of variances.
        cross = values.clamp(min=1e-12 * self.covariance.trace() ** 2).sqrt().sum()
        shift = (features.mean(0) - self.mean).square().sum()
        return shift + covariance.trace() + self.covariance.trace() - 2 * cross

    def share(self, features: Tensor) -> Tensor:
        """The distance of `features` in parts of the variance of those it is to."""
        return self(features) / self.covariance.trace()


def _covariance(features: Tensor) -> Tensor:
    """Of features (N, D): (D, D), also where D is 1."""
    return torch.cov(features.T).reshape(features.shape[1], features.shape[1])


@dataclass(frozen=True)
class ClassMeanDistance:
    """The mean over classes of (|m_c - mean_c|^2 - v_c / n_c) / v, of n_c images whose mean is m_c.

    v is the variance of an image of the data about its class's mean, and v_c the same of the images
    here, so that v_c / n_c is what chance alone makes of the first term; of a single image v has to
    do. Classes without an image, here or in the data, do not count: `known` (C,) says which are.
    """

    means: Tensor
    variance: Tensor
    known: Tensor

    def __call__(self, sums: Tensor, squares: Tensor, counts: Tensor) -> Tensor:
        """Of images with these class `sums` (C, E), `squares` and `counts` (C,): a scalar."""
        there = (counts > 0) & self.known
        count, means = counts[there], sums[there] / counts[there, None]
        about_mean = squares[there] - count * means.square().sum(1)
        own = torch.where(count > 1, about_mean / (count - 1).clamp(min=1), self.variance)
        gaps = (means - self.means[there]).square().sum(1) - own / count
        return gaps.mean() / self.variance


@dataclass(frozen=True)
class FeatureDistance:
    """The distance between two sets of images: about 0 where they are alike in distribution.

    The mean over all pooled features of their Fréchet distance over their variance in the data, so
    that no depth counts for more because its numbers are larger; plus 5 times the mean
    `ClassMeanDistance` over all maps: pooled features tell texture, and little of whether a coat
    looks like a coat.
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
        """Of images of these statistics: a scalar."""
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
