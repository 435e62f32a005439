"""One training run in a folder: advanced, logged, saved, finished."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from underone.checkpoint import (
    CheckpointConfig,
    DataRecord,
    TrainingRecord,
    save_config,
    save_weights,
    weights_file,
)
from underone.config import Config
from underone.data import Dataset
from underone.files import write_text
from underone.networks.precision import fast_dtype
from underone.training.average import NARROW
from underone.training.card import model_card
from underone.training.journal import append_log, draw_loss
from underone.training.kinds import config_of, objective_of, scoring_of
from underone.training.loop import Update, updates
from underone.training.post_hoc import save_snapshot
from underone.training.preview import draw_preview
from underone.training.recipe import (
    AveragedRecipe,
    DiffusionRecipe,
    Recipe,
)
from underone.training.state import TrainingState


class Plan(Config):
    """What a run's folder fixes when it starts: the step horizon shapes the learning rate.

    `data_sha256` is that of its images and labels, None in plans from before it was kept.
    """

    name: str
    horizon: int
    data_sha256: str | None = None
    recipe: dict[str, object]


@dataclass(frozen=True)
class Progress:
    """What a watcher is told after an update."""

    update: Update
    horizon: int
    images_per_second: float


@dataclass(eq=False)
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
        if state.average is not None:
            save_weights(folder, state.network.state_dict(), "raw", step=state.step)
        average = state.network if state.average is None else state.average
        save_weights(folder, average.state_dict(), step=state.step)
        # Last, so that it never speaks of weights that are not there yet. A kill between the two
        # is told by their steps.
        save_config(folder, self.config())
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
        scoring = scoring_of(self.recipe)
        if scoring is None:
            return {}
        return scoring.score(self.folder, self.dataset, test, self.device)

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
            class_images=self.dataset.class_images,
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
            label_dropout=recipe.label_dropout if isinstance(recipe, DiffusionRecipe) else 0.0,
            moving_average=recipe.moving_average if isinstance(recipe, AveragedRecipe) else None,
            flip=recipe.augmentation.flip,
            torch=torch.__version__,
        )
        return config_of(recipe, data, training)
