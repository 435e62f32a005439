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


def within_classes(influences: Tensor, labels: Tensor | None) -> Tensor:
    """The influences (N,) without their mean, or without that of each class where labels are fixed.

    What a class adds is the same in every draw that has as many of it.
    """
    if labels is None:
        return influences - influences.mean()
    counts = labels.bincount().clamp(min=1)
    sums = torch.zeros(len(counts), dtype=influences.dtype).index_add_(0, labels, influences)
    return influences - (sums / counts)[labels]


def frechet_standard_error(influences: Tensor) -> float:
    """std(psi) / sqrt(N): the standard error of an FID by `influence` (N,), by the delta method.

    It is about the N features only: not about the reference, nor about training another generator.
    It takes the features for drawn independently. Samples with fixed numbers of each class do not
    vary between classes, which it counts all the same: for them it is too large. A bootstrap is no
    substitute: resampling adds the bias of FID at N a second time.
    """
    return float(influences.std() / math.sqrt(len(influences)))


def paired_standard_error(a: Tensor, b: Tensor) -> float:
    """sqrt(sum (psi_a - psi_b)^2 / (N (N - 1))): that of the difference of two FIDs.

    Of influences (N,) `within_classes`, sample by sample of the same seed and label: what common
    noise does to both alike cancels, which errors that take the two for independent count.
    """
    return float((a - b).square().sum().sqrt() / math.sqrt(len(a) * (len(a) - 1)))
