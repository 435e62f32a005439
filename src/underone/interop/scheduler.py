"""The schedulers of diffusers as schedules and predictions, and back.

Their timestep i is our step k = i + 1. How a scheduler would step (spacing, variance, clipping) is
not read: a `Setting` decides that.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from underone.checkpoint import AnyPrediction, AnySchedule
from underone.config import Config, parse
from underone.diffusion import (
    Cosine,
    Data,
    Geometric,
    LinearBeta,
    Noise,
    ScaledLinearBeta,
    Straight,
    Velocity,
)
from underone.errors import UserError
from underone.interop.documents import read_document, refuse

# They add noise in the same way, so that a model trained with one is sampled with the other.
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler")
PREDICTIONS: Mapping[str, AnyPrediction] = {
    "epsilon": Noise(),
    "sample": Data(),
    "v_prediction": Velocity(),
}
_COSINE = "squaredcos_cap_v2"  # with the offset 0.008 only
_BETA_RANGES: Mapping[str, type[LinearBeta] | type[ScaledLinearBeta]] = {
    "linear": LinearBeta,
    "scaled_linear": ScaledLinearBeta,
}


class _Settings(Config):
    """The settings that matter in a scheduler_config.json, with diffusers' defaults."""

    num_train_timesteps: int = Field(default=1000, ge=1, le=1_000_000)
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: Any = None
    prediction_type: str | None = None
    predict_epsilon: bool = True  # how diffusers before 0.10 said what is predicted
    variance_type: str = "fixed_small"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    thresholding: bool = False
    rescale_betas_zero_snr: bool = False

    @property
    def predicts(self) -> str:
        """The prediction type."""
        return self.prediction_type or ("epsilon" if self.predict_epsilon else "sample")


def read_scheduler(path: Path) -> tuple[AnySchedule, AnyPrediction]:
    """The schedule and prediction of a scheduler_config.json.

    A setting that they cannot represent exactly is a `UserError` naming it.
    """
    document = read_document(path)
    kind = document.get("_class_name")
    if kind not in SCHEDULERS:
        raise UserError(f"{path}: the scheduler must be {' or '.join(SCHEDULERS)}, got {kind!r}")
    known = {key: document[key] for key in _Settings.model_fields if key in document}
    settings = parse(_Settings, known, str(path))
    _refuse_others(settings, path)
    try:
        return _schedule(settings), PREDICTIONS[settings.predicts]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _refuse_others(settings: _Settings, path: Path) -> None:
    beta_schedules = (*_BETA_RANGES, _COSINE)
    refusals = [
        (settings.trained_betas is not None, "trained_betas: betas of its own"),
        (
            settings.rescale_betas_zero_snr,
            "rescale_betas_zero_snr: betas that end without any signal",
        ),
        (
            settings.beta_schedule not in beta_schedules,
            f"beta_schedule {settings.beta_schedule!r}, which is none of "
            f"{', '.join(beta_schedules)}",
        ),
        (
            settings.predicts not in PREDICTIONS,
            f"prediction_type {settings.predicts!r}, which is none of {', '.join(PREDICTIONS)}",
        ),
        (
            settings.variance_type.startswith("learned"),
            f"variance_type {settings.variance_type!r}: a variance that the network predicts",
        ),
        (settings.thresholding, "thresholding: x0 is bounded by --threshold dynamic instead"),
        (
            settings.clip_sample and settings.clip_sample_range != 1,
            f"clip_sample_range {settings.clip_sample_range:g}: images must lie in [-1, 1]",
        ),
    ]
    refuse(path, refusals)


def _schedule(settings: _Settings) -> AnySchedule:
    steps = settings.num_train_timesteps
    if settings.beta_schedule == _COSINE:
        return Cosine(steps=steps)
    kind = _BETA_RANGES[settings.beta_schedule]
    return kind(steps=steps, beta_min=settings.beta_start, beta_max=settings.beta_end)


def scheduler_document(schedule: AnySchedule, prediction: AnyPrediction) -> dict[str, Any]:
    """The settings of the DDIMScheduler that steps as our DDIM on trailing steps, x0 clipped.

    The prediction is one of `PREDICTIONS`. A schedule that is not made of betas is a `UserError`.
    """
    betas: dict[str, Any]
    if isinstance(schedule, Geometric | Straight):
        raise UserError(
            f"diffusers' DDIMScheduler has no {schedule.name} schedule: only models that are "
            "trained on a schedule of betas can be exported"
        )
    (meaning,) = (name for name, kind in PREDICTIONS.items() if kind == prediction)
    if isinstance(schedule, Cosine):
        betas = (
            {"beta_schedule": _COSINE}
            if schedule == Cosine(steps=schedule.steps)
            else {"trained_betas": schedule.betas().tolist()}
        )
    else:
        (name,) = (name for name, kind in _BETA_RANGES.items() if type(schedule) is kind)
        betas = {
            "beta_schedule": name,
            "beta_start": schedule.beta_min,
            "beta_end": schedule.beta_max,
        }
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": schedule.steps,
        **betas,
        "prediction_type": meaning,
        "timestep_spacing": "trailing",
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "clip_sample": True,
        "clip_sample_range": 1.0,
    }
