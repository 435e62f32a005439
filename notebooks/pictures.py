"""The notebooks' pictures: charts by altair as PNG, and labelled galleries of images."""

import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import torch
import vl_convert
from IPython.display import Image
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from torch import Tensor

from underone.data import png_bytes, tile, to_uint8

# Colours that colour-blind eyes can distinguish (Okabe and Ito 2008).
COLOURS = ["#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
GREY = "#777777"
_FINENESS = 2  # pixels of a PNG for each pixel it is shown at
_FONT = 13

Row = Mapping[str, Any]


class Table:
    """A table of rows, each a dictionary, as HTML and as text."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._header = list(rows[0]) if rows else []
        self._cells = [[_text(name, row.get(name)) for name in self._header] for row in rows]

    def __repr__(self) -> str:
        lines = [self._header, *self._cells]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = ([c.ljust(w) for c, w in zip(line, widths, strict=True)] for line in lines)
        return "\n".join("  ".join(line).rstrip() for line in padded)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self._header)
        body = ("".join(f"<td>{html.escape(cell)}</td>" for cell in cells) for cells in self._cells)
        rows = "".join(f"<tr>{cells}</tr>" for cells in body)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _text(name: str, value: object) -> str:
    if value is None:
        return "–"
    if name == "w":
        return f"{value:g}"
    digits = 2 if name.startswith(("FID", "±", "margin")) else 3
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def clouds(
    panels: Mapping[str, Tensor], labels: Tensor, columns: int = 5, reach: float = 3.0
) -> Image:
    """Panels of points (N, 2) side by side, coloured by class; those beyond `reach` are counted."""
    charts = []
    for title, points in panels.items():
        rows = [
            {"x": x, "y": y, "class": label}
            for (x, y), label in zip(points.tolist(), labels.tolist(), strict=True)
            if max(abs(x), abs(y)) <= reach
        ]
        outside = len(points) - len(rows)
        title = f"{title} ({outside} outside)" if outside else title
        colour = alt.Color(
            "class:N",
            scale=alt.Scale(domain=labels.unique().tolist(), range=COLOURS),
            legend=None,
        )
        charts.append(
            alt.Chart(alt.Data(values=rows), title=title)
            .mark_circle(size=7, opacity=0.6)
            .encode(x=_plane("x", reach), y=_plane("y", reach), color=colour)
            .properties(width=165, height=165)
        )
    return _drawn(alt.concat(*charts, columns=columns, spacing=12))


def paths(
    panels: Mapping[str, Sequence[Tensor]], labels: Tensor, under: Tensor, reach: float = 3.0
) -> Image:
    """The path of each point through the states (N, 2), coloured by its class.

    Drawn over the points `under` (M, 2), in grey.
    """
    charts = []
    data = (
        alt.Chart(alt.Data(values=[{"x": x, "y": y} for x, y in under.tolist()]))
        .mark_circle(size=7, opacity=0.5, color="#cccccc")
        .encode(x=_plane("x", reach), y=_plane("y", reach))
    )
    for title, states in panels.items():
        rows = [
            {"x": x, "y": y, "point": point, "class": int(labels[point]), "order": order}
            for order, state in enumerate(states)
            for point, (x, y) in enumerate(state.tolist())
        ]
        base = alt.Chart(alt.Data(values=rows), title=title).encode(
            x=_plane("x", reach),
            y=_plane("y", reach),
            color=alt.Color(
                "class:N",
                scale=alt.Scale(domain=labels.unique().tolist(), range=COLOURS),
                legend=None,
            ),
        )
        lines = base.mark_line(strokeWidth=1, opacity=0.7, clip=True).encode(
            detail="point:N", order="order:Q"
        )
        ends = base.transform_filter(f"datum.order == {len(states) - 1}").mark_circle(
            size=45, opacity=1
        )
        charts.append((data + lines + ends).properties(width=270, height=270))
    return _drawn(alt.hconcat(*charts, spacing=16))


def _plane(name: str, reach: float) -> Any:
    channel = alt.X if name == "x" else alt.Y
    return channel(f"{name}:Q", scale=alt.Scale(domain=[-reach, reach], nice=False), axis=None)


def loss_curve(losses: Sequence[float], window: int = 50) -> Image:
    """The loss of every update, averaged over `window` of them."""
    window = max(1, min(window, len(losses) // 4))
    means = torch.tensor(losses).unfold(0, window, window).mean(1).tolist()
    rows = [{"update": (index + 1) * window, "loss": mean} for index, mean in enumerate(means)]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(color=COLOURS[1])
        .encode(
            x=alt.X("update:Q", axis=alt.Axis(grid=False, tickCount=6)),
            y=alt.Y("loss:Q", scale=alt.Scale(type="log", nice=False, padding=8)),
        )
        .properties(width=480, height=180)
    )
    return _drawn(chart)


def curves(
    rows: Sequence[Row],
    x: str,
    figures: Sequence[str],
    *,
    colour: str | None = None,
    real: Mapping[str, float] | None = None,
    log: Sequence[str] = (),
    width: int = 300,
    titles: Sequence[str] | None = None,
) -> Image:
    """A panel for each figure: lines over x, one per `colour`, and a dashed one for real images.

    The axes named in `log` are logarithmic.
    """
    charts = [
        _curve(rows, x, figure, colour, (real or {}).get(figure), log, width).properties(
            title=title
        )
        for figure, title in zip(figures, titles or figures, strict=True)
    ]
    return _drawn(alt.hconcat(*charts, spacing=26))


def _curve(
    rows: Sequence[Row],
    x: str,
    figure: str,
    colour: str | None,
    real: float | None,
    log: Sequence[str],
    width: int,
) -> Any:
    known = [row for row in rows if row.get(figure) is not None]
    places = sorted({row[x] for row in rows})
    values = [row[figure] for row in known] + ([] if real is None else [real])
    line = (
        alt.Chart(alt.Data(values=[dict(row) for row in known]))
        .mark_line(point=alt.OverlayMarkDef(size=55))
        .encode(
            x=alt.X(
                f"{x}:Q",
                scale=_scale(x in log, places, padding=14),
                axis=alt.Axis(values=places, grid=False, format="~g", labelOverlap="greedy"),
            ),
            y=alt.Y(
                f"{figure}:Q",
                scale=_scale(figure in log, values),
                axis=alt.Axis(title=None, **_ticks(figure in log, values)),
            ),
            color=alt.value(COLOURS[1]) if colour is None else _by(colour, known),
        )
    )
    if real is None:
        return line.properties(width=width, height=220)
    note = alt.Chart(alt.Data(values=[{figure: real, "note": "real images"}])).encode(
        y=f"{figure}:Q"
    )
    rule = note.mark_rule(color=GREY, strokeDash=[5, 4])
    text = note.mark_text(
        align="right", baseline="bottom", dx=-2, dy=-2, color="#555555", fontSize=11
    ).encode(x=alt.value(width), text="note:N")
    return (line + rule + text).properties(width=width, height=220)


def _by(colour: str, rows: Sequence[Row]) -> Any:
    names = list(dict.fromkeys(row[colour] for row in rows))
    return alt.Color(
        f"{colour}:N", scale=alt.Scale(domain=names, range=COLOURS[: len(names)]), title=None
    )


def _scale(log: bool, values: Sequence[float], padding: int | None = None) -> Any:
    low, high = min(values), max(values)
    if padding is not None:
        kind: Any = "log" if log else "linear"
        return alt.Scale(type=kind, domain=[low, high], nice=False, zero=False, padding=padding)
    if log:
        return alt.Scale(type="log", domain=[0.8 * low, 1.25 * high], nice=False)
    margin = 0.1 * (high - low) or 0.1
    return alt.Scale(domain=[low - margin, high + margin], nice=False, zero=False)


def _ticks(log: bool, values: Sequence[float]) -> dict[str, Any]:
    if not log:
        return {"tickCount": 6}
    low, high = 0.8 * min(values), 1.25 * max(values)
    ticks = [base * 10.0**power for power in range(-3, 4) for base in (1, 2, 5)]
    return {"values": [tick for tick in ticks if low <= tick <= high], "format": "~g"}


def _drawn(chart: Any) -> Image:
    styled = chart.configure(
        font="Liberation Sans, DejaVu Sans, sans-serif",
        background="white",
        axis={"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
        title={"fontSize": _FONT, "fontWeight": "normal", "anchor": "middle"},
        legend={"labelFontSize": 12, "orient": "top"},
        view={"stroke": "#dddddd"},
    )
    png = vl_convert.vegalite_to_png(styled.to_json(), scale=_FINENESS)
    return _shown(Pillow.open(io.BytesIO(png)).convert("RGB"))


def gallery(rows: Mapping[str, Tensor], columns: Sequence[str] = (), scale: int = 2) -> Image:
    """Rows of images, uint8 or float in [-1, 1], each (N, C, H, W) with its title at the left."""
    strips = []
    for images in rows.values():
        pixels = images if images.dtype == torch.uint8 else to_uint8(images)
        strips.append(tile(pixels, len(pixels), scale * _FINENESS, 2 * _FINENESS).convert("RGB"))
    font, small = (ImageFont.load_default(size * _FINENESS) for size in (_FONT, _FONT - 2.5))
    margin = int(max(font.getlength(title) for title in rows)) + 10 * _FINENESS
    top = 22 * _FINENESS if columns else 0
    size = (
        margin + max(strip.width for strip in strips),
        top + sum(strip.height for strip in strips),
    )
    page = Pillow.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    for index, title in enumerate(columns):
        place = margin + (index + 0.5) * strips[0].width / len(columns), top / 2
        draw.text(place, title, fill="#333333", font=small, anchor="mm")
    for title, strip in zip(rows, strips, strict=True):
        page.paste(strip, (margin, top))
        place = (margin - 6 * _FINENESS, top + strip.height / 2)
        draw.text(place, title, fill="#333333", font=font, anchor="rm")
        top += strip.height
    return _shown(page)


def _shown(page: Pillow.Image) -> Image:
    """A picture in 256 colours, for a third of the size, shown at its intended width."""
    small = png_bytes(page.quantize(256, dither=Pillow.Dither.NONE))
    return Image(data=small, width=page.width // _FINENESS)
