"""From a model and a setting to a sample set: the one way images are made."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from underone.analytic import data_variance
from underone.checkpoint import (
    Checkpoint,
    DiffusionModel,
    DistillationRecord,
    GenerativeModel,
    VAEModel,
)
from underone.data import SampleSet, to_uint8
from underone.diffusion import (
    THRESHOLDS,
    AnalyticDDPM,
    Denoiser,
    Grid,
    Sampler,
    count_evaluations,
    nodes,
    sample,
)
from underone.errors import UserError, unknown
from underone.guides import Form, form_named, guided
from underone.named import MADE_FOR_A_MODEL, grid_named, sampler_named
from underone.networks.precision import fast_dtype
from underone.tuned import Purpose, tuned_sampler

DEFAULT_BATCH_SIZE = 128
# The samplers that are made for a model, from what is kept with it, and the one of every VAE.
ANALYTIC, TUNED, DECODER, DISTILLED = MADE_FOR_A_MODEL
# The grids of a tuned sampler or a distilled model, their own, and of a decoder, without steps.
OWN_GRIDS = LEARNED, NO_GRID = "learned", "none"
# What an adaptive sampler usually takes at its default tolerance, for plans alone.
_ADAPTIVE_EVALUATIONS = 450
LABEL_POLICIES = ("balanced", "random")
Precision = Literal["auto", "float32"]
# The stream that random labels are drawn from: no sample's, for those have the index in its place.
_LABEL_STREAM = 2**64 - 1


@dataclass(frozen=True)
class Setting:
    """How to sample: everything that may differ between two sample sets of one model.

    `sampler` and `grid` are names as `underone.named` reads them, or the sampler is "ddpm-analytic"
    or "tuned" or "distilled", whose grid is "learned" and may be left out, or "decoder", that of a
    VAE, of which nothing else is to be chosen: it takes 1 step and no grid.

    `guidance` is the weight w, `form` how it acts, a name of `underone.guides.FORMS`, and
    `interval` the (low, high] of sigma / alpha to which it is limited, if it is. `threshold`, a
    name of `THRESHOLDS`, bounds x0 after guidance: "static" to [-1, 1], "dynamic" by its own
    quantile, or "none".
    """

    sampler: str = "ddim"
    steps: int = 20
    grid: str = "trailing"
    guidance: float = 0.0
    threshold: str = "static"
    form: str = "classifier-free"
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.sampler not in MADE_FOR_A_MODEL:
            sampler_named(self.sampler)
        if self.sampler in (TUNED, DISTILLED):
            self._take_learned_grid()
        elif self.sampler == DECODER:
            self._take_one_pass()
        else:
            grid_named(self.grid)
        form_named(self.form)
        if self.threshold not in THRESHOLDS:
            raise unknown("threshold", self.threshold, THRESHOLDS)
        if self.interval is not None and not 0 <= self.interval[0] < self.interval[1]:
            low, high = self.interval
            raise UserError(
                f"a guidance interval of sigma / alpha needs 0 <= low < high, got {low:g}:{high:g}"
            )

    def _take_learned_grid(self) -> None:
        if self.grid not in (LEARNED, Setting.grid):
            raise UserError(
                f"a {self.sampler} sampler has a grid of its own: leave out --grid {self.grid}"
            )
        object.__setattr__(self, "grid", LEARNED)

    def _take_one_pass(self) -> None:
        own = {"steps": 1, "grid": NO_GRID}
        for field in fields(self)[1:]:
            given = getattr(self, field.name)
            if given not in (field.default, own.get(field.name)):
                raise UserError(
                    f"the {DECODER} of a VAE draws an image in one pass, and has neither steps nor "
                    f"grid, guidance or threshold to choose: leave out {field.name} = {given}"
                )
        for name, value in own.items():
            object.__setattr__(self, name, value)

    @property
    def options(self) -> dict[str, Any]:
        """The fields to give to have this setting: those that the defaults, or its sampler, leave.

        The sampler itself is among them where it is not the usual one.
        """
        usual = asdict(Setting(self.sampler)) | {"sampler": Setting.sampler}
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

    @property
    def purpose(self) -> Purpose:
        """What a sampler must be tuned for to be used here."""
        return Purpose(
            steps=self.steps,
            guidance=self.guidance,
            form=self.form,
            interval=self.interval,
            threshold=self.threshold,
        )

    @property
    def guide(self) -> Form:
        """How the weight acts."""
        return form_named(self.form)

    @property
    def uses_labels(self) -> bool:
        """Whether samples of a conditional model are of the classes asked for."""
        return self.guide.uses_labels(self.guidance)

    def check(self, model: GenerativeModel) -> None:
        """A `UserError` where `model` cannot be sampled with this setting."""
        if isinstance(model, VAEModel):
            if self.sampler != DECODER:
                raise UserError(
                    f"{model.name} is a VAE, which no sampler of diffusion models takes steps in: "
                    f"use {DECODER} in the place of {self.sampler}"
                )
            return
        if self.sampler == DECODER:
            raise UserError(
                f"{DECODER} is the sampler of a VAE, and {model.name} is a diffusion model: use "
                f"another, like {Setting.sampler}"
            )
        most = model.config.schedule.steps
        if not 1 <= self.steps <= most:
            raise UserError(f"steps must lie in 1..{most} for {model.name}, got {self.steps}")
        grid_for(model, self)(model.config.schedule, self.steps)
        denoiser_for(model, self)
        if self.sampler == ANALYTIC and self.guidance != 0:
            raise UserError(
                f"{ANALYTIC} holds at w = 0 only, not at guidance {self.guidance:g}, where the "
                "mixed x0 is no conditional mean: use ddpm-small or ddpm-large"
            )

    def evaluations(self, model: GenerativeModel) -> int:
        """The network evaluations an image costs: what is planned with; the count is measured."""
        return sum(self.evaluations_of_each(model).values())

    def evaluations_of_each(self, model: GenerativeModel) -> dict[str, int]:
        """The same by network; exact for samplers that evaluate once a step."""
        declared = self.declared_evaluations
        total = _ADAPTIVE_EVALUATIONS if declared is None else declared
        if self.guidance == 0 or model.num_classes is None or isinstance(model, VAEModel):
            return {"model": total}
        second = self.guide.second_pass
        if self.guidance == -1:
            return {second if self.uses_labels else "model": total}
        inside = round(total * self._share_inside(model))
        return {"model": total, second: inside + (total if second == "model" else 0)}

    def _share_inside(self, model: DiffusionModel) -> float:
        """The share of the steps that begin inside the interval."""
        if self.interval is None:
            return 1.0
        low, high = self.interval
        path = nodes(grid_for(model, self), model.config.schedule, self.steps)[:-1]
        return sum(low < node.noise_ratio.item() <= high for node in path) / len(path)

    @property
    def declared_evaluations(self) -> int | None:
        """What the sampler says of an unguided run; None of an adaptive one."""
        if self.sampler in MADE_FOR_A_MODEL:
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


def usual_setting(model: GenerativeModel) -> Setting:
    """How a model is sampled where nothing is said."""
    if isinstance(model, VAEModel):
        return Setting(DECODER)
    if model.distillation is not None:
        return Setting(DISTILLED, len(model.distillation.paths[0]))
    return Setting()


def check(model: GenerativeModel, setting: Setting, draw: Draw) -> None:
    """A `UserError` where `model` cannot give this draw at this setting."""
    setting.check(model)
    if model.num_classes is not None:
        draw.class_labels(model.num_classes)


def generate(
    model: GenerativeModel,
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


def uses_labels(model: GenerativeModel, setting: Setting) -> bool:
    """Whether samples are of the classes asked for: not unconditionally, nor without labels."""
    return model.num_classes is not None and setting.uses_labels


def labels_of(model: GenerativeModel, setting: Setting, draw: Draw) -> Tensor | None:
    """The classes that a draw's samples were asked to be of; None where none was."""
    if model.num_classes is None or not uses_labels(model, setting):
        return None
    return draw.class_labels(model.num_classes)


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
        batches = _decoded(model, draw, batch_size, _autocast(model, setting, precision))
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
        labels=None if model.num_classes is None else draw.class_labels(model.num_classes),
        batch_size=batch_size,
        device=_device(model),
    )
    return (batch.x for batch in batches)


def _decoded(
    model: VAEModel, draw: Draw, batch_size: int, autocast: torch.dtype | None
) -> Iterator[Tensor]:
    labels = draw.class_labels(model.num_classes)
    for start in range(0, draw.count, batch_size):
        rows = slice(start, start + batch_size)
        yield model.decode(model.latents(draw.keys[rows]), labels[rows], autocast)


def denoiser_for(
    model: DiffusionModel, setting: Setting, precision: Precision = "auto"
) -> Denoiser:
    """What a sampler is given: the network, then guidance, then a threshold on x0."""
    autocast = _autocast(model, setting, precision)
    denoiser = guided(model, setting.guide, setting.guidance, setting.interval, autocast)
    return THRESHOLDS[setting.threshold](denoiser)


def to_images(x: Tensor, setting: Setting) -> Tensor:
    """What sampling with `setting` ended in as uint8 images; a `UserError` where it diverged."""
    if not x.isfinite().all():
        raise UserError(
            f"sampling with {setting.sampler} at {setting.steps} steps of {setting.grid}, "
            f"w = {setting.guidance:g}, has diverged to NaN or infinity: take more even steps, a "
            "smaller guidance weight, or another sampler"
        )
    return to_uint8(x)


def sampler_for(model: DiffusionModel, setting: Setting) -> Sampler:
    """The sampler of a setting: one made for this model from what is kept beside it, or named."""
    if setting.sampler == ANALYTIC:
        return AnalyticDDPM(data_variance(model))
    if setting.sampler == TUNED:
        return tuned_sampler(model, setting.purpose).sampler
    if setting.sampler == DISTILLED:
        return _taught(model, setting.sampler).own_sampler
    return sampler_named(setting.sampler)


def grid_for(model: DiffusionModel, setting: Setting) -> Grid:
    """The grid of a setting; a tuned sampler has its own, and a distilled model."""
    if setting.sampler == TUNED:
        return tuned_sampler(model, setting.purpose).placement
    if setting.sampler == DISTILLED:
        taught = _taught(model, setting.sampler)
        path = taught.path(setting.steps)
        if path is None:
            known = " or ".join(str(len(each)) for each in taught.paths)
            raise UserError(f"{model.name} is distilled to {known} steps, not {setting.steps}")
        return path
    return grid_named(setting.grid)


def _taught(model: DiffusionModel, sampler: str) -> DistillationRecord:
    if model.distillation is None:
        raise UserError(
            f"{model.name} is not {sampler}: use another sampler, like {Setting.sampler}, or make "
            "a model of few steps from it with underone distill"
        )
    return model.distillation


def subject(
    model: GenerativeModel, setting: Setting, draw: Draw, precision: Precision
) -> dict[str, Any]:
    """What a sample set is of, as it is recorded beside every figure measured on it."""
    dtype = _autocast(model, setting, precision)
    return {
        "model": _origin(model),
        "revision": model.config.network.revision,
        **asdict(setting),
        "guidance_scale": 1 + setting.guidance,
        "guided_by": _guided_by(model, setting),
        "labels": draw.labels if uses_labels(model, setting) else "none",
        "seed": draw.seed,
        "first": draw.first,
        "precision": "float32" if dtype is None else str(dtype).removeprefix("torch."),
        "trained_on_flips": model.trained_on_flips,
    }


def _guided_by(model: GenerativeModel, setting: Setting) -> dict[str, str] | None:
    if setting.guidance == 0 or isinstance(model, VAEModel):
        return None
    partner = setting.guide.partner(model)
    return None if partner is None else _origin(partner)


def _origin(checkpoint: Checkpoint) -> dict[str, str]:
    weights = str(checkpoint.weights)
    return {"name": checkpoint.name, "sha256": checkpoint.sha256, "weights": weights}


def _device(model: GenerativeModel) -> torch.device:
    return next(model.network.parameters()).device


def _autocast(model: GenerativeModel, setting: Setting, precision: Precision) -> torch.dtype | None:
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
