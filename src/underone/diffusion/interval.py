"""Guidance limited to an interval of noise levels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from underone.diffusion.checks import check_same_schedule
from underone.diffusion.denoiser import Denoiser
from underone.diffusion.node import Node, Schedule
from underone.errors import UserError


@dataclass(frozen=True)
class Interval:
    """x0 = `guided` where low < sigma / alpha <= high, `plain` elsewhere.

    Guidance hurts at high noise levels and does nothing at low ones (Kynkäänniemi et al. 2024,
    arXiv 2404.07724, section 3). With `guided` a `ClassifierFree` and `plain` the model it wraps,
    steps outside the interval cost one evaluation, not two. Any other guidance is limited likewise.
    0 <= low < high; high may be infinite. With one node a row, each row is evaluated by its own
    denoiser alone. The estimate jumps at the ends: for multistep samplers place them on nodes.
    """

    guided: Denoiser
    plain: Denoiser
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise UserError(
                f"a guidance interval needs 0 <= low < high, got low {self.low}, high {self.high}"
            )
        check_same_schedule(self.guided.schedule, self.plain.schedule)

    @property
    def schedule(self) -> Schedule:
        """The guided denoiser's schedule, which the plain one shares."""
        return self.guided.schedule

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        """The estimate of whichever denoiser is due at the node, row by row if need be."""
        within = (self.low < node.noise_ratio) & (node.noise_ratio <= self.high)
        if within.all():
            return self.guided(x, node, label)
        if not within.any():
            return self.plain(x, node, label)
        inside, outside = within.nonzero()[:, 0], (~within).nonzero()[:, 0]
        x0 = torch.cat(
            [
                self.guided(*_rows(inside, x, node, label)),
                self.plain(*_rows(outside, x, node, label)),
            ]
        )
        return x0[torch.cat([inside, outside]).argsort().to(x.device)]


def _rows(
    chosen: Tensor, x: Tensor, node: Node, label: Tensor | None
) -> tuple[Tensor, Node, Tensor | None]:
    """The rows `chosen` (indices) of a batch with one node a row."""
    here = chosen.to(x.device)  # nodes may stay on the CPU
    rows = Node(node.t[chosen], node.alpha[chosen], node.sigma[chosen])
    return x[here], rows, None if label is None else label[here]
