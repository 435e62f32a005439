"""The Frechet distance between Gaussians: FID where the moments are of an extractor's features."""

from dataclasses import dataclass
from functools import cached_property
from warnings import warn

import torch
from torch import Tensor

from underone.metrics.moments import Moments

# Negative results up to this share of the traces are rounding; beyond it the moments are wrong.
_ROUNDING = 1e-10


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A mean (D,) and covariance (D, D), float64, with the covariance's factor cached."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, moments: Moments) -> "Gaussian":
        """The Gaussian with these moments."""
        return cls(moments.mean, moments.covariance)

    @cached_property
    def factor(self) -> Tensor:
        """A (D, r) with A A^T = covariance, from its symmetric eigenvalues; r is its rank."""
        if not torch.allclose(self.covariance, self.covariance.T, rtol=1e-8, atol=1e-12):
            raise ValueError("a covariance must be symmetric")
        values, vectors = torch.linalg.eigh(self.covariance)
        largest = values[-1].clamp(min=0)
        kept = values > len(values) * torch.finfo(values.dtype).eps * largest
        return vectors[:, kept] * values[kept].sqrt()


def frechet_distance(x: Gaussian, y: Gaussian) -> float:
    """|mean_x - mean_y|^2 + tr S_x + tr S_y - 2 tr (S_x S_y)^(1/2) (Dowson and Landau 1982).

    With S_x = A A^T and S_y = B B^T the last trace is the sum of the singular values of A^T B:
    no matrix square root, never complex, exact also where a covariance is singular.
    """
    cross = torch.linalg.svdvals(x.factor.T @ y.factor).sum()
    traces = x.covariance.trace() + y.covariance.trace()
    distance = float((x.mean - y.mean).square().sum() + traces - 2 * cross)
    if distance >= 0:
        return distance
    if distance < -_ROUNDING * float(traces):
        warn(f"Frechet distance {distance:.3g} < 0: inconsistent moments", stacklevel=2)
        return distance
    return 0.0
