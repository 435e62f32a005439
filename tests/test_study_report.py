"""The page of a report: sound, whole, and as a browser shows it."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from conftest import ModelFolder
from studies import by_sampler, made, run_of, said, small_study
from underone.cli.study_progress import best_so_far
from underone.metrics.figures import Figure
from underone.metrics.measurement import FloorRecord
from underone.study.analysis import analysed
from underone.study.bench import open_bench
from underone.study.folder import Folder
from underone.study.report import write_report
from underone.study.report.copying import copying_words
from underone.study.report.findings import (
    CHANCE,
    HARDER_DATA,
    HOW_MANY_STEPS,
    WHICH_SAMPLER,
    WHICH_WEIGHT,
    unresolved,
)
from underone.study.report.tables import settings_table
from underone.study.report.view import cards, families
from underone.study.run import StudyRun


@pytest.fixture(scope="module")
def page(finished: StudyRun) -> str:
    return (finished.folder.path / "report.html").read_text(encoding="utf-8")


VOID = {"meta", "img", "input", "br", "hr", "link"}


class Checker(HTMLParser):
    """Collects elements that are badly nested, not unique, without a name, or load something."""

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


def test_the_page_is_sound_and_loads_nothing(finished: StudyRun, page: str) -> None:
    found = checked(page)
    pictures = [source for source in found.images if source]
    assert len(pictures) == len(analysed(finished).strata[0].standings) == 6
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


def test_every_figure_is_in_the_page(finished: StudyRun, page: str) -> None:
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


def test_an_unfinished_study_says_so(finished: StudyRun, tmp_path: Path) -> None:
    shutil.copytree(finished.folder.cells_path, tmp_path / "cells")
    known = finished.known
    for count in (0, 1, 3):
        part = dict(list(known.items())[:count])
        write_report(analysed(replace(finished, folder=Folder(tmp_path), known=part)))
        text = (tmp_path / "report.html").read_text(encoding="utf-8")
        checked(text)
        assert f"at least {len(known) - count} more cells" in text
        assert not json.loads((tmp_path / "results.json").read_text())["finished"]


@pytest.mark.slow
def test_where_real_images_are_too_few_for_a_floor_there_is_none(
    finished: StudyRun, tmp_path: Path
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
        checked(write_report(analysed(run)).read_text(encoding="utf-8"))


def test_a_nearest_panel_is_shown_if_it_was_drawn(finished: StudyRun, tmp_path: Path) -> None:
    shutil.copytree(finished.folder.path, tmp_path / "study")
    run = replace(finished, folder=Folder(tmp_path / "study"))
    card = cards(analysed(run))[1]
    run.folder.panel_path(card.cell).write_bytes(b"\x89PNG nearest")
    text = write_report(analysed(run)).read_text(encoding="utf-8")
    assert "Nearest training images" in text
    assert f"Of the samples of {card.title} those that are nearest" in text
    assert "Nearest training images" not in (finished.folder.path / "report.html").read_text()


@pytest.mark.parametrize(
    ("nearness", "words"),
    [(-7.3, "nearer to"), (-1.0, "about as near to"), (2.0, "about as near to"), (4.0, "further")],
)
def test_words_beside_the_panel_follow_the_measures_of_copying(
    finished: StudyRun, nearness: float, words: str
) -> None:
    """C_T of held-out images is about 0 within chance; far below it samples are near copies."""

    def figures(share: float, statistic: float) -> dict[str, Figure]:
        values = {"memorised-share": share, "data-copying": statistic}
        return {name: Figure(value=value) for name, value in values.items()}

    (measurement, *_) = next(iter(finished.known.values())).measurements
    assert copying_words(measurement) == ""  # this study does not look for copies
    looked = measurement.model_copy(
        update={
            "figures": figures(0.013, nearness),
            "floor": FloorRecord(figures=figures(0.002, -0.6), count=100, draws=1),
            "copies": figures(1, -15),
        }
    )
    text = copying_words(looked)
    assert words in text
    assert "1.3 % of them all are memorised" in text
    assert f"C_T is {nearness} (held-out images: -0.6, copies: -15.0)" in text


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
    text = write_report(analysed(run)).read_text(encoding="utf-8")
    checked(text)
    assert f"{old}: a checkpoint of the legacy architecture revision 1." in text
    assert {(stratum.model, stratum.samples) for stratum in analysed(run).strata} == {
        (str(old), 20), (str(new), 20), (str(new), 30),
    }  # fmt: skip
    for each in unresolved(analysed(run)):
        assert each.leader.first.model == each.other.first.model
        assert each.leader.first.draw.count == each.other.first.draw.count
    assert "compare samplers" in said(run, WHICH_SAMPLER)
    assert "This study does not tell" in said(run, WHICH_WEIGHT)
    # Once each, whatever the numbers of samples.
    assert [len(family.cells) for family in families(analysed(run))] == [2, 2]
    table = settings_table(analysed(run))
    assert (table.heads[:2], len(table.rows), len(table.floors)) == (("setting", "model"), 6, 3)


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
def test_a_browser_shows_the_setting_that_is_asked_for(finished: StudyRun, tmp_path: Path) -> None:
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
    finished: StudyRun, page: str, tmp_path: Path
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
