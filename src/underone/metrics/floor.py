"""What real images score, drawn as the samples were: no model can be asked to do better."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from underone.metrics.scores import METRICS, Figures, Scored, mean_figures, score
from underone.metrics.yardstick import Yardstick

# The floor is averaged over as many disjoint draws of real images as there are, up to this many.
MOST_DRAWS = 10


@dataclass(frozen=True)
class Floor:
    """The mean figures of `draws` disjoint sets of `count` real held-out images each."""

    figures: Figures
    count: int
    draws: int


def floor(by: Yardstick, count: int, labels: Tensor | None, metrics: Sequence[str]) -> Floor | None:
    """The floor of `count` samples with these `labels` (N,), or of any; None without real images.

    As many images of each class are drawn as the samples have, so that the label policy is the
    same: random labels raise FID by themselves. Where fewer are held out, all draws are smaller in
    proportion; the result says how many they have. None also where that is no two images, or where
    no metric has a floor.
    """
    held_out = by.reference.held_out
    wanted = [name for name in metrics if METRICS[name].floor]
    if held_out is None or not wanted:
        return None
    draws = _draws(held_out.labels, count, labels, len(held_out))
    if len(draws[0]) < 2:
        return None
    parts = [
        score(Scored.of(held_out.at(draw), errors=False), by, wanted).figures for draw in draws
    ]
    return Floor(mean_figures(parts), len(draws[0]), len(draws))


def _draws(
    held_out: Tensor | None, count: int, labels: Tensor | None, available: int
) -> list[Tensor]:
    """The indices of each draw."""
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
