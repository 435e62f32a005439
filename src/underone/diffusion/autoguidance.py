"""Autoguidance (arXiv 2406.02507): a model guided away from a weaker version of itself."""

from dataclasses import dataclass

from torch import Tensor

from underone.diffusion.checks import check_same_schedule, check_weight
from underone.diffusion.denoiser import Denoiser
from underone.diffusion.node import Node, Schedule


@dataclass(frozen=True)
class Autoguidance:
    """x0 = (1 + w) D_main(x, c) - w D_weak(x, c) (Karras et al. 2024, section 4).

    The weak model makes the main one's errors, only larger: a smaller network, or one trained less.
    Both see the same label, or none, so unconditional models can be guided too. The paper's weight
    is 1 + w. w = 0 is the main model and w = -1 the weak one, each evaluated alone.
    """

    main: Denoiser
    weak: Denoiser
    weight: float

    def __post_init__(self) -> None:
        check_weight(self.weight)
        check_same_schedule(self.main.schedule, self.weak.schedule)

    @property
    def schedule(self) -> Schedule:
        """The main denoiser's schedule, which the weak one shares."""
        return self.main.schedule

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        """The guided estimate: one evaluation of each model."""
        if self.weight == 0:
            return self.main(x, node, label)
        if self.weight == -1:
            return self.weak(x, node, label)
        main, weak = self.main(x, node, label), self.weak(x, node, label)
        return (1 + self.weight) * main - self.weight * weak
