"""Mean and covariance of features, streamed in float64 and mergeable."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """The count, mean (D,) and scatter (D, D) = sum (x - mean)(x - mean)^T of features, float64.

    Merging is associative up to rounding, so batches, seed blocks and processes can be combined in
    any order.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """The moments of features (N, D), N >= 1; NaN or infinite features raise `ValueError`."""
        if features.ndim != 2 or len(features) < 1:
            raise ValueError(f"features must be (N, D) with N >= 1, got {tuple(features.shape)}")
        if not features.isfinite().all():
            raise ValueError("features hold NaN or infinite values")
        values = features.to(torch.float64)
        mean = values.mean(dim=0)
        centred = values - mean
        return cls(len(values), mean, centred.T @ centred)

    def merged(self, other: "Moments") -> "Moments":
        """The moments of both sets together (Chan, Golub and LeVeque 1979).

        Unlike sum x x^T - n mean mean^T, this does not cancel where the mean is large.
        """
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        between = torch.outer(delta, delta) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Tensor:
        """scatter / (N - 1), (D, D); needs N >= 2."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        return self.scatter / (self.count - 1)

    @property
    def rank_deficient(self) -> bool:
        """Whether there are too few samples for a covariance of full rank."""
        return self.count <= len(self.mean)
