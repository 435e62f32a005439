"""The standard error of FID, over repeated samples of the same generator."""

import math

import torch
from torch import Tensor

from underone.metrics.frechet import Gaussian
from underone.metrics.moments import Moments


def influence(features: Tensor, reference: Gaussian) -> Tensor:
    """The influence of each of the features (N, D) on N times the FID to a fixed reference, (N,).

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
    # In this order of products the map is applied to all features without being formed.
    curved = centred.square().sum(1) - (centred @ root_of_map).square().sum(1)
    return 2 * centred @ (moments.mean - reference.mean) + curved


def within_classes(influences: Tensor, labels: Tensor | None) -> Tensor:
    """The influences (N,) less their mean, or less that of each class where labels are fixed.

    The contribution of a class mean is the same in every draw with as many images of the class.
    """
    if labels is None:
        return influences - influences.mean()
    counts = labels.bincount().clamp(min=1)
    sums = torch.zeros(len(counts), dtype=influences.dtype).index_add_(0, labels, influences)
    return influences - (sums / counts)[labels]


def frechet_standard_error(influences: Tensor) -> float:
    """std(psi) / sqrt(N): the standard error of an FID from `influence` (N,), by the delta method.

    It covers the sampling of the N features only, not the reference nor another training run. It
    assumes independent samples: where the number of each class is fixed, it includes a variation
    between classes that is not there, and is too large. A bootstrap is no substitute: resampling
    adds the bias of FID at N a second time.
    """
    return float(influences.std() / math.sqrt(len(influences)))


def paired_standard_error(a: Tensor, b: Tensor) -> float:
    """sqrt(sum (psi_a - psi_b)^2 / (N (N - 1))): the standard error of a difference of two FIDs.

    From influences (N,) `within_classes`, sample by sample of the same seed and label: the effect
    of shared noise cancels, which errors for independent samples would include.
    """
    return float((a - b).square().sum().sqrt() / math.sqrt(len(a) * (len(a) - 1)))
