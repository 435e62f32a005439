"""What the comparisons of all samples with each other will cost, before they begin."""

import time
from collections.abc import Sequence

import torch

from underone.metrics.distances import BLOCK, squared_distances
from underone.metrics.yardstick import Yardstick

_TIMED_ROWS = 2000
# Searching for neighbours, or the kernel's third power, takes about as long as the distances.
_WITH_SEARCH = 2.0


def distance_seconds(by: Yardstick, count: int, metrics: Sequence[str]) -> float:
    """About how long the pairwise metrics of `count` samples and their floor take, in seconds.

    From the number of distances, and from what one takes on this machine in as many dimensions.
    """
    pairs = _pairs(by, count, metrics)
    if pairs == 0:
        return 0.0
    size = by.reference.mean.numel()
    generator = torch.Generator().manual_seed(0)
    some = torch.randn(_TIMED_ROWS, size, generator=generator, dtype=torch.float64)
    squared_distances(some[:BLOCK], some)
    started = time.perf_counter()
    squared_distances(some[:BLOCK], some)
    each = (time.perf_counter() - started) / (BLOCK * _TIMED_ROWS)
    return _WITH_SEARCH * each * pairs


def _pairs(by: Yardstick, count: int, metrics: Sequence[str]) -> int:
    reference = by.reference
    kept = 0 if reference.features is None else len(reference.features)
    held_out = 0 if reference.held_out is None else len(reference.held_out)
    # What the floor's draws together are: as many images as there are, at most ten times N.
    real = min(held_out, 10 * count)
    within = count**2 + real * min(count, held_out)
    pairs = 0
    for name in ("kid", "manifold"):
        if name in metrics and kept:
            pairs += kept**2 + (count + real) * kept + within
    if "memorisation" in metrics and by.train is not None:
        # Samples, held-out images and copies, and the training images that they are nearest to.
        views = 1 if by.mirrored is None else 2
        pairs += 6 * min(count, held_out) * views * len(by.train)
    return pairs
