"""The report of a study: its words, its charts, its page."""

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from scipy.stats import spearmanr

from conftest import ModelFolder
from studies import made_up, small_study
from underone.cli.study_progress import best_so_far
from underone.generation import Setting
from underone.metrics.figures import Figure
from underone.metrics.measurement import FloorRecord
from underone.study.bench import Bench, open_bench
from underone.study.cell import Cell, CellResult
from underone.study.costs import Costs
from underone.study.definition import Study
from underone.study.engine import LocalEngine
from underone.study.fit import make_plan
from underone.study.folder import Folder
from underone.study.measures import FID, strata
from underone.study.report import write_report
from underone.study.report.agreement import (
    average_ranks,
    extractor_findings,
    rank_correlation,
)
from underone.study.report.answers_in_tables import (
    front_tables,
    model_tables,
    steps_tables,
    weight_tables,
)
from underone.study.report.charts import (
    extractor_charts,
    nfe_charts,
    slug,
    weight_charts,
)
from underone.study.report.charts.lines import Line
from underone.study.report.charts.steps import highlighted_lines
from underone.study.report.drawing import log_ticks
from underone.study.report.findings import (
    CHANCE,
    HARDER_DATA,
    HOW_MANY_STEPS,
    WHICH_MODEL,
    WHICH_SAMPLER,
    WHICH_WEIGHT,
    findings,
    unresolved,
)
from underone.study.report.models import which_model
from underone.study.report.other_data import on_other_data
from underone.study.report.tables import settings_table
from underone.study.report.view import cards, families
from underone.study.run import Run

REFERENCES = ["fashion-mnist", "fashion-mnist-transformer"]


@pytest.fixture(scope="module")
def folder_of_model(model_folder: ModelFolder) -> Path:
    # A name that would be markup, were it not escaped.
    return model_folder("ten <b>steps</b> & more", steps=10)


@pytest.fixture(scope="module")
def study(folder_of_model: Path) -> Study:
    return small_study(
        folder_of_model,
        title="Two samplers <i>& one</i> weight",
        references=REFERENCES,
        metrics=["fid", "intra-fid", "kid", "manifold", "consistency"],
    )


@pytest.fixture(scope="module")
def bench(study: Study) -> Bench:
    return open_bench(study)


def run_of(study: Study, bench: Bench, folder: Path) -> Run:
    costs = Costs(evaluation=dict.fromkeys(bench.models, 1e-3), image=1e-3)
    plan = make_plan(study, bench, costs, threads=1)
    found = Folder(folder)
    found.begin(plan)
    return Run(found, bench, plan)


@pytest.fixture(scope="module")
def finished(study: Study, bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = run_of(study, bench, tmp_path_factory.mktemp("studies") / "finished")
    for _ in run.advance(LocalEngine(bench, 1), lambda cell, images: None):
        pass
    write_report(run)
    return run


@pytest.fixture(scope="module")
def page(finished: Run) -> str:
    return (finished.folder.path / "report.html").read_text(encoding="utf-8")


# Results made by hand, of which the answers are known.

Figures = Callable[[Setting, int], dict[str, float]]


def made(run: Run, figures: Figures, blocks: int = 1, error: float | None = 0.01) -> Run:
    """The study as if each setting had these figures in each block."""
    plan = run.plan.model_copy(
        update={"study": run.plan.study.model_copy(update={"most_blocks": blocks})}
    )
    cells = [entry.at(block) for entry in run.entries for block in range(blocks)]
    known = {cell: _made(run, cell, figures, blocks, error) for cell in cells}
    return replace(run, plan=plan, known=known)


def _made(run: Run, cell: Cell, figures: Figures, blocks: int, error: float | None) -> CellResult:
    block = cell.draw.first // cell.draw.count
    return made_up(run.bench, cell, figures(cell.setting, block), error)


def said(run: Run, question: str) -> str:
    (found,) = (each for each in findings(run) if each.question == question)
    return " ".join(sentence for part in found.parts for sentence in part.sentences)


def by_sampler(ddim: float, ddpm: float) -> Figures:
    def figures(setting: Setting, block: int) -> dict[str, float]:
        fid = ddim if setting.sampler == "ddim" else ddpm
        # Paired: what a block adds, it adds to both.
        return {"fid": fid + 1 / setting.steps + 0.1 * block}

    return figures


def test_a_separated_leader_is_said_to_be(finished: Run) -> None:
    words = said(made(finished, by_sampler(1.0, 2.0)), WHICH_SAMPLER)
    assert (
        "ddim leads at 2 and 3 evaluations (FID 1.500 and 1.333), separated from the other; "
        in words
    )
    assert "of all settings ddim, 3 steps leads (FID 1.333), separated from all 4 others." in words
    assert "Worse: ddpm-small (+1.000; +0.972 to +1.028)." in words
    assert "Not separated" not in words.split("Of all settings")[0]
    assert "1.500 (standard error 0.010; on the one block it was chosen on)" in words


def test_fresh_blocks_are_reported_and_paired(finished: Run) -> None:
    run = made(finished, by_sampler(1.0, 2.0), blocks=4)
    words = said(run, WHICH_SAMPLER)
    # Blocks 1 to 3 have 1.6, 1.7, 1.8: 4.303 * 0.1 / sqrt(3) = 0.248; the differences do not vary.
    assert (
        "At 2 evaluations: the leader is ddim with FID 1.700 (1.452 to 1.948, over 3 fresh blocks)."
        in words
    )
    assert "Worse: ddpm-small (+1.000; +1.000 to +1.000)." in words
    assert "Of 4 questions, the leaders of 4 were drawn again on fresh blocks" in said(run, CHANCE)


def test_what_is_not_separated_is_said_and_listed(finished: Run) -> None:
    run = made(finished, by_sampler(1.0, 1.02))
    words = said(run, WHICH_SAMPLER)
    assert (
        "ddim leads at 2 and 3 evaluations (FID 1.500 and 1.333), not separated from the other"
        in words
    )
    assert "Not separated from it: ddpm-small (+0.020; −0.008 to +0.048)." in words
    pairs = {
        (each.question, each.other.first.setting.sampler, each.other.first.setting.steps)
        for each in unresolved(run)
    }
    assert {
        ("which sampler at 2 evaluations", "ddpm-small", 2),
        ("which sampler at 3 evaluations", "ddpm-small", 3),
        ("which setting", "ddpm-small", 3),
    } <= pairs
    assert not any(question.startswith("how many steps") for question, _, _ in pairs)


def test_without_an_error_nothing_is_separated(finished: Run) -> None:
    run = made(finished, by_sampler(1.0, 9.0), error=None)
    words = said(run, WHICH_SAMPLER)
    assert "(FID 1.500 and 1.333), not separated from the other" in words
    assert "ddpm-small (+8.000, of no known error)" in words
    assert "separated from all others" not in words
    assert "with most_blocks = 4 a study draws its leaders again." in said(run, CHANCE)


def test_a_leader_of_chance_is_overtaken(finished: Run) -> None:
    def figures(setting: Setting, block: int) -> dict[str, float]:
        lucky = setting.sampler == "ddim" and block == 0
        return {"fid": (1.0 if lucky else 3.0 if setting.sampler == "ddim" else 2.0) + 0.01 * block}

    words = said(made(finished, figures, blocks=4), WHICH_SAMPLER)
    assert "ddim leads at 2 evaluations (FID 3.020), but is overtaken on fresh blocks" in words
    assert "overtaken by ddpm-small (−1.000; −1.000 to −1.000)" in words


def test_samplers_that_change_places_are_named(finished: Run) -> None:
    def figures(setting: Setting, block: int) -> dict[str, float]:
        return {"fid": 2.0 + (setting.sampler == "ddim") * (1.0 if setting.steps == 2 else -1.0)}

    words = said(made(finished, figures), WHICH_SAMPLER)
    assert (
        "Which sampler is better depends on the evaluations: ddpm-small is better than ddim at 2 "
        "evaluations, and worse at 3 evaluations." in words
    )


def test_steps_that_one_sampler_needs_and_another_does_not(finished: Run) -> None:
    def figures(setting: Setting, block: int) -> dict[str, float]:
        worse_at_two = 1.0 if setting.sampler == "ddpm-small" else 0.001
        return {"fid": 1.0 + (worse_at_two if setting.steps == 2 else 0.0)}

    words = said(made(finished, figures), HOW_MANY_STEPS)
    assert (
        "at 2 steps ddpm-small is further behind its best of 2 and 3 steps than ddim is (1.000 "
        "against 0.001)" in words
    )
    assert (
        "ddim: the leader is 3 steps with FID 1.000 (standard error 0.010; on the one block it was "
        "chosen on). Not separated from it: 2 steps (+0.001; −0.027 to +0.029). The "
        "fewest that are not known to be worse: 2. None with more steps is measured." in words
    )
    assert "Worse: 2 steps (+1.000; +0.972 to +1.028). None with more steps is measured." in words


def test_one_separated_from_its_best_and_one_not_are_no_difference(finished: Run) -> None:
    def figures(setting: Setting, block: int) -> dict[str, float]:
        at_two = 0.03 if setting.sampler == "ddpm-small" else 0.02  # and 0.028 is what separates
        return {"fid": 1.0 + (at_two if setting.steps == 2 else 0.0)}

    words = said(made(finished, figures), HOW_MANY_STEPS)
    assert "No sampler is shown to need more steps than another:" in words
    equal = said(made(finished, by_sampler(1.0, 2.0)), HOW_MANY_STEPS)
    assert "No sampler is shown to need more steps than another:" in equal
    unknown = said(made(finished, figures, error=None), HOW_MANY_STEPS)
    assert "No sampler is shown to need more steps than another:" in unknown


def test_two_fresh_blocks_have_the_errors_within_them(finished: Run) -> None:
    words = said(made(finished, by_sampler(1.0, 2.0), blocks=3), WHICH_SAMPLER)
    # 1.96 * 0.01 / sqrt(2), and not Student's t of two blocks, 12.7 * 0.05.
    assert "with FID 1.650 (1.636 to 1.664, over 2 fresh blocks)." in words


def of_weight(**slopes: float) -> Figures:
    """Figures that rise by so much with w."""

    def figures(setting: Setting, block: int) -> dict[str, float]:
        # Not the same difference in every block, or its interval would be a point.
        slope = 1 + 0.01 * block
        return {
            name: 1.0 + rise * slope * max(0.0, setting.guidance) for name, rise in slopes.items()
        }

    return figures


def test_metrics_that_disagree_about_the_weight(finished: Run) -> None:
    words = said(
        made(finished, of_weight(fid=0.5, kid=0.1, precision=0.2, recall=-0.2), blocks=3),
        WHICH_WEIGHT,
    )
    assert "The metrics do not agree." in words
    assert (
        "w = 0 by FID, KID, recall and FID@fashion-mnist-transformer; w = 1 by precision" in words
    )
    # Over blocks 1 and 2 the differences are 0.505 and 0.51; four errors of 0.01: 1.96 * 0.01.
    assert "FID goes from 1.000 to 1.507 (+0.507; +0.488 to +0.527, separated)" in words
    assert "precision goes from 1.000 to 1.203" in words
    assert "FID does not say which weight gives the best-looking images" in words
    assert "w = −1 asks for no class" in words


def test_consistency_is_no_merit_beyond_that_of_real_images(finished: Run) -> None:
    run = made(finished, of_weight(fid=0.5, consistency=0.02), blocks=3)

    def with_real(share: float) -> Run:
        floor = FloorRecord(figures={"consistency": Figure(value=share)}, count=20, draws=5)

        def told(result: CellResult) -> CellResult:
            first, *rest = result.measurements
            measurements = (first.model_copy(update={"floor": floor}), *rest)
            return result.model_copy(update={"measurements": measurements})

        return replace(run, known={cell: told(result) for cell, result in run.known.items()})

    words = said(with_real(0.9), WHICH_WEIGHT)
    assert "All metrics agree on the first block: the best is w = 0 by FID, consistency" in words
    less = said(with_real(1.5), WHICH_WEIGHT)
    assert "w = 1 by consistency" in less
    assert "Their weight is told apart from FID's by consistency." in less
    assert "best-looking" not in less
    (chart,) = (each for each in weight_charts(with_real(0.9)) if "consistency" in each.name)
    assert chart.note.startswith("The nearest to real images is best.")


def test_real_images_that_are_fewer_are_drawn_nowhere(finished: Run) -> None:
    floor = FloorRecord(
        figures={"fid": Figure(value=0.5), "kid": Figure(value=0.1)}, count=10, draws=5
    )
    run = made(finished, of_weight(fid=0.5, kid=0.1))
    for cell, result in run.known.items():
        first, *rest = result.measurements
        measurements = (first.model_copy(update={"floor": floor}), *rest)
        run.known[cell] = result.model_copy(update={"measurements": measurements})
    notes = {chart.name: chart.note for chart in (*nfe_charts(run), *weight_charts(run))}
    for name in ("fid-against-nfe", "fid-against-w"):
        assert "only 10 are held out, score 0.500: too few to compare." in notes[name]
    # Its mean is that of any number of images.
    assert "Real images score 0.10000." in notes["kid-against-nfe"]


def test_metrics_that_agree_about_the_weight(finished: Run) -> None:
    words = said(made(finished, of_weight(fid=0.5, precision=-0.2, recall=-0.2)), WHICH_WEIGHT)
    assert "All metrics agree on the first block: the best is w = 0 by FID, precision, rec" in words
    assert "do not agree" not in words
    flat = said(made(finished, of_weight(fid=0.0, precision=0.0)), WHICH_WEIGHT)
    assert "Too few metrics prefer any weight" in flat


def test_a_disagreement_that_no_error_is_known_of_is_not_claimed(finished: Run) -> None:
    words = said(made(finished, of_weight(fid=0.5, precision=0.2), error=None), WHICH_WEIGHT)
    assert "The metrics differ, but no difference is shown to be more than chance." in words
    assert "do not agree" not in words
    assert "best-looking" not in words


def test_a_study_of_one_data_set_says_that_it_does_not_tell(finished: Run) -> None:
    words = said(finished, HARDER_DATA)
    assert "This study does not tell: all its models make images of fashion-mnist." in words
    assert "underone study COPY.toml" in words


def test_the_answers_stand_in_tables(finished: Run) -> None:
    run = made(finished, by_sampler(1.0, 2.0))
    ((_, front),) = front_tables(run)
    assert front.heads[:3] == ("evaluations", "setting", "FID")
    # Among those that cost as much, of which ddpm-small is the other.
    assert [(*row[:3], row[-1]) for row in front.rows] == [
        ("2", "ddim, 2 steps", "1.500 ± 0.010", "0 of 1"),
        ("3", "ddim, 3 steps", "1.333 ± 0.010", "0 of 1"),
    ]
    assert front.floors[0][:3] == ("", "real images", "0.100")
    ((_, steps),) = steps_tables(run)
    assert steps.heads == ("sampler", "2 steps", "3 steps", "the fewest not known to be worse")
    assert steps.rows == (
        ("ddim", "1.500", "1.333", "3 or more"),
        ("ddpm-small", "2.500", "2.333", "3 or more"),
    )
    ((of, weights),) = weight_tables(made(finished, of_weight(fid=0.5, precision=0.1)))
    assert of == "ddim, 2 steps"
    assert [row[:4] for row in weights.rows] == [
        ("w = 0", "2", "1.000", "1.000"), ("w = 1", "4", "1.500", "1.100"),
    ]  # fmt: skip
    assert weights.floors == (("real images", "", "0.100", "–", "0.100"),)


def test_extractors_are_drawn_along_w_relative_to_no_guidance(finished: Run) -> None:
    run = made(finished, of_weight(fid=0.5))
    (chart,) = extractor_charts(run)
    assert {(row["series"], row["w"], row["value"]) for row in chart.rows} == {
        (f"FID@fashion-mnist-{name}", w, value)
        for name in ("classifier", "transformer")
        for w, value in ((0, 1.0), (1, 1.5))
    }


def test_of_many_samplers_the_best_and_the_usual_are_told_apart(finished: Run) -> None:
    (stratum,) = strata(made(finished, by_sampler(1.0, 2.0)))
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


# Ranks.


def test_ties_share_the_mean_of_their_ranks() -> None:
    assert average_ranks([3.0, 1.0, 3.0, 2.0]) == [3.5, 1.0, 3.5, 2.0]


def test_rank_correlation_is_spearmans() -> None:
    assert rank_correlation([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3, 4], [9, 7, 3, 1]) == pytest.approx(-1.0)
    # 1 - 6 (1 + 1) / (3 * 8)
    assert rank_correlation([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    a, b = [1.0, 2.0, 2.0, 5.0, 4.0, 0.5], [2.0, 1.0, 3.0, 3.0, 3.0, -1.0]
    assert rank_correlation(a, b) == pytest.approx(float(spearmanr(a, b).statistic))
    assert rank_correlation([1, 2, 3], [4, 4, 4]) is None


@pytest.mark.parametrize(("sign", "correlation"), [(1, "1.000"), (-1, "−1.000")])
def test_extractors_agree_or_not(finished: Run, sign: int, correlation: str) -> None:
    run = made(finished, by_sampler(1.0, 2.0))
    for cell, result in run.known.items():
        first, second = result.measurements
        fid = Figure(value=5 + sign * first.fid, error=0.01)
        other = second.model_copy(update={"figures": {"fid": fid}})
        run.known[cell] = result.model_copy(update={"measurements": (first, other)})
    (part,) = extractor_findings(run)
    words = " ".join(part.sentences)
    if sign == 1:
        assert "All extractors put ddim, 3 steps first." in words
        assert "put all 5 settings in the same order" in words
    else:
        assert "Extractors do not agree on the best: on the first block" in words
        assert "Each separates its own from the other's: FID@fashion-mnist-classifier and" in words
        assert f"rank correlation {correlation} over 5 settings" in words


# Charts and files.


def test_ticks_are_round_and_few() -> None:
    assert log_ticks(0.5, 3000) == (1, 10, 100, 1000)
    assert log_ticks(0.9, 30) == (1, 2, 5, 10, 20)
    assert log_ticks(2.1, 4.4) == (3, 4)


def test_a_kid_that_is_not_positive_is_drawn_and_named(finished: Run) -> None:
    def figures(setting: Setting, block: int) -> dict[str, float]:
        return {"fid": 1.0, "kid": -0.001 if setting.sampler == "ddim" else 0.002}

    (chart,) = (c for c in nfe_charts(made(finished, figures)) if c.name.startswith("kid"))
    assert "Not above 0, hollow on the lower edge: ddim, 2 steps; ddim, 3 steps." in chart.note
    assert [row["value"] for row in chart.rows] == [-0.001, -0.001, 0.002, 0.002]
    assert chart.on_page().count('href="#cell-') == 4

    def negative(setting: Setting, block: int) -> dict[str, float]:
        return {"fid": 1.0, "kid": -0.001}

    (chart,) = (c for c in nfe_charts(made(finished, negative)) if c.name.startswith("kid"))
    assert "the vertical axis is linear" in chart.note
    assert "<svg" in chart.on_page()


def test_names_of_files_are_plain() -> None:
    assert slug("FID", "against NFE", "", "~/a model") == "fid-against-nfe-a-model"
    assert len(slug("x" * 300)) <= 60


def test_every_chart_is_a_picture_and_a_table_too(finished: Run, page: str) -> None:
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


# The page.

VOID = {"meta", "img", "input", "br", "hr", "link"}


class Checker(HTMLParser):
    """Collects what is not nested, not unique, not named, or loads something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.identities: list[str] = []
        self.references: list[str] = []
        self.faults: list[str] = []
        self.images: list[str] = []
        self.points: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if found.get("id"):
            self.identities.append(str(found["id"]))
        for name in ("href", "xlink:href", "src", "aria-labelledby"):
            if found.get(name):
                self.references.append(str(found[name]))
        if tag in ("script", "link", "iframe", "object") and (found.get("src") or tag != "script"):
            self.faults.append(tag)
        if tag == "img":
            self.images.append(str(found.get("src", "")))
            if "alt" not in found:
                self.faults.append("img without alt")
        if tag == "a" and str(found.get("href", "")).startswith("#cell-"):
            self.points.append(str(found["href"]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert not checker.faults
    assert not checker.open
    assert len(set(checker.identities)) == len(checker.identities)
    for reference in checker.references:
        target = reference.removeprefix("#")
        assert reference.startswith("data:image/png;base64,") or target in checker.identities
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", page)
    return checker


def test_the_page_is_sound_and_loads_nothing(finished: Run, page: str) -> None:
    found = checked(page)
    pictures = [source for source in found.images if source]
    assert len(pictures) == len(strata(finished)[0].standings) == 6
    assert page.count("data:image/png;base64,") == 6
    assert "default-src 'none'" in page
    # Every setting that is asked for a class is a point of some chart.
    # What asks for no class is drawn in no chart.
    asked = [each for each in finished.known.values() if each.setting.uses_labels]
    assert {f"#cell-{result.id}" for result in asked} == set(found.points)


def test_names_of_users_are_escaped(page: str) -> None:
    assert "Two samplers &lt;i&gt;&amp; one&lt;/i&gt; weight" in page
    assert "<i>" not in page
    assert "<b>" not in page


def test_every_figure_is_in_the_page(finished: Run, page: str) -> None:
    for result in finished.known.values():
        assert f"{result.fid:.3f}" in page
        assert f"{result.measurements[1].fid:.3f}" in page
        assert result.floor is not None
        assert f"{result.floor.fid:.3f}" in page
        for name in ("kid", "precision", "recall"):
            value = result.measurement.figures[name].value
            assert f"{value:.{5 if name == 'kid' else 3}f}".replace("-", "−") in page
    for question in (WHICH_SAMPLER, HOW_MANY_STEPS, WHICH_WEIGHT, HARDER_DATA, CHANCE):
        assert question in page
    for by in finished.bench.yardsticks:
        assert by.extractor.sha256[:16] in page
        assert by.reference.sha256[:16] in page
    assert "Not finished" not in page
    assert "legacy" not in page
    document = json.loads((finished.folder.path / "results.json").read_text())
    assert document["finished"]
    assert len(document["cells"]) == len(finished.known)
    fids = {cell["id"]: cell["measurements"][0]["figures"]["fid"] for cell in document["cells"]}
    assert all(fids[r.id]["value"] == r.fid for r in finished.known.values())


def test_an_unfinished_study_says_so(finished: Run, tmp_path: Path) -> None:
    shutil.copytree(finished.folder.cells_path, tmp_path / "cells")
    known = finished.known
    for count in (0, 1, 3):
        part = dict(list(known.items())[:count])
        write_report(replace(finished, folder=Folder(tmp_path), known=part))
        text = (tmp_path / "report.html").read_text(encoding="utf-8")
        checked(text)
        assert f"at least {len(known) - count} more cells" in text
        assert not json.loads((tmp_path / "results.json").read_text())["finished"]


@pytest.mark.slow
def test_where_real_images_are_too_few_for_a_floor_there_is_none(
    finished: Run, tmp_path: Path
) -> None:
    shutil.copytree(finished.folder.path, tmp_path / "study")
    none = FloorRecord(figures={"consistency": Figure(value=0.9)}, count=20, draws=0)
    for floor in (None, none):
        known = {
            cell: result.model_copy(
                update={
                    "measurements": tuple(
                        each.model_copy(update={"floor": floor}) for each in result.measurements
                    )
                }
            )
            for cell, result in finished.known.items()
        }
        run = replace(finished, folder=Folder(tmp_path / "study"), known=known)
        assert best_so_far(run).row_count > 0
        checked(write_report(run).read_text(encoding="utf-8"))


def test_a_nearest_panel_is_shown_if_it_was_drawn(finished: Run, tmp_path: Path) -> None:
    shutil.copytree(finished.folder.path, tmp_path / "study")
    run = replace(finished, folder=Folder(tmp_path / "study"))
    card = cards(run)[1]
    run.folder.panel_path(card.cell).write_bytes(b"\x89PNG nearest")
    text = write_report(run).read_text(encoding="utf-8")
    assert "Nearest training images" in text
    assert f"Of the samples of {card.title} those that are nearest" in text
    assert "Nearest training images" not in (finished.folder.path / "report.html").read_text()


def test_models_and_numbers_of_samples_stand_apart(
    model_folder: ModelFolder, tmp_path: Path
) -> None:
    old = model_folder("old", revision=1, label_dropout=0.0, steps=10)
    new = model_folder("new", steps=10)
    study = small_study(
        new,
        metrics=["fid"],
        slices=[
            {"name": "both", "model": [str(old), str(new)], "steps": [1, 2]},
            {"name": "more", "steps": [1, 2], "samples": 30},
        ],
    )
    bench = open_bench(study)
    run = made(run_of(study, bench, tmp_path), by_sampler(1.0, 2.0))
    for result in run.known.values():
        run.folder.picture_path(result.id).parent.mkdir(exist_ok=True)
        run.folder.picture_path(result.id).write_bytes(b"\x89PNG")
    text = write_report(run).read_text(encoding="utf-8")
    checked(text)
    assert f"{old}: a checkpoint of the legacy architecture revision 1." in text
    assert {(stratum.model, stratum.samples) for stratum in strata(run)} == {
        (str(old), 20), (str(new), 20), (str(new), 30),
    }  # fmt: skip
    for each in unresolved(run):
        assert each.leader.first.model == each.other.first.model
        assert each.leader.first.draw.count == each.other.first.draw.count
    assert "compare samplers" in said(run, WHICH_SAMPLER)
    assert "This study does not tell" in said(run, WHICH_WEIGHT)
    # Once each, whatever the numbers of samples.
    assert [len(family.cells) for family in families(run)] == [2, 2]
    table = settings_table(run)
    assert (table.heads[:2], len(table.rows), len(table.floors)) == (("setting", "model"), 6, 3)


def test_the_best_of_each_model_stand_side_by_side(
    model_folder: ModelFolder, tmp_path: Path
) -> None:
    guided, classless = (
        model_folder("guided", steps=10),
        model_folder("classless", label_dropout=0.0, classes=None),
    )
    plain = model_folder("plain", steps=10)
    slices = [
        {"name": "plain", "model": [str(plain), str(classless)], "steps": [1, 2]},
        {"name": "weights", "steps": [1, 2], "guidance": [-1, 0, 1]},
    ]
    study = small_study(guided, metrics=["fid"], slices=slices)
    run = run_of(study, open_bench(study), tmp_path)
    weights = {-1.0: 12, 0.0: 2, 1.0: 1}
    lowest = {str(guided): 1.0, str(plain): 10.0, str(classless): 8.0}
    results = {}
    for cell in (entry.at(0) for entry in run.entries):
        weight = weights[cell.setting.guidance] if cell.model == str(guided) else 1
        fid = lowest[cell.model] * weight / cell.setting.steps
        results[cell] = made_up(run.bench, cell, {"fid": fid})
    run = replace(run, known=results)
    words = said(run, WHICH_MODEL)
    assert (
        f"{guided} by ddim, 2 steps, w = 1 has the lowest FID, 0.500, separated from the other."
        in words
    )
    assert f"{plain} by ddim, 2 steps: 5.000, 10 times as much" in words
    # Of no class: the guided model at w = -1 against the one that knows none.
    assert (
        f"{classless} by ddim, 2 steps has the lowest FID, 4.000, separated from the other."
        in words
    )
    assert f"{guided} by ddim, 2 steps, w = −1: 6.000, 1.5 times as much" in words
    (table,) = model_tables(run)
    assert [(row[0], row[1], row[5], row[2].split()[0]) for row in table.rows] == [
        (str(guided), "ddim, 2 steps, w = 1", "balanced", "0.500"),
        (str(guided), "ddim, 2 steps", "balanced", "1.000"),
        (str(classless), "ddim, 2 steps", "none", "4.000"),
        (str(plain), "ddim, 2 steps", "balanced", "5.000"),
        (str(guided), "ddim, 2 steps, w = −1", "none", "6.000"),
    ]
    assert [row[3] for row in table.rows] == ["× 1", "× 2", "× 8", "× 10", "× 12"]


def test_a_study_of_one_model_does_not_ask_which(finished: Run) -> None:
    assert not list(which_model(finished))
    assert not model_tables(finished)


def test_beside_another_study_the_model_that_comes_first_speaks(
    model_folder: ModelFolder, tmp_path: Path
) -> None:
    first, second = (model_folder(name, steps=10) for name in ("first", "second"))
    slices = [
        {
            "name": "both",
            "model": [str(first), str(second)],
            "sampler": ["ddim", "ddpm-small"],
            "steps": [1, 2],
        }
    ]
    study = small_study(first, metrics=["fid"], slices=slices)
    run = run_of(study, open_bench(study), tmp_path)

    results = {}
    for cell in (entry.at(0) for entry in run.entries):
        # On the first model DDIM is ahead, on the second it is behind.
        ahead = (cell.setting.sampler == "ddim") == (cell.model == str(first))
        fid = (1 if ahead else 3) / cell.setting.steps
        results[cell] = made_up(run.bench, cell, {"fid": fid})
    known = replace(run, known=results)
    same = " ".join(on_other_data(known, [known]))
    assert "The same sampler leads on fashion-mnist and fashion-mnist: ddim at 1 " in same


# A real browser.


def shown(url: str, folder: Path) -> str:
    """The page as a browser has it after its scripts ran."""
    return subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            f"--user-data-dir={folder}",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_a_browser_shows_the_setting_that_is_asked_for(finished: Run, tmp_path: Path) -> None:
    url = (finished.folder.path / "report.html").as_uri()
    state = "#steps=3&right-sampler=ddim&right-steps=2&right-w=1"
    dumped = shown(url + state, tmp_path)
    captions = re.findall(r'<p role="status"[^>]*>([^<]*)</p>', dumped)
    assert len(captions) == 2
    assert ", 3 steps: FID" in captions[0]
    assert captions[1].startswith("ddim, 2 steps, w = 1: FID")
    assert "NFE 4" in captions[1]
    assert dumped.count("<fieldset") == 2
    assert '<fieldset class="panel" data-side="right" data-cell=' in dumped
    assert not re.search(r"<fieldset[^>]* hidden", dumped)
    assert not re.search(r'<details id="gallery" open', dumped)


SCRIPT = """<script>
const slider = document.querySelector('[data-side=left] .steps');
slider.value = slider.value === '0' ? slider.max : 0;
slider.dispatchEvent(new Event('input', {bubbles: true}));
document.querySelector('.chart a[href^="#cell-"]').focus();
</script></body>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_a_slider_changes_the_picture_and_focus_opens_a_card(
    finished: Run, page: str, tmp_path: Path
) -> None:
    path = tmp_path / "driven.html"
    path.write_text(page.replace("</body>", SCRIPT), encoding="utf-8")
    before, after = (
        re.search(r'<p role="status"[^>]*>(.*?)</p>', shown(each.as_uri(), tmp_path / "profile"))
        for each in (finished.folder.path / "report.html", path)
    )
    assert before is not None
    assert after is not None
    steps = [int(re.findall(r"(\d+) step", found.group(1))[0]) for found in (before, after)]
    assert sorted(steps) == [2, 3]
    card = shown(path.as_uri(), tmp_path / "profile").split('<div class="card"')[1]
    assert "hidden" not in card.split(">")[0]
    assert "<dt>FID</dt>" in card
    assert "data:image/png;base64," in card
