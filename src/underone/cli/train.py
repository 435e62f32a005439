"""`underone train`."""

import sys
from pathlib import Path

import click
import torch

from underone.cli.console import note, out, print_json, progress_bar, table
from underone.data import available_splits, load_dataset
from underone.errors import UserError
from underone.training.loop import DivergedError
from underone.training.noisy_accuracy import TIMES
from underone.training.recipe import (
    ClassifierRecipe,
    DiffusionRecipe,
    EncoderRecipe,
    NoisyClassifierRecipe,
    VAERecipe,
    load_recipe,
    shipped_recipes,
)
from underone.training.run import Run, resume, start
from underone.training.stop import StopRequest, stop_on_signals


@click.command(epilog=f"Shipped recipes: {', '.join(shipped_recipes())}.")
@click.argument("recipe")
@click.option("--out", type=click.Path(path_type=Path), help="The folder. [default: runs/RECIPE]")
@click.option("--resume", "resuming", is_flag=True, help="Go on with the run in --out.")
@click.option("--steps", type=click.IntRange(min=1), help="Updates. [default: the recipe's]")
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Fit a new run's updates to this time; stop a resumed one after it.",
)
@click.option("--set", "changes", multiple=True, metavar="A.B=C", help="Change the recipe.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the data set's files are.")
@click.option("--device", default="cpu", help="A torch device.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(
    recipe: str,
    out: Path | None,
    resuming: bool,
    steps: int | None,
    max_minutes: float | None,
    changes: tuple[str, ...],
    root: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Train what RECIPE says: a shipped recipe's name or a .toml file.

    Ctrl-C saves and stops; --resume goes on exactly where the run was.
    """
    if steps is not None and max_minutes is not None:
        raise UserError("give --steps or --max-minutes, not both")
    settings = load_recipe(recipe, changes)
    folder = out or Path("runs") / Path(recipe).stem
    dataset = load_dataset(settings.data, "train", root)
    where = _device(device)
    test = None
    if not isinstance(settings, DiffusionRecipe) and "test" in available_splits(settings.data):
        test = load_dataset(settings.data, "test", root)
    if resuming:
        if steps is not None:
            raise UserError(
                "a run's --steps are fixed when it starts: leave them out with --resume"
            )
        run = resume(folder, settings, dataset, where)
    else:
        name = Path(recipe).stem
        run = start(folder, name, settings, dataset, where, steps=steps, minutes=max_minutes)
    if settings.network.revision == 1:
        note("this trains the legacy architecture revision 1; new models are revision 2")
    note(f"{folder}: step {run.state.step} of {run.plan.horizon}")
    limit = max_minutes if resuming else None
    with stop_on_signals() as stop:
        try:
            _watch(run, stop, limit)
        except DivergedError as error:
            kept = (folder / "config.json").exists()
            rest = "keeps the last good checkpoint" if kept else "has no checkpoint yet"
            note(f"underone: {error}; {folder} {rest}")
            sys.exit(1)
    if not run.done:
        run.save()
        note(f"stopped at step {run.state.step} of {run.plan.horizon}; --resume goes on")
        sys.exit(128 + stop.signal if stop.signal is not None else 0)
    if isinstance(settings, ClassifierRecipe | EncoderRecipe):
        note(f"scaling its features on {len(run.dataset):,} images; stopped now, they are unscaled")
    elif isinstance(settings, NoisyClassifierRecipe) and test is not None:
        note(f"asking it about {len(test):,} held-out images at {len(TIMES)} noise levels")
    elif isinstance(settings, VAERecipe) and test is not None:
        note(f"bounding the bits of {len(test):,} held-out images")
    scores = run.finish(test)
    if as_json:
        print_json({"folder": str(folder), "steps": run.state.step, **scores})
        return
    form = "{:.4f}" if isinstance(settings, VAERecipe) else "{:.2%}"
    told = {name.replace("_", " "): form.format(value) for name, value in scores.items()}
    if len(told) > 1:
        _show(told)
        told = {}
    text = "".join(f", {name} {value}" for name, value in told.items())
    note(f"{folder}: done, {run.state.step} steps{text}")


def _show(scores: dict[str, str]) -> None:
    grid = table("on held-out images", "", "value")
    for name, value in scores.items():
        grid.add_row(name, value)
    out.print(grid)


def _watch(run: Run, stop: StopRequest, minutes: float | None) -> None:
    deadline = None if minutes is None else run.state.seconds + 60 * minutes

    def should_stop() -> bool:
        return stop.signal is not None or (deadline is not None and run.state.seconds >= deadline)

    with progress_bar() as progress:
        task = progress.add_task("training", total=run.plan.horizon, completed=run.state.step)
        for now in run.advance(should_stop):
            progress.update(
                task,
                completed=now.update.step,
                description=f"loss {now.update.loss:.4f}  {now.images_per_second:4.0f} images/s",
            )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"--device {name} cannot be used here: {str(error).splitlines()[0]}"
        ) from None
    return device
