"""The charts and tables of a report, and their files."""

import csv
from xml.etree import ElementTree

import pytest

from studies import by_sampler, made, of_weight
from underone.generation import Setting
from underone.metrics.figures import Figure
from underone.metrics.measurement import FloorRecord
from underone.study.analysis import analysed
from underone.study.measures import FID
from underone.study.report.answers_in_tables import front_tables, steps_tables, weight_tables
from underone.study.report.charts import extractor_charts, nfe_charts, slug, weight_charts
from underone.study.report.charts.labels import legible, point_box, text_box
from underone.study.report.charts.lines import Line
from underone.study.report.charts.steps import highlighted_lines
from underone.study.report.drawing import (
    Chart,
    Look,
    Row,
    Series,
    joined,
    linear_axis,
    log_axis,
    log_ticks,
)
from underone.study.run import StudyRun


def test_the_answers_stand_in_tables(finished: StudyRun) -> None:
    run = made(finished, by_sampler(1.0, 2.0))
    ((_, front),) = front_tables(analysed(run))
    assert front.heads[:3] == ("evaluations", "setting", "FID")
    # Among those that cost as much, of which ddpm-small is the other.
    assert [(*row[:3], row[-1]) for row in front.rows] == [
        ("2", "ddim, 2 steps", "1.500 ± 0.010", "0 of 1"),
        ("3", "ddim, 3 steps", "1.333 ± 0.010", "0 of 1"),
    ]
    assert front.floors[0][:3] == ("", "real images", "0.100")
    ((_, steps),) = steps_tables(analysed(run))
    assert steps.heads == ("sampler", "2 steps", "3 steps", "the fewest not known to be worse")
    assert steps.rows == (
        ("ddim", "1.500", "1.333", "3 or more"),
        ("ddpm-small", "2.500", "2.333", "3 or more"),
    )
    ((of, weights),) = weight_tables(analysed(made(finished, of_weight(fid=0.5, precision=0.1))))
    assert of == "ddim, 2 steps"
    assert [row[:4] for row in weights.rows] == [
        ("w = 0", "2", "1.000", "1.000"), ("w = 1", "4", "1.500", "1.100"),
    ]  # fmt: skip
    assert weights.floors == (("real images", "", "0.100", "–", "0.100"),)


def test_extractors_are_drawn_along_w_relative_to_no_guidance(finished: StudyRun) -> None:
    run = made(finished, of_weight(fid=0.5))
    (chart,) = extractor_charts(analysed(run))
    assert {(row["series"], row["w"], row["value"]) for row in chart.rows} == {
        (f"FID@fashion-mnist-{name}", w, value)
        for name in ("classifier", "transformer")
        for w, value in ((0, 1.0), (1, 1.5))
    }


def test_of_many_samplers_the_best_and_the_usual_are_told_apart(finished: StudyRun) -> None:
    (stratum,) = analysed(made(finished, by_sampler(1.0, 2.0))).strata
    named = [Line(f"sampler {index}", stratum.standings[:1]) for index in range(7)]
    lines = [
        *named,
        Line("ddim", stratum.standings[-1:]),
        Line("ddpm-small", stratum.standings[-1:]),
    ]
    highlighted = highlighted_lines(lines, FID)
    assert len(highlighted) == 8
    assert {"ddim", "ddpm-small", "sampler 0"} <= set(highlighted)
    assert highlighted_lines(lines[:8], FID) == tuple(line.title for line in lines[:8])


def test_real_images_that_are_fewer_are_drawn_nowhere(finished: StudyRun) -> None:
    floor = FloorRecord(
        figures={"fid": Figure(value=0.5), "kid": Figure(value=0.1)}, count=10, draws=5
    )
    run = made(finished, of_weight(fid=0.5, kid=0.1))
    for cell, result in run.known.items():
        first, *rest = result.measurements
        measurements = (first.model_copy(update={"floor": floor}), *rest)
        run.known[cell] = result.model_copy(update={"measurements": measurements})
    notes = {
        chart.name: chart.note
        for chart in (*nfe_charts(analysed(run)), *weight_charts(analysed(run)))
    }
    for name in ("fid-against-nfe", "fid-against-w"):
        assert "only 10 are held out, score 0.500: too few to compare." in notes[name]
    # Its mean is that of any number of images.
    assert "Real images score 0.10000." in notes["kid-against-nfe"]


def test_ticks_are_round_and_few() -> None:
    assert log_ticks(0.5, 3000) == (1, 10, 100, 1000)
    assert log_ticks(0.9, 30) == (1, 2, 5, 10, 20)
    assert log_ticks(2.1, 4.4) == (3, 4)


def test_a_kid_that_is_not_positive_is_drawn_and_named(finished: StudyRun) -> None:
    def figures(setting: Setting, block: int) -> dict[str, float]:
        return {"fid": 1.0, "kid": -0.001 if setting.sampler == "ddim" else 0.002}

    (chart,) = (
        c for c in nfe_charts(analysed(made(finished, figures))) if c.name.startswith("kid")
    )
    assert "Not above 0, hollow on the lower edge: ddim, 2 steps; ddim, 3 steps." in chart.note
    assert [row["value"] for row in chart.rows] == [-0.001, -0.001, 0.002, 0.002]
    assert chart.on_page().count('href="#cell-') == 4

    def negative(setting: Setting, block: int) -> dict[str, float]:
        return {"fid": 1.0, "kid": -0.001}

    (chart,) = (
        c for c in nfe_charts(analysed(made(finished, negative))) if c.name.startswith("kid")
    )
    assert "the vertical axis is linear" in chart.note
    assert "<svg" in chart.on_page()


def test_names_of_files_are_plain() -> None:
    assert slug("FID", "against NFE", "", "~/a model") == "fid-against-nfe-a-model"
    assert len(slug("x" * 300)) <= 60


def test_every_chart_is_a_picture_and_a_table_too(finished: StudyRun) -> None:
    page = (finished.folder.path / "report.html").read_text(encoding="utf-8")
    figures, data = (finished.folder.path / name for name in ("figures", "data"))
    names = {path.stem for path in data.iterdir()}
    assert {
        "fid-against-nfe",
        "kid-against-nfe",
        "precision-against-recall",
        "fid-against-w",
        "consistency-against-w",
        "fid-fashion-mnist-classifier-against-fid-fashion-mnist-transformer",
    } <= names
    assert page.count("<svg") == len(names)
    for name in names:
        root = ElementTree.fromstring((figures / f"{name}.svg").read_text())  # noqa: S314
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "href" not in (figures / f"{name}.svg").read_text().split("<g", 1)[1]
        assert (figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        with (data / f"{name}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert rows
        assert {"model", "setting", "w", "steps", "samples", "cell"} <= rows[0].keys()
    with (data / "fid-against-nfe.csv").open() as file:
        found = {row["setting"]: float(row["value"]) for row in csv.DictReader(file)}
    for result in finished.known.values():
        if result.setting.guidance == 0:
            title = f"{result.setting.sampler}, {result.setting.steps} steps"
            assert found[title] == pytest.approx(result.fid)


def test_an_axis_says_the_values_at_its_ticks() -> None:
    rows = [{"w": w, "fid": w, "series": "only"} for w in (0.0, 0.25, 1.0)]
    w = linear_axis("w", "w", (0, 0.25, 1), ticks=(0, 0.25, 1))
    fid = linear_axis("fid", "FID", (0, 1))

    def drawn(look: Look) -> object:
        return joined(rows, w, fid, Series(("only",)), "w")

    root = ElementTree.fromstring(Chart("c", "a title", "", (), drawn).svg)  # noqa: S314
    texts = {each.text for each in root.iter() if each.text is not None}
    assert {"0", "0.25", "1"} <= texts
    assert "0.3" not in texts


def test_a_label_is_left_out_where_it_would_cover_a_point_or_another() -> None:
    places = ((0.0, 0.0), (0.01, 0.0), (0.5, 0.5), (0.53, 0.54), (1.0, 1.0))
    rows: list[Row] = [{"x": x, "y": y, "text": f"{x:g}"} for x, y in places]
    x, y = linear_axis("x", "x", (0, 1)), linear_axis("y", "y", (0, 1))
    points = [point_box(row, x, y) for row in rows]
    assert points[0].covers(points[1])
    assert not points[1].covers(points[2])
    texts = [(row, text_box(row, x, y)) for row in rows]
    # The second text would stand on the first, and the third on the fourth point.
    assert [row["x"] for row in legible(texts, points)] == [0.0, 0.53, 1.0]
    assert [row["x"] for row in legible(texts, ())] == [0.0, 0.5, 1.0]
    below = text_box(rows[2], x, y, below=True, before=True)
    assert below.top > points[2].bottom
    assert below.right < points[2].left
    assert log_axis("x", "x", (1, 100)).share(10) == pytest.approx(0.5)
