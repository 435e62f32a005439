"""What real images score, drawn as the samples were: no model can be asked to do better."""

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
    draws = disjoint_draws(held_out.labels, count, labels, len(held_out))
    if len(draws[0]) < 2:
        return None
    parts = [
        score(ScoredImages.of(held_out.at(draw), errors=False), by, wanted).figures
        for draw in draws
    ]
    return Floor(mean_figures(parts), len(draws[0]), len(draws))
