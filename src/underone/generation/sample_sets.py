"""Sample sets drawn from a model."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from underone.checkpoint import Checkpoint, DiffusionModel, GenerativeModel, VAEModel
from underone.data import SampleSet, to_uint8
from underone.diffusion import SamplingDivergedError, count_evaluations, per_image, sample
from underone.generation.draw import Draw
from underone.generation.setting import (
    Precision,
    Setting,
    autocast_of,
    denoiser_for,
    grid_for,
    precision_name,
    sampler_for,
)
from underone.networks.fixed_batches import InFixedBatches

DEFAULT_BATCH_SIZE = 128
# Data are uneven where a class has more than this many times the images of another.
_UNEVEN = 1.2


def check(model: GenerativeModel, setting: Setting, draw: Draw) -> None:
    """A `UserError` where `model` cannot give this draw at this setting."""
    setting.check(model)
    class_labels(model, draw)


def class_labels(model: GenerativeModel, draw: Draw) -> Tensor | None:
    """The class of each sample of a draw, (count,) int64; None where `model` has no classes."""
    if model.num_classes is None:
        return None
    return draw.class_labels(model.num_classes, model.config.data.class_images)


def usual_labels(model: GenerativeModel) -> str:
    """The label policy that matches a model's data: "balanced", or "proportional" if uneven."""
    images = model.config.data.class_images
    uneven = images is not None and max(images) > _UNEVEN * min(images)
    return "proportional" if uneven else "balanced"


def generate(
    model: GenerativeModel,
    setting: Setting,
    draw: Draw,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    precision: Precision = "auto",
    on_images: Callable[[int], object] = lambda images: None,
) -> SampleSet:
    """Draw a sample set; `on_images` is told the size of each batch once it is drawn.

    `precision`: "auto" runs the network in bfloat16 where the machine is fast in it, except for
    adaptive samplers, whose error control would respond to the rounding.
    """
    images = []
    # Before the first image, since the guiding checkpoint may be replaced during the draw.
    protocol = subject(model, setting, draw, precision)
    # An analytic sampler makes its estimates here, before evaluations are counted.
    batches = generate_batches(model, setting, draw, batch_size=batch_size, precision=precision)
    with count_evaluations() as counter:
        for batch in batches:
            images.append(batch)
            on_images(len(batch))
    protocol |= {"evaluations": per_image(counter, draw.count)}
    labels = labels_of(model, setting, draw)
    return SampleSet(torch.cat(images), labels, torch.tensor(draw.keys), protocol)


def uses_labels(model: GenerativeModel, setting: Setting) -> bool:
    """Whether samples are conditioned on labels: the model has them and the setting uses them."""
    return model.num_classes is not None and setting.uses_labels


def labels_of(model: GenerativeModel, setting: Setting, draw: Draw) -> Tensor | None:
    """The labels that a draw's samples are conditioned on; None without."""
    return class_labels(model, draw) if uses_labels(model, setting) else None


def generate_batches(
    model: GenerativeModel,
    setting: Setting,
    draw: Draw,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    precision: Precision = "auto",
) -> Iterator[Tensor]:
    """The images of a draw, uint8 (B, C, H, W) on the CPU, batch after batch."""
    check(model, setting, draw)
    if isinstance(model, VAEModel):
        batches = _decoded(model, draw, batch_size, autocast_of(model, setting, precision))
    else:
        batches = _denoised(model, setting, draw, batch_size, precision)
    return (to_images(x.cpu(), setting) for x in batches)


def _denoised(
    model: DiffusionModel, setting: Setting, draw: Draw, batch_size: int, precision: Precision
) -> Iterator[Tensor]:
    batches = sample(
        denoiser_for(model, setting, precision),
        sampler_for(model, setting),
        grid_for(model, setting),
        setting.steps,
        shape=model.shape,
        keys=draw.keys,
        labels=class_labels(model, draw),
        batch_size=batch_size,
        device=model.device,
    )
    return (batch.x for batch in batches)


def _decoded(
    model: VAEModel, draw: Draw, batch_size: int, autocast: torch.dtype | None
) -> Iterator[Tensor]:
    labels = draw.class_labels(model.num_classes, model.config.data.class_images)
    for start in range(0, draw.count, batch_size):
        rows = slice(start, start + batch_size)
        yield model.decode(model.latents(draw.keys[rows]), labels[rows], autocast)


def to_images(x: Tensor, setting: Setting) -> Tensor:
    """The final states as uint8 images; a `SamplingDivergedError` where they are not finite."""
    if not x.isfinite().all():
        raise SamplingDivergedError(
            f"sampling with {setting.sampler} at {setting.steps} steps of {setting.grid}, "
            f"w = {setting.guidance:g}, has diverged to NaN or infinity: use a more even grid, a "
            "smaller guidance weight, or another sampler"
        )
    return to_uint8(x)


def subject(
    model: GenerativeModel, setting: Setting, draw: Draw, precision: Precision
) -> dict[str, Any]:
    """How a sample set is made, as it is recorded beside every figure measured on it."""
    return {
        "model": _origin(model),
        "revision": model.config.network.revision,
        **asdict(setting),
        "guidance_scale": 1 + setting.guidance,
        "guided_by": _guided_by(model, setting),
        "labels": draw.labels if uses_labels(model, setting) else "none",
        "seed": draw.seed,
        "first": draw.first,
        "precision": precision_name(model, setting, precision),
        "compiled": isinstance(model.network, InFixedBatches),
        "trained_on_flips": model.trained_on_flips,
    }


def _guided_by(model: GenerativeModel, setting: Setting) -> dict[str, str] | None:
    partner = setting.partner(model)
    return None if partner is None else _origin(partner)


def _origin(checkpoint: Checkpoint) -> dict[str, str]:
    weights = str(checkpoint.weights)
    return {"name": checkpoint.name, "sha256": checkpoint.sha256, "weights": weights}
