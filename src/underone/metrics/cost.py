"""How long comparing samples with real images will take, estimated beforehand."""

import time
from collections.abc import Callable, Sequence

import torch

from underone.metrics.distances import BLOCK, squared_distances
from underone.metrics.frechet import Gaussian, frechet_distance
from underone.metrics.frechet_infinity import FEWEST_REPLICATES, POINTS
from underone.metrics.frechet_scores import LEAST_FOR_INFINITY, enough_for_infinity
from underone.metrics.moments import Moments
from underone.metrics.yardstick import Yardstick

_TIMED_ROWS = 2000
# Finding neighbours, or cubing the kernel, takes about as long as computing the distances.
_WITH_SEARCH = 2.0


def comparing_seconds(by: Yardstick, count: int, metrics: Sequence[str]) -> float:
    """About how long `count` samples and their floor take once their features are known.

    Two operations dominate: distances between all images, and Frechet distances of subsets. One of
    each is timed on this machine, in as many dimensions, and multiplied by their number.
    """
    return _pair_seconds(by, count, metrics) + _infinity_seconds(by, count, metrics)


def _pair_seconds(by: Yardstick, count: int, metrics: Sequence[str]) -> float:
    pairs = _pairs(by, count, metrics)
    if pairs == 0:
        return 0.0
    size = by.reference.mean.numel()
    generator = torch.Generator().manual_seed(0)
    some = torch.randn(_TIMED_ROWS, size, generator=generator, dtype=torch.float64)
    each = _seconds(lambda: squared_distances(some[:BLOCK], some)) / (BLOCK * _TIMED_ROWS)
    return _WITH_SEARCH * each * pairs


def _infinity_seconds(by: Yardstick, count: int, metrics: Sequence[str]) -> float:
    """The time of FID at infinite N, for held-out images too where there are enough of them."""
    reference, size = by.reference, by.reference.mean.numel()
    if "fid-infinity" not in metrics or not enough_for_infinity(count, size):
        return 0.0
    held_out = 0 if reference.held_out is None else len(reference.held_out)
    sets = [each for each in (count, held_out) if enough_for_infinity(each, size)]
    factor = reference.gaussian.factor
    generator = torch.Generator().manual_seed(0)
    rows = LEAST_FOR_INFINITY * size
    some = torch.randn(rows, factor.shape[1], generator=generator, dtype=torch.float64) @ factor.T
    moments = Moments.of(some + reference.mean)
    # A new Gaussian each time, since it caches what it has computed.
    distance = _seconds(lambda: frechet_distance(Gaussian.of(moments), reference.gaussian))
    image = _seconds(lambda: Moments.of(some)) / rows
    return FEWEST_REPLICATES * (len(sets) * POINTS * distance + sum(sets) * image)


def _seconds(work: Callable[[], object]) -> float:
    """How long `work` takes the second time, once caches are filled."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _pairs(by: Yardstick, count: int, metrics: Sequence[str]) -> int:
    reference = by.reference
    kept = 0 if reference.features is None else len(reference.features)
    held_out = 0 if reference.held_out is None else len(reference.held_out)
    # All the floor's draws together: every held-out image, but at most ten times N.
    real = min(held_out, 10 * count)
    within = count**2 + real * min(count, held_out)
    pairs = 0
    for name in ("kid", "manifold"):
        if name in metrics and kept:
            pairs += kept**2 + (count + real) * kept + within
    if "memorisation" in metrics and by.train is not None:
        # For samples, held-out images and copies, and for the training images nearest to them.
        views = 1 if by.mirrored is None else 2
        pairs += 6 * min(count, held_out) * views * len(by.train)
    return pairs
