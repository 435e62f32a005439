"""Charts of two extractors' FIDs against each other."""

from typing import Any

import altair as alt

from underone.study.analysis import Analysis
from underone.study.report.agreement import Pair, agreement
from underone.study.report.charts.lines import sampler_lines
from underone.study.report.charts.rows import (
    HEIGHT,
    WIDTH,
    distinct,
    number,
    on_first_block,
    row_of,
    slug,
    titled,
)
from underone.study.report.drawing import Chart, Look, Series, linear_axis, log_axis, points


def agreement_charts(analysis: Analysis) -> list[Chart]:
    """For each stratum, the FIDs of every two extractors against each other."""
    return distinct(
        _agreement(pair, stratum.title)
        for stratum in analysis.strata
        for pair in agreement(stratum, analysis.run)
    )


def _agreement(pair: Pair, where: str) -> Chart:
    lines = sampler_lines(pair.standings, lambda setting: setting.sampler)
    rows = tuple(
        row_of(
            each,
            line.title,
            on_first_block(each, pair.a, pair.b),
            a=pair.a.value(each.first),
            b=pair.b.value(each.first),
        )
        for line in lines
        for each in line.standings
    )
    columns = [[number(row, key) for row in rows] for key in ("a", "b")]
    axis = log_axis if min(map(min, columns)) > 0 else linear_axis
    x, y = axis("a", pair.a.title, columns[0]), axis("b", pair.b.title, columns[1])
    series = Series(tuple(line.title for line in lines))

    def draw(look: Look) -> Any:
        return alt.layer(points(rows, x, y, series, look)).properties(width=WIDTH, height=HEIGHT)

    return Chart(
        slug(pair.a.title, "against", pair.b.title, where),
        titled(f"{pair.b.title} against {pair.a.title}", where),
        "A point a setting, on the first block. On one rising curve the two agree on the order.",
        rows,
        draw,
    )
