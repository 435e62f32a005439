"""Guidance: denoisers that wrap denoisers.

Unclipped, x0 is affine in the network's output, so mixing x0-estimates with weights that sum to 1
equals mixing the outputs themselves, whatever the network predicts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from underone.diffusion.denoiser import Denoiser
from underone.diffusion.node import Node, Schedule


@dataclass(frozen=True)
class ClassifierFree:
    """x0 = (1 + w) D(x, c) - w D(x, null) (Ho and Salimans 2022, eq. 6).

    w = -1 is the unconditional model, w = 0 the conditional one, w > 0 guided: other authors'
    guidance scale is 1 + w. At w = 0 and w = -1 one branch alone is evaluated, so both are exact
    and cost half; otherwise both branches share one batch.
    """

    denoiser: Denoiser
    weight: float
    null_label: int

    @property
    def schedule(self) -> Schedule:
        """The wrapped denoiser's schedule."""
        return self.denoiser.schedule

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        """The guided estimate; `label` must be given unless w = -1."""
        if self.weight == -1:
            return self.denoiser(x, node, torch.full((x.shape[0],), self.null_label).to(x.device))
        if label is None:
            raise ValueError("classifier-free guidance needs labels, except at w = -1")
        if self.weight == 0:
            return self.denoiser(x, node, label)
        labels = torch.cat([label, torch.full_like(label, self.null_label)])
        conditional, unconditional = self.denoiser(torch.cat([x, x]), _twice(node), labels).chunk(2)
        return (1 + self.weight) * conditional - self.weight * unconditional


def _twice(node: Node) -> Node:
    """The node of a batch laid twice end to end; one node for all stays as it is."""
    if node.t.ndim == 0:
        return node
    return Node(node.t.repeat(2), node.alpha.repeat(2), node.sigma.repeat(2))
