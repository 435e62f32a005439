"""The charts of a report: what is drawn of which settings."""

import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt

from underone.generation import Setting
from underone.study.answers import Standing
from underone.study.cell import CellResult
from underone.study.contest import unguided
from underone.study.report.agreement import Pair, agreement
from underone.study.report.drawing import (
    Axis,
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
    spans,
    texts,
)
from underone.study.report.measures import (
    FID,
    KID,
    MEASURES,
    PRECISION,
    RECALL,
    Field,
    Measure,
    fields,
    spread,
    yardstick_fids,
)
from underone.study.report.sentences import field_title
from underone.study.run import Run
from underone.study.words import form_titles, sampler_title, setting_title, weight_title

PLAIN = weight_title(Setting())
_WIDTH, _HEIGHT = 390, 280
_SMALL_WIDTH, _SMALL_HEIGHT = 250, 165
_LONGEST = 60
# A chart of more lines than these cannot be read.
_MOST_LINES = 8
_ANCHORS, _OTHERS = ("ddim", "ddpm-small", "ddpm-large"), "others"


@dataclass(frozen=True)
class Line:
    """Settings that are joined in a chart: one is reached from the next by one axis alone."""

    title: str
    standings: tuple[Standing, ...]


def slug(*parts: str) -> str:
    """A file's name of words; of a long one, such as a model's path, the end."""
    plain = (re.sub(r"[^a-z0-9]+", "-", part.lower())[-_LONGEST:].strip("-") for part in parts)
    return "-".join(part for part in plain if part)


def _distinct(charts: Iterable[Chart]) -> list[Chart]:
    """The charts; one whose name, made plain, is an earlier one's has a number behind it."""
    seen: Counter[str] = Counter()
    found = []
    for chart in charts:
        seen[chart.name] += 1
        count = seen[chart.name]
        found.append(chart if count == 1 else replace(chart, name=f"{chart.name}-{count}"))
    return found


def nfe_charts(run: Run, measures: Sequence[Measure] = (FID, KID)) -> list[Chart]:
    """Each measure against evaluations: of each field, of each weight with a line to draw."""
    return _distinct(
        _against_nfe(measure, weight, group, field_title(run, field.model, field.samples))
        for field in fields(run)
        for weight, group in _by_weight(field).items()
        for measure in measures
        if measure.known_of(group)
    )


def _by_weight(field: Field) -> dict[str, list[Standing]]:
    """w = 0, and other weights where some sampler has two numbers of steps; or else everything."""
    groups: dict[str, list[Standing]] = {}
    for each in field.asked or field.standings:
        groups.setdefault(weight_title(each.first.setting), []).append(each)
    shown = {
        weight: group for weight, group in groups.items() if weight == PLAIN or _has_line(group)
    }
    return shown or {"all weights": [each for group in groups.values() for each in group]}


def _has_line(group: Sequence[Standing]) -> bool:
    lines = [replace(each.first.setting, steps=1) for each in group]
    return len(set(lines)) < len(lines)


def _against_nfe(measure: Measure, weight: str, group: Sequence[Standing], where: str) -> Chart:
    lines = _sampler_lines(group)
    told = _told_lines(lines, measure)
    rows = tuple(
        _row(
            each,
            line.title if line.title in told else _OTHERS,
            f"NFE {each.nfe:g}, {measure.title} {spread(measure, each)}",
            fresh_blocks=len(each.fresh),
            **_spanned(measure, each),
            nfe=each.nfe,
        )
        for line in lines
        for each in line.standings
    )
    floor, few = measure.comparable_floor(group[0].first), _too_few(measure, group[0].first)
    below = [row for row in rows if _number(row, "value") <= 0]
    logarithmic = len(below) < len(rows)
    heights = [_number(row, key) for row in rows for key in ("value", "low", "high")]
    heights += [] if floor is None else [floor]
    if logarithmic and min(heights) <= 0:
        heights = [height for height in heights if height > 0]
    y = (log_axis if logarithmic else linear_axis)("shown", measure.title, heights)
    drawn = [{**row, **_within(row, y, logarithmic)} for row in rows]
    widths = sorted({_number(row, "nfe") for row in rows})
    x = log_axis("nfe", "network evaluations an image (NFE)", widths, widths)
    series = Series(told, _OTHERS if len(told) < len(lines) else "")

    def draw(look: Look) -> Any:
        # Hollow is what has no place on the axis.
        placed = [row for row in drawn if row["shown"] == row["value"]]
        others = [row for row in drawn if row["shown"] != row["value"]]
        layers = [
            spans(drawn, x, y, series),
            joined([row for row in drawn if row["series"] in told], x, y, series, "nfe"),
            points(placed, x, y, series, look),
        ]
        if others:
            layers.append(points(others, x, y, series, look, filled=False))
        if floor is not None and y.low <= floor <= y.high:
            layers.append(level(floor, f"real images {measure.text(floor)}", y, _WIDTH, look))
        return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT)

    return Chart(
        slug(measure.name, "against-nfe", where, "" if weight == PLAIN else weight),
        _titled(f"{measure.title} against NFE, {weight}", where),
        _nfe_note(measure, rows, floor, few, below, logarithmic),
        rows,
        draw,
    )


def _told_lines(lines: Sequence[Line], measure: Measure) -> tuple[str, ...]:
    """The lines that are told apart: all, or of many those that are best at some cost, those that
    all samplers are compared with, and those that come nearest to the best.
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


def _too_few(measure: Measure, result: CellResult) -> str | None:
    """That real images are too few to stand beside samples, for FID falls with their number."""
    floor = result.measurements[measure.yardstick].floor
    value = measure.floor(result)
    if floor is None or value is None or measure.comparable_floor(result) is not None:
        return None
    return (
        f"Real images, of which only {floor.count:,} are held out, score {measure.text(value)}: "
        "too few to compare."
    )


def _spanned(measure: Measure, standing: Standing) -> dict[str, float]:
    values = measure.values(standing)
    return {"value": statistics.fmean(values), "low": min(values), "high": max(values)}


def _within(row: Row, y: Axis, logarithmic: bool) -> dict[str, float]:
    """Where a row is drawn: what a logarithmic axis has no place for, on its lower edge."""
    value, low, high = (_number(row, key) for key in ("value", "low", "high"))
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
    reaching = (row for row in rows if _number(row, "low") <= 0 < _number(row, "value"))
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


def diversity_charts(run: Run) -> list[Chart]:
    """Precision against recall along w, of each field with two weights."""
    return _distinct(
        _diversity(lines, field_title(run, field.model, field.samples))
        for field in fields(run)
        if (lines := _known_lines(field, (PRECISION, RECALL)))
    )


def _diversity(lines: Sequence[Line], where: str) -> Chart:
    rows = tuple(
        {
            **_row(
                each,
                line.title,
                _on_first_block(each, PRECISION, RECALL),
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
        told = f"real images: precision {floors[1]:.3f}, recall {floors[0]:.3f}"
        real = [{"recall": floors[0], "precision": floors[1], "text": "real images", "says": told}]
    everywhere = [*rows, *real]
    x = linear_axis("recall", "recall (diversity)", [_number(row, "recall") for row in everywhere])
    y = linear_axis(
        "precision", "precision (quality)", [_number(row, "precision") for row in everywhere]
    )
    series = Series(tuple(line.title for line in lines))

    def draw(look: Look) -> Any:
        once = {row["cell"]: row for row in reversed(rows)}.values()
        layers = [
            joined(rows, x, y, series, "w"),
            points(rows, x, y, series, look),
            texts([row for row in once if row["series"] == series.names[0]], x, y, look),
            texts(
                [row for row in once if row["series"] != series.names[0]], x, y, look, below=True
            ),
            crosses(real, x, y, look),
        ]
        return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT)

    note = (
        "On the first block. Up is sharper, right is more varied; numbers are w, and points are "
        "joined in its order. "
    ) + (_too_few(PRECISION, first) or "Real images stand where a perfect model would.")
    return Chart(
        slug("precision-against-recall", where),
        _titled("Quality against diversity along w", where),
        note,
        rows,
        draw,
    )


def weight_charts(run: Run) -> list[Chart]:
    """Each measure against w, of each field with two weights."""
    return _distinct(
        _against_weight(measure, lines, field_title(run, field.model, field.samples))
        for field in fields(run)
        for measure in MEASURES
        if (lines := _known_lines(field, (measure,)))
    )


def _against_weight(measure: Measure, lines: Sequence[Line], where: str) -> Chart:
    rows = tuple(
        _row(each, line.title, _on_first_block(each, measure), value=measure.value(each.first))
        for line in lines
        for each in line.standings
    )
    # w = 0 is on every line of its setting.
    once = {each.first.id: each for line in lines for each in line.standings}
    asked = list(once.values())
    floor = measure.comparable_floor(asked[0].first)
    few = _too_few(measure, asked[0].first)
    heights = [_number(row, "value") for row in rows] + ([] if floor is None else [floor])
    logarithmic = measure.logarithmic and min(heights) > 0
    y = (log_axis if logarithmic else linear_axis)("value", "", heights)
    weights = sorted({_number(row, "w") for row in rows})
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
        _titled(f"{measure.title} against w", where),
        " ".join(filter(None, (f"{better}.{scale} Ringed: {ringed}.", few))),
        rows,
        draw,
    )


def extractor_charts(run: Run) -> list[Chart]:
    """FID along w in the features of each extractor, of its own at w = 0; of each line along w."""
    by = yardstick_fids(run)
    return _distinct(
        _by_extractor(by, line, field_title(run, field.model, field.samples))
        for field in fields(run)
        for line in _known_lines(field, by)
        if len(by) > 1 and line.standings[0].first.setting.guidance == 0
    )


def _by_extractor(by: Sequence[Measure], line: Line, where: str) -> Chart:
    plain = line.standings[0]
    rows = tuple(
        _row(
            each,
            measure.title,
            _on_first_block(each, measure),
            value=measure.value(each.first) / measure.value(plain.first),
        )
        for measure in by
        for each in line.standings
    )
    weights = sorted({_number(row, "w") for row in rows})
    x = linear_axis("w", "w", weights, weights)
    y = log_axis("value", "FID, of that at w = 0", [_number(row, "value") for row in rows])
    series = Series(tuple(measure.title for measure in by))

    def draw(look: Look) -> Any:
        layers = [joined(rows, x, y, series, "w"), points(rows, x, y, series, look)]
        return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT)

    return Chart(
        slug("extractors-against-w", line.title, where),
        _titled("FID by each extractor against w", where),
        f"Of {line.title}. Lower is better, and 1 is FID at w = 0; the vertical axis is "
        "logarithmic. Where the lines part, FID does not tell which weight is best, but which "
        "features were asked.",
        rows,
        draw,
    )


def _preferred(measure: Measure, asked: Sequence[Standing]) -> set[str]:
    """The cells that a measure prefers, of each setting that weights compete in."""
    groups: dict[Setting, list[Standing]] = {}
    for each in asked:
        groups.setdefault(unguided(each.first.setting), []).append(each)
    found = ((measure.equally_best(group), group) for group in groups.values())
    return {each.first.id for best, group in found if len(best) < len(group) for each in best}


def agreement_charts(run: Run) -> list[Chart]:
    """The FIDs of two extractors against each other, of each field."""
    return _distinct(
        _agreement(pair, field_title(run, field.model, field.samples))
        for field in fields(run)
        for pair in agreement(field, run)
    )


def _agreement(pair: Pair, where: str) -> Chart:
    lines = _sampler_lines(pair.standings, lambda setting: setting.sampler)
    rows = tuple(
        _row(
            each,
            line.title,
            _on_first_block(each, pair.a, pair.b),
            a=pair.a.value(each.first),
            b=pair.b.value(each.first),
        )
        for line in lines
        for each in line.standings
    )
    columns = [[_number(row, key) for row in rows] for key in ("a", "b")]
    axis = log_axis if min(map(min, columns)) > 0 else linear_axis
    x, y = axis("a", pair.a.title, columns[0]), axis("b", pair.b.title, columns[1])
    series = Series(tuple(line.title for line in lines))

    def draw(look: Look) -> Any:
        return alt.layer(points(rows, x, y, series, look)).properties(width=_WIDTH, height=_HEIGHT)

    return Chart(
        slug(pair.a.title, "against", pair.b.title, where),
        _titled(f"{pair.b.title} against {pair.a.title}", where),
        "A point a setting, on the first block. On one rising curve the two agree on the order.",
        rows,
        draw,
    )


def _sampler_lines(
    group: Sequence[Standing], title: Callable[[Setting], str] = sampler_title
) -> list[Line]:
    found: dict[str, list[Standing]] = {}
    for each in group:
        found.setdefault(title(each.first.setting), []).append(each)
    return [
        Line(name, tuple(sorted(members, key=lambda each: each.nfe)))
        for name, members in found.items()
    ]


def weight_lines(field: Field) -> list[Line]:
    """Settings that differ in w alone, w = 0 among them whatever the form of guidance."""
    groups: dict[Setting, dict[str, list[Standing]]] = {}
    for each in field.standings:
        setting = each.first.setting
        forms = groups.setdefault(unguided(setting), {})
        forms.setdefault(", ".join(form_titles(setting)), []).append(each)
    lines = []
    for base, forms in groups.items():
        plain = [e for members in forms.values() for e in members if e.first.setting.guidance == 0]
        for form, members in forms.items():
            along = [*plain, *(e for e in members if e.first.setting.guidance != 0)]
            if len(along) > 1:
                title = ", ".join(filter(None, (setting_title(base), form)))
                ordered = sorted(along, key=lambda each: each.first.setting.guidance)
                lines.append(Line(title, tuple(ordered)))
    return lines


def _known_lines(field: Field, measures: Sequence[Measure]) -> list[Line]:
    """The lines along w, without settings that lack a measure, and without lines of one point."""
    lines = []
    for line in weight_lines(field):
        # What asks for no class is compared with no other weight.
        asked = (each for each in line.standings if each.first.setting.uses_labels)
        known = tuple(each for each in asked if all(m.known_of([each]) for m in measures))
        if len(known) > 1:
            lines.append(Line(line.title, known))
    return lines


def _row(standing: Standing, series: str, told: str, **values: float) -> Row:
    """A point's row: its setting, its values, where it leads, what a screen reader says."""
    first = standing.first
    title = setting_title(first.setting)
    return {
        "series": series,
        "model": first.model,
        "setting": title,
        "samples": first.draw.count,
        "steps": first.setting.steps,
        "w": first.setting.guidance,
        **values,
        "cell": first.id,
        "link": f"#cell-{first.id}",
        "says": f"{title}: {told}",
    }


def _on_first_block(standing: Standing, *measures: Measure) -> str:
    """What a point of the first block says."""
    parts = [f"{each.title} {each.text(each.value(standing.first))}" for each in measures]
    return f"{', '.join(parts)}, on the first block"


def _number(row: Row, key: str) -> float:
    value = row[key]
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} of {row['setting']} is no finite number: {value!r}")
    return float(value)


def _titled(title: str, where: str) -> str:
    return f"{title} ({where})" if where else title
