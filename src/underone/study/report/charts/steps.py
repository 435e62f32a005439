"""Charts of each measure against network evaluations."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import altair as alt

from underone.generation import Setting
from underone.study.analysis import Analysis, Stratum
from underone.study.answers import Standing
from underone.study.measures import FID, KID, Measure, spread
from underone.study.report.charts.lines import Line, sampler_lines
from underone.study.report.charts.rows import (
    HEIGHT,
    WIDTH,
    distinct,
    number,
    row_of,
    slug,
    titled,
    too_few,
)
from underone.study.report.drawing import (
    Axis,
    Chart,
    Look,
    Row,
    Series,
    joined,
    level,
    linear_axis,
    log_axis,
    points,
    spans,
)
from underone.study.words import weight_title

_PLAIN = weight_title(Setting())
# A chart with more lines than this cannot be read.
_MOST_LINES = 8
_ANCHORS, _OTHERS = ("ddim", "ddpm-small", "ddpm-large"), "others"


def nfe_charts(analysis: Analysis, measures: Sequence[Measure] = (FID, KID)) -> list[Chart]:
    """Each measure against evaluations, for each stratum and each weight with a line to draw."""
    return distinct(
        _against_nfe(measure, weight, group, stratum.title)
        for stratum in analysis.strata
        for weight, group in _by_weight(stratum).items()
        for measure in measures
        if measure.is_known_of(group)
    )


def _by_weight(stratum: Stratum) -> dict[str, list[Standing]]:
    """The settings at w = 0, and at weights where a sampler has two numbers of steps; or all."""
    groups: dict[str, list[Standing]] = {}
    for each in stratum.asked or stratum.standings:
        groups.setdefault(weight_title(each.first.setting), []).append(each)
    shown = {
        weight: group for weight, group in groups.items() if weight == _PLAIN or _has_line(group)
    }
    return shown or {"all weights": [each for group in groups.values() for each in group]}


def _has_line(group: Sequence[Standing]) -> bool:
    lines = [replace(each.first.setting, steps=1) for each in group]
    return len(set(lines)) < len(lines)


def _against_nfe(measure: Measure, weight: str, group: Sequence[Standing], where: str) -> Chart:
    lines = sampler_lines(group)
    highlighted = highlighted_lines(lines, measure)
    rows = tuple(
        row_of(
            each,
            line.title if line.title in highlighted else _OTHERS,
            f"NFE {each.nfe:g}, {measure.title} {spread(measure, each)}",
            fresh_blocks=len(each.fresh),
            **_spanned(measure, each),
            nfe=each.nfe,
        )
        for line in lines
        for each in line.standings
    )
    floor, few = measure.comparable_floor(group[0].first), too_few(measure, group[0].first)
    below = [row for row in rows if number(row, "value") <= 0]
    logarithmic = len(below) < len(rows)
    heights = [number(row, key) for row in rows for key in ("value", "low", "high")]
    heights += [] if floor is None else [floor]
    if logarithmic and min(heights) <= 0:
        heights = [height for height in heights if height > 0]
    y = (log_axis if logarithmic else linear_axis)("shown", measure.title, heights)
    drawn = [{**row, **_within(row, y, logarithmic)} for row in rows]
    widths = sorted({number(row, "nfe") for row in rows})
    x = log_axis("nfe", "network evaluations an image (NFE)", widths, widths)
    series = Series(highlighted, _OTHERS if len(highlighted) < len(lines) else "")

    def draw(look: Look) -> Any:
        # Points that are off the axis are hollow.
        placed = [row for row in drawn if row["shown"] == row["value"]]
        others = [row for row in drawn if row["shown"] != row["value"]]
        layers = [
            spans(drawn, x, y, series),
            joined([row for row in drawn if row["series"] in highlighted], x, y, series, "nfe"),
            points(placed, x, y, series, look),
        ]
        if others:
            layers.append(points(others, x, y, series, look, filled=False))
        if floor is not None and y.low <= floor <= y.high:
            layers.append(level(floor, f"real images {measure.text(floor)}", y, WIDTH, look))
        return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)

    return Chart(
        slug(measure.name, "against-nfe", where, "" if weight == _PLAIN else weight),
        titled(f"{measure.title} against NFE, {weight}", where),
        _nfe_note(measure, rows, floor, few, below, logarithmic),
        rows,
        draw,
    )


def highlighted_lines(lines: Sequence[Line], measure: Measure) -> tuple[str, ...]:
    """The titles of the lines in colour: all, or a choice from too many.

    Chosen are the lines that are best at some cost, then those that all samplers are compared with,
    then those that come nearest to the best.
    """
    if len(lines) <= _MOST_LINES:
        return tuple(line.title for line in lines)
    least: dict[float, tuple[float, str]] = {}
    for line in lines:
        for each in line.standings:
            here = (measure.value(each.first), line.title)
            least[each.nfe] = min(here, least.get(each.nfe, here))
    nearest = sorted(lines, key=lambda line: min(measure.value(e.first) for e in line.standings))
    chosen = [title for _, title in least.values()]
    chosen += [title for title in _ANCHORS if title in {line.title for line in lines}]
    chosen += [line.title for line in nearest]
    kept = set(list(dict.fromkeys(chosen))[:_MOST_LINES])
    return tuple(line.title for line in lines if line.title in kept)


def _spanned(measure: Measure, standing: Standing) -> dict[str, float]:
    values = measure.values(standing)
    return {"value": statistics.fmean(values), "low": min(values), "high": max(values)}


def _within(row: Row, y: Axis, logarithmic: bool) -> dict[str, float]:
    """Where a row is drawn: on the lower edge of a logarithmic axis if it is off it."""
    value, low, high = (number(row, key) for key in ("value", "low", "high"))
    if not logarithmic:
        return {"shown": value, "low": low, "high": high}
    return {key: max(v, y.low) for key, v in (("shown", value), ("low", low), ("high", high))}


def _nfe_note(
    measure: Measure,
    rows: Sequence[Row],
    floor: float | None,
    few: str | None,
    below: Sequence[Row],
    log: bool,
) -> str:
    said = ["Lower is better. Both axes are logarithmic." if log else "Lower is better."]
    if any(row["low"] != row["high"] for row in rows):
        said.append(
            "Points with bars are means over fresh blocks, which the bars span; those without are "
            "of the first block, or of one fresh block."
        )
    reaching = (row for row in rows if number(row, "low") <= 0 < number(row, "value"))
    off_axis = sorted({str(row["setting"]) for row in reaching})
    if off_axis and log:
        said.append(f"Bars that reach 0 or below it end at the lower edge: {'; '.join(off_axis)}.")
    if few is not None:
        said.append(few)
    elif floor is not None:
        hidden = log and floor <= 0
        off = ", which is not above 0 and has no place on this axis" if hidden else ""
        said.append(f"Real images score {measure.text(floor)}{off}.")
    if below and log:
        names = "; ".join(str(row["setting"]) for row in below)
        said.append(f"Not above 0, hollow on the lower edge: {names}.")
    if below and not log:
        said.append("Nothing is above 0, so that the vertical axis is linear.")
    return " ".join(said)
