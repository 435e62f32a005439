"""`underone train`."""

from pathlib import Path

import click
import torch

from underone.cli.console import note, out, print_json, table
from underone.cli.options import device_option
from underone.cli.training import check_length, train_to_end
from underone.data import available_splits, load_dataset
from underone.training.begin import check_data, resume, start
from underone.training.kinds import scoring_of
from underone.training.recipe import load_recipe, shipped_recipes


@click.command(epilog=f"Shipped recipes: {', '.join(shipped_recipes())}.")
@click.argument("recipe")
@click.option("--out", type=click.Path(path_type=Path), help="The folder. [default: runs/RECIPE]")
@click.option("--resume", "resuming", is_flag=True, help="Continue the run in --out.")
@click.option("--steps", type=click.IntRange(min=1), help="Updates. [default: the recipe's]")
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Fit a new run's updates to this time; stop a resumed one after it.",
)
@click.option("--set", "changes", multiple=True, metavar="A.B=C", help="Change the recipe.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the data set's files are.")
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(
    recipe: str,
    out: Path | None,
    resuming: bool,
    steps: int | None,
    max_minutes: float | None,
    changes: tuple[str, ...],
    root: Path | None,
    device: torch.device,
    as_json: bool,
) -> None:
    """Train by RECIPE, a shipped recipe's name or a .toml file.

    Ctrl-C saves and stops; --resume continues exactly where the run was.
    """
    check_length(steps, max_minutes, resuming)
    settings = load_recipe(recipe, changes)
    folder = out or Path("runs") / Path(recipe).stem
    dataset = load_dataset(settings.data, "train", root)
    scoring, test = scoring_of(settings), None
    if scoring is not None and "test" in available_splits(settings.data):
        test = load_dataset(settings.data, "test", root)
        check_data(settings, test)
    if resuming:
        run = resume(folder, settings, dataset, device)
    else:
        name = Path(recipe).stem
        run = start(folder, name, settings, dataset, device, steps=steps, minutes=max_minutes)
    if settings.network.revision == 1:
        note("this trains the legacy architecture revision 1; new models are revision 2")
    train_to_end(run, max_minutes if resuming else None)
    if scoring is not None and (announcement := scoring.announcement(run.dataset, test)):
        note(announcement)
    scores = run.finish(test)
    if as_json:
        print_json({"folder": str(folder), "steps": run.state.step, **scores})
        return
    shown = {} if scoring is None else _formatted(scores, scoring.form)
    if len(shown) > 1:
        _show(shown)
        shown = {}
    text = "".join(f", {name} {value}" for name, value in shown.items())
    note(f"{folder}: done, {run.state.step} steps{text}")


def _formatted(scores: dict[str, float], form: str) -> dict[str, str]:
    return {name.replace("_", " "): form.format(value) for name, value in scores.items()}


def _show(scores: dict[str, str]) -> None:
    grid = table("on held-out images", "", "value")
    for name, value in scores.items():
        grid.add_row(name, value)
    out.print(grid)
