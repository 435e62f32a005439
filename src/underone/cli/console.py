"""How commands print: results on standard output, all else on standard error."""

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

from underone.files import to_json

# The width of a table that goes into a file or another program.
_WIDTH_ELSEWHERE = 240


def _console(stderr: bool) -> Console:
    """A console that prints text as it is, without markup in brackets or emoji like :100:."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDTH_ELSEWHERE
    return console


out, err = _console(stderr=False), _console(stderr=True)


def print_json(value: object) -> None:
    """A value as JSON on standard output."""
    out.print(to_json(value, indent=2), soft_wrap=True)


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
    """A progress bar, advanced by a function of each batch's size."""
    with progress_bar() as progress:
        task = progress.add_task(description, total=total)
        yield lambda images: progress.advance(task, images)


def table(title: str, *columns: str) -> Table:
    """A quiet table with right-aligned figures."""
    grid = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index == 0 else "right")
    return grid
