"""Denoisers: (x_t, node, label) -> E[x0 | x_t]. All samplers ever see of a model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from underone.diffusion.evaluations import record_evaluations
from underone.diffusion.network_call import call_network, mixed_precision
from underone.diffusion.node import Estimate, Node, Schedule, node_at
from underone.diffusion.prediction import Prediction


class Denoiser(Protocol):
    """Estimates the clean image. Guidance, clipping and inpainting wrap one denoiser in another."""

    @property
    def schedule(self) -> Schedule:
        """The noise schedule the denoiser was made for."""
        ...

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        """E[x0 | x_t = x], of the shape of x: (B, ...). `label`: (B,) int64, or None."""
        ...


@dataclass(frozen=True)
class NetworkDenoiser:
    """A network read through its prediction; the leaf of every chain of denoisers.

    `network(input, condition, label)` is any function; see `call_network`. Its evaluations are
    counted under `name`. With `autocast` (a dtype, usually bfloat16) the network, and only the
    network, runs in mixed precision; its output is brought back to the precision of x.
    """

    network: Callable[[Tensor, Tensor | None, Tensor | None], Tensor]
    schedule: Schedule
    prediction: Prediction
    name: str = "model"
    autocast: torch.dtype | None = None

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        """E[x0 | x_t = x] in one network evaluation."""
        record_evaluations(self.name, x.shape[0])
        with mixed_precision(x.device, self.autocast):
            output = call_network(self.network, self.prediction, x, node, label)
        return self.prediction.to_x0(output.to(x.dtype), x, node)


@dataclass(frozen=True)
class Clipped:
    """x0 clamped to [-bound, bound]. Wrap it around guidance, so that the mixed x0 is clipped."""

    denoiser: Denoiser
    bound: float = 1.0

    @property
    def schedule(self) -> Schedule:
        """The wrapped denoiser's schedule."""
        return self.denoiser.schedule

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        """The wrapped estimate, clamped."""
        return self.denoiser(x, node, label).clamp(-self.bound, self.bound)


@dataclass(frozen=True)
class DynamicallyThresholded:
    """x0 clamped to [-s, s] and divided by s (Saharia et al. 2022, section 2.3).

    s is the `quantile` of |x0| over the elements of each sample, at least 1. It keeps strongly
    guided images from saturating. Wrap it around guidance, as `Clipped`.
    """

    denoiser: Denoiser
    quantile: float = 0.995

    @property
    def schedule(self) -> Schedule:
        """The wrapped denoiser's schedule."""
        return self.denoiser.schedule

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        """The wrapped estimate, thresholded."""
        x0 = self.denoiser(x, node, label)
        # Row by row: torch takes no quantiles of more than 2^24 elements at once.
        sizes = [row.quantile(self.quantile) for row in x0.abs().flatten(1)]
        scale = torch.stack(sizes).clamp(min=1)
        scale = scale.reshape(-1, *(1,) * (x0.ndim - 1))
        return x0.clamp(-scale, scale) / scale


class Model(Protocol):
    """A denoiser with its labels bound: what a sampler is given."""

    def __call__(self, x: Tensor, node: Node) -> Estimate:
        """One evaluation of the estimate at a node."""
        ...

    def node(self, log_snr: Tensor) -> Node:
        """The node of a given log(alpha / sigma), for midpoints and adaptive steps."""
        ...

    def rows(self, chosen: Tensor) -> "Model":
        """The model of the rows `chosen` (indices) of the batch, where rows go different ways."""
        ...


@dataclass(frozen=True)
class Bound:
    """A denoiser with its labels (B,) bound."""

    denoiser: Denoiser
    label: Tensor | None

    def __call__(self, x: Tensor, node: Node) -> Estimate:
        """One evaluation of the estimate at a node."""
        return Estimate(node, x, self.denoiser(x, node, self.label))

    def node(self, log_snr: Tensor) -> Node:
        """The node of a given log(alpha / sigma)."""
        return node_at(self.denoiser.schedule, self.denoiser.schedule.time(log_snr))

    def rows(self, chosen: Tensor) -> "Bound":
        """The denoiser with the labels of the rows `chosen` bound."""
        return Bound(self.denoiser, None if self.label is None else self.label[chosen])
