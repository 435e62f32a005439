"""The tables of a report."""

from collections.abc import Sequence
from dataclasses import dataclass

from underone.generation import Setting
from underone.study.analysis import Analysis, Stratum
from underone.study.answers import Standing
from underone.study.cell import CellResult
from underone.study.contest import Factor
from underone.study.measures import (
    CONSISTENCY,
    FID,
    KID,
    PRECISION,
    RECALL,
    Measure,
    mean_text,
    spread,
)
from underone.study.report.findings import Unresolved, unresolved
from underone.study.report.sentences import behind_text
from underone.study.run import StudyRun
from underone.study.words import setting_title

# The metrics in the table of settings; the cards have all.
COLUMNS = (FID, KID, PRECISION, RECALL, CONSISTENCY)
_CLASS_COLUMNS = 4

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """A table: its heads, its rows, and apart from them the rows of real images."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    floors: tuple[tuple[str, ...], ...] = ()


def settings_table(analysis: Analysis) -> Table:
    """All settings, by model and number of samples, the lowest FID first; real images below."""
    several = len(analysis.run.bench.models) > 1
    measures = [m for m in COLUMNS if any(m.is_known_of([each]) for each in analysis.standings)]
    whose = ("setting", "model") if several else ("setting",)
    heads = (*whose, "w (1 + w)", "NFE", "samples", *(m.title for m in measures))
    rows, floors = [], []
    for stratum in analysis.strata:
        model = (stratum.model,) if several else ()
        for each in sorted(stratum.standings, key=lambda one: one.fid):
            first = each.first
            rows.append(
                (
                    setting_title(first.setting),
                    *model,
                    weight_text(first.setting),
                    f"{each.nfe:g}",
                    blocks_text(each),
                    spread(FID, each),
                    *(mean_text(measure, each) for measure in measures[1:]),
                )
            )
        for title, first in _floors(stratum):
            values = (measure.floor(first) for measure in measures)
            shown = (
                "–" if value is None else measure.text(value)
                for measure, value in zip(measures, values, strict=True)
            )
            floor = first.floor
            draws = "" if floor is None else f"{floor.draws} × {floor.count:,}"
            floors.append((title, *model, "", "", draws, *shown))
    return Table(heads, tuple(rows), tuple(floors))


def _floors(stratum: Stratum) -> list[tuple[str, CellResult]]:
    """A title and a result with the scores of real images, for each label policy of a stratum."""
    by_policy = {each.first.measurement.protocol.labels: each.first for each in stratum.standings}
    return [(f"real images, labels {policy}", first) for policy, first in by_policy.items()]


def blocks_text(standing: Standing) -> str:
    """The samples of a setting's figures: blocks × samples if fresh, or those of the first."""
    blocks, count = len(standing.fresh), f"{standing.first.draw.count:,}"
    return f"{blocks} × {count}" if blocks else count


def weight_text(setting: Setting) -> str:
    """The weight w, and in brackets others' guidance scale 1 + w."""
    return f"{setting.guidance:g} ({1 + setting.guidance:g})".replace("-", "−")


def class_tables(analysis: Analysis) -> list[tuple[str, Table]]:
    """For each stratum, FID within each class of its leading settings and of real images."""
    found = []
    for stratum in analysis.strata:
        shown = [each for each in _leading(stratum) if Measure("fid-0", "").is_known_of([each])]
        if shown:
            found.append((stratum.title, _class_table(analysis.run, stratum.model, shown)))
    return found


def _leading(stratum: Stratum) -> Sequence[Standing]:
    every = stratum.answers_on(Factor.SETTING)
    return every[0].standings[:_CLASS_COLUMNS] if every else stratum.asked[:1]


def _class_table(run: StudyRun, model: str, shown: Sequence[Standing]) -> Table:
    names = run.bench.models[model].config.data.class_names
    heads = ("class", "real images", *(setting_title(each.first.setting) for each in shown))
    rows = []
    for label, name in enumerate(names):
        measure = Measure(f"fid-{label}", name)
        if measure.is_known_of(shown):
            floor = measure.comparable_floor(shown[0].first)
            real = "–" if floor is None else measure.text(floor)
            rows.append((name, real, *(spread(measure, each) for each in shown)))
    return Table(heads, tuple(rows))


def correlation_table(names: Sequence[str], values: dict[tuple[str, str], str]) -> Table:
    """Rank correlations between every two extractors."""
    rows = tuple(
        (a, *(("1" if a == b else values.get((a, b)) or values.get((b, a), "–")) for b in names))
        for a in names
    )
    return Table(("", *names), rows)


def unresolved_table(analysis: Analysis) -> Table | None:
    """Every pair of a leader and a setting that is not separated from it."""
    rows = tuple(_unresolved_row(each) for each in unresolved(analysis))
    return (
        Table(("question", "leads", "not separated from it", "difference"), rows) if rows else None
    )


def _unresolved_row(each: Unresolved) -> tuple[str, ...]:
    question = f"{each.where}: {each.question}" if each.where else each.question
    titles = (setting_title(one.first.setting) for one in (each.leader, each.other))
    return (question, *titles, behind_text(each.other, each.leader))


def screening_table(run: StudyRun) -> Table | None:
    """The cells of screening, on seeds of their own, which chose the finalists but no leader."""
    cells = (cell for each in run.plan.slices for cell in run.plan.screening(each))
    known = [run.known[cell] for cell in dict.fromkeys(cells) if cell in run.known]
    rows = tuple(
        (
            setting_title(result.setting),
            result.model,
            f"{result.draw.count:,}",
            FID.text(result.fid),
        )
        for result in sorted(known, key=lambda result: (result.draw.count, result.fid))
    )
    return Table(("setting", "model", "samples", "FID"), rows) if rows else None
