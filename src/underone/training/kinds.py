"""What each kind of recipe trains: its objective, what its checkpoint says, how it is scored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from underone.checkpoint import (
    CheckpointConfig,
    ClassifierCheckpointConfig,
    DataRecord,
    DiffusionConfig,
    EncoderCheckpointConfig,
    NoisyClassifierCheckpointConfig,
    TrainingRecord,
    VAECheckpointConfig,
)
from underone.data import Dataset
from underone.training.calibration import calibrate
from underone.training.held_out_bound import held_out_bound
from underone.training.noisy_accuracy import TIMES, noisy_accuracy
from underone.training.objective import (
    Classification,
    Denoising,
    NegativeELBO,
    NoisyClassification,
    Objective,
    VICReg,
)
from underone.training.recipe import (
    ClassifierRecipe,
    DiffusionRecipe,
    DistillationRecipe,
    EncoderRecipe,
    NoisyClassifierRecipe,
    Recipe,
    VAERecipe,
)
from underone.training.teaching import distillation_record, objective_with_teacher

# The folder, the images it was trained on, those held out if there are any, and the device.
Score = Callable[[Path, Dataset, Dataset | None, torch.device], dict[str, float]]


@dataclass(frozen=True)
class Scoring:
    """How a trained model is scored, beside by its samples.

    `announcement`, given the images it was trained on and those held out, says what is about to be
    done, or None if nothing is; `form` is the format of a score.
    """

    score: Score
    announcement: Callable[[Dataset, Dataset | None], str | None]
    form: str = "{:.2%}"


@dataclass(frozen=True)
class Kind:
    """What a kind of recipe trains; the first argument of each function is a recipe of the kind."""

    objective: Callable[[Any, torch.device], Objective]
    config: Callable[[Any, DataRecord, TrainingRecord], CheckpointConfig]
    scoring: Scoring | None = None


def objective_of(recipe: Recipe, device: torch.device) -> Objective:
    """The loss that a recipe minimises."""
    return _KINDS[type(recipe)].objective(recipe, device)


def config_of(recipe: Recipe, data: DataRecord, training: TrainingRecord) -> CheckpointConfig:
    """What `config.json` says of a model that a recipe trains."""
    return _KINDS[type(recipe)].config(recipe, data, training)


def scoring_of(recipe: Recipe) -> Scoring | None:
    """How a trained model is scored; None where its samples alone are."""
    return _KINDS[type(recipe)].scoring


def _denoising(recipe: DiffusionRecipe, device: torch.device) -> Objective:
    return Denoising(
        recipe.schedule,
        recipe.prediction,
        recipe.label_dropout,
        recipe.network.classes,
        recipe.levels,
        recipe.weighting,
    )


def _diffusion(
    recipe: DiffusionRecipe | DistillationRecipe, data: DataRecord, training: TrainingRecord
) -> DiffusionConfig:
    return DiffusionConfig(
        network=recipe.network,
        schedule=recipe.schedule,
        prediction=recipe.prediction,
        data=data,
        training=training,
    )


def _distilled(
    recipe: DistillationRecipe, data: DataRecord, training: TrainingRecord
) -> CheckpointConfig:
    denoiser = _diffusion(recipe, data, training)
    return denoiser.model_copy(update={"distillation": distillation_record(recipe)})


def _noisy_classifier(
    recipe: NoisyClassifierRecipe, data: DataRecord, training: TrainingRecord
) -> CheckpointConfig:
    return NoisyClassifierCheckpointConfig(
        network=recipe.network, schedule=recipe.schedule, data=data, training=training
    )


def _by_held_out(
    score: Callable[[Path, Dataset, torch.device], dict[str, float]],
    announcement: Callable[[Dataset], str],
    form: str = "{:.2%}",
) -> Scoring:
    """A scoring by held-out images, where there are any."""
    return Scoring(
        lambda folder, images, test, device: {} if test is None else score(folder, test, device),
        lambda images, test: None if test is None else announcement(test),
        form,
    )


_CALIBRATION = Scoring(
    calibrate,
    lambda images, test: (
        f"scaling its features on {len(images):,} images; stopped now, they are unscaled"
    ),
)
_KINDS: Mapping[type[Recipe], Kind] = {
    DiffusionRecipe: Kind(_denoising, _diffusion),
    DistillationRecipe: Kind(objective_with_teacher, _distilled),
    VAERecipe: Kind(
        lambda recipe, device: NegativeELBO(recipe.network.latent, recipe.beta),
        lambda recipe, data, training: VAECheckpointConfig(
            network=recipe.network, data=data, training=training
        ),
        _by_held_out(
            held_out_bound,
            lambda test: f"bounding the bits of {len(test):,} held-out images",
            "{:.4f}",
        ),
    ),
    ClassifierRecipe: Kind(
        lambda recipe, device: Classification(recipe.label_smoothing),
        lambda recipe, data, training: ClassifierCheckpointConfig(
            network=recipe.network, data=data, training=training
        ),
        _CALIBRATION,
    ),
    EncoderRecipe: Kind(
        lambda recipe, device: VICReg(
            recipe.views, recipe.invariance, recipe.variance, recipe.covariance
        ),
        lambda recipe, data, training: EncoderCheckpointConfig(
            network=recipe.network, data=data, training=training
        ),
        _CALIBRATION,
    ),
    NoisyClassifierRecipe: Kind(
        lambda recipe, device: NoisyClassification(recipe.schedule, recipe.label_smoothing),
        _noisy_classifier,
        _by_held_out(
            noisy_accuracy,
            lambda test: (
                f"asking it about {len(test):,} held-out images at {len(TIMES)} noise levels"
            ),
        ),
    ),
}
