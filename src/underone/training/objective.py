"""The losses that training minimises."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from underone.diffusion import Node, Prediction, Schedule, node_at, noised
from underone.diffusion.likelihood import bits_per_dimension
from underone.diffusion.network_call import as_condition, call_network
from underone.diffusion.prediction import TIME_SCALE
from underone.training.augment import view
from underone.training.levels import EVERY_STEP, Levels, stratified
from underone.training.recipe import Views
from underone.training.weighting import SIMPLE, Weighting


class Objective(Protocol):
    """A training loss."""

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The mean loss of a batch: images (B, C, H, W) in [-1, 1], labels (B,) int64."""
        ...


@dataclass(frozen=True)
class Noised:
    """A batch with noise added, x = alpha x0 + sigma z, each image at its own node."""

    x: Tensor
    noise: Tensor
    node: Node


def noised_at_random_levels(
    images: Tensor, schedule: Schedule, levels: Levels, generator: torch.Generator
) -> Noised:
    """The images x0 (B, ...) at times drawn from `levels`, with standard normal noise z.

    The times are `stratified` over the batch.
    """
    node = node_at(schedule, levels(schedule, stratified(len(images), generator)))
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return Noised(noised(images, node, noise), noise, node)


@dataclass(frozen=True)
class Denoising:
    """E |network(alpha x0 + sigma z, t, c) - target|^2 (Ho et al. 2020, Algorithm 1, eq. 14).

    t and z are drawn by `noised_at_random_levels`; the error at t is weighted by `weighting`.
    With probability `label_dropout` the label becomes the null label (Ho and Salimans 2022).
    """

    schedule: Schedule
    prediction: Prediction
    label_dropout: float
    null_label: int | None
    levels: Levels = EVERY_STEP
    weighting: Weighting = SIMPLE

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The mean squared error of a batch, weighted."""
        noisy = noised_at_random_levels(images, self.schedule, self.levels, generator)
        label = None
        if self.null_label is not None:
            dropped = torch.rand(len(images), generator=generator) < self.label_dropout
            label = torch.where(dropped.to(labels.device), self.null_label, labels)
        output: Tensor = call_network(network, self.prediction, noisy.x, noisy.node, label)
        target = self.prediction.target(images, noisy.noise, noisy.node)
        errors = (output.float() - target).square().flatten(1).mean(dim=1)
        weights = self.weighting(self.prediction, noisy.node)
        return (weights.to(errors) * errors).mean()


@dataclass(frozen=True)
class NegativeELBO:
    """-E log p(x | z, c) + beta KL(q(z | x, c) || p(z)) of a `VAE`, in bits per dimension.

    At beta = 1 the negative evidence lower bound (Kingma and Welling 2014, eq. 3), at another the
    beta-VAE's (Higgins et al. 2017, eq. 4). One z of size `latent` is drawn for each image. The
    unit is that of `bits_per_dimension`.
    """

    latent: int
    beta: float

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The mean of a batch."""
        noise = torch.randn(len(images), self.latent, generator=generator).to(images.device)
        bound = network(images, labels, noise)
        nats = bound.reconstruction + self.beta * bound.kl
        return bits_per_dimension(-nats, images[0].numel()).mean()


@dataclass(frozen=True)
class Classification:
    """Cross-entropy with label smoothing."""

    label_smoothing: float

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The mean cross-entropy of a batch."""
        logits = network(images).float()
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class NoisyClassification:
    """E -log p(c | alpha_k x0 + sigma_k z, k): cross-entropy at every noise level alike.

    Dhariwal and Nichol 2021, section 4; k and z are drawn by `noised_at_random_levels`. Its
    minimiser is the class posterior, whose gradient in x_t is what guides.
    """

    schedule: Schedule
    label_smoothing: float

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The mean cross-entropy of a batch."""
        noisy = noised_at_random_levels(images, self.schedule, EVERY_STEP, generator)
        time = as_condition(TIME_SCALE * noisy.node.t, noisy.x)
        logits = network(noisy.x, time).float()
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class VICReg:
    """Two views of an image get like projections, which still vary and are uncorrelated.

    VICReg (Bardes, Ponce and LeCun 2022, eq. 6), with projections z, z' (B, P) of two views of a
    batch:

        invariance |z - z'|^2 / (B P)
        + variance / 2 sum over both of mean_j max(0, 1 - sqrt(Var(z_j) + 1e-4))
        + covariance sum over both of sum_{i != j} Cov(z)_ij^2 / P

    A constant would minimise the first term alone; the others forbid it. The divisions by P and by
    2 are those of the authors' code, for which the usual weights 25, 25, 1 are meant. No label is
    used.
    """

    views: Views
    invariance: float
    variance: float
    covariance: float

    def __call__(
        self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The loss of a batch."""
        first, second = (network(view(images, self.views, generator)).float() for _ in range(2))
        loss = self.invariance * functional.mse_loss(first, second)
        for projections in (first, second):
            centred = projections - projections.mean(dim=0)
            with torch.autocast(centred.device.type, enabled=False):
                covariance = centred.T @ centred / (len(centred) - 1)
            deviation = (covariance.diagonal() + 1e-4).sqrt()
            off_diagonal = covariance - covariance.diagonal().diag()
            loss = loss + self.variance / 2 * functional.relu(1 - deviation).mean()
            loss = loss + self.covariance * off_diagonal.square().sum() / len(covariance)
        return loss
