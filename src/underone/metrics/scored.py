"""The images that a metric scores."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from underone.metrics.extractor import Features
from underone.metrics.frechet import Gaussian
from underone.metrics.moments import Moments


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """A set of images as metrics see it: its moments, and its features where they were kept.

    `labels` (N,) int64 are the classes asked for, where known; the labels in `features` are not
    read. `judged` (N, C) are the logits of the judge, if there is one. `errors`: whether standard
    errors are wanted, which may cost more than the figures.
    """

    moments: Moments
    features: Features | None = None
    labels: Tensor | None = None
    judged: Tensor | None = None
    errors: bool = True

    @classmethod
    def of(cls, features: Features, errors: bool = True) -> "ScoredImages":
        """From features in memory and their labels."""
        return cls(Moments.of(features.values), features, features.labels, errors=errors)

    @cached_property
    def gaussian(self) -> Gaussian:
        """The Gaussian with these moments."""
        return Gaussian.of(self.moments)
