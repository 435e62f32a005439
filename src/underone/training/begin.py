"""How a run begins in its folder, or goes on where that left off."""

from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from underone.checkpoint import load_config
from underone.config import parse
from underone.data import Dataset
from underone.errors import UserError
from underone.files import read_json, write_json
from underone.networks import build_network
from underone.networks.precision import fast_dtype, place
from underone.training.journal import truncate_log
from underone.training.kinds import objective_of
from underone.training.loop import DivergedError, updates
from underone.training.randomness import Purpose, derived_seed
from underone.training.recipe import AveragedRecipe, DistillationRecipe, Recipe, parse_recipe
from underone.training.run import Plan, Run
from underone.training.state import TrainingState
from underone.training.teaching import teacher_of

_TIMED_UPDATES = 6
# The share of a time budget left for checkpoints, previews and the slower moments of a machine.
_RESERVE = 0.06


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
    check_minutes(minutes)
    check_data(recipe, dataset)
    state = fresh_state(recipe, device)
    horizon = steps or recipe.steps
    if steps is None and minutes is not None:
        try:
            first, each = _seconds_of_updates(state, recipe, dataset)
        except DivergedError as error:
            raise UserError(f"{error}: lower optimisation.learning_rate") from None
        horizon = max(1, int((60 * minutes * (1 - _RESERVE) - first) / each))
    plan = Plan(
        name=name,
        horizon=horizon,
        data_sha256=dataset.sha256,
        recipe=recipe.model_dump(mode="json"),
    )
    write_json(_plan_file(folder), plan.model_dump(mode="json"))
    return Run(folder, plan, recipe, dataset, state, device)


def check_minutes(minutes: float | None) -> None:
    """A `UserError` where a time was given that no run can take: NaN is never over."""
    if minutes is not None and not 0 < minutes < float("inf"):
        raise UserError(f"a run needs a finite number of minutes above 0, got {minutes}")


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
    check_data(recipe, dataset)
    state = fresh_state(recipe, device)
    saved = folder / "training" / "state.safetensors"
    described = load_config(folder) if (folder / "config.json").exists() else None
    known = plan.data_sha256 if described is None else described.data.sha256
    if known not in (None, dataset.sha256):
        raise UserError(
            f"{folder} was trained on other data than this {dataset.name}: resume with the "
            "same images and labels, or choose another --out"
        )
    if described is not None and not saved.exists():
        raise UserError(f"{folder} holds a model but {saved} is gone: choose another --out")
    if saved.exists():
        state.restore(saved)
    truncate_log(folder / "log.jsonl", state.step)
    return Run(folder, plan, recipe, dataset, state, device)


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


def _seconds_of_updates(
    state: TrainingState, recipe: Recipe, dataset: Dataset
) -> tuple[float, float]:
    """The seconds of the first update, which may compile, and of a later one.

    Measured on a copy, so that the run itself begins untouched.
    """
    trial = TrainingState.fresh(
        deepcopy(state.network),
        recipe.optimisation,
        averages=_averages(recipe),
    )
    device = next(state.network.parameters()).device
    running = updates(
        trial,
        recipe,
        objective_of(recipe, device),
        dataset,
        # As far from its end as the run itself, so that it warms up as slowly.
        max(recipe.steps, 2 * _TIMED_UPDATES),
        fast_dtype(device),
    )
    next(running)
    first = trial.seconds
    next(running)
    before = trial.seconds
    for _ in islice(running, _TIMED_UPDATES):
        pass
    return first, (trial.seconds - before) / _TIMED_UPDATES


def check_data(recipe: Recipe, dataset: Dataset) -> None:
    """A `UserError` where the recipe's network does not fit the images or their classes."""
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
