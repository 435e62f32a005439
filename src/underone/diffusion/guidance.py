"""Classifier-free guidance and its corrections: denoisers that wrap a denoiser.

Each mixes the same two estimates, with the label and with the null label, made in one doubled
batch. Unclipped, x0 is affine in the network's output, so mixing x0-estimates with weights that
sum to 1 equals mixing the outputs themselves, whatever the network predicts. What is not affine
(rescaling, projection) acts on x0, before any clipping, which wraps the whole.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from underone.diffusion.checks import check_weight
from underone.diffusion.denoiser import Denoiser
from underone.diffusion.node import Node, Schedule, expand
from underone.errors import UserError


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

    def __post_init__(self) -> None:
        check_weight(self.weight)

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
        return self.mix(*branches(self.denoiser, x, node, label, self.null_label))

    def mix(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        """The guided estimate from the two branches, each (B, ...)."""
        return (1 + self.weight) * conditional - self.weight * unconditional


@dataclass(frozen=True)
class Rescaled(ClassifierFree):
    """x0 = y (phi std(D_c) / std(y) + 1 - phi), with y = (1 + w) D_c - w D_null.

    Lin et al. 2023, arXiv 2305.08891, section 3.4. std is over the elements of each sample. phi, in
    [0, 1]: 0 is plain guidance, 1 gives every sample the spread of its conditional estimate, so
    that strong guidance does not overexpose. The result depends on what is rescaled: here x0.
    w = 0 and w = -1 remain the conditional and the unconditional model.
    """

    phi: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.phi <= 1:
            raise UserError(f"the share phi of rescaling must lie in [0, 1], got {self.phi}")

    def mix(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        """The guided estimate, its spread brought towards that of the conditional one."""
        guided = super().mix(conditional, unconditional)
        wanted, spread = (x0.flatten(1).std(1, correction=0) for x0 in (conditional, guided))
        # A constant image has no spread to rescale.
        factor = torch.where(spread > 0, wanted / spread, 1.0)
        return guided * expand(self.phi * factor + (1 - self.phi), guided)


@dataclass(frozen=True)
class AdaptiveProjected(ClassifierFree):
    """x0 = D_c + w (orthogonal + eta parallel): APG (Sadat et al. 2024, arXiv 2410.02416).

    With d = D_c - D_null shrunk to min(1, radius / |d|) d, `parallel` is its projection on D_c,
    sample by sample, and `orthogonal` the rest. The parallel share mostly saturates: eta = 0 drops
    it, eta = 1 keeps it. `radius` > 0 bounds the Euclidean norm of d over all elements of a sample,
    so it grows with the square root of their number; None bounds nothing. eta = 1 without a radius
    is plain guidance. The paper's momentum is left out: denoisers keep no state. w = 0 and w = -1
    remain the conditional and the unconditional model.
    """

    eta: float = 0.0
    radius: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.eta):
            raise UserError(f"the parallel share eta must be a finite number, got {self.eta}")
        if self.radius is not None and not self.radius > 0:
            raise UserError(f"the radius must be above 0, or None, got {self.radius}")

    def mix(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        """The conditional estimate, moved along what is left of the difference."""
        if self.eta == 1 and self.radius is None:
            return super().mix(conditional, unconditional)
        difference = (conditional - unconditional).flatten(1)
        if self.radius is not None:
            norm = torch.linalg.vector_norm(difference, dim=1, keepdim=True)
            difference = difference * (self.radius / norm).clamp(max=1)
        direction = functional.normalize(conditional.flatten(1), dim=1)
        parallel = (difference * direction).sum(1, keepdim=True) * direction
        update = difference - (1 - self.eta) * parallel
        return conditional + self.weight * update.reshape(conditional.shape)


def branches(
    denoiser: Denoiser, x: Tensor, node: Node, label: Tensor, null_label: int
) -> tuple[Tensor, Tensor]:
    """The conditional and the unconditional estimate, each (B, ...), from one doubled batch."""
    labels = torch.cat([label, torch.full_like(label, null_label)])
    conditional, unconditional = denoiser(torch.cat([x, x]), _twice(node), labels).chunk(2)
    return conditional, unconditional


def _twice(node: Node) -> Node:
    """The node of a batch laid twice end to end; one node for all stays as it is."""
    if node.t.ndim == 0:
        return node
    return Node(node.t.repeat(2), node.alpha.repeat(2), node.sigma.repeat(2))
