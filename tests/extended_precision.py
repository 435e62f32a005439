"""FID in extended precision: the truth that double precision is measured against."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def moments(features: Array) -> tuple[Array, Array]:
    """Mean and covariance over N - 1 of features (N, D), in long double."""
    values = features.astype(np.longdouble)
    mean = values.mean(0)
    centred = values - mean
    return mean, centred.T @ centred / (len(values) - 1)


def frechet_distance(mean_x: Array, cov_x: Array, mean_y: Array, cov_y: Array) -> float:
    """The Frechet distance of positive definite covariances, worked out in long double.

    The trace of (S_x S_y)^(1/2) is the largest tr Q^T M over orthogonal Q, where M = L_x^T L_y and
    S = L L^T. At a maximum an error of Q counts squared only, so a Q in double precision, made
    orthogonal in long double, gives all digits: 18 where long double has 64 bits, as on x86.
    """
    m = cholesky(cov_x).T @ cholesky(cov_y)
    left, _, right = np.linalg.svd(m.astype(np.float64))
    q = (left @ right).astype(np.longdouble)
    q = (3 * q - q @ (q.T @ q)) / 2
    apart = np.square(mean_x.astype(np.longdouble) - mean_y).sum()
    traces = np.trace(cov_x.astype(np.longdouble)) + np.trace(cov_y.astype(np.longdouble))
    return float(apart + traces - 2 * (q * m).sum())


def cholesky(covariance: Array) -> Array:
    """Lower triangular L with L L^T = covariance, in long double."""
    rest = covariance.astype(np.longdouble)
    for k in range(len(rest)):
        rest[k:, k] /= np.sqrt(rest[k, k])
        rest[k + 1 :, k + 1 :] -= np.outer(rest[k + 1 :, k], rest[k + 1 :, k])
    return np.tril(rest)
