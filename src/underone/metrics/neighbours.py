"""Exact nearest neighbours in feature space, block by block."""

from dataclasses import dataclass

import torch
from torch import Tensor

from underone.metrics.distances import comparable, rounding

# Candidates kept beyond those asked for, so that rounding seldom decides which are nearest.
_SPARE = 4


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest training points of N queries, nearest first; equal distances by lower index.

    `distances` (N, count) are float64, exactly 0 where query and training point are equal;
    `indices` (N, count) are int64 into the training points.
    """

    distances: Tensor
    indices: Tensor


def nearest(queries: Tensor, train: Tensor, count: int = 1, block: int = 1000) -> Neighbours:
    """The `count` nearest of `train` (M, D) to each of `queries` (N, D), 1 <= count <= M.

    Candidates are found by |q|^2 + |t|^2 - 2 q t about the mean of `train`, in tiles of at most
    block x block: fast, but with rounding errors in proportion to the largest norm. Their distances
    are then recomputed as |q - t|, and wherever the bound on that rounding allows a nearer point
    among those dropped, the query is compared with all of `train` that way. So the result is that
    of direct differences and does not depend on `block`.

    Shapes that do not fit, NaN or infinity, and a `count` or `block` out of range raise
    `ValueError`.
    """
    queries, train = comparable(queries, train)
    if not 1 <= count <= len(train):
        raise ValueError(f"count must lie in 1..{len(train)}, the training points; got {count}")
    if block < 1:
        raise ValueError(f"block must be at least 1, got {block}")
    parts = [_nearest_to_block(part, train, count, block) for part in queries.split(block)]
    squared, indices = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Neighbours(squared.sqrt(), indices)


def _nearest_to_block(
    queries: Tensor, train: Tensor, count: int, block: int
) -> tuple[Tensor, Tensor]:
    """The squared distances and indices of the nearest, both (B, count)."""
    candidates, beyond = _candidates(queries, train, count, block)
    columns = [(queries - train[column]).square().sum(dim=1) for column in candidates.T]
    squared, indices = _smallest(torch.stack(columns, dim=1), candidates, count)
    everyone = torch.arange(len(train), device=train.device)[None]
    for row in (squared[:, -1] >= beyond).nonzero().flatten():
        direct = [(part - queries[row]).square().sum(dim=1) for part in train.split(block)]
        nearest_of_all = _smallest(torch.cat(direct)[None], everyone, count)
        squared[row], indices[row] = nearest_of_all[0][0], nearest_of_all[1][0]
    return squared, indices


def _candidates(queries: Tensor, train: Tensor, count: int, block: int) -> tuple[Tensor, Tensor]:
    """Ascending indices (B, C) of likely neighbours; a lower bound (B,) on all others' squares."""
    # A shift leaves distances as they are, and smaller norms mean less rounding.
    centre = train.mean(dim=0)
    queries = queries - centre
    lengths = queries.square().sum(dim=1)
    size = min(count + _SPARE, len(train))
    squared = queries.new_empty(len(queries), 0)
    indices = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    longest, start = lengths.new_zeros(()), 0
    for raw in train.split(block):
        part = raw - centre
        part_lengths = part.square().sum(dim=1)
        # |q|^2 is constant along a row, so the search can leave it out.
        tile = torch.addmm(part_lengths, queries, part.T, alpha=-2)
        best = tile.topk(min(size, len(part)), dim=1, largest=False)
        squared = torch.cat([squared, best.values], dim=1)
        indices = torch.cat([indices, best.indices + start], dim=1)
        squared, chosen = squared.topk(min(size, squared.shape[1]), dim=1, largest=False)
        indices = indices.gather(1, chosen)
        longest, start = torch.maximum(longest, part_lengths.max()), start + len(part)
    if size == len(train):
        return indices.sort(dim=1).values, torch.full_like(lengths, torch.inf)
    off = rounding(queries.shape[1]) * (lengths.sqrt() + longest.sqrt()).square()
    return indices.sort(dim=1).values, squared[:, -1] + lengths - off


def _smallest(squared: Tensor, indices: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` smallest of each row with their indices; stable, so ties keep their order."""
    order = squared.argsort(dim=1, stable=True)[:, :count]
    return squared.gather(1, order), indices.gather(1, order)
