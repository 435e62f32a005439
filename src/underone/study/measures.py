"""The measures that a report shows of each setting, and how settings compare by them."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from underone.metrics import Figure
from underone.metrics.uncertainty import Comparison
from underone.study.answers import Standing
from underone.study.cell import CellResult
from underone.study.contest import paired
from underone.study.run import StudyRun


@dataclass(frozen=True)
class Measure:
    """A figure of cells: its name, its title, whether lower is better, digits to print.

    `logarithmic`: drawn on a logarithmic axis, where nothing is below 0. `of_any_number`: its mean
    does not depend on the number of samples. `as_real`: the best value is the score of real images,
    where that is known. `yardstick` is the index of the yardstick that measures it.
    """

    name: str
    title: str
    lower: bool = True
    digits: int = 3
    logarithmic: bool = False
    of_any_number: bool = False
    as_real: bool = False
    yardstick: int = 0

    def figure(self, result: CellResult) -> Figure | None:
        """The figure of a cell, None where it has none."""
        return result.measurements[self.yardstick].figures.get(self.name)

    def value(self, result: CellResult) -> float:
        """The value of a cell that has one."""
        return result.measurements[self.yardstick].figures[self.name].value

    def values(self, standing: Standing) -> list[float]:
        """The values of a setting's fresh blocks, or else of its first; empty where it has none."""
        return [each.value for each in self.figures_of(standing.reported)]

    def figures_of(self, results: Iterable[CellResult]) -> list[Figure]:
        """The figures of the cells that have one."""
        return [figure for each in results if (figure := self.figure(each)) is not None]

    def floor(self, result: CellResult) -> float | None:
        """The score of real images under the protocol of a cell."""
        floor = result.measurements[self.yardstick].floor
        figure = None if floor is None else floor.figures.get(self.name)
        return None if figure is None else figure.value

    def comparable_floor(self, result: CellResult) -> float | None:
        """The same, unless too few real images are held out for a measure that depends on that."""
        floor = result.measurements[self.yardstick].floor
        enough = floor is not None and floor.count >= result.draw.count
        return self.floor(result) if enough or self.of_any_number else None

    def best(self, among: Iterable[Standing]) -> Standing:
        """The best on the first block, which all settings share."""
        return min(among, key=self.shortfall)

    def shortfall(self, standing: Standing) -> float:
        """How bad a setting is on its first block: lower is better."""
        return self.shortfall_of(self.value(standing.first), standing)

    def shortfall_of(self, value: float, standing: Standing) -> float:
        """How bad a value is under the protocol of that setting."""
        real = self.comparable_floor(standing.first)
        if self.as_real and real is not None:
            return abs(value - real)
        return value if self.lower else -value

    def equally_best(self, among: Sequence[Standing]) -> list[Standing]:
        """All settings that share the best value."""
        best = self.shortfall(self.best(among))
        return [each for each in among if self.shortfall(each) == best]

    def is_known_of(self, among: Iterable[Standing]) -> bool:
        """Whether all settings have the figure."""
        return all(self.figure(standing.first) is not None for standing in among)

    def text(self, value: float) -> str:
        """A value as text."""
        return f"{value:.{self.digits}f}".replace("-", "−")


FID = Measure("fid", "FID", logarithmic=True)
KID = Measure("kid", "KID", digits=5, of_any_number=True)
PRECISION = Measure("precision", "precision", lower=False)
RECALL = Measure("recall", "recall", lower=False)
INTRA_FID = Measure("intra-fid", "intra-FID", logarithmic=True)
CONSISTENCY = Measure("consistency", "consistency", lower=False, of_any_number=True, as_real=True)
MEASURES = (
    FID,
    KID,
    INTRA_FID,
    PRECISION,
    RECALL,
    Measure("density", "density", lower=False),
    Measure("coverage", "coverage", lower=False),
    CONSISTENCY,
    Measure("memorised-share", "memorised share"),
)


def yardstick_fids(run: StudyRun) -> list[Measure]:
    """FID by each of the yardsticks."""
    names = run.bench.yardstick_names
    return [replace(FID, title=f"FID@{name}", yardstick=i) for i, name in enumerate(names)]


def mean_text(measure: Measure, standing: Standing) -> str:
    """The mean over fresh blocks, or else the value of the first, as text."""
    values = measure.values(standing)
    return measure.text(statistics.fmean(values)) if values else "–"


def spread(measure: Measure, standing: Standing) -> str:
    """The same ± the standard deviation over blocks or, of a single block, its error."""
    values = measure.values(standing)
    shown = mean_text(measure, standing)
    if len(values) > 1:
        return f"{shown} ± {measure.text(statistics.stdev(values))}"
    figure = measure.figure(standing.reported[0])
    error = None if figure is None else figure.standard_error
    return shown if error is None else f"{shown} ± {measure.text(error)}"


def compared(measure: Measure, a: Standing, b: Standing) -> Comparison | None:
    """A - B over the blocks of `common`, by `paired`."""
    of_a, of_b = common(measure, a, b)
    return paired(of_a, of_b) if len(of_a) == len(of_b) else None


def common(measure: Measure, a: Standing, b: Standing) -> tuple[list[Figure], list[Figure]]:
    """The figures of both to compare: of the fresh blocks that both have, or else of the first."""
    of_a, of_b = common_fresh(measure, a, b)
    return of_a or measure.figures_of([a.first]), of_b or measure.figures_of([b.first])


def ahead(measure: Measure, a: Standing, b: Standing) -> bool:
    """Whether A is better than B on average over the blocks of `common`."""
    of_a, of_b = (
        statistics.fmean(figure.value for figure in side) for side in common(measure, a, b)
    )
    return measure.shortfall_of(of_a, a) < measure.shortfall_of(of_b, b)


def common_fresh(measure: Measure, a: Standing, b: Standing) -> tuple[list[Figure], list[Figure]]:
    """The figures of both on the fresh blocks in which both have one."""
    mine, theirs = (
        {
            each.draw.first: figure
            for each in one.fresh
            if (figure := measure.figure(each)) is not None
        }
        for one in (a, b)
    )
    both = sorted(mine.keys() & theirs.keys())
    return [mine[first] for first in both], [theirs[first] for first in both]
