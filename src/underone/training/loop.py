"""The training loop: a generator of one record per update; all else watches from outside."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from underone.data import Dataset
from underone.data.images import to_model_range
from underone.training.augment import augmented
from underone.training.average import NARROW, profile_exponent, update_average
from underone.training.compilation import Compiled
from underone.training.learning_rate import learning_rate
from underone.training.objective import Objective
from underone.training.randomness import Purpose, batch_indices, derived_seed
from underone.training.recipe import AveragedRecipe, Recipe
from underone.training.state import TrainingState

# A loss above this many times the first is not a fluctuation. A student begins nearly trained, with
# a first loss that may be near 0 or below: the least loss stands in for one that is smaller.
_DIVERGED, _LEAST_LOSS = 10.0, 0.1


class DivergedError(Exception):
    """Training has gone to NaN or far above where it began; the last checkpoint is still good."""


@dataclass(frozen=True)
class Update:
    """One update of the weights."""

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float


def updates(
    state: TrainingState,
    recipe: Recipe,
    objective: Objective,
    dataset: Dataset,
    horizon: int,
    autocast: torch.dtype | None,
) -> Iterator[Update]:
    """Advance `state` from its step to `horizon`, yielding after each update.

    Every choice is a function of the recipe's seed and the step, so stopping after any update and
    going on later gives bitwise what one run gives (on a CPU with the same number of threads).
    Raises `DivergedError` before a bad update reaches the weights.
    """
    optimisation = recipe.optimisation
    width = recipe.moving_average if isinstance(recipe, AveragedRecipe) else None
    device = next(state.network.parameters()).device
    state.network.train()
    network = Compiled(state.network) if recipe.compile else state.network
    while state.step < horizon:
        started = time.monotonic()
        torch.manual_seed(derived_seed(recipe.seed, Purpose.DROPOUT, state.step))
        generator = torch.Generator()
        generator.manual_seed(derived_seed(recipe.seed, Purpose.STEP, state.step))
        indices = batch_indices(len(dataset), recipe.batch_size, recipe.seed, state.step)
        images = augmented(to_model_range(dataset.images[indices]), recipe.augmentation, generator)

        # Without its cache: some torch keep weights there that were cast without a graph.
        with torch.autocast(
            device.type, dtype=autocast, enabled=autocast is not None, cache_enabled=False
        ):
            loss = objective(
                network, images.to(device), dataset.labels[indices].to(device), generator
            )
        for optimizer in state.optimizers:
            optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(state.network.parameters(), optimisation.gradient_clip)
        _refuse_divergence(state, loss.item(), norm.item())

        rate = learning_rate(
            state.step,
            optimisation.learning_rate,
            optimisation.warmup_steps,
            horizon,
            flat=optimisation.flat,
            decay=optimisation.decay,
        )
        for optimizer in state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        state.step += 1
        for average, share in ((state.average, 1.0), (state.narrow, NARROW)):
            if average is not None and width is not None:
                update_average(average, state.network, state.step, profile_exponent(share * width))
        state.seconds += time.monotonic() - started
        yield Update(state.step, loss.item(), norm.item(), rate)


def _refuse_divergence(state: TrainingState, loss: float, norm: float) -> None:
    if state.first_loss is None:
        state.first_loss = loss
    limit = _DIVERGED * max(abs(state.first_loss), _LEAST_LOSS)
    # Written so that NaN is caught too.
    if not (loss <= limit and norm < float("inf")):
        raise DivergedError(
            f"training diverged at step {state.step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}"
        )
