"""How far an FID would move with other samples of the same generator: its standard error."""

import math

import torch
from torch import Tensor

from underone.metrics.frechet import Gaussian
from underone.metrics.moments import Moments


def influence(features: Tensor, reference: Gaussian) -> Tensor:
    """What each of the features (N, D) adds to N times the FID against a fixed reference, (N,).

        psi(x) = 2 (x - m_x)^T (m_x - m_y) + (x - m_x)^T (I - T) (x - m_x)
        T      = S_y^(1/2) (S_y^(1/2) S_x S_y^(1/2))^(-1/2) S_y^(1/2)

    up to a constant: the derivative of the distance along the mean and the covariance of x, where
    T is the optimal transport map from x to y (Gelbrich 1990). With any factor S_y = L L^T,
    T = L (L^T S_x L)^(-1/2) L^T. Both covariances must be of full rank, else `ValueError`.
    """
    moments = Moments.of(features)
    lower = reference.cholesky
    if moments.rank_deficient or lower is None:
        raise ValueError(
            "the influence on FID needs covariances of full rank: N > D, none singular"
        )
    values, vectors = torch.linalg.eigh(lower.T @ moments.covariance @ lower)
    if values[0] <= len(values) * torch.finfo(values.dtype).eps * values[-1]:
        raise ValueError("the influence on FID needs a covariance of full rank for the features")
    root_of_map = (lower @ vectors) * values.pow(-0.25)
    centred = features.to(torch.float64) - moments.mean
    # Multiplied from the left, the map is applied to all features without forming it.
    curved = centred.square().sum(1) - (centred @ root_of_map).square().sum(1)
    return 2 * centred @ (moments.mean - reference.mean) + curved


def frechet_standard_error(features: Tensor, reference: Gaussian) -> float:
    """std(psi) / sqrt(N): the standard error of the FID of features (N, D), by the delta method.

    It is about the N features only: not about the reference, nor about training another generator.
    It takes the features for drawn independently. Samples with fixed numbers of each class do not
    vary between classes, which it counts all the same: for them it is too large, by a half at 1,000
    samples of FashionMNIST near an FID of 0.4, and more near 0. A bootstrap is no substitute:
    resampling adds the bias of FID at N a second time.
    """
    return float(influence(features, reference).std() / math.sqrt(len(features)))
