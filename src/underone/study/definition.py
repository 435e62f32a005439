"""A study as its author writes it: named slices, each a small grid of settings, in a TOML file."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import fields
from importlib.resources import files
from typing import Annotated, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from underone.checkpoint import DiffusionModel
from underone.config import Config, named_toml, parse, shipped_documents
from underone.errors import UserError
from underone.generation import Precision, Setting, usual_labels
from underone.metrics import metric_names

_SHIPPED = files("underone.study") / "studies"
# Stands for "no interval", since TOML has no null.
EVERYWHERE = "everywhere"

T = TypeVar("T")


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else (value,)


def _intervals(value: object) -> tuple[object, ...]:
    """One interval or several; each [low, high] or "everywhere"."""
    pair = isinstance(value, list | tuple) and all(isinstance(end, int | float) for end in value)
    each = _listed((value,) if pair else value)
    return tuple(None if interval == EVERYWHERE else interval for interval in each)


Axis = Annotated[tuple[T, ...], BeforeValidator(_listed), Field(min_length=1)]
Intervals = Annotated[
    tuple[tuple[float, float] | None, ...], BeforeValidator(_intervals), Field(min_length=1)
]


class Slice(Config):
    """Every combination of its axes, each one value or a list of them.

    `model` is the study's by default; the others are the fields of `Setting`. A cell draws
    `samples` images in a block of seeds, and there are `blocks` blocks from the start; both are the
    study's by default.

    `screened`: all settings are first drawn with this many samples of other seeds, and only the
    `finalists` with the lowest FID there are drawn with `samples`. `joins_at`: within a time budget
    the slice is left out unless every other cell can have this many samples.
    """

    name: str = Field(min_length=1)
    model: Axis[str] | None = None
    sampler: Axis[str] = (Setting.sampler,)
    steps: Axis[int] = (Setting.steps,)
    grid: Axis[str] = (Setting.grid,)
    guidance: Axis[float] = (Setting.guidance,)
    threshold: Axis[str] = (Setting.threshold,)
    form: Axis[str] = (Setting.form,)
    interval: Intervals = (None,)
    samples: int | None = Field(default=None, ge=2)
    blocks: int | None = Field(default=None, ge=1)
    screened: int | None = Field(default=None, ge=2)
    finalists: int = Field(default=8, ge=1)
    joins_at: int = Field(default=0, ge=0)

    def settings(self) -> Iterator[Setting]:
        """All combinations, the last axis fastest; an unknown name is a `UserError`.

        Where an axis has no effect, as an interval at w = 0, the same setting is repeated.
        """
        axes = (getattr(self, field.name) for field in fields(Setting))
        for combination in itertools.product(*axes):
            try:
                yield Setting(*combination).effective
            except UserError as error:
                raise UserError(f'slice "{self.name}": {error}') from None


class Study(Config):
    """What to measure, how, and with how many samples.

    `references`: what to measure against, by name or file, each with the extractor it was made
    with; by default the model's data set. The first takes all `metrics` and ranks the settings; the
    others take FID alone. `judge`: the reference whose classifier judges class consistency, by
    default a shipped one of the same data.

    A cell is one setting on one block of `samples` seeds: block b of seed s has the indices
    b N .. (b + 1) N - 1, so that cells of one block are paired. Each setting gets `blocks` blocks;
    those that are not separated from the best of their contest get more, up to `most_blocks`.
    `evaluations` limits those of all cells together; 0 is no limit.
    """

    title: str = ""
    model: str = "fashion-mnist"
    references: Axis[str] | None = None
    metrics: Axis[str] = ("fid", "intra-fid", "kid", "manifold", "consistency")
    judge: str | None = None
    labels: str = "balanced"
    seed: int = Field(default=0, ge=0)
    precision: Precision = "auto"
    samples: int = Field(default=1000, ge=2)
    blocks: int = Field(default=1, ge=1)
    most_blocks: int = Field(default=1, ge=1)
    evaluations: int = Field(default=0, ge=0)
    slices: tuple[Slice, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        names = [each.name for each in self.slices]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two slices are called {name!r}")
        if "fid" not in metric_names(self.metrics):
            raise ValueError("metrics must contain fid, which settings are ranked by")
        for each in self.slices:
            if each.screened is not None and self.labels == "random":
                raise ValueError(f'slice "{each.name}": screening needs labels other than random')
            for setting in each.settings():
                if setting.steps < 1:
                    raise ValueError(f'slice "{each.name}": steps must be at least 1')
        return self

    @property
    def models(self) -> tuple[str, ...]:
        """Every model's name, the study's own first."""
        own = (self.model,) if any(each.model is None for each in self.slices) else ()
        others = (name for each in self.slices for name in each.model or ())
        return tuple(dict.fromkeys((*own, *others)))


def shipped_studies() -> list[str]:
    """The names of the studies that come with the package."""
    return shipped_documents(_SHIPPED)


def load_study(name: str) -> Study:
    """A study by its shipped name or its TOML file."""
    return parse(Study, named_toml("study", name, _SHIPPED), f"study {name}")


def for_model(study: Study, name: str, model: DiffusionModel, references: Sequence[str]) -> Study:
    """A study of one model, adapted to another by leaving out what that cannot do.

    Left out are guidance weights if it has no null label, and steps beyond its T. Labels are its
    `usual_labels`.
    """
    most = model.config.schedule.steps
    slices = []
    for each in study.slices:
        steps = tuple(number for number in each.steps if number <= most)
        weights = tuple(weight for weight in each.guidance if model.has_null_label or weight == 0)
        if steps and weights:
            slices.append(each.model_copy(update={"steps": steps, "guidance": weights}))
    if not slices:
        raise UserError(
            f"{name} can be sampled in none of the study's settings: choose another study or model"
        )
    return study.model_copy(
        update={
            "model": name,
            "slices": tuple(slices),
            "references": tuple(references) or None,
            "labels": usual_labels(model),
        }
    )
