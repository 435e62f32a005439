"""The config.json of a checkpoint folder, by the kind of its network."""

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator

from underone.config import Config
from underone.diffusion import (
    DDIM,
    Consistency,
    Cosine,
    Data,
    Explicit,
    FlowVelocity,
    Geometric,
    LinearBeta,
    Noise,
    Preconditioned,
    Sampler,
    ScaledLinearBeta,
    Score,
    Straight,
    Velocity,
)
from underone.errors import UserError
from underone.networks import (
    ClassifierConfig,
    EncoderConfig,
    NoisyClassifierConfig,
    TransformerConfig,
    UNetConfig,
    VAEConfig,
)

AnySchedule = Annotated[
    LinearBeta | ScaledLinearBeta | Cosine | Geometric | Straight, Field(discriminator="name")
]
AnyPrediction = Annotated[
    Noise | Data | Velocity | Preconditioned | Score | FlowVelocity, Field(discriminator="name")
]
AnyClassifier = Annotated[ClassifierConfig | TransformerConfig, Field(discriminator="name")]


def check_noisy_end(schedule: AnySchedule, prediction: AnyPrediction) -> None:
    """A `UserError` where noise is predicted, but at t = 1 no signal is left to find x0 by."""
    alpha = schedule(torch.ones(()))[0].item()
    if isinstance(prediction, Noise) and alpha < torch.finfo(torch.float32).eps:
        raise UserError(
            f"this schedule ends at alpha = {alpha:.2g}, where x0 = (x - sigma noise) / alpha is "
            "rounding error alone: predict velocity or data, or use smaller betas"
        )


def check_framework(schedule: AnySchedule, prediction: AnyPrediction, network: UNetConfig) -> None:
    """A `UserError` where a prediction does not fit the schedule, or the network's input of t."""
    check_noisy_end(schedule, prediction)
    alpha, sigma = schedule(torch.linspace(0, 1, 9, dtype=torch.float64))
    whole = torch.ones_like(alpha)
    if isinstance(prediction, Velocity) and not torch.allclose(alpha**2 + sigma**2, whole):
        raise UserError(
            "velocity is alpha z - sigma x0, from which x0 is found only where alpha^2 + sigma^2 "
            f"= 1, unlike in the {schedule.name} schedule: predict noise or data, or flow-velocity "
            "in the straight one"
        )
    if isinstance(prediction, FlowVelocity) and not torch.allclose(alpha + sigma, whole):
        raise UserError(
            "flow-velocity is z - x0, the velocity of the straight path, and the "
            f"{schedule.name} schedule is not straight: choose the straight one, or predict "
            "velocity, noise or data"
        )
    if isinstance(prediction, Score) and network.time:
        raise UserError(
            "a score network is not given the time, but sees it in the noise: set "
            "network.time = false, or predict noise"
        )


# The name of the data of a model from elsewhere, until its user gives one.
UNKNOWN_DATA = "unknown"


class DataRecord(Config):
    """The data a model was trained on; the hash is unknown for a model from elsewhere.

    `class_images`: how many images of each class there are, where that is known.
    """

    name: str
    sha256: str | None
    class_names: tuple[str, ...]
    class_images: tuple[Annotated[int, Field(ge=0, lt=2**40)], ...] | None = None

    @model_validator(mode="after")
    def _counts_each_class(self) -> Self:
        counts = self.class_images
        if counts is not None and (len(counts) != len(self.class_names) or sum(counts) == 0):
            raise UserError(
                f"class_images must count the images of {len(self.class_names)} classes, got "
                f"{len(counts)} numbers that come to {sum(counts)}"
            )
        return self


class TrainingRecord(Config):
    """How a model was trained; `weak_steps` of its `steps` made its `weak.safetensors`, if any.

    `flip`: whether it was trained on mirror images as well.
    """

    recipe: str
    steps: int
    weak_steps: int | None = None
    batch_size: int
    images_seen: int
    seconds: float
    seed: int
    label_dropout: float = 0.0
    moving_average: float | None = None
    flip: bool = False
    torch: str


class DistillationRecord(Config):
    """How a model was distilled, and how it is sampled: by `sampler` along one of `paths`.

    `paths` are the steps k, noisy first, for each number of evaluations that it was made for. It
    has learned the guidance of its teacher, so that it is not guided itself.
    """

    teacher: str
    teacher_sha256: str
    method: str
    guidance: float = 0.0
    form: str = "classifier-free"
    sampler: Literal["ddim", "consistency"]
    paths: tuple[tuple[float, ...], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _has_paths(self) -> Self:
        for path in self.paths:
            Explicit(path)
        return self

    @property
    def own_sampler(self) -> Sampler:
        """The sampler that takes its steps."""
        return DDIM() if self.sampler == "ddim" else Consistency()

    def path(self, steps: int) -> Explicit | None:
        """Its grid of `steps` steps, if it has one."""
        found = (path for path in self.paths if len(path) == steps)
        return next((Explicit(path) for path in found), None)


class DiffusionConfig(Config):
    """The config.json of a diffusion model; `distillation` only if it was distilled."""

    kind: Literal["diffusion"] = "diffusion"
    format_version: Literal[1] = 1
    network: UNetConfig
    schedule: AnySchedule
    prediction: AnyPrediction
    data: DataRecord
    training: TrainingRecord
    distillation: DistillationRecord | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_framework(self.schedule, self.prediction, self.network)
        return self


class VAECheckpointConfig(Config):
    """The config.json of a variational autoencoder."""

    kind: Literal["vae"] = "vae"
    format_version: Literal[1] = 1
    network: VAEConfig
    data: DataRecord
    training: TrainingRecord


class ForeignNetwork(Config):
    """A network that another package builds, from `settings` of its own.

    `classes`: how many it knows, without the null class; None for an unconditional network.
    """

    package: str
    image_size: int
    channels: int
    classes: int | None
    null_class: int | None
    settings: dict[str, Any]
    revision: None = None


class ForeignConfig(Config):
    """The configuration of a model from elsewhere, of whose training nothing is known."""

    kind: Literal["diffusion"] = "diffusion"
    network: ForeignNetwork
    schedule: AnySchedule
    prediction: AnyPrediction
    data: DataRecord

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_noisy_end(self.schedule, self.prediction)
        return self


class _FeatureConfig(Config):
    """Features are multiplied by `feature_scale` before anything is measured in them."""

    format_version: Literal[1] = 1
    feature_scale: float = Field(default=1.0, gt=0)
    data: DataRecord
    training: TrainingRecord


class ClassifierCheckpointConfig(_FeatureConfig):
    """The config.json of a classifier."""

    kind: Literal["classifier"] = "classifier"
    network: AnyClassifier


class EncoderCheckpointConfig(_FeatureConfig):
    """The config.json of an encoder, which was trained without labels."""

    kind: Literal["encoder"] = "encoder"
    network: EncoderConfig


class NoisyClassifierCheckpointConfig(Config):
    """The config.json of a classifier of noisy images."""

    kind: Literal["noisy-classifier"] = "noisy-classifier"
    format_version: Literal[1] = 1
    network: NoisyClassifierConfig
    schedule: AnySchedule
    data: DataRecord
    training: TrainingRecord


FeatureConfig = ClassifierCheckpointConfig | EncoderCheckpointConfig
CheckpointConfig = (
    DiffusionConfig | VAECheckpointConfig | FeatureConfig | NoisyClassifierCheckpointConfig
)
