"""One training run in a folder: start or resume, log, save, stop."""

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
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
    load_config,
    save_config,
    save_weights,
    weights_file,
)
from underone.config import Config, parse
from underone.data import Dataset
from underone.errors import UserError
from underone.files import read_json, write_json, write_text
from underone.networks import build_network
from underone.networks.precision import fast_dtype, place
from underone.training.average import NARROW
from underone.training.calibration import calibrate
from underone.training.card import model_card
from underone.training.held_out_bound import held_out_bound
from underone.training.journal import append_log, draw_loss, truncate_log
from underone.training.loop import DivergedError, Update, updates
from underone.training.noisy_accuracy import noisy_accuracy
from underone.training.objective import (
    Agreement,
    Autoencoding,
    Classification,
    Denoising,
    NoisyClassification,
    Objective,
)
from underone.training.post_hoc import save_snapshot
from underone.training.preview import draw_preview
from underone.training.randomness import Purpose, derived_seed
from underone.training.recipe import (
    AveragedRecipe,
    DiffusionRecipe,
    DistillationRecipe,
    EncoderRecipe,
    NoisyClassifierRecipe,
    Recipe,
    VAERecipe,
    parse_recipe,
)
from underone.training.state import TrainingState
from underone.training.teaching import distillation_record, objective_with_teacher, teacher_of

_TIMED_UPDATES = 6
# The share of a time budget left for checkpoints, previews and the slower moments of a machine.
_RESERVE = 0.06


class Plan(Config):
    """What a run's folder fixes when it starts: the step horizon shapes the learning rate."""

    name: str
    horizon: int
    recipe: dict[str, object]


@dataclass(frozen=True)
class Progress:
    """What a watcher is told after an update."""

    update: Update
    horizon: int
    images_per_second: float


@dataclass(frozen=True)
class Run:
    """A run that is set up: iterate `advance`, then `save` and, at the end, `finish`."""

    folder: Path
    plan: Plan
    recipe: Recipe
    dataset: Dataset
    state: TrainingState
    device: torch.device

    @property
    def done(self) -> bool:
        """Whether every planned update has been made."""
        return self.state.step >= self.plan.horizon

    @property
    def weak_step(self) -> int | None:
        """The step after which the average is kept as the weak model; None where none is."""
        if not isinstance(self.recipe, DiffusionRecipe) or self.recipe.weak_at == 0:
            return None
        return max(1, round(self.recipe.weak_at * self.plan.horizon))

    def advance(self, should_stop: Callable[[], bool]) -> Iterator[Progress]:
        """Train until the horizon or until `should_stop`, logging, saving every few minutes."""
        recipe, state, log = self.recipe, self.state, self.folder / "log.jsonl"
        last_save = last_log = time.monotonic()
        logged_step = state.step
        rate = 0.0
        for update in self._updates():
            state.losses.append(update.loss)
            if update.step == self.weak_step and state.average is not None:
                # Before any save of this step or a later one, so that no resume can miss it.
                save_weights(self.folder, state.average.state_dict(), "weak")
            self._keep_snapshot(update.step)
            now = time.monotonic()
            if update.step % recipe.log_every == 0 or self.done:
                rate = (update.step - logged_step) * recipe.batch_size / (now - last_log)
                record = {
                    "step": update.step,
                    "loss": sum(state.losses) / len(state.losses),
                    "gradient_norm": update.gradient_norm,
                    "learning_rate": update.learning_rate,
                    "images_per_second": rate,
                    "seconds": state.seconds,
                }
                append_log(log, record)
                last_log, logged_step = now, update.step
                state.losses.clear()
            yield Progress(update, self.plan.horizon, rate)
            if should_stop():
                return
            if now - last_save > 60 * recipe.checkpoint_minutes:
                self.save()
                last_save = last_log = time.monotonic()
                logged_step = update.step

    def _keep_snapshot(self, step: int) -> None:
        """Both averages, where it is time for it; like the weak model before any later save."""
        recipe, state = self.recipe, self.state
        if state.average is None or state.narrow is None or not isinstance(recipe, AveragedRecipe):
            return
        count, horizon = recipe.snapshots, self.plan.horizon
        if step in {round(horizon * (i + 1) / count) for i in range(count)}:
            width = recipe.moving_average
            for share, average in ((1.0, state.average), (NARROW, state.narrow)):
                save_snapshot(self.folder, step, share * width, average.state_dict())

    def save(self) -> None:
        """Write all a resume needs, the weights as they are now, and the pictures."""
        state, folder = self.state, self.folder
        state.save(folder / "training" / "state.safetensors")
        save_config(folder, self.config())
        if state.average is None:
            save_weights(folder, state.network.state_dict())
        else:
            save_weights(folder, state.average.state_dict())
            save_weights(folder, state.network.state_dict(), "raw")
        write_text(folder / "README.md", model_card(folder, self.config(), {}))
        log = folder / "log.jsonl"
        if log.exists() and log.stat().st_size:
            draw_loss(log, folder / "loss.png", f"{self.plan.name}: training loss")
        if isinstance(self.recipe, AveragedRecipe) and state.average is not None:
            draw_preview(state.network, state.average, self.recipe, folder / "preview.png")

    def finish(self, test: Dataset | None) -> dict[str, float]:
        """Save what is done; of a classifier or encoder the accuracy on `test` is found.

        An extractor gets its feature scale too. Of a VAE the bound on `test` is found.
        """
        self.save()
        if isinstance(self.recipe, DiffusionRecipe | DistillationRecipe):
            return {}
        if isinstance(self.recipe, VAERecipe):
            return {} if test is None else held_out_bound(self.folder, test, self.device)
        if isinstance(self.recipe, NoisyClassifierRecipe):
            return {} if test is None else noisy_accuracy(self.folder, test, self.device)
        return calibrate(self.folder, self.dataset, test, self.device)

    def _updates(self) -> Iterator[Update]:
        return updates(
            self.state,
            self.recipe,
            objective_of(self.recipe, self.device),
            self.dataset,
            self.plan.horizon,
            fast_dtype(self.device),
        )

    def config(self) -> CheckpointConfig:
        """What `config.json` says of it now."""
        recipe, state = self.recipe, self.state
        data = DataRecord(
            name=self.dataset.name,
            sha256=self.dataset.sha256,
            class_names=self.dataset.class_names,
        )
        weak = weights_file(self.folder, "weak")
        training = TrainingRecord(
            recipe=self.plan.name,
            steps=state.step,
            weak_steps=self.weak_step if weak.exists() else None,
            batch_size=recipe.batch_size,
            images_seen=state.step * recipe.batch_size,
            seconds=round(state.seconds, 1),
            seed=recipe.seed,
            label_dropout=getattr(recipe, "label_dropout", 0.0),
            moving_average=getattr(recipe, "moving_average", None),
            flip=recipe.augmentation.flip,
            torch=torch.__version__,
        )
        if isinstance(recipe, DiffusionRecipe | DistillationRecipe):
            taught = distillation_record(recipe) if isinstance(recipe, DistillationRecipe) else None
            return DiffusionConfig(
                network=recipe.network,
                schedule=recipe.schedule,
                prediction=recipe.prediction,
                data=data,
                training=training,
                distillation=taught,
            )
        if isinstance(recipe, VAERecipe):
            return VAECheckpointConfig(network=recipe.network, data=data, training=training)
        if isinstance(recipe, EncoderRecipe):
            return EncoderCheckpointConfig(network=recipe.network, data=data, training=training)
        if isinstance(recipe, NoisyClassifierRecipe):
            return NoisyClassifierCheckpointConfig(
                network=recipe.network, schedule=recipe.schedule, data=data, training=training
            )
        return ClassifierCheckpointConfig(network=recipe.network, data=data, training=training)


def start(
    folder: Path,
    name: str,
    recipe: Recipe,
    dataset: Dataset,
    device: torch.device,
    *,
    steps: int | None = None,
    minutes: float | None = None,
) -> Run:
    """Set up a new run: its horizon comes from `steps`, else `minutes`, else the recipe."""
    if folder.is_file():
        raise UserError(f"{folder} is a file: choose a folder as --out")
    if _plan_file(folder).exists() or (folder / "config.json").exists():
        raise UserError(f"{folder} already holds a model: add --resume, or choose another --out")
    # A run that was killed at once leaves an empty "training".
    if folder.exists() and any(entry.name != "training" for entry in folder.iterdir()):
        raise UserError(f"{folder} is not empty: choose another --out")
    if steps is not None and steps < 1:
        raise UserError(f"a run needs at least 1 step, got {steps}")
    if minutes is not None and not 0 < minutes < float("inf"):
        raise UserError(f"a run needs a finite number of minutes above 0, got {minutes}")
    _check_data(recipe, dataset)
    state = fresh_state(recipe, device)
    horizon = steps or recipe.steps
    if steps is None and minutes is not None:
        try:
            each = _seconds_per_update(state, recipe, dataset)
        except DivergedError as error:
            raise UserError(f"{error}: lower optimisation.learning_rate") from None
        horizon = max(1, int(60 * minutes * (1 - _RESERVE) / each))
    plan = Plan(name=name, horizon=horizon, recipe=recipe.model_dump(mode="json"))
    write_json(_plan_file(folder), plan.model_dump(mode="json"))
    return Run(folder, plan, recipe, dataset, state, device)


def resume(folder: Path, recipe: Recipe, dataset: Dataset, device: torch.device) -> Run:
    """Set up a run that goes on where its folder left off."""
    if not _plan_file(folder).exists():
        raise UserError(f"nothing to resume in {folder}: start it without --resume")
    plan = parse(Plan, read_json(_plan_file(folder)), str(_plan_file(folder)))
    stored = parse_recipe(plan.recipe, str(_plan_file(folder)))
    if stored != recipe:
        raise UserError(
            f"{folder} was started with another recipe ({_first_difference(stored, recipe)}): "
            "resume with the same, or choose another --out"
        )
    _check_data(recipe, dataset)
    state = fresh_state(recipe, device)
    saved = folder / "training" / "state.safetensors"
    if (folder / "config.json").exists():
        if load_config(folder).data.sha256 != dataset.sha256:
            raise UserError(
                f"{folder} was trained on other data than this {dataset.name}: resume with the "
                "same images and labels, or choose another --out"
            )
        if not saved.exists():
            raise UserError(f"{folder} holds a model but {saved} is gone: choose another --out")
    if saved.exists():
        state.restore(saved)
    truncate_log(folder / "log.jsonl", state.step)
    return Run(folder, plan, recipe, dataset, state, device)


def objective_of(recipe: Recipe, device: torch.device) -> Objective:
    """What a recipe minimises."""
    if isinstance(recipe, DistillationRecipe):
        return objective_with_teacher(recipe, device)
    if isinstance(recipe, DiffusionRecipe):
        return Denoising(
            recipe.schedule,
            recipe.prediction,
            recipe.label_dropout,
            recipe.network.classes,
            recipe.levels,
        )
    if isinstance(recipe, VAERecipe):
        return Autoencoding(recipe.network.latent, recipe.beta)
    if isinstance(recipe, EncoderRecipe):
        return Agreement(recipe.views, recipe.invariance, recipe.variance, recipe.covariance)
    if isinstance(recipe, NoisyClassifierRecipe):
        return NoisyClassification(recipe.schedule, recipe.label_smoothing)
    return Classification(recipe.label_smoothing)


def fresh_state(recipe: Recipe, device: torch.device) -> TrainingState:
    """A recipe's state before the first update: a teacher's weights, or drawn by the seed."""
    torch.manual_seed(derived_seed(recipe.seed, Purpose.INITIALISATION))
    network = build_network(recipe.network)
    if isinstance(recipe, DistillationRecipe):
        network.load_state_dict(teacher_of(recipe).network.state_dict())
    return TrainingState.fresh(
        place(network, device),
        recipe.optimisation,
        averages=_averages(recipe),
    )


def _averages(recipe: Recipe) -> int:
    if not isinstance(recipe, AveragedRecipe):
        return 0
    return 2 if recipe.snapshots else 1


def _seconds_per_update(state: TrainingState, recipe: Recipe, dataset: Dataset) -> float:
    """Measured on a copy, so that the run itself begins untouched."""
    trial = TrainingState.fresh(
        deepcopy(state.network),
        recipe.optimisation,
        averages=_averages(recipe),
    )
    device = next(state.network.parameters()).device
    running = updates(
        trial, recipe, objective_of(recipe, device), dataset, 2 * _TIMED_UPDATES, fast_dtype(device)
    )
    next(running), next(running)
    before = trial.seconds
    for _ in islice(running, _TIMED_UPDATES):
        pass
    return (trial.seconds - before) / _TIMED_UPDATES


def _check_data(recipe: Recipe, dataset: Dataset) -> None:
    network = recipe.network
    wanted = (network.channels, network.image_size, network.image_size)
    found = tuple(dataset.images.shape[1:])
    channels, height, width = found
    if height != width:
        raise UserError(
            f"networks take square images, but {dataset.name} has {width}x{height}: make them "
            "square with underone data FOLDER --size N --out NEW"
        )
    if wanted != found:
        raise UserError(
            f"the recipe's network takes images of {wanted}, but {dataset.name} has {found}: "
            f"add --set network.channels={channels} --set network.image_size={height}"
        )
    if network.classes is not None and network.classes != dataset.num_classes:
        raise UserError(
            f"the recipe's network knows {network.classes} classes, but {dataset.name} has "
            f"{dataset.num_classes}: add --set network.classes={dataset.num_classes}"
        )


def _first_difference(stored: Recipe, given: Recipe) -> str:
    old: Any = stored.model_dump(mode="json")
    new: Any = given.model_dump(mode="json")
    place = []
    while isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in old | new if old.get(key) != new.get(key))
        place.append(key)
        old, new = old.get(key), new.get(key)
    return f"{'.'.join(place)} was {old}, now {new}"


def _plan_file(folder: Path) -> Path:
    return folder / "training" / "plan.json"
