"""The likelihood of images under a model, in bits per dimension, in two ways."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underone.checkpoint import DiffusionModel
from underone.data import Dataset, balanced_indices, to_model_range
from underone.diffusion import THRESHOLDS, Denoiser, NoiseStreams, count_evaluations, per_image
from underone.diffusion.likelihood import (
    bits_per_dimension,
    check_path,
    dequantised,
    log_density,
    rademacher,
)
from underone.diffusion.samplers.ddpm import VARIANCES
from underone.diffusion.variational_bound import strata, variational_bound
from underone.errors import UserError, unknown

DEFAULT_BATCH_SIZE = 20
# The seed of the one order of images, of which every choice is a part.
_ORDER = 0
# Added to an index: steps are chosen from other streams than those of the noise.
_CHOICE_OF_STEPS = 2**63

Keys = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Flow:
    """By the probability flow: `underone.diffusion.likelihood.log_density` of dequantised images.

    Each image is dequantised and carried along the flow once; the R `repetitions` differ only in
    the random probe of the divergence.
    """

    steps: int = 25
    repetitions: int = 1
    first_step: float = 1.0

    def __post_init__(self) -> None:
        _check_repetitions(self.repetitions)

    @property
    def title(self) -> str:
        """The description in reports."""
        return f"probability flow in {self.steps} Runge-Kutta steps from k = {self.first_step:g}"

    @property
    def threshold(self) -> str:
        """No clipping: a clipped field has no density."""
        return "none"

    def check(self, model: DiffusionModel) -> None:
        """A `UserError` where it cannot be done with `model`."""
        check_path(model.config.schedule, self.steps, self.first_step)

    def bits(self, denoiser: Denoiser, images: Tensor, labels: Tensor | None, keys: Keys) -> Tensor:
        """Bits per dimension (B, R) float64 of `images` (B, C, H, W) in the models' range."""
        noise = NoiseStreams(keys, tuple(images.shape[1:]), images.device)
        clean = dequantised(images, noise())
        probes = torch.stack([rademacher(noise()) for _ in range(self.repetitions)])
        nats = log_density(
            denoiser, clean, labels, probes, steps=self.steps, first_step=self.first_step
        )
        return bits_per_dimension(nats, images[0].numel()).T.cpu()


@dataclass(frozen=True)
class Chain:
    """By the variational bound of DDPM's chain: `diffusion.variational_bound.variational_bound`.

    `steps` is K, how many of the T steps are evaluated for each image; `variance` a name of
    `VARIANCES`, `threshold` one of `THRESHOLDS`. The R `repetitions` draw steps and noise anew.
    """

    steps: int = 100
    repetitions: int = 1
    variance: str = "large"
    threshold: str = "static"

    def __post_init__(self) -> None:
        _check_repetitions(self.repetitions)
        if self.variance not in VARIANCES:
            raise unknown("variance", self.variance, VARIANCES)
        if self.threshold not in THRESHOLDS:
            raise unknown("threshold", self.threshold, THRESHOLDS)

    @property
    def title(self) -> str:
        """The description in reports."""
        return f"variational bound from {self.steps} steps, {self.variance} variance"

    def check(self, model: DiffusionModel) -> None:
        """A `UserError` where it cannot be done with `model`."""
        strata(model.config.schedule, self.steps - 1)

    @torch.no_grad()
    def bits(self, denoiser: Denoiser, images: Tensor, labels: Tensor | None, keys: Keys) -> Tensor:
        """Bits per dimension (B, R) float64 of `images` (B, C, H, W) in the models' range."""
        noise = NoiseStreams(keys, tuple(images.shape[1:]), images.device)
        variance = VARIANCES[self.variance]
        others = [(seed, index + _CHOICE_OF_STEPS) for seed, index in keys]
        choices = NoiseStreams(others, (self.steps - 1,))
        estimates = []
        for _ in range(self.repetitions):
            positions = torch.special.ndtr(choices().double())
            bound = variational_bound(denoiser, images, labels, noise, positions, variance)
            estimates.append(bound.total)
        # A probability of discrete images, so that no cell volume enters.
        return torch.stack(estimates, 1) / (images[0].numel() * math.log(2))


Method = Flow | Chain


@dataclass(frozen=True)
class Average:
    """A mean over images, and its standard error, None for a single image."""

    images: int
    value: float
    error: float | None


@dataclass(frozen=True)
class Likelihood:
    """Bits per dimension of images, `bits` (N, R) float64, R independent estimates each.

    `labels` (N,) are what the images were conditioned on, None for an unconditional model.
    `evaluations` are those per image, by the name of the network.
    """

    method: Method
    bits: Tensor
    labels: Tensor | None
    evaluations: dict[str, float]

    @property
    def of_images(self) -> Tensor:
        """The mean over the repetitions, (N,)."""
        return self.bits.mean(1)

    @property
    def mean(self) -> Average:
        """The mean over all images.

        Images, dequantisation, probes, noise and steps are all drawn independently for each image,
        so that the standard error over images includes the uncertainty from them all. With balanced
        classes it is a little too large, never too small.
        """
        return _average(self.of_images)

    @property
    def estimator_error(self) -> float | None:
        """The part of the standard error that more repetitions would remove; None for R = 1."""
        images, repetitions = self.bits.shape
        if repetitions == 1:
            return None
        return (self.bits.var(1).mean() / (images * repetitions)).sqrt().item()

    @property
    def of_classes(self) -> dict[int, Average]:
        """The mean over each class that occurs, in order; empty without labels."""
        if self.labels is None:
            return {}
        present = sorted(set(self.labels.tolist()))
        return {label: _average(self.of_images[self.labels == label]) for label in present}


def likelihood(
    model: DiffusionModel,
    images: Tensor,
    labels: Tensor | None,
    method: Method,
    *,
    keys: Keys,
    batch_size: int = DEFAULT_BATCH_SIZE,
    on_images: Callable[[int], object] = lambda images: None,
) -> Likelihood:
    """Bits per dimension of uint8 `images` (N, C, H, W) under `model`, at w = 0 and in float32.

    `labels` (N,) int64 are the images' classes, unused by an unconditional model. All that is
    random about image i is drawn from `keys[i]`, a (seed, index) with index below 2^63, so that its
    result does not depend on `batch_size` (up to rounding). `on_images` is called with the size of
    each batch when it is done. Images or labels that do not fit the model are a `UserError`.
    """
    check(model, method, images, labels)
    if model.num_classes is None:
        labels = None
    device = model.device
    denoiser = THRESHOLDS[method.threshold](model.denoiser())
    bits = []
    with count_evaluations() as counter:
        for start in range(0, len(images), batch_size):
            chunk = slice(start, start + batch_size)
            x = to_model_range(images[chunk]).to(device)
            label = None if labels is None else labels[chunk].to(device)
            bits.append(method.bits(denoiser, x, label, keys[chunk]))
            if not bits[-1].isfinite().all():
                raise UserError(
                    f"the {method.title} is not finite under {model.name}: take more steps, or a "
                    "model that samples well"
                )
            on_images(len(x))
    return Likelihood(method, torch.cat(bits), labels, per_image(counter, len(images)))


def check(model: DiffusionModel, method: Method, images: Tensor, labels: Tensor | None) -> None:
    """A `UserError` where the likelihood of these images under `model` cannot be measured."""
    method.check(model)
    model.check_shape(images)
    if model.num_classes is None:
        return
    if labels is None:
        raise UserError(f"{model.name} is conditional: give the images' labels")
    if labels.min() < 0 or labels.max() >= model.num_classes:
        raise UserError(
            f"{model.name} knows classes 0..{model.num_classes - 1}, got labels "
            f"{labels.min()}..{labels.max()}: use the data set it was trained on"
        )


def check_classes(model: DiffusionModel, data: Dataset) -> None:
    """A `UserError` where the labels of `data` cannot be classes of `model`."""
    if model.num_classes not in (None, data.num_classes):
        raise UserError(
            f"{model.name} knows {model.num_classes} classes, but {data.name} has "
            f"{data.num_classes}: use the data set it was trained on"
        )


def balanced_choice(data: Dataset, count: int, first: int = 0) -> Tensor:
    """The indices of `count` images of `data`, from number `first` of one fixed shuffled order.

    Number i is of class i mod C. The order depends on the data alone, so that models, methods and
    seeds are compared on the same images.
    """
    return balanced_indices(data.labels, data.num_classes, first + count, _ORDER)[first:]


def most_and_least_likely(bits: Tensor, each: int) -> Tensor:
    """The indices of the `each` most and the `each` least likely images; of all if they are fewer.

    In order, the most likely (least `bits` (N,)) first and the least likely last.
    """
    order = bits.argsort()
    return order if len(order) < 2 * each else torch.cat([order[:each], order[-each:]])


def _average(values: Tensor) -> Average:
    count = len(values)
    error = (values.std() / count**0.5).item() if count > 1 else None
    return Average(count, values.mean().item(), error)


def _check_repetitions(repetitions: int) -> None:
    if repetitions < 1:
        raise UserError(f"a likelihood needs at least 1 repetition, got {repetitions}")
