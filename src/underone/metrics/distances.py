"""Distances between feature vectors: exact zeros for copies, in memory for a block of rows."""

import torch
from torch import Tensor

# Rows of a distance matrix held at a time: 40 MB each 10,000 columns.
BLOCK = 512


def comparable(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two sets of features (N, D) and (M, D) in float64; `ValueError` if they cannot be compared.

    Both must be matrices of one width with at least one row each, and without NaN or infinities.
    """
    for features in (x, y):
        if features.ndim != 2 or features.numel() == 0:
            raise ValueError(
                f"features must be (N, D), none of them 0, got {tuple(features.shape)}"
            )
        if not features.isfinite().all():
            raise ValueError("features hold NaN or infinite values")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features of {x.shape[1]} and of {y.shape[1]} dimensions do not compare")
    return x.to(torch.float64), y.to(torch.float64)


def rounding(size: int) -> float:
    """How far rounding takes a squared distance, as a share of |x|^2 + |y|^2, in `size` dimensions.

    Each of the three sums |x|^2, |y|^2 and x.y of `size` products is off by at most `size` halves
    of a unit in the last place, in whatever order it is summed; 8 more cover centring the points
    and adding the three up.
    """
    return (size + 8) * torch.finfo(torch.float64).eps


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2 of all pairs, (N, D) and (M, D) -> (N, M), float64, never negative.

    |x|^2 + |y|^2 - 2 x.y costs one matrix product, but cancels where points are much nearer to each
    other than to the origin, so y's mean is taken off both first. What rounding alone may have left
    is 0: copies are at distance 0 exactly, as are points within about sqrt(D eps) of their norm.
    """
    x, y = comparable(x, y)
    centre = y.mean(dim=0)
    x, y = x - centre, y - centre
    norms = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)
    distances = torch.addmm(norms, x, y.T, alpha=-2)
    return distances.masked_fill_(distances <= norms.mul_(rounding(x.shape[1])), 0)


def squared_neighbour_distances(points: Tensor, k: int, block: int = BLOCK) -> Tensor:
    """The squared distances of each of `points` (N, D) to its k nearest others, ascending, (N, k).

    A point is no neighbour of itself, but its copies are. There must be k others: N > k >= 1.
    """
    if not 1 <= k < len(points):
        raise ValueError(f"a {k}-th neighbour needs 1 <= k < {len(points)}, the number of points")
    found = []
    for start in range(0, len(points), block):
        distances = squared_distances(points[start : start + block], points)
        distances.diagonal(start).fill_(torch.inf)
        found.append(distances.topk(k, largest=False).values)
    return torch.cat(found)
