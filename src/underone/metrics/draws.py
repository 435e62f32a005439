"""Draws of real images with as many of each class as the samples have."""

import numpy as np
import torch
from torch import Tensor

# As many disjoint draws as the images allow, up to this number.
MOST_DRAWS = 10


def disjoint_draws(
    held_out: Tensor | None, count: int, labels: Tensor | None, available: int
) -> list[Tensor]:
    """The indices of each of up to `MOST_DRAWS` draws among `available` images.

    `held_out` (M,) are their classes, `labels` (N,) those of the `count` samples. Without either,
    or where samples are of classes that the images lack, images of any class are drawn. Where a
    class has too few, all draws are smaller in proportion.
    """
    if held_out is None or labels is None or labels.max() > held_out.max():
        held_out = torch.zeros(available, dtype=torch.int64)
        labels = torch.zeros(count, dtype=torch.int64)
    classes = int(held_out.max()) + 1
    wanted, there = labels.bincount(minlength=classes), held_out.bincount(minlength=classes)
    asked = wanted > 0
    scarcest = int(torch.where(asked, there / wanted, torch.inf).argmin())
    sizes = torch.minimum(wanted, wanted * there[scarcest] // wanted[scarcest])
    draws = max(1, min(MOST_DRAWS, int((there[asked] // sizes[asked].clamp(min=1)).min())))
    generator = np.random.default_rng(0)
    parts: list[list[Tensor]] = [[] for _ in range(draws)]
    for label in range(classes):
        members = (held_out == label).nonzero().flatten()
        shuffled = members[torch.from_numpy(generator.permutation(len(members)))]
        for draw, part in enumerate(parts):
            part.append(shuffled[draw * sizes[label] : (draw + 1) * sizes[label]])
    return [torch.cat(part) for part in parts]
