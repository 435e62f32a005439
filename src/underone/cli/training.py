"""What the commands that train share: a run's length, its progress, its end and its data."""

import sys
from pathlib import Path

from underone.checkpoint import UNKNOWN_DATA, DiffusionModel
from underone.cli.console import note, progress_bar
from underone.data import Dataset, find_training_split
from underone.errors import UserError
from underone.training.begin import check_minutes
from underone.training.loop import DivergedError
from underone.training.run import Run
from underone.training.stop import StopRequest, stop_on_signals


def check_length(steps: int | None, minutes: float | None, resuming: bool) -> None:
    """A `UserError` where a run's length is impossible, given twice, or fixed already."""
    check_minutes(minutes)
    if steps is not None and minutes is not None:
        raise UserError("give --steps or --max-minutes, not both")
    if resuming and steps is not None:
        raise UserError("a run's --steps are fixed when it starts: leave them out with --resume")


def train_to_end(run: Run, minutes: float | None) -> None:
    """Train to the end, or stop after `minutes` or at a signal: then save, say so and exit."""
    folder = run.folder
    note(f"{folder}: step {run.state.step} of {run.plan.horizon}")
    with stop_on_signals() as stop:
        try:
            _watch(run, stop, minutes)
        except DivergedError as error:
            kept = (folder / "config.json").exists()
            rest = "keeps the last good checkpoint" if kept else "has no checkpoint yet"
            note(f"underone: {error}; {folder} {rest}")
            sys.exit(1)
    if not run.done:
        run.save()
        note(f"stopped at step {run.state.step} of {run.plan.horizon}; --resume goes on")
        sys.exit(128 + stop.signal if stop.signal is not None else 0)


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


def training_data(model: DiffusionModel, root: Path | None, purpose: str) -> Dataset:
    """The training data of `model`, by name or in `root`; errors begin with `purpose`."""
    name = model.config.data.name
    if name == UNKNOWN_DATA:
        raise UserError(
            f"{purpose} the training data of {model.name}, which does not say what they are: name "
            f"them, like {model.name},data=cifar10"
        )
    images = find_training_split(name, root)
    if images is None:
        raise UserError(
            f"{purpose} the training data of {model.name}, and {name!r}, as they were called, "
            "is not a data set that can be found by name: name their folder with --root"
        )
    return images
