"""The models, samplers, grids and references that the page offers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from underone.adapters import extractor_of
from underone.checkpoint import (
    DiffusionModel,
    GenerativeModel,
    VAEModel,
    load_config,
    weights_file,
)
from underone.diffusion import GRIDS, SAMPLERS, THRESHOLDS
from underone.errors import UserError, unknown
from underone.explore.known import KnownFigures
from underone.generation import (
    DECODER,
    MADE,
    OWN_GRIDS,
    Precision,
    Setting,
    usual_setting,
)
from underone.guides import FORMS
from underone.metrics import Yardstick
from underone.modules import own_parts
from underone.named import MADE_FOR_A_MODEL, grid_named, sampler_named
from underone.shipped import find_checkpoint, model_names
from underone.zoo import find_reference, load_generative_model, reference_names


@dataclass(eq=False)
class Offer:
    """Models by the names they were given, and the user's own samplers and grids.

    `reference` is what to measure against; None: what is shipped for each model's data. `studies`
    may hold figures of the settings that are drawn.
    """

    models: Mapping[str, GenerativeModel]
    samplers: tuple[str, ...] = ()
    grids: tuple[str, ...] = ()
    reference: str | None = None
    precision: Precision = "auto"
    studies: tuple[KnownFigures, ...] = ()
    _yardsticks: dict[str, Yardstick] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        names: Sequence[str] = (),
        samplers: Sequence[str] = (),
        grids: Sequence[str] = (),
        reference: str | None = None,
        precision: Precision = "auto",
        studies: Sequence[Path] = (),
        device: torch.device | str = "cpu",
    ) -> Self:
        """Load and check all of it; without names, every shipped model that can be sampled."""
        models = {name: load_generative_model(name, device) for name in names or _shipped()}
        for name in samplers:
            sampler_named(name)
        for name in grids:
            grid_named(name)
        if reference is not None:
            find_reference(reference)
        known = tuple(KnownFigures.of(path) for path in studies)
        return cls(models, tuple(samplers), tuple(grids), reference, precision, known)

    @property
    def own(self) -> frozenset[str]:
        """The user's own samplers and grids, each as module:Name."""
        return frozenset(part for text in (*self.samplers, *self.grids) for part in own_parts(text))

    def model(self, name: str) -> GenerativeModel:
        """One of the models, or a `UserError`."""
        if name not in self.models:
            raise unknown("model", name, self.models)
        return self.models[name]

    def known(self, model: GenerativeModel, setting: Setting) -> list[str]:
        """What the studies have measured of a setting, in words."""
        found = (study.figure(model, setting) for study in self.studies)
        return [each for each in found if each is not None]

    def yardstick(self, model: GenerativeModel) -> Yardstick:
        """What samples of a model are measured with and against; a `UserError` without any."""
        name = self._reference_of(model)
        if name is None:
            raise UserError(
                f"no reference is shipped for {model.name}: start underone explore with --reference"
            )
        if name not in self._yardsticks:
            reference = find_reference(name)
            self._yardsticks[name] = Yardstick(extractor_of(reference), reference)
        return self._yardsticks[name]

    def document(self) -> dict[str, Any]:
        """All choices as JSON for the page."""
        return {
            "models": {name: self._described(model) for name, model in self.models.items()},
            "grids": [*GRIDS, *self.grids],
            "samplers_with_own_grid": [
                name for name in MADE_FOR_A_MODEL if Setting(name).grid in OWN_GRIDS
            ],
            "forms": list(FORMS),
            "thresholds": list(THRESHOLDS),
            "usual": asdict(Setting()),
        }

    def _described(self, model: GenerativeModel) -> dict[str, Any]:
        return {
            "classes": _class_names(model),
            "samplers": self.samplers_for(model),
            "most_steps": 1 if isinstance(model, VAEModel) else model.config.schedule.steps,
            "guided": _can_be_guided(model),
            "reference": self._reference_of(model),
            "usual": asdict(usual_setting(model)) | {"grid": Setting.grid},
        }

    def _reference_of(self, model: GenerativeModel) -> str | None:
        data = model.config.data.name
        return self.reference or (data if data in reference_names() else None)

    def samplers_for(self, model: GenerativeModel) -> list[str]:
        """The samplers a model can be drawn by, those that are made for it first."""
        if isinstance(model, VAEModel):
            return [DECODER]
        made = (name for name, source in MADE.items() if source.is_ready(model))
        return [*made, *SAMPLERS, *self.samplers]


# The kinds of checkpoints that images are drawn from.
_SAMPLED_KINDS = ("diffusion", "vae")


def _shipped() -> list[str]:
    """The shipped models that are sampled."""
    return [
        name for name in model_names() if load_config(find_checkpoint(name)).kind in _SAMPLED_KINDS
    ]


def _class_names(model: GenerativeModel) -> list[str]:
    """The names of its classes, or else their numbers; empty without classes."""
    if model.num_classes is None:
        return []
    names = model.config.data.class_names
    return list(names) or [str(label) for label in range(model.num_classes)]


def _can_be_guided(model: GenerativeModel) -> bool:
    """Whether it can be guided, by its null label or by a weak snapshot."""
    if not isinstance(model, DiffusionModel) or model.distillation is not None:
        return False
    return model.has_null_label or weights_file(model.folder, "weak").exists()
