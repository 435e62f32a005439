"""Tuned samplers: what `underone tune` has learned, kept beside the model it was learned for."""

import hashlib
import json
import re
from pathlib import Path
from typing import Self

import torch
from pydantic import Field, model_validator

from underone.checkpoint import DiffusionModel
from underone.config import Config, parse
from underone.diffusion import Explicit, Tuned
from underone.errors import UserError
from underone.files import read_json, whole_files, write_json

FOLDER = "tuned"
# The ending of the file of an unfinished tuning, before .json.
DRAFT = ".draft"


class Purpose(Config):
    """What a tuned sampler is for: a number of steps, a guidance and a threshold."""

    steps: int = Field(ge=1)
    guidance: float = 0.0
    form: str = "classifier-free"
    interval: tuple[float, float] | None = None
    threshold: str = "static"

    @property
    def file_name(self) -> str:
        """The name of the file it is kept in: the options that differ from the default."""
        default = Purpose(steps=self.steps)
        parts = [f"{self.steps}-steps"]
        for name, value in self:
            if value != getattr(default, name):
                parts.append(re.sub(r"[^\w.-]+", "_", f"{name}-{value}"))
        return f"{'-'.join(parts)}.json"


class TuningRecord(Config):
    """How a sampler was tuned; the distances are those of `tuning.features.FeatureDistance`."""

    seed: int
    batch_size: int
    iterations: int
    minutes: float
    distance_before: float
    distance_after: float


class TunedSampler(Config):
    """A tuned sampler of N steps as it is kept; see `diffusion.samplers.Tuned` for the step.

    `grid`: its N steps k, from noisy to clean. `etas`: the N - 1 of all steps but the last, which
    draws no noise. `weights`: a row per step, over the latest estimates of x0, the newest first;
    each sums to 1. `shifts`: N, what is added to the log(alpha / sigma) given to the network.
    """

    model_sha256: str
    purpose: Purpose
    grid: tuple[float, ...]
    etas: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    shifts: tuple[float, ...]
    learning: TuningRecord

    @model_validator(mode="after")
    def _fits(self) -> Self:
        steps = self.purpose.steps
        lengths = (len(self.grid), len(self.etas) + 1, len(self.weights), len(self.shifts))
        if set(lengths) != {steps} or len({len(row) for row in self.weights}) != 1:
            raise ValueError(f"its grid, etas, weights and shifts are not those of {steps} steps")
        Explicit(self.grid)
        return self

    @property
    def sha256(self) -> str:
        """A hash of what it does, not of how it was learned."""
        numbers = self.model_dump(mode="json", exclude={"learning"})
        return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()

    @property
    def placement(self) -> Explicit:
        """Its grid."""
        return Explicit(self.grid)

    @property
    def sampler(self) -> Tuned:
        """The sampler itself."""
        etas, weights, shifts = (
            torch.tensor(values, dtype=torch.float64)
            for values in (self.etas, self.weights, self.shifts)
        )
        return Tuned(etas, weights, shifts)


def tuned_path(model: DiffusionModel, purpose: Purpose) -> Path:
    """Where the sampler of a purpose is kept."""
    return model.folder / FOLDER / purpose.file_name


def tuned_sampler(model: DiffusionModel, purpose: Purpose) -> TunedSampler:
    """The sampler tuned for exactly these weights and this purpose, or a `UserError`."""
    path = tuned_path(model, purpose)
    if not path.exists():
        raise UserError(
            f"no sampler is tuned for {model.name} at {_in_words(purpose)}: tune one with "
            f"`underone tune` and the same options, or choose another sampler ({_known(model)})"
        )
    found = parse(TunedSampler, read_json(path), str(path))
    if found.model_sha256 != model.sha256:
        raise UserError(
            f"{path} was tuned for other weights than those of {model.name} now: remove it, and "
            "tune again"
        )
    if found.purpose != purpose:
        raise UserError(f"{path} is tuned for {_in_words(found.purpose)}, not {_in_words(purpose)}")
    return found


def keep(model: DiffusionModel, tuned: TunedSampler) -> Path:
    """Write a tuned sampler beside its model, atomically."""
    path = tuned_path(model, tuned.purpose)
    write_json(path, tuned.model_dump(mode="json"))
    return path


def _in_words(purpose: Purpose) -> str:
    options = purpose.model_dump(exclude={"steps"}, exclude_defaults=True)
    return ", ".join([f"{purpose.steps} steps", *(f"{k} {v}" for k, v in options.items())])


def tuned_names(model: DiffusionModel) -> list[str]:
    """The names of the samplers tuned for a model, as those of their files."""
    files = whole_files(model.folder / FOLDER, "*-steps*.json")
    return [path.stem for path in files if not path.stem.endswith(DRAFT)]


def _known(model: DiffusionModel) -> str:
    names = tuned_names(model)
    return f"tuned are {', '.join(names)}" if names else "none is tuned for it yet"
