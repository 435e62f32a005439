"""How the guidance weight acts: forms of guidance by name, and the second networks some need.

A form turns a model and a weight w into a denoiser. In each, w = 0 is the model given the labels,
and w = -1 the model without labels or, in autoguidance, the weak model.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

import torch

from underone.checkpoint import (
    AnyCheckpoint,
    Checkpoint,
    DiffusionModel,
    ForeignConfig,
    NoisyClassifier,
    Weights,
    load_checkpoint,
    weights_file,
)
from underone.diffusion import (
    AdaptiveProjected,
    Autoguidance,
    ClassifierFree,
    ClassifierGuidance,
    Denoiser,
    Interval,
    Rescaled,
)
from underone.diffusion.checks import check_same_schedule
from underone.errors import UserError, unknown
from underone.interop import load_named
from underone.named import named
from underone.networks.precision import place
from underone.shipped import find_checkpoint, model_names


class Form(Protocol):
    """A form of guidance."""

    @property
    def second_pass(self) -> str:
        """The network that a guided estimate evaluates once, beside the model itself."""
        ...

    def uses_labels(self, weight: float) -> bool:
        """Whether samples are of the requested classes."""
        ...

    def partner(self, model: DiffusionModel) -> Checkpoint | None:
        """The checkpoint that guides `model`, if it is another one."""
        ...

    def denoiser(
        self, model: DiffusionModel, weight: float, autocast: torch.dtype | None
    ) -> Denoiser:
        """`model` guided with `weight`; a `UserError` where that is not possible."""
        ...


class _BranchForm(ABC):
    """A form that mixes the two branches, with and without the label, of one network."""

    @property
    def second_pass(self) -> str:
        """The model itself, without the label."""
        return "model"

    def uses_labels(self, weight: float) -> bool:
        """Unless w = -1."""
        return weight != -1

    def partner(self, model: DiffusionModel) -> None:
        """None: the model guides itself."""
        return

    def denoiser(
        self, model: DiffusionModel, weight: float, autocast: torch.dtype | None
    ) -> Denoiser:
        """The two branches mixed, each evaluated only if its coefficient is not 0."""
        check_branches(model, weight)
        network = model.denoiser(autocast)
        if model.num_classes is None:
            return network
        return self.mixed(network, weight, model.num_classes)

    @abstractmethod
    def mixed(self, network: Denoiser, weight: float, null_label: int) -> ClassifierFree:
        """The denoiser that mixes the two branches."""


@dataclass(frozen=True)
class ClassifierFreeForm(_BranchForm):
    """`ClassifierFree`: (1 + w) D(x, c) - w D(x, null)."""

    def mixed(self, network: Denoiser, weight: float, null_label: int) -> ClassifierFree:
        """Plain guidance."""
        return ClassifierFree(network, weight, null_label)


@dataclass(frozen=True)
class RescaledForm(_BranchForm):
    """`Rescaled`: classifier-free, with the spread of x0 brought back by the share phi."""

    phi: float = 0.7

    def mixed(self, network: Denoiser, weight: float, null_label: int) -> ClassifierFree:
        """Rescaled guidance."""
        return Rescaled(network, weight, null_label, self.phi)


@dataclass(frozen=True)
class ProjectedForm(_BranchForm):
    """`AdaptiveProjected`: w times a projection of D(x, c) - D(x, null)."""

    eta: float = 0.0
    radius: float | None = None

    def mixed(self, network: Denoiser, weight: float, null_label: int) -> ClassifierFree:
        """Adaptive projected guidance."""
        return AdaptiveProjected(network, weight, null_label, self.eta, self.radius)


@dataclass(frozen=True)
class AutoForm:
    """`Autoguidance` by a weaker model: the one kept beside the model, or that named by `by`."""

    by: str | None = None

    @property
    def second_pass(self) -> str:
        """The weak model."""
        return "weak"

    def uses_labels(self, weight: float) -> bool:
        """Always: both models are given the label."""
        return True

    def partner(self, model: DiffusionModel) -> DiffusionModel:
        """The weak model."""
        if self.by is not None:
            weak = load_named(self.by)
        elif isinstance(model.config, ForeignConfig):
            raise UserError(
                f"{model.name} has no weak snapshot beside it: name a weaker model of the same "
                "data, like --form auto,by=diffusers:PATH"
            )
        else:
            weak = replace(_cached(model.folder, "weak"), title=model.title)
        if not isinstance(weak, DiffusionModel):
            raise UserError(
                f"{weak.name} is not a diffusion model: it cannot guide one as the weaker"
            )
        _check_compatible(model, weak)
        return weak

    def denoiser(
        self, model: DiffusionModel, weight: float, autocast: torch.dtype | None
    ) -> Denoiser:
        """(1 + w) D(x, c) - w D_weak(x, c)."""
        check_weight_range(weight)
        if weight == 0:
            return model.denoiser(autocast)
        weak = self.partner(model)
        place(weak.network, model.device)
        weaker = weak.denoiser(autocast, name=self.second_pass)
        return Autoguidance(model.denoiser(autocast), weaker, weight)


@dataclass(frozen=True)
class ClassifierForm:
    """`ClassifierGuidance` by the noisy classifier shipped for the model's data, or named by `by`.

    By Bayes' rule (sigma^2 / alpha) grad log p(c | x) is D(x, c) - D(x, null), which plain
    guidance adds w times; here a classifier's gradient takes its place, and w = -1 is again the
    model without labels.
    """

    by: str | None = None

    @property
    def second_pass(self) -> str:
        """The classifier, with its gradient."""
        return "classifier"

    def uses_labels(self, weight: float) -> bool:
        """Unless w = -1."""
        return weight != -1

    def partner(self, model: DiffusionModel) -> NoisyClassifier:
        """The noisy classifier."""
        name = f"{model.config.data.name}-noisy-classifier" if self.by is None else self.by
        if self.by is None and name not in model_names():
            raise UserError(
                f"no noise-conditioned classifier of {model.config.data.name} is shipped: train "
                "one and name its folder, like --form classifier,by=runs/my-noisy-classifier"
            )
        classifier = _cached(find_checkpoint(name)) if self.by is None else load_named(name)
        if not isinstance(classifier, NoisyClassifier):
            raise UserError(
                f"{name} is not a classifier of noisy images: name one that a recipe of kind "
                '"noisy-classifier" has trained'
            )
        _check_compatible(model, classifier)
        return classifier

    def denoiser(
        self, model: DiffusionModel, weight: float, autocast: torch.dtype | None
    ) -> Denoiser:
        """D(x, c) + w (sigma^2 / alpha) grad_x log p(c | x)."""
        check_weight_range(weight)
        if weight in (0, -1):
            return ClassifierFreeForm().denoiser(model, weight, autocast)
        if model.num_classes is None:
            raise _unconditional(model, weight)
        classifier = self.partner(model)
        place(classifier.network, model.device)
        asked = partial(classifier, autocast=autocast)
        return ClassifierGuidance(model.denoiser(autocast), asked, weight)


FORMS: Mapping[str, type[Form]] = {
    "classifier-free": ClassifierFreeForm,
    "rescaled": RescaledForm,
    "projected": ProjectedForm,
    "auto": AutoForm,
    "classifier": ClassifierForm,
}


@lru_cache(maxsize=256)
def form_named(text: str) -> Form:
    """The form of a name with options, like `rescaled,phi=0.5` or `auto,by=runs/weak`."""
    kind, name = "form of guidance", text.partition(",")[0]
    if name not in FORMS:
        raise unknown(kind, name, FORMS)
    found: Form = named(kind, text, FORMS)
    return found


def guided(
    model: DiffusionModel,
    form: Form,
    weight: float,
    interval: tuple[float, float] | None,
    autocast: torch.dtype | None = None,
) -> Denoiser:
    """`model` guided in `form` with `weight`, where sigma / alpha lies in `interval` if given.

    At w = 0 and w = -1, which are not guidance but another model, an interval changes nothing.
    """
    denoiser = form.denoiser(model, weight, autocast)
    if interval is None or weight in (0, -1):
        return denoiser
    return Interval(denoiser, model.denoiser(autocast), *interval)


def _cached(folder: Path, weights: Weights = "model") -> AnyCheckpoint:
    """A checkpoint that is needed repeatedly, cached, and read again once its files change."""
    files = (folder / "config.json", weights_file(folder, weights))
    return _read(folder, weights, tuple(path.stat().st_mtime_ns for path in files if path.exists()))


@lru_cache(maxsize=4)
def _read(folder: Path, weights: Weights, changed: tuple[int, ...]) -> AnyCheckpoint:
    return load_checkpoint(folder, weights)


def check_branches(model: DiffusionModel, weight: float) -> None:
    """A `UserError` where `model` lacks the branch without the label that `weight` needs."""
    check_weight_range(weight)
    if weight != 0 and model.num_classes is None:
        raise _unconditional(model, weight)
    if weight != 0 and not model.has_null_label:
        if isinstance(model.config, ForeignConfig):
            raise UserError(
                f"{model.name} has no null class that was named, so no unconditional branch for "
                f"guidance {weight:g}: use --guidance 0 or, if one of its classes stands for "
                "none, name it like MODEL,null=10"
            )
        raise UserError(
            f"{model.name} was trained without label dropout, so it has no unconditional branch "
            f"for guidance {weight:g}: use --guidance 0, or train with label_dropout > 0"
        )


def check_weight_range(weight: float) -> None:
    """A `UserError` unless `weight` is a finite number >= -1."""
    if not -1 <= weight < float("inf"):
        raise UserError(f"the guidance weight w must be a finite number >= -1, got {weight}")


def _unconditional(model: DiffusionModel, weight: float) -> UserError:
    return UserError(
        f"{model.name} is unconditional, so guidance {weight:g} is impossible: use --guidance 0"
    )


def _check_compatible(model: DiffusionModel, other: DiffusionModel | NoisyClassifier) -> None:
    """A `UserError` where `other` was not made for the images, classes and noise of `model`.

    The names of the classes are compared only where the training data of both are recorded.
    """
    mine, theirs = (
        (one.shape, one.num_classes, one.config.data.class_names) for one in (model, other)
    )
    recorded = None not in (model.config.data.sha256, other.config.data.sha256)
    if mine[:2] != theirs[:2] or (recorded and mine != theirs):
        raise UserError(
            f"{other.name} cannot guide {model.name}: it was trained on other images or classes "
            f"({theirs[0]}, {theirs[1]} classes, against {mine[0]}, {mine[1]})"
        )
    check_same_schedule(model.config.schedule, other.config.schedule)
