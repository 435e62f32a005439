"""What a report's page shows of each setting: its card, and the family of its picture."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from underone.study.analysis import Analysis
from underone.study.answers import Standing
from underone.study.cell import PICTURE_COLUMNS, CellResult
from underone.study.contest import unguided
from underone.study.measures import (
    FID,
    MEASURES,
    spread,
    yardstick_fids,
)
from underone.study.report.tables import Facts, blocks_text, weight_text
from underone.study.run import StudyRun
from underone.study.words import form_titles, sampler_title, setting_title


@dataclass(frozen=True)
class Card:
    """A setting with its picture, to which a point of a chart leads."""

    cell: str
    title: str
    facts: Facts
    caption: str


def cards(analysis: Analysis) -> list[Card]:
    """Every setting whose first block is known."""
    return [
        _card(analysis.run, each, stratum.title)
        for stratum in analysis.strata
        for each in stratum.standings
    ]


def _card(run: StudyRun, standing: Standing, where: str) -> Card:
    first = standing.first
    title = setting_title(first.setting)
    found = f"{title}: FID {spread(FID, standing)}, NFE {standing.nfe:g}"
    return Card(
        first.id,
        f"{where}: {title}" if where else title,
        tuple(_facts(run, standing)),
        f"{found}, {where}." if where else f"{found}.",
    )


def _facts(run: StudyRun, standing: Standing) -> Iterator[tuple[str, str]]:
    first = standing.first
    yield "NFE", f"{standing.nfe:g}"
    yield "weight w (scale)", weight_text(first.setting)
    yield "samples", blocks_text(standing)
    for measure in (*MEASURES, *yardstick_fids(run)[1:]):
        if measure.is_known_of([standing]):
            yield measure.title, spread(measure, standing)
    yield "seconds", f"{first.seconds:.1f}"


@dataclass(frozen=True)
class FamilyCell:
    """A cell of a family, chosen by the sliders over steps and w."""

    cell: str
    steps: int
    w: float


@dataclass(frozen=True)
class Family:
    """Settings that differ in steps and w alone."""

    title: str
    cells: tuple[FamilyCell, ...]


def families(analysis: Analysis) -> list[Family]:
    """All settings, grouped by all but steps and w, each once, with its most samples."""
    found: dict[str, dict[tuple[int, float], FamilyCell]] = {}
    for stratum in analysis.strata:
        for each in stratum.standings:
            setting = each.first.setting
            title = _family(analysis.run, each.first)
            shown = FamilyCell(each.first.id, setting.steps, setting.guidance)
            found.setdefault(title, {}).setdefault((setting.steps, setting.guidance), shown)
    return [
        Family(title, tuple(sorted(cells.values(), key=lambda cell: (cell.steps, cell.w))))
        for title, cells in found.items()
    ]


def _family(run: StudyRun, result: CellResult) -> str:
    model = f"{result.model}: " if len(run.bench.models) > 1 else ""
    base = replace(unguided(result.setting), steps=1)
    return model + ", ".join((sampler_title(base), *form_titles(result.setting)))


def opening_pair(analysis: Analysis) -> tuple[str, str]:
    """The two cells to show first: the best, and the best of another family, if there is one."""
    shown = {each.cell for family in families(analysis) for each in family.cells}
    every = [
        each.first
        for stratum in analysis.strata
        for each in stratum.standings
        if each.first.id in shown
    ]
    best, *others = sorted(every, key=lambda first: (-first.draw.count, first.fid))
    mine = _family(analysis.run, best)
    other = next((first for first in others if _family(analysis.run, first) != mine), None)
    return best.id, (other or (others or [best])[-1]).id


def columns_are_classes(run: StudyRun) -> tuple[str, ...]:
    """The classes that the columns of all pictures show; empty where columns are not classes."""
    models = run.bench.models.values()
    (first, *others) = {model.config.data.class_names for model in models}
    in_turn = run.plan.study.labels == "balanced" and all(model.num_classes for model in models)
    return first if in_turn and not others and len(first) == PICTURE_COLUMNS else ()


def some_are_unconditional(analysis: Analysis) -> bool:
    """Whether a picture shows samples that are not conditioned on labels."""
    return any(not each.first.setting.uses_labels for each in analysis.standings)
