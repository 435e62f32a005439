"""How a report's charts are drawn: as SVG within the page, as SVG and PNG in files."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt
import vl_convert

Row = Mapping[str, object]

# Colours that colour-blind eyes can distinguish (Okabe and Ito 2008), the pale ones last. Dashes
# and shapes repeat after other numbers of lines, so that no two lines of a chart look alike.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross")
_DASHES = ((1, 0), (7, 3), (2, 3), (8, 3, 2, 3))

_INK, _QUIET, _GREY = "#1d2430", "#687386", "#a8b0bb"
# Leading digits of the ticks of a log axis, the coarsest first.
_LADDERS = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))
_FEW_TICKS, _MANY_TICKS = 4, 9
_WIDEST_LABEL, _LONG_LABEL = 300, 22
# The height of a text beside a point, in pixels.
TEXT_SIZE = 11
# vl-convert makes links absolute.
_LINK = re.compile(r'xlink:href="[^"#]*#')
_IDENTITY = re.compile(r'(\bid="|url\(#)')


@dataclass(frozen=True)
class Look:
    """The colours of a chart's paper and ink; `linked`: its points lead to their cells."""

    paper: str
    ink: str
    linked: bool


# The page sets the current colour, in light mode and in dark.
ON_PAGE = Look("transparent", "currentColor", linked=True)
IN_FILE = Look("white", _INK, linked=False)


@dataclass(frozen=True)
class Chart:
    """A chart: the name of its files, its title, a note for its readers, and its data."""

    name: str
    title: str
    note: str
    rows: tuple[Row, ...]
    drawn: Callable[[Look], Any]

    def on_page(self) -> str:
        """An SVG element whose ids are unique in the page."""
        svg = str(vl_convert.vegalite_to_svg(self._json(ON_PAGE)))
        return _IDENTITY.sub(rf"\g<1>{self.name}-", _LINK.sub('href="#', svg))

    @cached_property
    def svg(self) -> str:
        """An SVG file's text."""
        return str(vl_convert.vegalite_to_svg(self._json(IN_FILE)))

    def png(self) -> bytes:
        """A PNG file's bytes, on white."""
        return bytes(vl_convert.svg_to_png(self.svg, scale=2))

    def _json(self, look: Look) -> str:
        chart = self.drawn(look)
        if not look.linked:  # the page shows the title itself
            chart = chart.properties(title=self.title)
        return str(styled(chart, look).to_json())


@dataclass(frozen=True)
class Axis:
    """An axis: the field of the rows, its title, the range shown; linear or logarithmic."""

    field: str
    title: str
    low: float
    high: float
    log: bool
    ticks: tuple[float, ...] = ()

    @property
    def scale(self) -> Any:
        """Altair's scale."""
        return alt.Scale(
            type="log" if self.log else "linear",
            nice=False,
            zero=False,
            domain=[self.low, self.high],
        )

    @property
    def axis(self) -> Any:
        """Altair's axis."""
        ticks = {"values": list(self.ticks)} if self.ticks else {"tickCount": 5}
        # A format of the axis itself would be rounded to the distance of its ticks: 0.25 to 0.3.
        label = "format(datum.value, '~g')"
        return alt.Axis(labelExpr=label, labelOverlap="greedy", **ticks)

    def share(self, value: float) -> float:
        """How far along the axis a value is: 0 at its low end, 1 at its high end."""
        low, high, at = (
            math.log(each) if self.log else each for each in (self.low, self.high, value)
        )
        return (at - low) / (high - low)

    def x(self) -> Any:
        """The axis as the horizontal one."""
        return alt.X(f"{self.field}:Q", title=self.title, scale=self.scale, axis=self.axis)

    def y(self) -> Any:
        """As the vertical one."""
        return alt.Y(f"{self.field}:Q", title=self.title, scale=self.scale, axis=self.axis)


def log_axis(field: str, title: str, values: Iterable[float], ticks: Sequence[float] = ()) -> Axis:
    """A logarithmic axis of positive values, some room around them."""
    found = list(values)
    room = max(1.12, (max(found) / min(found)) ** 0.08)
    low, high = min(found) / room, max(found) * room
    return Axis(field, title, low, high, log=True, ticks=tuple(ticks) or log_ticks(low, high))


def linear_axis(
    field: str, title: str, values: Iterable[float], ticks: Sequence[float] = ()
) -> Axis:
    """A linear axis, some room around the values."""
    found = list(values)
    room = 0.1 * (max(found) - min(found)) or 0.1 * abs(max(found)) or 0.1
    return Axis(field, title, min(found) - room, max(found) + room, log=False, ticks=tuple(ticks))


def log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Round values within a range: the finest ladder that does not crowd the axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [
        tuple(v for p in powers for d in digits if low <= (v := round(d * 10.0**p, 12)) <= high)
        for digits in _LADDERS
    ]
    chosen = every[0]
    for ticks in every[1:]:
        if len(chosen) < _FEW_TICKS and len(ticks) <= _MANY_TICKS:
            chosen = ticks
    return chosen


@dataclass(frozen=True)
class Series:
    """The lines of a chart by name, each with a colour, a dash and a shape of its own.

    `others` is the name of points that are on none of them, and grey; "" where there are none.
    """

    names: tuple[str, ...]
    others: str = ""

    def colour(self) -> Any:
        """The colour of a line; of a single one there is no legend."""
        return alt.Color("series:N", scale=self._scale(_COLOURS, _GREY), **self._titled())

    def dash(self) -> Any:
        """The dash of a line."""
        return alt.StrokeDash("series:N", scale=self._scale(_DASHES, _DASHES[0]), legend=None)

    def shape(self) -> Any:
        """The shape of a line's points."""
        return alt.Shape("series:N", scale=self._scale(_SHAPES, _SHAPES[0]), **self._titled())

    def _scale(self, choices: Sequence[Any], others: Any) -> Any:
        chosen = [choices[index % len(choices)] for index in range(len(self.names))]
        if not self.others:
            return alt.Scale(domain=list(self.names), range=chosen)
        return alt.Scale(domain=[*self.names, self.others], range=[*chosen, others])

    def _titled(self) -> dict[str, Any]:
        if len(self.names) < 2:
            return {"legend": None}
        legend = alt.Legend(
            orient="top",
            columns=1 if max(map(len, self.names)) > _LONG_LABEL else 2,
            labelLimit=_WIDEST_LABEL,
            symbolLimit=0,
            symbolOpacity=1,
            symbolStrokeWidth=0,
            columnPadding=18,
        )
        return {"title": None, "legend": legend}


def joined(rows: Sequence[Row], x: Axis, y: Axis, series: Series, order: str) -> Any:
    """A layer that joins each series' points in the order of a field."""
    base = alt.Chart(alt.Data(values=[dict(row) for row in rows])).encode(x=x.x(), y=y.y())
    return base.mark_line(strokeWidth=2).encode(
        color=series.colour(), strokeDash=series.dash(), order=f"{order}:Q"
    )


def points(
    rows: Sequence[Row], x: Axis, y: Axis, series: Series, look: Look, filled: bool = True
) -> Any:
    """A layer of points, each leading to its cell where the look is linked."""
    link = {"href": "link:N"} if look.linked else {}
    return (
        alt.Chart(alt.Data(values=[dict(row) for row in rows]))
        .mark_point(
            filled=filled, size=75, opacity=1, fill=alt.Undefined if filled else "transparent"
        )
        .encode(
            x=x.x(),
            y=y.y(),
            color=series.colour(),
            shape=series.shape(),
            description="says:N",
            **link,
        )
    )


def spans(rows: Sequence[Row], x: Axis, y: Axis, series: Series) -> Any:
    """A layer of bars from each row's "low" to its "high"."""
    return (
        alt.Chart(alt.Data(values=[dict(row) for row in rows]))
        .mark_rule(strokeWidth=1.5, opacity=0.7)
        .encode(
            x=x.x(),
            y=alt.Y("low:Q", scale=y.scale, title=y.title),
            y2="high:Q",
            color=series.colour(),
        )
    )


def level(value: float, text: str, y: Axis, width: int, look: Look) -> Any:
    """A layer: a dashed line across, with a text at its right end."""
    base = alt.Chart(alt.Data(values=[{"level": value, "text": text}])).encode(
        y=alt.Y("level:Q", scale=y.scale, title=y.title)
    )
    rule = base.mark_rule(color=look.ink, strokeDash=[3, 4], opacity=0.6, aria=False)
    words = base.mark_text(
        align="right", baseline="bottom", dx=-3, dy=-3, color=look.ink, fontSize=TEXT_SIZE
    ).encode(x=alt.value(width), text="text:N")
    return alt.layer(rule, words)


def texts(rows: Sequence[Row], x: Axis, y: Axis, look: Look, below: bool = False) -> Any:
    """A layer of each row's "text" beside its point, above or below it."""
    vertical: dict[str, Any] = (
        {"baseline": "top", "dy": 5} if below else {"baseline": "bottom", "dy": -4}
    )
    return (
        alt.Chart(alt.Data(values=[dict(row) for row in rows]))
        .mark_text(align="left", dx=5, color=look.ink, fontSize=TEXT_SIZE, **vertical)
        .encode(x=x.x(), y=y.y(), text="text:N")
    )


def rings(rows: Sequence[Row], x: Axis, y: Axis, look: Look) -> Any:
    """A layer of rings around points."""
    return (
        alt.Chart(alt.Data(values=[dict(row) for row in rows]))
        .mark_point(filled=False, size=260, stroke=look.ink, strokeWidth=1.5, aria=False)
        .encode(x=x.x(), y=y.y())
    )


def crosses(rows: Sequence[Row], x: Axis, y: Axis, look: Look) -> Any:
    """A layer of crosses in ink, each with its "text"."""
    base = alt.Chart(alt.Data(values=[dict(row) for row in rows])).encode(x=x.x(), y=y.y())
    marks = base.mark_point(
        shape="M-1,-1L1,1M-1,1L1,-1", size=90, stroke=look.ink, strokeWidth=2
    ).encode(description="says:N")
    words = base.mark_text(
        align="right", baseline="bottom", dx=-6, dy=-5, color=look.ink, fontSize=TEXT_SIZE
    ).encode(text="text:N")
    return alt.layer(marks, words)


def styled(chart: Any, look: Look) -> Any:
    """A chart in the fonts and inks of a look."""
    return chart.configure(
        font="system-ui, sans-serif",
        background=look.paper,
        padding=4,
        axis={
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "labelColor": look.ink,
            "titleColor": look.ink,
            "domainColor": _QUIET,
            "tickColor": _QUIET,
            "gridColor": _QUIET,
            "gridOpacity": 0.22,
        },
        legend={"labelFontSize": 12, "labelColor": look.ink, "symbolSize": 75, "rowPadding": 3},
        title={"fontSize": 14, "anchor": "start", "color": look.ink, "fontWeight": 600},
        view={"stroke": None},
    )
