"""The floor: what real images score under the samples' protocol, the best to expect of a model."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from underone.metrics.draws import disjoint_draws
from underone.metrics.figures import Figures, mean_figures
from underone.metrics.scored import ScoredImages
from underone.metrics.scores import METRICS, score
from underone.metrics.yardstick import Yardstick


@dataclass(frozen=True)
class Floor:
    """The mean figures of `draws` disjoint sets of `count` real held-out images each."""

    figures: Figures
    count: int
    draws: int


def floor(by: Yardstick, count: int, labels: Tensor | None, metrics: Sequence[str]) -> Floor | None:
    """The floor of `count` samples with these `labels` (N,), or with any; None if there is none.

    Real images are drawn with as many of each class as the samples have, so that the label policy
    is the same: random labels alone raise FID. Where too few are held out, all draws are smaller in
    proportion, and the result says how large they are. There is no floor without held-out images,
    where a draw would have fewer than two, or where no metric has one.
    """
    held_out = by.reference.held_out
    wanted = [name for name in metrics if METRICS[name].floor]
    if held_out is None or not wanted:
        return None
    draws = disjoint_draws(held_out.labels, count, labels, len(held_out))
    if len(draws[0]) < 2:
        return None
    parts = [
        score(ScoredImages.of(held_out.at(draw), errors=False), by, wanted).figures
        for draw in draws
    ]
    return Floor(mean_figures(parts), len(draws[0]), len(draws))
