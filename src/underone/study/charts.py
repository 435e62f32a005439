"""The charts of a report, as self-contained SVG."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import vl_convert

from underone.study.cell import CellResult

# Colours that are told apart by colour-blind eyes too (Okabe and Ito 2008).
_COLOURS = ["#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
_SIZE = {"width": 520, "height": 300}


def fid_against_steps(results: Sequence[CellResult], samplers: Sequence[str]) -> str:
    """FID against the number of steps, both on log axes, a line a sampler, and the floor."""
    rows = [
        {"sampler": r.setting.sampler, "steps": r.setting.steps, "FID": r.measurement.fid}
        for r in results
    ]
    lines = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=alt.OverlayMarkDef(size=60))
        .encode(
            x=alt.X(
                "steps:Q",
                scale=alt.Scale(type="log", nice=False, padding=20),
                axis=alt.Axis(values=sorted({r.setting.steps for r in results}), grid=False),
            ),
            y=_fid_axis(results),
            color=alt.Color(
                "sampler:N",
                scale=alt.Scale(domain=list(samplers), range=_COLOURS[: len(samplers)]),
                title=None,
            ),
        )
    )
    return _svg(alt.layer(lines, _floor(results)))


def fid_against_guidance(results: Sequence[CellResult]) -> str:
    """FID against the guidance weight w, and the floor."""
    rows = [{"w": r.setting.guidance, "FID": r.measurement.fid} for r in results]
    weights = sorted({r.setting.guidance for r in results})
    line = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=alt.OverlayMarkDef(size=60, color=_COLOURS[1]), color=_COLOURS[1])
        .encode(
            x=alt.X(
                "w:Q",
                title="guidance weight w",
                axis=alt.Axis(values=weights, format="~g", grid=False),
            ),
            y=_fid_axis(results),
        )
    )
    return _svg(alt.layer(line, _floor(results)))


def _fid_axis(results: Sequence[CellResult]) -> Any:
    lowest = min(min(r.measurement.fid, r.floor.fid) for r in results)
    highest = max(r.measurement.fid for r in results)
    ticks = [base * 10**power for power in range(-3, 4) for base in (1, 2, 5)]
    return alt.Y(
        "FID:Q",
        scale=alt.Scale(type="log", nice=False, domain=[0.8 * lowest, 1.25 * highest]),
        axis=alt.Axis(values=[t for t in ticks if 0.8 * lowest <= t <= 1.25 * highest]),
    )


def _floor(results: Sequence[CellResult]) -> Any:
    floor = results[0].floor
    rows = [{"FID": floor.fid, "label": f"floor: real images, {floor.fid:.3f}"}]
    base = alt.Chart(alt.Data(values=rows)).encode(y="FID:Q")
    rule = base.mark_rule(color="#777777", strokeDash=[5, 4])
    text = base.mark_text(
        align="right", baseline="bottom", dx=-4, dy=-3, color="#666666", fontSize=12
    ).encode(x=alt.value(_SIZE["width"]), text="label:N")
    return alt.layer(rule, text)


def _svg(chart: Any) -> str:
    styled = chart.properties(**_SIZE).configure(
        font="system-ui, sans-serif",
        background="white",
        axis={"labelFontSize": 13, "titleFontSize": 13, "titleFontWeight": "normal"},
        legend={"labelFontSize": 13, "orient": "top"},
        view={"stroke": None},
    )
    return str(vl_convert.vegalite_to_svg(styled.to_json()))
