"""What a study shows while it runs: the best so far, what is drawn now, how much and how long."""

from collections.abc import Iterable

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from underone.cli.console import err, note, table
from underone.generation import Setting
from underone.study.answers import standings
from underone.study.cell import Cell, Divergence
from underone.study.engine import Engine
from underone.study.measures import FID
from underone.study.report.tables import blocks_text
from underone.study.run import StudyRun
from underone.study.words import setting_title

# The most settings in the table, as many as a screen holds beside the bar.
_ROWS = 16
_COLUMNS = ("setting", "evaluations", "samples", "FID", "real images")


def advance(run: StudyRun, engine: Engine) -> None:
    """Run what is due, showing the results as they come."""
    bar = Bar(run)

    def shown(title: str) -> Group:
        return Group(best_so_far(run), Text(title, overflow="ellipsis", no_wrap=True), bar.progress)

    with Live(shown(""), console=err, refresh_per_second=2) as live:

        def on_images(cell: Cell, images: int) -> None:
            bar.drawn(cell, images)
            live.update(shown(_title(run, cell.model, cell.setting)))

        for result in run.advance(engine, on_images):
            bar.recount()
            title = _title(run, result.model, result.setting)
            live.update(shown(title))
            if isinstance(result, Divergence):
                note(f"{title}: left out, for {result.told}")
            elif not err.is_terminal:
                note(f"{title}: FID {result.fid:.3f}")


class Bar:
    """Counts of cells and images, and a bar of evaluations, to which time is proportional.

    More cells become due as contests narrow.
    """

    def __init__(self, run: StudyRun) -> None:
        self.run = run
        self.progress = Progress(
            BarColumn(),
            TextColumn("{task.fields[cells]} cells, {task.fields[images]} images"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=err,
        )
        self.task = self.progress.add_task("", cells="", images="")
        self.recount()

    def recount(self) -> None:
        """Count again what is done and what is due, after a cell has ended."""
        done, due = list(self.run.known), self.run.due()
        self.images, self.all_images = _images(done), _images([*done, *due])
        self.cells = f"{len(done)}/{len(done) + len(due)}"
        before, after = (
            sum(cell.evaluations(self.run.bench) for cell in cells) for cells in (done, due)
        )
        self.progress.update(self.task, completed=before, total=before + after)
        self._refresh()

    def drawn(self, cell: Cell, images: int) -> None:
        """Count images of a cell that have been drawn."""
        self.images += images
        each = cell.setting.evaluations(self.run.bench.models[cell.model])
        self.progress.update(self.task, advance=images * each)
        self._refresh()

    def _refresh(self) -> None:
        images = f"{self.images:,}/{self.all_images:,}"
        self.progress.update(self.task, cells=self.cells, images=images)


def _images(cells: Iterable[Cell]) -> int:
    return sum(cell.draw.count for cell in cells)


def best_so_far(run: StudyRun) -> Table:
    """The settings with the lowest FID."""
    found = sorted(standings(run), key=lambda each: (-each.first.draw.count, each.fid))
    grid = table(f"FID@{run.bench.yardsticks[0].extractor.name}, lowest first", *_COLUMNS)
    for each in found[:_ROWS]:
        grid.add_row(
            _title(run, each.first.model, each.first.setting),
            f"{each.nfe:g}",
            blocks_text(each),
            f"{each.fid:.3f}",
            "–" if (floor := FID.floor(each.first)) is None else FID.text(floor),
        )
    return grid


def _title(run: StudyRun, model: str, setting: Setting) -> str:
    """A setting in words, and of which model, where there are several."""
    title = setting_title(setting)
    return title if len(run.bench.models) == 1 else f"{model}: {title}"
