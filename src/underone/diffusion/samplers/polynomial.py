"""Integrals of Lagrange's polynomials: the weights of multistep methods on unequal steps."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_QUADRATURE_POINTS = 24


@lru_cache(maxsize=1)
def gauss_legendre() -> tuple[Tensor, Tensor]:
    """24 points in (0, 1) and their weights, which sum to 1, float64."""
    points, weights = np.polynomial.legendre.leggauss(_QUADRATURE_POINTS)
    return torch.from_numpy((points + 1) / 2), torch.from_numpy(weights / 2)


def lagrange(nodes: Tensor, j: int, points: Tensor) -> Tensor:
    """At `points` (P,), the polynomial that is 1 at node j and 0 at the others of `nodes` (N,)."""
    others = torch.cat([nodes[:j], nodes[j + 1 :]])
    return ((points[:, None] - others) / (nodes[j] - others)).prod(1)
