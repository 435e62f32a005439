"""What the benchmarks of training share: runs begun or gone on with, and what a model scores."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from underone.cli.console import progress_bar
from underone.data import Dataset, load_dataset
from underone.generation import Draw, Setting, generate
from underone.metrics import measure
from underone.training.begin import resume, start
from underone.training.recipe import Recipe
from underone.training.run import Run
from underone.training.stop import StopRequest
from underone.zoo import load_model, load_yardstick

# Chosen before any of these models was there: a solver of second order in 10 evaluations.
SETTING = Setting("dpm-solver-2m", 10, "log-snr,last=35")
DRAW = Draw(2000, seed=700)
SCORES = ("fid", "intra-fid")
SCORE_HEADS = "FID (real images) | intra-FID (real images)"


def begun(
    folder: Path,
    name: str,
    recipe: Recipe,
    minutes: float,
    updates: Callable[[Recipe, Dataset], int] | None = None,
) -> Run:
    """The run of `minutes` in a folder of that name and number, continued if it exists.

    Its length in updates comes from `updates`, or else from the wall clock of the first few.
    """
    folder = folder.with_name(f"{folder.name}-{minutes:g}-minutes")
    dataset, device = load_dataset(recipe.data), torch.device("cpu")
    if (folder / "training" / "plan.json").exists():
        return resume(folder, recipe, dataset, device)
    steps = None if updates is None else updates(recipe, dataset)
    return start(folder, name, recipe, dataset, device, steps=steps, minutes=minutes)


def advance(
    run: Run, title: str, stop: StopRequest, on_update: Callable[[Run], object] = lambda run: None
) -> None:
    """Train to the end or a signal, and save."""
    with progress_bar() as bar:
        task = bar.add_task(title, total=run.plan.horizon, completed=run.state.step)
        for now in run.advance(lambda: stop.signal is not None):
            told = f"{title}: loss {now.update.loss:.4f}"
            bar.update(task, completed=now.update.step, description=told)
            on_update(run)
    run.save()


def score(folder: Path, setting: Setting = SETTING) -> dict[str, float]:
    """FID and intra-class FID of `DRAW` at a setting, and what real images score."""
    samples = generate(load_model(str(folder)), setting, DRAW)
    result = measure(samples, load_yardstick("fashion-mnist"), ("fid", "intra-fid"))
    real = {} if result.floor is None else result.floor.figures
    return {
        **{name: result.figures[name].value for name in SCORES},
        **{f"real {name}": real[name].value for name in SCORES if name in real},
    }


def scores_told(scored: Mapping[str, Any]) -> list[str]:
    """The cells of a table for `score`: each figure, and in brackets that of real images."""
    return [f"{scored[name]:.3f} ({scored.get(f'real {name}', math.nan):.3f})" for name in SCORES]
