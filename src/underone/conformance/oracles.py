"""Denoisers that are exact: E[x0 | x_t] in closed form, under any schedule.

With x_t = alpha x0 + sigma z and a known distribution of x0, the conditional mean needs no network.
Whatever a sampler gets wrong with such a denoiser is the sampler's own error. Each oracle works in
the precision of the x it is given, with one node for the batch or one a row, and its evaluations
are counted under the name "oracle".
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from underone.diffusion import Node, Schedule
from underone.diffusion.evaluations import record_evaluations
from underone.diffusion.node import expand


@dataclass(frozen=True)
class SingleImage:
    """x0 is one image, `image` (...): E[x0 | x_t] is that image, whatever x_t."""

    schedule: Schedule
    image: Tensor

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        """The image, repeated for each row of x (B, ...)."""
        record_evaluations("oracle", len(x))
        return self.image.to(x).expand_as(x)


@dataclass(frozen=True)
class GaussianData:
    """x0 ~ N(mean, deviation^2 I), independent in every element: E[x0 | x_t] is affine in x_t."""

    schedule: Schedule
    mean: float
    deviation: float

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        """slope x + offset."""
        record_evaluations("oracle", len(x))
        slope, offset = self.affine(node)
        return expand(slope, x) * x + expand(offset, x)

    def affine(self, node: Node) -> tuple[Tensor, Tensor]:
        """Slope and offset of the estimate, float64: E[x0 | x_t] = slope x_t + offset."""
        slope = node.alpha * self.deviation**2 / self.variance(node)
        return slope, (1 - slope * node.alpha) * self.mean

    def variance(self, node: Node) -> Tensor:
        """alpha^2 deviation^2 + sigma^2: the variance of x_t, whose mean is alpha times `mean`."""
        return node.alpha**2 * self.deviation**2 + node.sigma**2


@dataclass(frozen=True)
class Mixture:
    """x0 ~ sum_k weights_k N(means_k, deviations_k^2 I), whose components belong to classes.

    `means` (K, ...) are K images, `deviations`, `weights` and `classes` are (K,). A label c leaves
    the components of class c, with their weights renormalised; the null label, or no labels at all,
    leaves the whole mixture. The estimate is not linear in x, so that it tells apart solvers of
    different orders, which an affine one need not.
    """

    schedule: Schedule
    means: Tensor
    deviations: Tensor
    weights: Tensor
    classes: Tensor

    @property
    def null_label(self) -> int:
        """The number of classes, which stands for "any class"."""
        return int(self.classes.max()) + 1

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        """sum_k P(k | x_t, label) E[x0 | x_t, k]."""
        record_evaluations("oracle", len(x))
        elements = math.prod(x.shape[1:])
        flat = x.reshape(len(x), elements)
        means = self.means.to(x).reshape(-1, elements)
        prior = self.deviations.to(x) ** 2
        alpha, sigma = (expand(c, flat).to(x) for c in (node.alpha, node.sigma))
        variance = alpha**2 * prior + sigma**2
        distance = torch.linalg.vector_norm(flat[:, None] - alpha[..., None] * means, dim=2)
        log_likelihood = -0.5 * (distance**2 / variance + elements * variance.log())
        posterior = (log_likelihood + self._log_prior(label).to(x)).softmax(1)
        # E[x0 | x_t, k] = (sigma^2 means_k + alpha prior_k x_t) / variance_k, as two products.
        share = posterior / variance
        mixed = (sigma**2 * share) @ means + (alpha * (share @ prior)[:, None]) * flat
        return mixed.reshape(x.shape)

    def _log_prior(self, label: Tensor | None) -> Tensor:
        """Log weight of each component, -inf outside the class: (K,), or (B, K) with labels."""
        logarithms = self.weights.log()
        if label is None:
            return logarithms
        chosen = (label[:, None] == self.classes) | (label[:, None] == self.null_label)
        return torch.where(chosen, logarithms, -math.inf)


def plane_mixture(schedule: Schedule) -> Mixture:
    """Five components in the plane, in three classes; far from Gaussian, yet smooth."""
    return Mixture(
        schedule,
        means=torch.tensor(
            [[-0.8, 0.3], [0.5, 0.7], [0.2, -0.6], [0.9, -0.1], [-0.3, -0.4]], dtype=torch.float64
        ),
        deviations=torch.tensor([0.2, 0.3, 0.15, 0.25, 0.2], dtype=torch.float64),
        weights=torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15], dtype=torch.float64),
        classes=torch.tensor([0, 0, 1, 2, 2]),
    )


def line_mixture(schedule: Schedule) -> Mixture:
    """`plane_mixture` projected onto the first axis."""
    plane = plane_mixture(schedule)
    return replace(plane, means=plane.means[:, :1])
