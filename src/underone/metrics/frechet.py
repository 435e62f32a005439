"""The Frechet distance between Gaussians; FID where they are fitted to an extractor's features."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from warnings import warn

import torch
from torch import Tensor

from underone.metrics.moments import Moments

# Negative results up to this share of the traces are rounding; beyond it the moments are wrong.
_ROUNDING = 1e-10
# The fast method is used where its error is at most this share of the distance, by a bound for the
# worst case: errors are usually a thousand times smaller.
_ERROR_BOUND = 1e-7
# A Cholesky factor is used where every dimension keeps at least this share of its variance given
# the dimensions before it. Rank-deficient covariances keep about 1e-16, which is rounding.
_LEAST_PIVOT = 1e-10
# Matrices up to this size are multiplied directly: BLAS is less efficient on smaller ones.
_DIRECT_SIZE = 128


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A mean (D,) and covariance (D, D), float64, with the covariance's factor cached.

    `known_factor` (D, r), if given, is a factor that need not be computed from the covariance.
    """

    mean: Tensor
    covariance: Tensor
    known_factor: Tensor | None = field(default=None, repr=False)

    @classmethod
    def of(cls, moments: Moments) -> "Gaussian":
        """The Gaussian with these moments."""
        return cls(moments.mean, moments.covariance)

    @classmethod
    def of_features(cls, features: Tensor) -> "Gaussian":
        """The Gaussian with the moments of features (N, D), N >= 2.

        With no more features than dimensions, the centred features over sqrt(N - 1) are the factor:
        faster than one from the singular covariance, and more accurate.
        """
        moments = Moments.of(features)
        if not moments.rank_deficient:
            return cls.of(moments)
        centred = features.to(torch.float64) - moments.mean
        return cls(moments.mean, moments.covariance, centred.T / math.sqrt(moments.count - 1))

    @cached_property
    def cholesky(self) -> Tensor | None:
        """The lower triangular L (D, D) with L L^T = covariance; None where it is near singular.

        Backward stable wherever it exists (Higham 2002, theorem 10.3); the additional condition on
        the pivots tells truly small eigenvalues from zeros with rounding errors.
        """
        _check_symmetric(self.covariance)
        lower, failed = torch.linalg.cholesky_ex(self.covariance)
        pivots = lower.diagonal().square()
        if failed or not bool((pivots > _LEAST_PIVOT * self.covariance.diagonal()).all()):
            return None
        return lower

    @cached_property
    def factor(self) -> Tensor:
        """An A (D, r) with A A^T = covariance: the known one, the Cholesky factor, or from `eigh`.

        With `eigh`, r is the rank: eigenvalues that are 0 up to rounding are left out.
        """
        if self.known_factor is not None:
            return self.known_factor
        if self.cholesky is not None:
            return self.cholesky
        values, vectors = torch.linalg.eigh(self.covariance)
        largest = values[-1].clamp(min=0)
        kept = values > len(values) * torch.finfo(values.dtype).eps * largest
        return vectors[:, kept] * values[kept].sqrt()


def frechet_distance(x: Gaussian, y: Gaussian) -> float:
    """|mean_x - mean_y|^2 + tr S_x + tr S_y - 2 tr (S_x S_y)^(1/2) (Dowson and Landau 1982).

    Needs no matrix square root, is never complex, and is exact for singular covariances too. It is
    fastest where y is the Gaussian that many are compared with: y's factor is cached, x's often not
    needed.
    """
    traces = x.covariance.trace() + y.covariance.trace()
    apart = (x.mean - y.mean).square().sum() + traces
    cross, error = _cross_squared(x, y)
    if not 2 * error <= _ERROR_BOUND * (apart - 2 * cross):
        cross = _cross(x, y)
    distance = float(apart - 2 * cross)
    if distance >= 0:
        return distance
    if distance < -_ROUNDING * float(traces):
        warn(f"Frechet distance {distance:.3g} < 0: inconsistent moments", stacklevel=2)
        return distance
    return 0.0


def _cross(x: Gaussian, y: Gaussian) -> Tensor:
    """tr (S_x S_y)^(1/2): the singular values of A^T B, for S_x = A A^T and S_y = B B^T."""
    return torch.linalg.svdvals(x.factor.T @ y.factor).sum()


def _cross_squared(x: Gaussian, y: Gaussian) -> tuple[Tensor, float]:
    """tr (S_x S_y)^(1/2) and a bound on its error: roots of the eigenvalues of L^T S_x L.

    S_y = L L^T. This takes a third of the time of singular values, but the roots of the smallest
    eigenvalues lose digits; where a covariance is singular the bound is infinite.
    """
    if x.known_factor is not None or y.known_factor is not None or y.cholesky is None:
        return torch.zeros_like(x.covariance[0, 0]), math.inf
    _check_symmetric(x.covariance)
    values = torch.linalg.eigvalsh(_congruence(y.cholesky, x.covariance))
    return values.clamp(min=0).sqrt().sum(), root_error(values)


def root_error(values: Tensor) -> float:
    """A bound on the error of sum sqrt(values), for computed eigenvalues of a matrix G >= 0.

    They are exact for some G + E with |E|_F <= e = 2 sqrt(D) eps |G|_F: sqrt(D) is from rounding
    analysis (Higham and Mary 2019), and measured errors are 0.1 to 0.8 of it. The errors d_i of the
    values have sum d_i^2 <= e^2 (Hoffman and Wielandt 1953), that of a root is at most
    |d_i| / sqrt(value_i), so by Cauchy-Schwarz the sum of the roots is within
    e sqrt(sum 1 / value_i). Infinite where a value is not positive.
    """
    if not bool((values > 0).all()):
        return math.inf
    backward = 2 * math.sqrt(len(values)) * torch.finfo(values.dtype).eps * values.norm()
    return float(backward * values.reciprocal().sum().sqrt())


def _congruence(lower: Tensor, symmetric: Tensor) -> Tensor:
    """The lower triangle of L^T S L for a lower triangular L, in a third of the operations.

    By halves, L = [[A, 0], [C, B]] and S = [[S_1, .], [S_2, S_3]]: below the diagonal the product
    is B^T (S_2 A + S_3 C), on it B^T S_3 B and A^T S_1 A + X + X^T, X = C^T (S_2 A + S_3 C / 2).
    Entries above the diagonal are not those of the product.
    """
    if len(lower) <= _DIRECT_SIZE:
        return lower.T @ (symmetric @ lower)
    half = len(lower) // 2
    head, tail = slice(None, half), slice(half, None)
    a, b, c = lower[head, head], lower[tail, tail], lower[tail, head]
    outer = symmetric[tail, head] @ a
    inner = symmetric[tail, tail] @ c
    x = c.T @ (outer + inner / 2)
    product = torch.zeros_like(symmetric)
    product[head, head] = _congruence(a, symmetric[head, head]) + x + x.T
    product[tail, head] = b.T @ (outer + inner)
    product[tail, tail] = _congruence(b, symmetric[tail, tail])
    return product


def _check_symmetric(covariance: Tensor) -> None:
    """A `ValueError` unless it is finite and equals its transpose up to rounding.

    Both are applied to one fixed vector, which only a contrived asymmetry escapes; comparing with
    the whole transpose takes as long as the distance's other small steps together.
    """
    probe = torch.arange(1, len(covariance) + 1).to(covariance).sqrt()
    asymmetry = (covariance @ probe - covariance.T @ probe).abs().max()
    if not bool(asymmetry <= 1e-8 * covariance.diagonal().abs().max() + 1e-12):
        raise ValueError("a covariance must be finite and symmetric")
