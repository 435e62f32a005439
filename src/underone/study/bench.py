"""What all cells of a study share: its models and yardsticks."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from underone.adapters import extractor_of
from underone.checkpoint import UNKNOWN_DATA, DiffusionModel, GenerativeModel
from underone.data import DATASET_NAMES, SampleSet
from underone.errors import UserError
from underone.evaluation import among_training_images, training_images
from underone.generation import Precision, compiled
from underone.metrics import Measurement, Yardstick, measure, metric_names
from underone.metrics.measurement import FloorRecord
from underone.study.definition import Study
from underone.zoo import find_judge, find_reference, load_generative_model, load_judge

# The metrics by all references but the first.
FURTHER_METRICS = ("fid",)


@dataclass(eq=False)
class Bench:
    """Models by name, and yardsticks: settings are ranked by the first.

    `metrics` are taken by the first yardstick, FID alone by the others.
    """

    models: Mapping[str, GenerativeModel]
    yardsticks: tuple[Yardstick, ...]
    metrics: tuple[str, ...] = ("fid",)
    precision: Precision = "auto"
    # The scores of real images are the same for all cells with as many samples of each class.
    _floors: dict[tuple[int, int, tuple[int, ...]], FloorRecord | None] = field(
        default_factory=dict
    )

    @property
    def model_hashes(self) -> dict[str, str]:
        """The hash of each model, by name."""
        return {name: model.sha256 for name, model in self.models.items()}

    @property
    def reference_hashes(self) -> dict[str, str]:
        """The hash of each reference, by name."""
        return {by.reference.name: by.reference.sha256 for by in self.yardsticks}

    @property
    def extractor_hashes(self) -> dict[str, str]:
        """The hash of each extractor, by name."""
        return {by.extractor.name: by.extractor.sha256 for by in self.yardsticks}

    @property
    def trained_on_flips(self) -> bool:
        """Whether any model was trained on mirror images too."""
        return any(model.trained_on_flips for model in self.models.values())

    @property
    def yardstick_names(self) -> tuple[str, ...]:
        """The names of its yardsticks: the extractor, and the reference where they share one."""
        names = [by.extractor.name for by in self.yardsticks]
        return tuple(
            f"{name} against {by.reference.name}" if names.count(name) > 1 else name
            for name, by in zip(names, self.yardsticks, strict=True)
        )

    def with_compiled(self, names: Collection[str]) -> "Bench":
        """The same bench with the networks of these models compiled."""
        models = {
            name: compiled(model) if name in names and isinstance(model, DiffusionModel) else model
            for name, model in self.models.items()
        }
        return replace(self, models=models)

    def measured(self, samples: SampleSet) -> tuple[Measurement, ...]:
        """A sample set measured by each yardstick."""
        return tuple(
            self._measured_by(index, samples, FURTHER_METRICS if index else self.metrics)
            for index in range(len(self.yardsticks))
        )

    def _measured_by(self, index: int, samples: SampleSet, metrics: tuple[str, ...]) -> Measurement:
        key = (index, len(samples), _counts(samples.labels))
        by = self.yardsticks[index] if index else self._first_yardstick
        found = measure(samples, by, metrics, self._floors.get(key))
        self._floors[key] = found.floor
        return found

    @cached_property
    def _first_yardstick(self) -> Yardstick:
        """The first yardstick, with the training images that memorisation needs.

        They are loaded at first use; a `UserError` where they are not available.
        """
        by = self.yardsticks[0]
        if "memorisation" not in self.metrics:
            return by
        if (data := by.reference.origin.data) not in DATASET_NAMES:
            raise UserError(
                f"a study finds memorisation in named data sets alone, and {data} is not one: "
                "leave memorisation out of its metrics, and measure it by underone evaluate with "
                "--root"
            )
        images = training_images(by.reference)
        return among_training_images(by, images, flipped=self.trained_on_flips)


def _counts(labels: Tensor | None) -> tuple[int, ...]:
    return () if labels is None else tuple(labels.bincount().tolist())


def open_bench(study: Study, device: torch.device | str = "cpu") -> Bench:
    """Load all that a study names, and refuse what does not fit together, before any work.

    Models draw on `device`; all else is on the CPU.
    """
    models = {name: load_generative_model(name, device) for name in study.models}
    first = next(iter(models.values()))
    names = study.references or (first.config.data.name,)
    if names == (UNKNOWN_DATA,):
        raise UserError(
            f"{first.name} does not say what it was trained on: name what to measure against, by "
            "--reference or by references in the study, or name the data like MODEL,data=cifar10"
        )
    metrics = metric_names(study.metrics)
    yardsticks = []
    for index, name in enumerate(names):
        reference = find_reference(name)
        if reference.held_out is None or len(reference.held_out) < 2:
            raise UserError(
                f"reference {reference.name} has fewer than two held-out images, which the floor "
                "needs: build one with underone reference build, from a folder with train and "
                "test, as underone data FOLDER --size N --out NEW makes it"
            )
        yardstick = Yardstick(extractor_of(reference), reference)
        if index == 0 and "consistency" in metrics:
            judge = find_judge(reference) if study.judge is None else load_judge(study.judge)
            yardstick = replace(yardstick, judge=judge)
        yardsticks.append(yardstick)
    data = [by.reference.origin.data for by in yardsticks]
    for name, other in zip(names, data, strict=True):
        if other != data[0]:
            raise UserError(
                f"reference {name} is of {other}, and {names[0]} of {data[0]}: measure against "
                "images of one data set"
            )
    for name, model in models.items():
        if model.config.data.name not in (data[0], UNKNOWN_DATA):
            raise UserError(
                f"{name} makes images of {model.config.data.name}, but reference {names[0]} is of "
                f"{data[0]}: name another reference, or another model"
            )
    return Bench(models, tuple(yardsticks), metrics, study.precision)
