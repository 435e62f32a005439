"""Recipes: everything that decides a training run, as a typed TOML file."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from underone.checkpoint import AnyClassifier, AnyPrediction, AnySchedule, check_framework
from underone.config import Config, named_toml, parse_kind, shipped_documents
from underone.errors import UserError
from underone.networks import EncoderConfig, NoisyClassifierConfig, UNetConfig, VAEConfig
from underone.training.levels import EVERY_STEP, EveryStep, LogNormal
from underone.training.weighting import SIMPLE, MinSNR, Simple

Fraction = Annotated[float, Field(ge=0, lt=1)]
AnyLevels = Annotated[EveryStep | LogNormal, Field(discriminator="name")]
AnyWeighting = Annotated[Simple | MinSNR, Field(discriminator="name")]


class Optimisation(Config):
    """AdamW or Muon under a learning rate that warms up, stays level, and decays to 0.

    `optimiser`: "adamw", or "muon" for the hidden weights with AdamW for the others. `flat`: the
    share of the updates before the decay begins, `decay` its shape; see `learning_rate`. `betas`
    and `weight_decay` are AdamW's.
    """

    optimiser: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    flat: Fraction = 0.0
    decay: Literal["cosine", "linear"] = "cosine"
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)


class Augmentation(Config):
    """Random changes that keep an image's class: mirroring, shifts by up to `shift` pixels.

    `padding`: what a shift brings in, black or the image's own edge.
    """

    flip: bool = False
    shift: int = Field(default=0, ge=0)
    padding: Literal["black", "edge"] = "black"


class Views(Config):
    """How random views of an image are made, which an encoder learns to represent alike.

    Each is a square cut out of the image, of `smallest_crop` to 1 of its side, turned by up to
    `rotation` degrees, and brightness and contrast times 1 - `contrast` to 1 + `contrast`.
    """

    smallest_crop: float = Field(default=0.6, gt=0, le=1)
    rotation: float = Field(default=10.0, ge=0, le=180)
    contrast: Fraction = 0.4


class _Recipe(Config):
    """The keys of every kind of recipe.

    `compile`: whether the network is compiled first (`Compiled`).
    """

    data: str
    steps: int = Field(ge=1)
    batch_size: int = Field(default=128, ge=1)
    seed: int = Field(default=0, ge=0)
    optimisation: Optimisation = Optimisation()
    augmentation: Augmentation = Augmentation()
    log_every: int = Field(default=20, ge=1)
    checkpoint_minutes: float = Field(default=5.0, gt=0)
    compile: bool = False


class AveragedRecipe(_Recipe):
    """A model that is sampled, from a moving average of its weights.

    `moving_average`: its relative width, see `average`. `snapshots`: how often over the run it and
    one of half its width are kept, from which averages of other widths are made afterwards
    (`post_hoc`).
    """

    moving_average: float = Field(default=0.1, gt=0, lt=0.28)
    snapshots: int = Field(default=0, ge=0)


class DiffusionRecipe(AveragedRecipe):
    """A diffusion model: DDPM Algorithm 1 with label dropout and a moving average of the weights.

    `levels`: the distribution of the noise levels it is trained at. `weighting`: the weight of the
    error at each. `weak_at`: the share of the updates after which the average is also kept as a
    weak model, for autoguidance; 0 keeps none, and 1/16 was best in Karras et al. 2024, arXiv
    2406.02507, table 1.
    """

    kind: Literal["diffusion"]
    network: UNetConfig
    schedule: AnySchedule
    prediction: AnyPrediction
    levels: AnyLevels = EVERY_STEP
    weighting: AnyWeighting = SIMPLE
    label_dropout: Fraction = 0.1
    weak_at: Fraction = 0.0625

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_framework(self.schedule, self.prediction, self.network)
        return self


@dataclass(frozen=True)
class Trajectories:
    """Take `evaluations` steps along the teacher's own trajectories (`TrajectoryDistillation`).

    The teacher takes `inner` more steps within each, on `grid`, guided with weight `guidance` in
    `form`. `likeness` >= 0 is the weight of being like the data, beside following the teacher.
    """

    evaluations: int
    grid: str = "karras"
    inner: int = 3
    guidance: float = 0.0
    form: str = "classifier-free"
    likeness: float = 0.0
    name: Literal["trajectories"] = "trajectories"

    def __post_init__(self) -> None:
        if self.evaluations < 1 or self.inner < 0:
            raise UserError(
                "a student takes at least 1 evaluation, and its teacher 0 or more within each, got "
                f"{self.evaluations} and {self.inner}"
            )
        if not 0 <= self.likeness < float("inf"):
            raise UserError(f"likeness must be finite and at least 0, got {self.likeness}")


@dataclass(frozen=True)
class ConsistencyTuning:
    """Give the same image from all along a trajectory (`EasyConsistencyTuning`).

    `closeness`, the paper's q, is how close together two levels are compared; log levels are normal
    with `mean` and `deviation`, the paper's P_mean and P_std. `evaluations`, 1 or 2: the second
    begins at the level `middle`. Levels are in units in which the data's standard deviation,
    `data_deviation` (sigma_data), is 1/2; the defaults are the authors'.
    """

    evaluations: int
    data_deviation: float = 0.5
    closeness: float = 256.0
    mean: float = -1.1
    deviation: float = 2.0
    middle: float = 0.821
    name: Literal["consistency"] = "consistency"

    def __post_init__(self) -> None:
        if self.evaluations not in (1, 2):
            raise UserError(
                f"a consistency model is sampled in 1 or 2 evaluations, not {self.evaluations}: "
                "leave out --method for a student that follows trajectories"
            )
        if not (self.closeness > 1 and self.deviation > 0 and self.middle > 0):
            raise UserError("closeness must be above 1, deviation and middle above 0")


class DistillationRecipe(AveragedRecipe):
    """A student of few evaluations, which begins as its `teacher` and is read as that was."""

    kind: Literal["distillation"]
    teacher: str
    teacher_sha256: str
    method: Annotated[Trajectories | ConsistencyTuning, Field(discriminator="name")]
    network: UNetConfig
    schedule: AnySchedule
    prediction: AnyPrediction

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if isinstance(self.method, Trajectories) and self.method.likeness and self.batch_size < 2:
            raise ValueError("likeness compares the images of a batch: batch_size must be >= 2")
        return self


class VAERecipe(AveragedRecipe):
    """A conditional VAE under its evidence lower bound, whose KL term is weighted by `beta`."""

    kind: Literal["vae"]
    network: VAEConfig
    beta: float = Field(default=1.0, ge=0)


class ClassifierRecipe(_Recipe):
    """A classifier under cross-entropy."""

    kind: Literal["classifier"]
    # One image alone has no spread to be normalised by.
    batch_size: int = Field(default=128, ge=2)
    network: AnyClassifier
    label_smoothing: Fraction = 0.0


class NoisyClassifierRecipe(_Recipe):
    """A classifier of noisy images under cross-entropy, at all noise levels of its schedule."""

    kind: Literal["noisy-classifier"]
    network: NoisyClassifierConfig
    schedule: AnySchedule
    label_smoothing: Fraction = 0.0


class EncoderRecipe(_Recipe):
    """An encoder trained without labels, by VICReg, with these weights of the terms of its loss."""

    kind: Literal["encoder"]
    # It compares the images of a batch with each other.
    batch_size: int = Field(default=128, ge=2)
    network: EncoderConfig
    views: Views = Views()
    invariance: float = Field(default=25.0, ge=0)
    variance: float = Field(default=25.0, ge=0)
    covariance: float = Field(default=1.0, ge=0)


Recipe = (
    DiffusionRecipe
    | DistillationRecipe
    | VAERecipe
    | ClassifierRecipe
    | EncoderRecipe
    | NoisyClassifierRecipe
)
_KINDS: dict[str, type[Recipe]] = {
    "diffusion": DiffusionRecipe,
    "distillation": DistillationRecipe,
    "classifier": ClassifierRecipe,
    "encoder": EncoderRecipe,
    "noisy-classifier": NoisyClassifierRecipe,
    "vae": VAERecipe,
}
_SHIPPED = files("underone.training") / "recipes"


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return shipped_documents(_SHIPPED)


def load_recipe(name: str, changes: Iterable[str] = ()) -> Recipe:
    """The recipe of a shipped name or of a TOML file, with `changes` like "network.width=32"."""
    document = named_toml("recipe", name, _SHIPPED)
    for change in changes:
        _apply(document, change)
    return parse_recipe(document, f"recipe {name}")


def parse_recipe(document: object, where: str) -> Recipe:
    """A recipe from its document."""
    return parse_kind(_KINDS, document, where)


def _apply(document: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    *parents, last = key.strip().split(".")
    if not equals or not last:
        raise UserError(f"--set takes KEY=VALUE, like network.width=32, got {change!r}")
    for parent in parents:
        inner = document.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UserError(f"--set {change}: {parent} is a value, not a section")
        document = inner
    try:
        document[last] = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        document[last] = value.strip()
