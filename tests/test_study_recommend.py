"""Recommendations: on the measured front, within the budget, with evidence and a runner-up."""

from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from conftest import ModelFolder
from studies import made_up, run_of, small_study
from underone.errors import UserError
from underone.generation import Setting, option_words
from underone.metrics import Figure
from underone.study.answers import Standing
from underone.study.bench import open_bench
from underone.study.cell import Cell, CellResult
from underone.study.recommend import Budget, Recommendation, recommend
from underone.study.run import StudyRun, open_folder

SLICES = [
    {"name": "samplers", "sampler": ["ddim", "ddpm-small"], "steps": [2, 4, 8]},
    {"name": "guidance", "sampler": "ddim", "steps": 4, "guidance": [-1, 1]},
]
# FID in three blocks, and precision, by (sampler, steps, w).
MEASURED: dict[tuple[str, int, float], tuple[list[float], float]] = {
    ("ddim", 2, 0): ([3.0], 0.6),
    ("ddim", 4, 0): ([1.05], 0.7),
    ("ddim", 8, 0): ([1.0, 1.2, 1.3], 0.75),
    ("ddpm-small", 2, 0): ([9.0], 0.3),
    ("ddpm-small", 4, 0): ([2.0], 0.72),
    ("ddpm-small", 8, 0): ([1.01, 1.21, 1.3], 0.8),
    ("ddim", 4, -1): ([0.1], 0.9),  # of other labels: no answer, however low
    ("ddim", 4, 1): ([1.5], 0.95),
}


@pytest.fixture(scope="module")
def study(model_folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> StudyRun:
    definition = small_study(model_folder("ten-steps", steps=10), slices=SLICES, most_blocks=3)
    folder = tmp_path_factory.mktemp("studies") / "s"
    run = run_of(definition, open_bench(definition), folder)
    known = {}
    for entry in run.entries:
        setting = entry.candidate.setting
        fids, precision = MEASURED[(setting.sampler, setting.steps, setting.guidance)]
        for block, fid in enumerate(fids):
            cell = entry.at(block)
            known[cell] = made_up(run.bench, cell, {"fid": fid, "precision": precision})
    return replace(run, known=known)


def title_of(standing: Standing) -> tuple[str, int, float]:
    setting = standing.first.setting
    return setting.sampler, setting.steps, setting.guidance


def title(found: Recommendation) -> tuple[str, int, float]:
    return title_of(found.chosen)


def test_the_best_within_a_budget_is_chosen(study: StudyRun) -> None:
    assert title(recommend(study, Budget())) == ("ddim", 8, 0)
    assert title(recommend(study, Budget(nfe=7))) == ("ddim", 4, 0)
    assert title(recommend(study, Budget(nfe=2))) == ("ddim", 2, 0)
    # By what the cells took, of which each made up takes as long as the others.
    known = study.known.values()
    each = median(one.seconds / (one.draw.count * one.nfe) for one in known)
    assert title(recommend(study, Budget(seconds=4.5 * each))) == ("ddim", 4, 0)
    assert recommend(study, Budget(nfe=2)).seconds_per_image == pytest.approx(2 * each)
    # Within 10 % of the best, the cheapest; within 1 %, the best itself.
    assert title(recommend(study, Budget(within=0.1))) == ("ddim", 4, 0)
    assert title(recommend(study, Budget(within=0.001))) == ("ddim", 8, 0)
    assert title(recommend(study, Budget(nfe=8), "precision")) == ("ddim", 4, 1)
    assert title(recommend(study, Budget(nfe=4), "precision")) == ("ddpm-small", 4, 0)


def test_evidence_is_of_fresh_seeds_and_the_runner_up_is_named(study: StudyRun) -> None:
    found = recommend(study, Budget())
    assert found.chosen.fid == pytest.approx(1.25)  # not the 1.0 it was chosen for
    assert found.runner_up is not None
    assert found.runner_up.first.setting.sampler == "ddpm-small"
    assert not found.separated  # by 0.01 and 0
    document = found.document()
    assert document["chosen"]["fresh_blocks"] == 2
    assert document["chosen"]["fid"] == pytest.approx(1.25)
    assert not document["separated"]
    assert recommend(study, Budget(nfe=4)).separated  # 1.05 and 1.5 in one block, errors 0.01


def test_a_runner_up_that_fresh_blocks_put_ahead_is_said_to_be(study: StudyRun) -> None:
    known = dict(study.known)
    for cell in study.known:
        if cell.setting.sampler == "ddpm-small" and cell.setting.steps == 8 and cell.draw.first:
            known[cell] = made_up(study.bench, cell, {"fid": 0.5, "precision": 0.8})
    found = recommend(replace(study, known=known), Budget())
    assert title(found) == ("ddim", 8, 0)
    assert found.overtaken
    assert found.afresh
    assert found.document()["overtaken"]
    assert not recommend(study, Budget()).overtaken
    # The cheapest within 5 % of the best is behind that on the block they were chosen on, too.
    cheaper = recommend(study, Budget(within=0.06))
    assert title(cheaper) == ("ddim", 4, 0)
    assert cheaper.overtaken
    assert not cheaper.afresh


def test_evidence_is_about_what_is_preferred(study: StudyRun) -> None:
    found = recommend(study, Budget(), "precision")
    assert found.runner_up is not None
    # By FID the two are far apart; precision has no error here.
    assert abs(found.runner_up.fid - found.chosen.fid) > 0.1
    assert found.apart is None
    assert not found.separated
    assert not found.overtaken
    document = found.document()
    assert document["prefer"] == "precision"
    assert document["difference"] is None
    by_fid = recommend(study, Budget(nfe=4)).document()["difference"]
    assert by_fid["value"] == pytest.approx(0.95)
    assert by_fid["low"] < 0.95 < by_fid["high"]


def test_consistency_is_best_where_it_is_that_of_real_images(study: StudyRun) -> None:
    real = 0.9
    consistency = {("ddim", 2): 0.7, ("ddim", 4): 0.89, ("ddim", 8): 1.0}

    def judged(cell: Cell) -> CellResult:
        value = consistency.get((cell.setting.sampler, cell.setting.steps), 0.5)
        result = made_up(study.bench, cell, {"fid": 1.0, "consistency": value})
        (measurement, *_) = result.measurements
        assert measurement.floor is not None
        floor = measurement.floor.model_copy(
            update={"figures": measurement.floor.figures | {"consistency": Figure(value=real)}}
        )
        with_floor = measurement.model_copy(update={"floor": floor})
        return result.model_copy(update={"measurements": (with_floor,)})

    known = {cell: judged(cell) for cell in study.known if cell.setting.guidance == 0}
    found = recommend(replace(study, known=known), Budget(), "consistency")
    assert title(found) == ("ddim", 4, 0)
    assert found.runner_up is not None
    assert title_of(found.runner_up) == ("ddim", 8, 0)


def test_the_front_is_what_nothing_else_beats(study: StudyRun) -> None:
    front = recommend(study, Budget(nfe=2)).front
    assert [(each.first.setting.sampler, each.nfe) for each in front] == [
        ("ddim", 2), ("ddim", 4), ("ddim", 8),
    ]  # fmt: skip
    costs = [each.nfe for each in front]
    assert costs == sorted(costs)


def test_the_command_and_the_snippet_use_the_setting(study: StudyRun) -> None:
    found = recommend(study, Budget(), "precision")
    model = study.plan.study.model
    assert found.command == (
        f"underone sample {model} --sampler ddim --steps 4 --guidance 1 --count 100 "
        "--out samples.png"
    )
    exact = replace(found, precision="float32")
    assert "--guidance 1 --precision float32 --count" in exact.command
    assert "Draw(count=100), precision='float32')" in exact.snippet
    fine = Setting("ddim", 4, guidance=0.1234567, form="rescaled", interval=(0.25, 3.1234567))
    assert option_words(Setting(guidance=2.0, form="auto,by=runs/v1.0"))[2:] == [
        "--guidance", "2", "--form", "auto,by=runs/v1.0"
    ]  # fmt: skip
    assert option_words(fine)[4:] == [
        "--guidance", "0.1234567", "--form", "rescaled", "--interval", "0.25:3.1234567",
    ]  # fmt: skip
    names: dict[str, object] = {}
    lines = found.snippet.splitlines()
    exec("\n".join(lines[:2]), names)  # noqa: S102
    expression = lines[-1].split("generate(model, ")[1].split(", Draw")[0]
    assert eval(expression, names) == Setting("ddim", 4, guidance=1.0)  # noqa: S307


def test_what_cannot_be_recommended_is_told(study: StudyRun, tmp_path: Path) -> None:
    for budget, prefer, told in (
        (Budget(nfe=1), "fid", "the cheapest is ddim, 2 steps"),
        (Budget(), "fidd", "did you mean 'fid'"),
        (Budget(), "consistency", "no setting measured by consistency"),
    ):
        with pytest.raises(UserError) as refused:
            recommend(study, budget, prefer)
        assert told in str(refused.value)
    with pytest.raises(UserError, match="nfe must be above 0"):
        Budget(nfe=0)
    with pytest.raises(UserError, match="unknown model"):
        recommend(study, Budget(), model="other")
    with pytest.raises(UserError, match="holds no study"):
        open_folder(tmp_path / "none")
