"""A study's report as Markdown, beside a published table, and beside studies of other data."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import conftest
from conftest import ModelFolder
from studies import Figures, made_up, run_of, small_study
from underone.data import save_picture, tile
from underone.generation import Setting
from underone.study.analysis import analysed
from underone.study.bench import Bench, open_bench
from underone.study.cell import Outcome
from underone.study.engine import LocalEngine
from underone.study.report import write_markdown
from underone.study.report.findings import HARDER_DATA, findings
from underone.study.report.grids import where_steps_lie
from underone.study.report.markdown import _enlarged, anchor
from underone.study.report.other_data import on_other_data
from underone.study.report.published import published_findings, published_tables
from underone.study.report.view import cards
from underone.study.run import StudyRun

ETAS = ("ddim", "ddim,eta=0.2", "ddim,eta=0.5", "ddpm-small")
SLICES = [
    {"name": "table", "sampler": [*ETAS, "ddpm-large"], "steps": [10, 20]},
    {"name": "weights", "sampler": "ddim", "steps": 10, "guidance": [0, 1]},
]
# The published figures of these settings (arXiv 2010.02502, Table 1).
PUBLISHED = {
    10: {"ddim": 13.36, "ddim,eta=0.2": 14.04, "ddim,eta=0.5": 16.66, "ddpm-small": 41.07},
    20: {"ddim": 6.84, "ddim,eta=0.2": 7.11, "ddim,eta=0.5": 8.35, "ddpm-small": 18.36},
}
LARGE = {10: 367.43, 20: 133.37}


@pytest.fixture(scope="module")
def bench_and_run(
    model_folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bench, StudyRun]:
    study = small_study(model_folder("guide"), metrics=["fid"], slices=SLICES)
    bench = open_bench(study)
    return bench, run_of(study, bench, tmp_path_factory.mktemp("guide") / "study")


@pytest.fixture(scope="module")
def begun(bench_and_run: tuple[Bench, StudyRun]) -> StudyRun:
    """The study with its cheapest cells drawn and kept in its folder."""
    bench, run = bench_and_run
    drawn = replace(run, known={})
    cells = sorted(drawn.due(), key=lambda cell: cell.setting.steps)[:6]
    for outcome in LocalEngine(bench, 1).run(cells, lambda cell, images: None):
        assert isinstance(outcome, Outcome)
        drawn.folder.keep(outcome)
        drawn.known[outcome.result.cell] = outcome.result
    return drawn


def known(bench_and_run: tuple[Bench, StudyRun], figures: Figures) -> StudyRun:
    bench, run = bench_and_run
    cells = [entry.at(0) for entry in run.entries]
    return replace(run, known={c: made_up(bench, c, figures(c.setting, 0)) for c in cells})


def as_published(setting: Setting, block: int) -> dict[str, float]:
    row = PUBLISHED[setting.steps] | {"ddpm-large": LARGE[setting.steps]}
    return {"fid": row[setting.sampler] / 10 + setting.guidance}


def of_noise(setting: Setting, block: int) -> dict[str, float]:
    """The order of the table reversed: more noise is better."""
    return {"fid": 40.0 - as_published(setting, block)["fid"] - setting.guidance}


def elsewhere(run: StudyRun) -> StudyRun:
    """The same study as if it were of other data."""
    by = run.bench.yardsticks[0]
    origin = replace(by.reference.origin, data="other-data")
    reference = replace(by.reference, origin=origin)
    bench = replace(run.bench, yardsticks=(replace(by, reference=reference),))
    return replace(run, bench=bench)


def test_a_study_that_falls_as_the_table_does_agrees_with_it(
    bench_and_run: tuple[Bench, StudyRun],
) -> None:
    (part,) = published_findings(analysed(known(bench_and_run, as_published)))
    assert "Over the 10 settings" in part.sentences[0]
    assert "is 1.000." in part.sentences[0]
    assert len(part.sentences) == 5
    large, orders = part.sentences[1::2], part.sentences[2::2]
    assert all(each.endswith("the same order.") for each in large)
    # At 20 steps eta = 0 and 0.2 are 0.027 apart, and 1.96 * sqrt(2) * 0.01 is 0.028.
    for each, apart in zip(orders, (6, 5), strict=True):
        assert each.endswith(f"Of 6 pairs {apart} are separated here, {apart} in the order there.")
    assert "27.5 times the FID of the best other here, 27.5 times there" in part.sentences[1]
    ((_, table),) = published_tables(analysed(known(bench_and_run, as_published)))
    assert table.heads == ("", "10 steps", "20 steps")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["eta = 1"] == ("4.107 (41.07)", "1.836 (18.36)")
    assert rows["large"] == ("36.743 (367.43)", "13.337 (133.37)")


def test_a_study_that_falls_otherwise_does_not(bench_and_run: tuple[Bench, StudyRun]) -> None:
    (part,) = published_findings(analysed(known(bench_and_run, of_noise)))
    assert "is −1.000." in part.sentences[0]
    large, orders = part.sentences[1::2], part.sentences[2::2]
    assert all(each.endswith("the opposite order.") for each in large)
    assert all("separated here, 0 in the order there." in each for each in orders)


def test_what_is_not_separated_is_not_judged(bench_and_run: tuple[Bench, StudyRun]) -> None:
    def alike(setting: Setting, block: int) -> dict[str, float]:
        return {"fid": 1 + 1e-4 * as_published(setting, block)["fid"]}

    (part,) = published_findings(analysed(known(bench_and_run, alike)))
    assert "here the two are not separated." in part.sentences[1]
    assert "6 pairs 0 are separated here" in part.sentences[2]


def test_too_few_counterparts_say_nothing(bench_and_run: tuple[Bench, StudyRun]) -> None:
    run = known(bench_and_run, as_published)
    few = dict(list(run.known.items())[:5])
    assert published_findings(analysed(replace(run, known=few))) == []
    assert published_tables(analysed(replace(run, known=few))) == []


def test_other_data_are_compared_by_order_leaders_and_weights(
    bench_and_run: tuple[Bench, StudyRun],
) -> None:
    run = known(bench_and_run, as_published)
    same = " ".join(on_other_data(analysed(run), [analysed(elsewhere(run))]))
    assert "over the 11 settings that were measured on both, the rank correlation" in same
    assert "is 1.000." in same
    assert "The same sampler leads" in same
    firmly = "(separated from all others on both)"  # at 20 some etas are near
    assert f"ddim at 10 evaluations {firmly} and ddim at 20 evaluations." in same
    assert "FID prefers w = 0 on both." in same
    turned = " ".join(
        on_other_data(analysed(run), [analysed(elsewhere(known(bench_and_run, of_noise)))])
    )
    assert "at 10 evaluations ddim on fashion-mnist, ddpm-large on other-data" in turned
    assert "w = 0 on fashion-mnist and w = 1 on other-data" in turned
    answered = {each.question: each for each in findings(analysed(run), [analysed(elsewhere(run))])}
    assert "against different references" in answered[HARDER_DATA].parts[0].sentences[-1]


def test_grids_are_compared_sampler_by_sampler(model_folder: ModelFolder, tmp_path: Path) -> None:
    slices = [
        {
            "name": "grids",
            "sampler": ["ddim", "ddpm-small", "unipc"],
            "steps": 10,
            "grid": ["trailing", "log-snr"],
        }
    ]
    study = small_study(model_folder("grids"), metrics=["fid"], slices=slices)
    run = run_of(study, open_bench(study), tmp_path / "study")
    fids = {"ddim": (3.0, 1.0), "ddpm-small": (1.02, 1.0), "unipc": (1.0, 2.0)}
    for cell in (entry.at(0) for entry in run.entries):
        trailing, other = fids[cell.setting.sampler]
        fid = trailing if cell.setting.grid == "trailing" else other
        run.known[cell] = made_up(run.bench, cell, {"fid": fid})
        # Of more samples, of which there is one pair alone.
        more = replace(cell, draw=replace(cell.draw, count=40))
        if cell.setting.sampler == "ddim":
            run.known[more] = made_up(run.bench, more, {"fid": 7.0})
    (part,) = where_steps_lie(run)
    assert part.sentences == (
        "At 10 evaluations, of 20 samples each, 2 of 3 samplers have a lower FID on the log-snr "
        "grid than on the trailing grid, with a median FID ratio of 1.02 (trailing / log-snr). "
        "Of 3 differences 2 are separated: 1 for the log-snr grid and 1 for the trailing grid.",
    )


def test_leaders_that_were_not_measured_there_do_not_compare(
    bench_and_run: tuple[Bench, StudyRun],
) -> None:
    run = known(bench_and_run, as_published)
    fewer = elsewhere(run)
    kept = {cell: one for cell, one in fewer.known.items() if cell.setting.sampler != "ddim"}
    words = " ".join(on_other_data(analysed(run), [analysed(replace(fewer, known=kept))]))
    assert "at 10 evaluations ddim leads on fashion-mnist, and was not measured on other" in words
    assert "Different samplers lead" not in words
    assert "no weights were measured on other-data" in words


def test_the_page_holds_every_finding_and_its_figures_lie_beside_it(
    begun: StudyRun, tmp_path: Path
) -> None:
    panel = begun.folder.panel_path(cards(analysed(begun))[0].cell)
    panel.parent.mkdir(exist_ok=True)
    panel.write_bytes(b"\x89PNG nearest")
    path = write_markdown(analysed(begun), tmp_path / "docs" / "guide.md", "underone report x")
    panel.unlink()
    opening = path.read_text(encoding="utf-8").partition("##")[0]
    assert "Nothing here was measured on cifar10 or noto-emoji: `underone study cifar10`" in opening
    assert "measured on fashion-mnist" not in opening
    text = path.read_text(encoding="utf-8")
    assert "`underone report x`" in text
    assert "**Not finished:**" in text
    for finding in findings(analysed(begun)):
        assert f"## {finding.question}" in text
        in_short = next(
            one for one in text.splitlines() if one.startswith(f"- [{finding.question}")
        )
        assert all(part.sentences[0] in in_short for part in finding.parts)
        for part in finding.parts:
            assert all(sentence in text for sentence in part.sentences)
    linked = [line.partition("](")[2][:-1] for line in text.splitlines() if line.startswith("![")]
    assert any(name.startswith("guide/") for name in linked)
    assert f"guide/{panel.name}" in linked
    for name in linked:
        assert (path.parent / name).read_bytes().startswith(b"\x89PNG")
    assert "{{" not in text
    assert "None" not in text


def test_links_lead_to_headings() -> None:
    assert anchor("Which sampler?") == "which-sampler"
    assert anchor("How many steps, and does that depend?") == "how-many-steps-and-does-that-depend"
    assert anchor("Beside DDIM's Table 1") == "beside-ddims-table-1"


def test_the_command_writes_it_and_refuses_other_names(
    run: conftest.Run, begun: StudyRun, tmp_path: Path
) -> None:
    folder = begun.folder.path
    page = tmp_path / "guide.md"
    status, _, told = run("report", folder, "--markdown", page)
    assert status == 0
    assert str(page) in told
    assert f"--markdown {page}`" in page.read_text(encoding="utf-8")
    before = page.read_bytes()
    for options, says in (
        (("--markdown", tmp_path / "x"), "name of an .md file"),
        (("--beside", tmp_path / "none", "--markdown", page), "holds no study"),
    ):
        status, _, told = run("report", folder, *options)
        assert (status, told.count("\n")) == (2, 1)
        assert says in told
    assert not (tmp_path / "x").exists()
    assert page.read_bytes() == before


@pytest.mark.parametrize("samples", [10, 20])
def test_the_first_row_of_a_picture_is_shown_whole(samples: int, tmp_path: Path) -> None:
    images = torch.full((samples, 1, 4, 4), 7, dtype=torch.uint8)
    save_picture(tile(images, columns=10), tmp_path / "cell.png")
    with Image.open(io.BytesIO(_enlarged(tmp_path / "cell.png", samples))) as shown:
        assert shown.width / shown.height == (2 + 10 * 6) / (2 + 6)
