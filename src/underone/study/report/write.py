"""The report of a study: a page that opens offline, its charts with their data, and all numbers.

report.html               everything, in one file
figures/NAME.svg, .png    each chart
data/NAME.csv             a chart's points
results.json              the findings, and the result of every cell
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from underone.data.picture import data_uri
from underone.files import write_bytes, write_json, write_text
from underone.study.analysis import Analysis
from underone.study.measures import FID
from underone.study.report import protocol, tables, view
from underone.study.report.agreement import agreement, extractor_findings
from underone.study.report.answers_in_tables import model_tables, steps_tables, weight_tables
from underone.study.report.charts import (
    agreement_charts,
    diversity_charts,
    extractor_charts,
    nfe_charts,
    weight_charts,
)
from underone.study.report.contents import contents
from underone.study.report.copying import panel
from underone.study.report.drawing import Chart
from underone.study.report.findings import findings
from underone.study.report.html import templates
from underone.study.report.published import published_findings
from underone.study.report.sentences import Part

_PACKAGE = "underone.study.report"
# Columns of words for the page, left out of a chart's data file.
_NOT_DATA = ("link", "says", "text", "series")


def write_report(analysis: Analysis, beside: Sequence[Analysis] = ()) -> Path:
    """Write the report into the study's folder, from its results so far; the page's path.

    `beside` are studies of other data to compare with.
    """
    folder = analysis.run.folder.path
    charts = {
        "nfe": nfe_charts(analysis),
        "diversity": diversity_charts(analysis),
        "extractors": extractor_charts(analysis),
        "weights": weight_charts(analysis),
        "agreement": agreement_charts(analysis),
    }
    every = [chart for group in charts.values() for chart in group]
    _remove_others({chart.name for chart in every}, folder)
    for chart in every:
        _write_chart(chart, folder)
    write_json(folder / "results.json", results(analysis, beside))
    write_text(folder / "report.html", page(analysis, charts, beside))
    return folder / "report.html"


def page(
    analysis: Analysis, charts: dict[str, list[Chart]], beside: Sequence[Analysis] = ()
) -> str:
    """The page as HTML; all text is escaped, except for the charts, which are made here."""
    run, shown = analysis.run, view.cards(analysis)
    return (
        templates(_PACKAGE)
        .get_template("page.html.jinja")
        .render(
            contents(analysis, beside),
            models=list(run.bench.models),
            revision_notice=protocol.revision_notice(run),
            models_beside=model_tables(analysis),
            steps=steps_tables(analysis),
            weights=weight_tables(analysis),
            unresolved=tables.unresolved_table(analysis),
            charts={
                section: [(chart, _element(chart)) for chart in group]
                for section, group in charts.items()
            },
            correlations=correlations(analysis),
            classes=tables.class_tables(analysis),
            cards=shown,
            picture=lambda cell: data_uri(run.folder.picture_path(cell).read_bytes()),
            families=[_family(each) for each in view.families(analysis)],
            opening=view.opening_pair(analysis) if shown else ("", ""),
            unasked=view.some_are_unconditional(analysis),
            screening=tables.screening_table(run),
            nearest=panel(analysis),
            data_uri=data_uri,
        )
    )


def results(analysis: Analysis, beside: Sequence[Analysis] = ()) -> dict[str, Any]:
    """All numbers as one JSON document."""
    run = analysis.run
    plan = run.plan
    return {
        "title": plan.study.title,
        "finished": not analysis.due,
        "models": plan.models,
        "references": plan.references,
        "extractors": plan.extractors,
        "findings": [
            {"question": each.question, "answers": _parts(each.parts)}
            for each in findings(analysis, beside)
        ],
        "published_pattern": _parts(published_findings(analysis)),
        "agreement_of_extractors": _parts(extractor_findings(analysis)),
        "cells": [run.known[cell].model_dump(mode="json") for cell in run.in_order],
        "diverged": [each.model_dump(mode="json") for each in run.diverged_in_order],
    }


def _parts(parts: Iterable[Part]) -> list[dict[str, Any]]:
    return [{"of": part.where, "sentences": list(part.sentences)} for part in parts]


def correlations(analysis: Analysis) -> list[tuple[str, tables.Table]]:
    """For each stratum that has them, the rank correlations of the extractors' FIDs."""
    run = analysis.run
    names = run.bench.yardstick_names
    found = []
    for stratum in analysis.strata:
        values = {
            (names[pair.a.yardstick], names[pair.b.yardstick]): "–"
            if pair.correlation is None
            else FID.text(pair.correlation)
            for pair in agreement(stratum, run)
        }
        if values:
            found.append((stratum.title, tables.correlation_table(names, values)))
    return found


def csv_text(chart: Chart) -> str:
    """A chart's points as CSV."""
    columns = [key for key in chart.rows[0] if key not in _NOT_DATA]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(chart.rows)
    return text.getvalue()


def _write_chart(chart: Chart, folder: Path) -> None:
    svg, png, points = _chart_files(chart.name, folder)
    write_text(svg, chart.svg)
    write_bytes(png, chart.png())
    write_text(points, csv_text(chart))


def _chart_files(name: str, folder: Path) -> tuple[Path, Path, Path]:
    figures = folder / "figures"
    return figures / f"{name}.svg", figures / f"{name}.png", folder / "data" / f"{name}.csv"


def _remove_others(names: set[str], folder: Path) -> None:
    """Remove the files of charts that an earlier page had and this one has not."""
    for points in (folder / "data").glob("*.csv"):
        files = _chart_files(points.stem, folder)
        if points.stem not in names and all(path.exists() for path in files):
            for path in files:
                path.unlink()


def _element(chart: Chart) -> Markup:
    """A chart as an SVG element with its title as label; vl-convert has escaped its text."""
    label = Markup('<svg role="group" aria-label="{}" ').format(chart.title)
    return label + Markup(chart.on_page().removeprefix("<svg "))  # noqa: S704


def _family(each: view.Family) -> dict[str, Any]:
    cells = [{"cell": one.cell, "steps": one.steps, "w": one.w} for one in each.cells]
    return {"title": each.title, "cells": cells}
