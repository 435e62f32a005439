"""The kernel distance: KID where the features are an extractor's (Binkowski et al. 2018).

The squared maximum mean discrepancy under k(x, y) = (x.y / D + 1)^3. Both estimators here are
unbiased, so both may be negative where the distributions are close, and neither is ever clamped.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from underone.metrics.distances import comparable

# The side of the tiles in which kernel matrices are summed: 2 MB each, to fit in caches.
_TILE = 512


@dataclass(frozen=True)
class KernelDistance:
    """An estimate from all samples, and its standard error from `blocks` disjoint parts of them."""

    value: float
    standard_error: float
    blocks: int


def kernel_distance(
    x: Tensor, y: Tensor, *, within_y: float | None = None, tile: int = _TILE
) -> float:
    """The U-statistic of x (N, D) and y (M, D), N and M >= 2, in O((N + M)^2 D) operations.

        sum_{i != j} k(x_i, x_j) / (N (N - 1)) + sum_{i != j} k(y_i, y_j) / (M (M - 1))
        - 2 sum_{i, j} k(x_i, y_j) / (N M)

    Computed in float64, since near 0 it is a small difference of large sums, with at most
    `tile` x `tile` values of the kernel in memory. `within_y` is the second term, if it is known.
    KID is often reported as the mean over random subsets, which estimates the same less precisely.
    """
    x, y = comparable(x, y)
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a kernel distance needs 2 samples of each, got {len(x)} and {len(y)}")
    between = _kernel_sum(x, y, tile) / (len(x) * len(y))
    within_y = mean_of_pairs(y, tile) if within_y is None else within_y
    return mean_of_pairs(x, tile) + within_y - 2 * between


def kernel_distance_with_error(
    x: Tensor, y: Tensor, *, blocks: int = 10, seed: int = 0, within_y: float | None = None
) -> KernelDistance:
    """`kernel_distance`, and s / sqrt(B) with s the deviation between B disjoint `blocks` of both.

    The error is accurate where the distance is clearly above 0 and classes are random. It is too
    large where the number of each class is fixed, since blocks are of random classes, and at
    distance 0, where the whole estimate varies sqrt(B) times less than the mean of the blocks.
    Blocks are drawn at random, from `seed`, since sets are often sorted by class.
    """
    x, y = comparable(x, y)
    smallest = min(len(x), len(y))
    if not 2 <= blocks <= smallest // 2:
        raise ValueError(f"{blocks} blocks of {smallest} samples: take at least 2, of 2 or more")
    value = kernel_distance(x, y, within_y=within_y)
    generator = torch.Generator().manual_seed(seed)
    parts = [_shuffled(features, generator).tensor_split(blocks) for features in (x, y)]
    values = [kernel_distance(*pair) for pair in zip(*parts, strict=True)]
    return KernelDistance(value, statistics.stdev(values) / blocks**0.5, blocks)


def mean_of_pairs(x: Tensor, tile: int = _TILE) -> float:
    """The mean of k(x_i, x_j) over all i != j of x (N, D), float64."""
    diagonal = float(_polynomial(x.square().sum(dim=1), x.shape[1]).sum())
    return (_kernel_sum(x, x, tile) - diagonal) / (len(x) * (len(x) - 1))


def _kernel_sum(x: Tensor, y: Tensor, tile: int) -> float:
    """The sum of k(x_i, y_j) over all i and j."""
    return sum(float(_polynomial(a @ b.T, a.shape[1]).sum()) for a, b in _tiles(x, y, tile))


def _tiles(x: Tensor, y: Tensor, tile: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Every pairing of up to `tile` rows of x with up to `tile` rows of y."""
    return ((a, b) for a in x.split(tile) for b in y.split(tile))


def _polynomial(products: Tensor, size: int) -> Tensor:
    """The kernel, from inner products in `size` dimensions."""
    return (products / size + 1).pow(3)


def _shuffled(features: Tensor, generator: torch.Generator) -> Tensor:
    """The rows in random order."""
    order = torch.randperm(len(features), generator=generator)
    return features[order.to(features.device)]
