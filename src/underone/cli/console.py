"""What the commands print with: results on standard output, all else on standard error."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from underone import analytic
from underone.checkpoint import Checkpoint, DiffusionModel, GenerativeModel
from underone.generation import ANALYTIC, Precision, Setting, compiled, repays_compiling
from underone.metrics import Extractor, NetworkFeatures

# Of a table that goes into a file or another program.
_WIDTH_ELSEWHERE = 240


def _console(stderr: bool) -> Console:
    """One that prints what it is given: no names in brackets, no :100: is anything else to it."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDTH_ELSEWHERE
    return console


out, err = _console(stderr=False), _console(stderr=True)


def print_json(value: object) -> None:
    """One JSON object on standard output."""
    out.print(json.dumps(value, indent=2), soft_wrap=True)


def note(message: str) -> None:
    """One line for the user on standard error, never wrapped."""
    err.print(message, soft_wrap=True)


def progress_bar() -> Progress:
    """A bar with counts, time gone and time left, on standard error."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
    )


@contextmanager
def counted(description: str, total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar to be told of each batch's size."""
    with progress_bar() as progress:
        task = progress.add_task(description, total=total)
        yield lambda images: progress.advance(task, images)


def announce_revision(checkpoint: Checkpoint) -> None:
    """Say so where a checkpoint is of the legacy architecture."""
    if checkpoint.config.network.revision == 1:
        note(
            f"{checkpoint.name} is a checkpoint of the legacy architecture revision 1 "
            "(unaligned downsampling); it works as it always did, and new models are revision 2"
        )


def announce(extractor: Extractor) -> None:
    """The same of an extractor."""
    if isinstance(extractor, NetworkFeatures):
        announce_revision(extractor.model)


def learn_variance(model: GenerativeModel, setting: Setting) -> None:
    """What the analytic sampler must know of a model's data, found out once, with progress."""
    if setting.sampler != ANALYTIC or not isinstance(model, DiffusionModel):
        return
    if not analytic.is_known(model):
        with counted("estimating the data's variance, once", analytic.EVALUATIONS) as on_images:
            analytic.data_variance(model, on_images)


def sped_up(
    model: GenerativeModel, setting: Setting, count: int, precision: Precision
) -> GenerativeModel:
    """The model, its network compiled where drawing so many images repays that."""
    if not isinstance(model, DiffusionModel) or precision != "auto":
        return model
    evaluations = count * setting.evaluations(model)
    if not repays_compiling(model, evaluations, note):
        return model
    note(f"compiling the network of {model.name}, which so much work repays")
    return compiled(model)


def table(title: str, *columns: str) -> Table:
    """A quiet table with right-aligned figures."""
    grid = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index == 0 else "right")
    return grid
