"""What a report shows of each setting: figures by name, which way is better, how they compare."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from underone.metrics import Figure
from underone.metrics.uncertainty import Blocks, Comparison, Verdict, compare
from underone.study.answers import Standing, standings
from underone.study.cell import CellResult
from underone.study.contest import CONFIDENCE, within_block
from underone.study.run import Run

_NORMAL_FACTOR = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True)
class Measure:
    """A figure of cells: its name, its title, whether less of it is better, digits to print.

    `yardstick` is the index of the one that it is read from.
    """

    name: str
    title: str
    lower: bool = True
    digits: int = 3
    yardstick: int = 0

    def figure(self, result: CellResult) -> Figure | None:
        """The figure of a cell, None where it has none."""
        return result.measurements[self.yardstick].figures.get(self.name)

    def value(self, result: CellResult) -> float:
        """The value of a cell that has one."""
        return result.measurements[self.yardstick].figures[self.name].value

    def values(self, standing: Standing) -> list[float]:
        """Over the fresh blocks of a setting, or else its first; empty where it has none."""
        found = (self.figure(result) for result in standing.fresh or (standing.first,))
        return [figure.value for figure in found if figure is not None]

    def floor(self, result: CellResult) -> float | None:
        """What real images score under the protocol of a cell."""
        floor = result.measurements[self.yardstick].floor
        figure = None if floor is None else floor.figures.get(self.name)
        return None if figure is None else figure.value

    def best(self, among: Iterable[Standing]) -> Standing:
        """The best on the first block, which all have in common."""
        sign = 1 if self.lower else -1
        return min(among, key=lambda standing: sign * self.value(standing.first))

    def tied(self, among: Iterable[Standing]) -> bool:
        """Whether several share the best value."""
        every = list(among)
        best = self.value(self.best(every).first)
        return sum(self.value(each.first) == best for each in every) > 1

    def known_of(self, among: Iterable[Standing]) -> bool:
        """Whether all have the figure."""
        return all(self.figure(standing.first) is not None for standing in among)

    def text(self, value: float) -> str:
        """A value in print."""
        return f"{value:.{self.digits}f}".replace("-", "−")


FID = Measure("fid", "FID")
KID = Measure("kid", "KID", digits=5)
PRECISION = Measure("precision", "precision", lower=False)
RECALL = Measure("recall", "recall", lower=False)
CONSISTENCY = Measure("consistency", "consistency", lower=False)
MEASURES = (
    FID,
    KID,
    Measure("intra-fid", "intra-FID"),
    PRECISION,
    RECALL,
    Measure("density", "density", lower=False),
    Measure("coverage", "coverage", lower=False),
    CONSISTENCY,
)


@dataclass(frozen=True)
class Field:
    """What compares at all: the settings of one model at one number of samples."""

    model: str
    samples: int
    standings: tuple[Standing, ...]

    @property
    def asked(self) -> tuple[Standing, ...]:
        """Those whose samples are of the classes asked for, as contests are."""
        return tuple(each for each in self.standings if each.first.setting.uses_labels)


def fields(run: Run) -> list[Field]:
    """Every model at every number of samples, the most samples first."""
    groups: dict[tuple[str, int], list[Standing]] = {}
    for each in standings(run):
        groups.setdefault((each.first.model, each.first.draw.count), []).append(each)
    order = {name: index for index, name in enumerate(run.bench.models)}
    found = (Field(model, samples, tuple(each)) for (model, samples), each in groups.items())
    return sorted(found, key=lambda field: (order[field.model], -field.samples))


def yardstick_fids(names: Sequence[str]) -> list[Measure]:
    """FID by each of the yardsticks."""
    return [Measure("fid", f"FID@{name}", yardstick=index) for index, name in enumerate(names)]


def mean_text(measure: Measure, standing: Standing) -> str:
    """The mean over fresh blocks, or the value of the first."""
    values = measure.values(standing)
    return measure.text(statistics.fmean(values)) if values else "–"


def spread(measure: Measure, standing: Standing) -> str:
    """The same with the standard deviation of one block; of a single one with its error."""
    values = measure.values(standing)
    shown = mean_text(measure, standing)
    if len(values) > 1:
        return f"{shown} ± {measure.text(statistics.stdev(values))}"
    error = _error(measure.figure((standing.fresh or (standing.first,))[0]))
    return shown if error is None else f"{shown} ± {measure.text(error)}"


def compared(measure: Measure, a: Standing, b: Standing) -> Comparison | None:
    """A - B: paired over the fresh blocks of both, or by the errors within the first block.

    None where neither is known.
    """
    mine, theirs = ({each.draw.first: each for each in one.fresh} for one in (a, b))
    common = sorted(mine.keys() & theirs.keys())
    if len(common) > 1:
        of_a, of_b = (
            Blocks(tuple(measure.value(found[first]) for first in common))
            for found in (mine, theirs)
        )
        return compare(of_a, of_b, CONFIDENCE)
    figures = [measure.figure(one.first) for one in (a, b)]
    errors = [_error(figure) for figure in figures]
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return None
    apart = measure.value(a.first) - measure.value(b.first)
    return within_block(apart, known)


def told_apart(comparison: Comparison | None) -> bool:
    """Whether a comparison is known and separates."""
    return comparison is not None and comparison.verdict is not Verdict.NOT_SEPARATED


def _error(figure: Figure | None) -> float | None:
    """A standard error; of a proportion, half its 95 % interval as normal errors would have it."""
    if figure is None:
        return None
    if figure.error is None and figure.interval is not None:
        return (figure.interval[1] - figure.interval[0]) / 2 / _NORMAL_FACTOR
    return figure.error
