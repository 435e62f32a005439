"""From a model and a setting to a sample set: the one way images are made."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from underone.analytic import data_variance
from underone.checkpoint import DiffusionModel
from underone.data import SampleSet, to_uint8
from underone.diffusion import THRESHOLDS, AnalyticDDPM, Sampler, count_evaluations, sample
from underone.errors import UserError, unknown
from underone.named import MADE_FOR_A_MODEL, grid_named, sampler_named
from underone.networks.precision import fast_dtype

DEFAULT_BATCH_SIZE = 128
# The sampler that is made for a model, from what is kept beside it.
ANALYTIC = MADE_FOR_A_MODEL
# What an adaptive sampler usually takes at its default tolerance, for plans alone.
_ADAPTIVE_EVALUATIONS = 450
LABEL_POLICIES = ("balanced", "random")
Precision = Literal["auto", "float32"]
# The stream that random labels are drawn from: no sample's, for those have the index in its place.
_LABEL_STREAM = 2**64 - 1


@dataclass(frozen=True)
class Setting:
    """How to sample: everything that may differ between two sample sets of one model.

    `sampler` and `grid` are names as `underone.named` reads them, or "ddpm-analytic"; `guidance`
    is the weight w; `threshold`, a name of `THRESHOLDS`, bounds x0 after guidance: "static" to
    [-1, 1], "dynamic" by its own quantile, or "none".
    """

    sampler: str = "ddim"
    steps: int = 20
    grid: str = "trailing"
    guidance: float = 0.0
    threshold: str = "static"

    def __post_init__(self) -> None:
        if self.sampler != ANALYTIC:
            sampler_named(self.sampler)
        grid_named(self.grid)
        if self.threshold not in THRESHOLDS:
            raise unknown("threshold", self.threshold, THRESHOLDS)

    def check(self, model: DiffusionModel) -> None:
        """A `UserError` where `model` cannot be sampled with this setting."""
        most = model.config.schedule.steps
        if not 1 <= self.steps <= most:
            raise UserError(f"steps must lie in 1..{most} for {model.name}, got {self.steps}")
        grid_named(self.grid)(model.config.schedule, self.steps)
        model.check_guidance(self.guidance)
        if self.sampler == ANALYTIC and self.guidance != 0:
            raise UserError(
                f"{ANALYTIC} holds at w = 0 only, not at guidance {self.guidance:g}, where the "
                "mixed x0 is no conditional mean: use ddpm-small or ddpm-large"
            )

    def evaluations(self, model: DiffusionModel) -> int:
        """The network evaluations an image costs: what is planned with; the count is measured."""
        branches = 1 if self.guidance in (0, -1) or model.num_classes is None else 2
        declared = self.declared_evaluations
        return branches * (_ADAPTIVE_EVALUATIONS if declared is None else declared)

    @property
    def declared_evaluations(self) -> int | None:
        """What the sampler says of an unguided run; None of an adaptive one."""
        if self.sampler == ANALYTIC:
            return self.steps
        return sampler_named(self.sampler).evaluations(self.steps)


@dataclass(frozen=True)
class Draw:
    """Which samples: `count` of them, keyed by (seed, first), (seed, first + 1), ...

    `labels`: "balanced" (sample i has class i mod C), "random" (uniform), or whole numbers
    separated by commas, repeated in turn.
    """

    count: int
    seed: int = 0
    first: int = 0
    labels: str = "balanced"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"count must be at least 1, got {self.count}")
        if not (0 <= self.seed < 2**63 and 0 <= self.first < 2**63 - self.count):
            raise UserError("seeds and indices must lie in 0..2^63 - 1")

    @property
    def keys(self) -> list[tuple[int, int]]:
        """The (seed, index) of each sample."""
        return [(self.seed, self.first + offset) for offset in range(self.count)]

    def class_labels(self, classes: int) -> Tensor:
        """The label of each sample, (count,) int64."""
        indices = torch.arange(self.first, self.first + self.count)
        if self.labels == "balanced":
            return indices % classes
        if self.labels == "random":
            key = np.array([self.seed, _LABEL_STREAM], dtype=np.uint64)
            stream = np.random.Generator(np.random.Philox(key=key))
            drawn = stream.integers(classes, size=self.first + self.count)
            return torch.from_numpy(drawn[self.first :])
        chosen = torch.tensor(_parse_labels(self.labels, classes))
        return chosen[indices % len(chosen)]


def check(model: DiffusionModel, setting: Setting, draw: Draw) -> None:
    """A `UserError` where `model` cannot give this draw at this setting."""
    setting.check(model)
    if model.num_classes is not None:
        draw.class_labels(model.num_classes)


def generate(
    model: DiffusionModel,
    setting: Setting,
    draw: Draw,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    precision: Precision = "auto",
    on_images: Callable[[int], object] = lambda images: None,
) -> SampleSet:
    """Draw a sample set. `on_images` hears of each batch's size as it is done.

    `precision`: "auto" runs the network in bfloat16 where the machine is fast in it, but for
    adaptive samplers, whose control of the error would chase its rounding.
    """
    images = []
    # What an analytic sampler must know is found out before the count begins.
    batches = generate_batches(model, setting, draw, batch_size=batch_size, precision=precision)
    with count_evaluations() as counter:
        for batch in batches:
            images.append(batch)
            on_images(len(batch))
    protocol = subject(model, setting, draw, precision) | {
        "evaluations": {name: total / draw.count for name, total in counter.items()}
    }
    labels = labels_of(model, setting, draw)
    return SampleSet(torch.cat(images), labels, torch.tensor(draw.keys), protocol)


def uses_labels(model: DiffusionModel, setting: Setting) -> bool:
    """Whether samples are of the classes asked for: not unconditionally, nor at w = -1."""
    return model.num_classes is not None and setting.guidance != -1


def labels_of(model: DiffusionModel, setting: Setting, draw: Draw) -> Tensor | None:
    """The classes that a draw's samples were asked to be of; None where none was."""
    if model.num_classes is None or not uses_labels(model, setting):
        return None
    return draw.class_labels(model.num_classes)


def generate_batches(
    model: DiffusionModel,
    setting: Setting,
    draw: Draw,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    precision: Precision = "auto",
) -> Iterator[Tensor]:
    """The images of a draw, uint8 (B, C, H, W) on the CPU, batch after batch."""
    check(model, setting, draw)
    batches = sample(
        model.denoiser(
            setting.guidance,
            threshold=setting.threshold,
            autocast=_autocast(model, setting, precision),
        ),
        sampler_for(model, setting),
        grid_named(setting.grid),
        setting.steps,
        shape=model.shape,
        keys=draw.keys,
        labels=None if model.num_classes is None else draw.class_labels(model.num_classes),
        batch_size=batch_size,
        device=_device(model),
    )
    return (_images(batch.x.cpu(), setting) for batch in batches)


def _images(x: Tensor, setting: Setting) -> Tensor:
    if not x.isfinite().all():
        raise UserError(
            f"sampling with {setting.sampler} at {setting.steps} steps of {setting.grid}, "
            f"w = {setting.guidance:g}, has diverged to NaN or infinity: take more even steps, a "
            "smaller guidance weight, or another sampler"
        )
    return to_uint8(x)


def sampler_for(model: DiffusionModel, setting: Setting) -> Sampler:
    """The sampler of a setting; the analytic one with the variance of this model's data."""
    if setting.sampler == ANALYTIC:
        return AnalyticDDPM(data_variance(model))
    return sampler_named(setting.sampler)


def subject(
    model: DiffusionModel, setting: Setting, draw: Draw, precision: Precision
) -> dict[str, Any]:
    """What a sample set is of, as it is recorded beside every figure measured on it."""
    dtype = _autocast(model, setting, precision)
    return {
        "model": {"name": model.name, "sha256": model.sha256, "weights": model.weights},
        "revision": model.config.network.revision,
        **asdict(setting),
        "guidance_scale": 1 + setting.guidance,
        "labels": draw.labels if uses_labels(model, setting) else "none",
        "seed": draw.seed,
        "first": draw.first,
        "precision": "float32" if dtype is None else str(dtype).removeprefix("torch."),
    }


def _device(model: DiffusionModel) -> torch.device:
    return next(model.network.parameters()).device


def _autocast(model: DiffusionModel, setting: Setting, precision: Precision) -> torch.dtype | None:
    adaptive = setting.declared_evaluations is None
    return fast_dtype(_device(model)) if precision == "auto" and not adaptive else None


def _parse_labels(text: str, classes: int) -> list[int]:
    try:
        labels = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(
            f"labels must be {', '.join(LABEL_POLICIES)} or classes like 0,3,3, got {text!r}"
        ) from None
    outside = next((label for label in labels if not 0 <= label < classes), None)
    if outside is not None:
        raise UserError(
            f"label {outside} is not a class of this model: choose from 0..{classes - 1}"
        )
    return labels
