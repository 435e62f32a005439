"""Measure a sample set, whole or in equal blocks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from underone.data import SampleSet
from underone.errors import UserError
from underone.metrics import Measurement, Yardstick, measure
from underone.metrics.measurement import joined


def evaluate_samples(
    samples: SampleSet, by: Yardstick, metrics: Sequence[str], blocks: int = 1
) -> Measurement:
    """The `metrics` of a sample set, whole or in `blocks` equal parts of it.

    N is then that of a part. Parts follow the order of the samples, so that they are seed blocks if
    the samples are in the order of their seeds. A number of samples that `blocks` does not divide
    is a `UserError`.
    """
    if blocks < 1 or len(samples) % blocks:
        raise UserError(
            f"{len(samples)} samples do not divide into {blocks} equal blocks: choose another "
            "number of --blocks"
        )
    size = len(samples) // blocks
    parts = [_part(samples, start, start + size) for start in range(0, len(samples), size)]
    if any(not _alike(part.labels, parts[0].labels) for part in parts):
        raise UserError(
            f"the {blocks} blocks differ in their classes, as if the samples were sorted by "
            "class: shuffle them, or measure them in one block"
        )
    found: list[Measurement] = []
    for part in parts:
        known = found[0].floor if found and same_counts(part.labels, parts[0].labels) else None
        found.append(measure(part, by, metrics, known))
    return joined(found)


def same_counts(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two sets have as many images of each class, so that their floor is the same."""
    if one is None or other is None:
        return one is other
    return torch.equal(one.sort().values, other.sort().values)


def _alike(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two parts may have the same label policy, by their numbers of each class."""
    if one is None or other is None:
        return True
    size = int(max(one.max(), other.max())) + 1
    counts = torch.stack([one.bincount(minlength=size), other.bincount(minlength=size)]).double()
    counts = counts[:, counts.sum(0) > 0]
    # For random labels this is about chi-squared; five of its standard deviations are allowed.
    statistic = ((counts[0] - counts[1]).square() / counts.sum(0)).sum()
    freedom = max(1, counts.shape[1] - 1)
    return float(statistic) <= freedom + 5 * (2 * freedom) ** 0.5


def _part(samples: SampleSet, start: int, stop: int) -> SampleSet:
    return SampleSet(
        samples.images[start:stop],
        None if samples.labels is None else samples.labels[start:stop],
        None if samples.seeds is None else samples.seeds[start:stop],
        samples.protocol,
    )
