"""Sampling a model whose every estimate is already a sample."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from underone.diffusion.node import Estimate
from underone.diffusion.samplers.sampler import Sampler, Step


@dataclass(frozen=True)
class Consistency(Sampler):
    """x_s = alpha_s x0 + sigma_s z, with z fresh at every step (Song et al. 2023, Algorithm 1).

    For consistency models (arXiv 2303.01469), whose x0 is where the probability flow from x ends.
    An ordinary model's x0 is a mean, from which each such step would lose variance.
    """

    stochastic: ClassVar[bool] = True
    global_order: ClassVar[int | None] = None  # it discretises nothing

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """One evaluation, noised again."""
        here = at.evaluate(x)
        return at.to.alpha * here.x0 + at.to.sigma * at.noise(), here
