"""Classifier guidance: a denoiser guided by the gradient of a classifier of noisy images."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from underone.diffusion.checks import check_weight
from underone.diffusion.denoiser import Denoiser
from underone.diffusion.evaluations import record_evaluations
from underone.diffusion.node import Node, Schedule, expand

Classifier = Callable[[Tensor, Node], Tensor]
"""(x_t (B, ...), node) -> logits (B, C), differentiable in x_t; rows independent of each other."""


@dataclass(frozen=True)
class ClassifierGuidance:
    """x0 = D(x, c) + s (sigma^2 / alpha) grad_x log p(c | x) (Dhariwal and Nichol 2021, eq. 14).

    In terms of the noise: z - s sigma grad_x log p(c | x). The gradient is taken at x = x_t itself,
    not through D. `denoiser` gets the label too: wrap an unconditional one, such as
    `ClassifierFree` at w = -1, for x0 given c at s = 1; a conditional one is sharpened by s. At
    s = 0 no classifier is evaluated.

    The classifier's evaluations are counted here under "classifier", one a row. The gradient is a
    constant to whoever differentiates the estimate.
    """

    denoiser: Denoiser
    classifier: Classifier
    scale: float

    def __post_init__(self) -> None:
        check_weight(self.scale)

    @property
    def schedule(self) -> Schedule:
        """The wrapped denoiser's schedule."""
        return self.denoiser.schedule

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        """The guided estimate; `label` must be given unless s = 0, each one of the C classes."""
        if self.scale == 0:
            return self.denoiser(x, node, label)
        if label is None:
            raise ValueError("classifier guidance needs labels, except at scale 0")
        gradient = self._gradient(x, node, label)
        step = expand(self.scale * node.sigma**2 / node.alpha, x)
        return self.denoiser(x, node, label) + step * gradient

    def _gradient(self, x: Tensor, node: Node, label: Tensor) -> Tensor:
        """grad_x log p(label | x), of the shape and dtype of x."""
        record_evaluations("classifier", x.shape[0])
        # Samplers run without gradients. Autograd cannot keep tensors made in inference mode, but
        # clones made outside it are like any others.
        with torch.inference_mode(False), torch.enable_grad():
            point = x.detach().clone().requires_grad_()
            here = Node(node.t.clone(), node.alpha.clone(), node.sigma.clone())
            logits = self.classifier(point, here).to(x.dtype)
            chosen = logits.log_softmax(1).gather(1, label.clone()[:, None])
            (gradient,) = torch.autograd.grad(chosen.sum(), point)
        return gradient
