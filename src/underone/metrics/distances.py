"""Distances between feature vectors, a block of rows at a time; exactly 0 between copies."""

import torch
from torch import Tensor

# Rows of a distance matrix in memory at a time: 40 MB per 10,000 columns.
BLOCK = 512


def comparable(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two sets of features (N, D) and (M, D) in float64; `ValueError` if they cannot be compared.

    Both must be matrices of the same width, with at least one row and no NaN or infinity.
    """
    for features in (x, y):
        if features.ndim != 2 or features.numel() == 0:
            raise ValueError(f"features must be (N, D) with N, D >= 1, got {tuple(features.shape)}")
        if not features.isfinite().all():
            raise ValueError("features hold NaN or infinite values")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"features must have the same dimensions, got {x.shape[1]} and {y.shape[1]}"
        )
    return x.to(torch.float64), y.to(torch.float64)


def rounding(size: int) -> float:
    """A bound on the rounding error of a squared distance, as a share of |x|^2 + |y|^2.

    Each of the three sums |x|^2, |y|^2 and x.y of `size` products is off by at most `size` halves
    of a unit in the last place, in any order of summation; 8 more cover centring the points and
    adding the three.
    """
    return (size + 8) * torch.finfo(torch.float64).eps


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2 of all pairs, (N, D) and (M, D) -> (N, M), float64, never negative.

    |x|^2 + |y|^2 - 2 x.y costs one matrix product, but cancels where points are much nearer to each
    other than to the origin, so y's mean is subtracted from both first. What may be rounding alone
    is set to 0: copies are at distance exactly 0, as are points within about sqrt(D eps) of their
    norm.
    """
    x, y = comparable(x, y)
    centre = y.mean(dim=0)
    x, y = x - centre, y - centre
    norms = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)
    distances = torch.addmm(norms, x, y.T, alpha=-2)
    return distances.masked_fill_(distances <= norms.mul_(rounding(x.shape[1])), 0)


def squared_neighbour_distances(points: Tensor, k: int, block: int = BLOCK) -> Tensor:
    """The squared distances of each of `points` (N, D) to its k nearest others, ascending, (N, k).

    A point is not its own neighbour, but its copies are its neighbours. N > k >= 1.
    """
    if not 1 <= k < len(points):
        raise ValueError(f"a {k}-th neighbour needs 1 <= k < {len(points)}, the number of points")
    found = []
    for start in range(0, len(points), block):
        distances = squared_distances(points[start : start + block], points)
        distances.diagonal(start).fill_(torch.inf)
        found.append(distances.topk(k, largest=False).values)
    return torch.cat(found)
