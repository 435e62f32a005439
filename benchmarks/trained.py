"""What the benchmarks of training share: runs begun or gone on with, and what a model scores."""

from collections.abc import Callable
from pathlib import Path

import torch

from underone.cli.console import progress_bar
from underone.data import load_dataset
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


def begun(folder: Path, name: str, recipe: Recipe, minutes: float) -> Run:
    """The run for so many minutes, in a folder of that name and number; gone on with if there."""
    folder = folder.with_name(f"{folder.name}-{minutes:g}-minutes")
    dataset, device = load_dataset(recipe.data), torch.device("cpu")
    if (folder / "training" / "plan.json").exists():
        return resume(folder, recipe, dataset, device)
    return start(folder, name, recipe, dataset, device, minutes=minutes)


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


def score(folder: Path) -> dict[str, float]:
    """FID of `DRAW` at `SETTING`, and what real images score."""
    result = measure(
        generate(load_model(str(folder)), SETTING, DRAW), load_yardstick("fashion-mnist")
    )
    floor = float("nan") if result.floor is None else result.floor.fid
    return {"fid": result.fid, "floor": floor}
