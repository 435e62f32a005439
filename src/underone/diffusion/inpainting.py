"""Sampling with a part of the image known."""

from dataclasses import dataclass

import torch
from torch import Tensor

from underone.diffusion.denoiser import Model
from underone.diffusion.node import Estimate, Node


@dataclass(frozen=True)
class Inpainted:
    """A model whose x0 is `known` outside the hole: x0 = hole D(x) + (1 - hole) known.

    With it every sampler fills holes, and where it ends on x0 the known elements come out bit for
    bit; a tuned one ends on a mixture of estimates, which rounds. `known` (B, ...), `hole` (B, ...)
    bool, True where the model decides. Wrap it around everything else: guidance and thresholds are
    the model's.

    The state needs no replacing: where x0 is known, an ancestral step draws from
    q(x_s | x_t, x0), so x_s is distributed as q(x_s | x0), as the noisy known pixels that RePaint
    draws afresh each step (Lugmayr et al. 2022, eq. 8). What is left is that x_t in the hole was
    made before the newest look at its surroundings, so that it depends on them less than it
    should: most with deterministic samplers, which show seams, less with ancestral ones. Langevin
    corrections at each node (`PredictorCorrector`, `AnnealedLangevin`) let the two agree, as
    RePaint's jumps back and forth do; with many of them the filling's distribution is exact.
    """

    model: Model
    known: Tensor
    hole: Tensor

    def __call__(self, x: Tensor, node: Node) -> Estimate:
        """The model's estimate with the known elements in place."""
        here = self.model(x, node)
        return Estimate(here.node, here.x, torch.where(self.hole, here.x0, self.known))

    def node(self, log_snr: Tensor) -> Node:
        """The model's node."""
        return self.model.node(log_snr)

    def rows(self, chosen: Tensor) -> "Inpainted":
        """The same for the rows `chosen` (indices) of the batch."""
        return Inpainted(self.model.rows(chosen), self.known[chosen], self.hole[chosen])
