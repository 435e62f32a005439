"""Charts of each measure, and of each extractor's FID, against the guidance weight."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from underone.generation import Setting
from underone.study.analysis import Analysis
from underone.study.answers import Standing
from underone.study.contest import unguided
from underone.study.measures import (
    MEASURES,
    PRECISION,
    RECALL,
    Measure,
    yardstick_fids,
)
from underone.study.report.charts.labels import legible, point_box, text_box
from underone.study.report.charts.lines import Line, known_lines
from underone.study.report.charts.rows import (
    HEIGHT,
    WIDTH,
    distinct,
    number,
    on_first_block,
    row_of,
    slug,
    titled,
    too_few,
)
from underone.study.report.drawing import (
    Chart,
    Look,
    Row,
    Series,
    crosses,
    joined,
    level,
    linear_axis,
    log_axis,
    points,
    rings,
    texts,
)
from underone.study.words import weight_title

_SMALL_WIDTH, _SMALL_HEIGHT = 250, 165


def diversity_charts(analysis: Analysis) -> list[Chart]:
    """Precision against recall along w, for each stratum with two weights."""
    return distinct(
        _diversity(lines, stratum.title)
        for stratum in analysis.strata
        if (lines := known_lines(stratum, (PRECISION, RECALL)))
    )


def _diversity(lines: Sequence[Line], where: str) -> Chart:
    rows = tuple(
        {
            **row_of(
                each,
                line.title,
                on_first_block(each, PRECISION, RECALL),
                recall=RECALL.value(each.first),
            ),
            "precision": PRECISION.value(each.first),
            "text": f"{each.first.setting.guidance:g}".replace("-", "−"),
        }
        for line in lines
        for each in line.standings
    )
    first = lines[0].standings[0].first
    floors = [measure.comparable_floor(first) for measure in (RECALL, PRECISION)]
    real: list[Row] = []
    if floors[0] is not None and floors[1] is not None:
        says = f"real images: precision {floors[1]:.3f}, recall {floors[0]:.3f}"
        real = [{"recall": floors[0], "precision": floors[1], "text": "real images", "says": says}]
    everywhere = [*rows, *real]
    x = linear_axis("recall", "recall (diversity)", [number(row, "recall") for row in everywhere])
    y = linear_axis(
        "precision", "precision (quality)", [number(row, "precision") for row in everywhere]
    )
    series = Series(tuple(line.title for line in lines))

    # w = 0 is on every line of its setting.
    once = list({row["cell"]: row for row in reversed(rows)}.values())[::-1]
    above = [row for row in once if row["series"] == series.names[0]]
    below = [row for row in once if row["series"] != series.names[0]]
    labels = [(row, text_box(row, x, y)) for row in above]
    labels += [(row, text_box(row, x, y, below=True)) for row in below]
    taken = [point_box(row, x, y) for row in everywhere]
    shown = legible(labels, [*taken, *(text_box(row, x, y, before=True) for row in real)])

    def draw(look: Look) -> Any:
        layers = [
            joined(rows, x, y, series, "w"),
            points(rows, x, y, series, look),
            texts([row for row in above if row in shown], x, y, look),
            texts([row for row in below if row in shown], x, y, look, below=True),
            crosses(real, x, y, look),
        ]
        return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)

    note = (
        "On the first block. Up is sharper, right is more varied; numbers are w, where there is "
        "room, and points are joined in its order. "
    ) + (too_few(PRECISION, first) or "Real images stand where a perfect model would.")
    return Chart(
        slug("precision-against-recall", where),
        titled("Quality against diversity along w", where),
        note,
        rows,
        draw,
    )


def weight_charts(analysis: Analysis) -> list[Chart]:
    """Each measure against w, for each stratum with two weights."""
    return distinct(
        _against_weight(measure, lines, stratum.title)
        for stratum in analysis.strata
        for measure in MEASURES
        if (lines := known_lines(stratum, (measure,)))
    )


def _against_weight(measure: Measure, lines: Sequence[Line], where: str) -> Chart:
    rows = tuple(
        row_of(each, line.title, on_first_block(each, measure), value=measure.value(each.first))
        for line in lines
        for each in line.standings
    )
    # w = 0 is on every line of its setting.
    once = {each.first.id: each for line in lines for each in line.standings}
    asked = list(once.values())
    floor = measure.comparable_floor(asked[0].first)
    few = too_few(measure, asked[0].first)
    heights = [number(row, "value") for row in rows] + ([] if floor is None else [floor])
    logarithmic = measure.logarithmic and min(heights) > 0
    y = (log_axis if logarithmic else linear_axis)("value", "", heights)
    weights = sorted({number(row, "w") for row in rows})
    x = linear_axis("w", "w", weights, weights)
    series = Series(tuple(line.title for line in lines))
    preferred = _preferred(measure, asked)
    marked = [row for row in rows if row["cell"] in preferred]

    def draw(look: Look) -> Any:
        layers = [
            rings(marked, x, y, look),
            joined(rows, x, y, series, "w"),
            points(rows, x, y, series, look),
        ]
        if floor is not None:
            layers.append(level(floor, "real images", y, _SMALL_WIDTH, look))
        return alt.layer(*layers).properties(width=_SMALL_WIDTH, height=_SMALL_HEIGHT)

    chosen = sorted(
        {weight_title(each.first.setting) for each in asked if each.first.id in preferred}
    )
    better = "Lower is better" if measure.lower else "Higher is better"
    if measure.as_real:
        better = "The nearest to real images is best"
    scale = " The vertical axis is logarithmic." if logarithmic else ""
    ringed = "; ".join(chosen) or "none, for all are equal"
    return Chart(
        slug(measure.name, "against-w", where),
        titled(f"{measure.title} against w", where),
        " ".join(filter(None, (f"{better}.{scale} Ringed: {ringed}.", few))),
        rows,
        draw,
    )


def extractor_charts(analysis: Analysis) -> list[Chart]:
    """For each line along w, FID by each extractor, relative to its own FID at w = 0."""
    by = yardstick_fids(analysis.run)
    return distinct(
        _by_extractor(by, line, stratum.title)
        for stratum in analysis.strata
        for line in known_lines(stratum, by)
        if len(by) > 1 and line.standings[0].first.setting.guidance == 0
    )


def _by_extractor(by: Sequence[Measure], line: Line, where: str) -> Chart:
    plain = line.standings[0]
    rows = tuple(
        row_of(
            each,
            measure.title,
            on_first_block(each, measure),
            value=measure.value(each.first) / measure.value(plain.first),
        )
        for measure in by
        for each in line.standings
    )
    weights = sorted({number(row, "w") for row in rows})
    x = linear_axis("w", "w", weights, weights)
    y = log_axis("value", "FID, of that at w = 0", [number(row, "value") for row in rows])
    series = Series(tuple(measure.title for measure in by))

    def draw(look: Look) -> Any:
        layers = [joined(rows, x, y, series, "w"), points(rows, x, y, series, look)]
        return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)

    return Chart(
        slug("extractors-against-w", line.title, where),
        titled("FID by each extractor against w", where),
        f"Of {line.title}. Lower is better, and 1 is FID at w = 0; the vertical axis is "
        "logarithmic. Where the lines part, FID reflects the features and not the weight alone.",
        rows,
        draw,
    )


def _preferred(measure: Measure, asked: Sequence[Standing]) -> set[str]:
    """The cells that a measure prefers, one or more for each setting that weights compete in."""
    groups: dict[Setting, list[Standing]] = {}
    for each in asked:
        groups.setdefault(unguided(each.first.setting), []).append(each)
    found = ((measure.equally_best(group), group) for group in groups.values())
    return {each.first.id for best, group in found if len(best) < len(group) for each in best}
