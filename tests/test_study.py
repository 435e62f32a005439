"""Studies: defined, planned within their budgets, run, stopped at any moment and found again."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ModelFolder
from helpers import tuned_by_hand
from studies import SLICES, made_up, small_study, timeless
from underone.checkpoint import save_weights
from underone.config import parse
from underone.data import Dataset, SampleSet, load_dataset
from underone.errors import UserError
from underone.generation import Draw, Setting
from underone.modules import name_code
from underone.networks.precision import fast_dtype
from underone.study.answers import answer, answers, standings
from underone.study.bench import Bench, open_bench
from underone.study.cell import Cell, CellResult, Divergence, Outcome, run_cell
from underone.study.contest import Candidate, Contest, Factor, contests, difference, paired
from underone.study.costs import Costs
from underone.study.definition import Study, for_model, load_study, shipped_studies
from underone.study.engine import LocalEngine
from underone.study.fit import LEAST_SAMPLES, make_plan, planned_cells
from underone.study.folder import Folder
from underone.study.plan import Plan
from underone.study.report import write_report
from underone.study.run import Run, new_plan, open_folder, open_run
from underone.tuned import Purpose, keep
from underone.zoo import load_model


@pytest.fixture(scope="module")
def folder_of_model(model_folder: ModelFolder) -> Path:
    # Ten steps in all, so that every setting is cheap.
    return model_folder("ten-steps", steps=10)


@pytest.fixture(scope="module")
def study(folder_of_model: Path) -> Study:
    return small_study(folder_of_model)


@pytest.fixture(scope="module")
def bench(study: Study) -> Bench:
    return open_bench(study)


# Definition.


def test_axes_multiply_and_one_value_is_a_list_of_one() -> None:
    study = parse(
        Study,
        {
            "slices": [
                {
                    "name": "a",
                    "sampler": ["ddim", "unipc"],
                    "steps": [5, 10],
                    "guidance": 1,
                    "interval": [0.2, 5],
                },
                {"name": "b", "interval": [[0.2, 5], "everywhere"], "guidance": [0.5, 1]},
            ]
        },
        "study",
    )
    first, second = (list(each.settings()) for each in study.slices)
    assert first == [
        Setting(sampler, steps, guidance=1, interval=(0.2, 5))
        for sampler in ("ddim", "unipc")
        for steps in (5, 10)
    ]
    assert {(s.guidance, s.interval) for s in second} == {
        (0.5, (0.2, 5)), (0.5, None), (1.0, (0.2, 5)), (1.0, None),
    }  # fmt: skip


def test_where_an_axis_changes_nothing_there_is_one_setting() -> None:
    several = {
        "name": "a",
        "guidance": [-1, 0, 1],
        "form": ["classifier-free", "rescaled"],
        "interval": ["everywhere", [0.2, 5]],
    }
    (found,) = parse(Study, {"slices": [several]}, "study").slices
    settings = set(found.settings())
    assert {s.guidance: sum(o.guidance == s.guidance for o in settings) for s in settings} == {
        -1: 1, 0: 1, 1: 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("slices = [{name = 'a', stepz = 5}]", "did you mean 'steps'"),
        ("slices = [{name = 'a', sampler = 'dimm'}]", "did you mean 'ddim'"),
        ("slices = [{name = 'a', guidance = 'high'}]", "guidance"),
        ("slices = [{name = 'a', steps = 0}]", "at least 1"),
        ("slices = [{name = 'a'}, {name = 'a'}]", "two slices"),
        ("slices = [{name = 'a', interval = [5, 0.2]}]", "low < high"),
        ("slices = []", "slices"),
        ("metrics = 'kid'\nslices = [{name = 'a'}]", "fid"),
        ("metrics = 'fidd'\nslices = [{name = 'a'}]", "did you mean 'fid'"),
        ("labels = 'random'\nslices = [{name = 'a', screened = 9}]", "other than random"),
        ("seed = -1\nslices = [{name = 'a'}]", "seed"),
        ("slices = [{name = 'a'", "TOML"),
    ],
)
def test_a_mistake_in_a_study_is_one_line(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(UserError, match="study") as refused:
        load_study(str(path))
    assert told in str(refused.value)


def test_what_a_model_cannot_do_is_refused_before_the_first_cell(
    study: Study, bench: Bench, folder_of_model: Path
) -> None:
    for changes, told in (
        ({"sampler": "ddim", "steps": 2000}, "steps must lie in 1..10"),
        ({"sampler": "ddpm-analytic", "steps": 2, "guidance": 1}, "w = 0 only"),
        ({"guidance": -2, "steps": 2}, ">= -1"),
        ({"sampler": "tuned", "steps": 2}, "underone tune"),
    ):
        bad = small_study(folder_of_model, slices=[*SLICES, {"name": "bad", **changes}])
        with pytest.raises(UserError, match='slice "bad"') as refused:
            plan_of(bad, bench)
        assert told in str(refused.value)
    with pytest.raises(UserError, match="no checkpoint folder"):
        open_bench(small_study(folder_of_model / "missing"))
    with pytest.raises(UserError, match="unknown study"):
        load_study("fashion")


def test_every_shipped_study_is_sound() -> None:
    assert "guide" in shipped_studies()
    for name in shipped_studies():
        assert load_study(name).slices


def test_a_guide_asks_nothing_that_its_model_cannot_do(model_folder: ModelFolder) -> None:
    bench = open_bench(small_study(model_folder("unguided", label_dropout=0.0, steps=10)))
    (name,) = bench.models
    adapted = for_model(load_study("guide"), name, load_model(name), ())
    for each in adapted.slices:
        assert all(setting.guidance == 0 for setting in each.settings())
        assert all(setting.steps <= 10 for setting in each.settings())
    plan_of(adapted, bench)


# Planning.


def plan_of(study: Study, bench: Bench, minutes: float | None = None, speed: float = 1e-3) -> Plan:
    costs = Costs(evaluation=dict.fromkeys(bench.models, speed), image=1e-3)
    return make_plan(study, bench, costs, threads=1, minutes=minutes)


def guide_plan(bench: Bench, seconds_per_evaluation: float, minutes: float = 5.0) -> Plan:
    (name,) = bench.models
    thousand = load_study("guide")
    adapted = thousand.model_copy(update={"model": name, "references": ("fashion-mnist",)})
    return plan_of(adapted, bench, minutes, seconds_per_evaluation)


def test_a_budget_of_evaluations_holds_within_one_of_minutes(bench: Bench, study: Study) -> None:
    tight = study.model_copy(update={"evaluations": 200, "most_blocks": 4, "samples": 1000})
    with pytest.raises(UserError, match="not one cell fits in 200 evaluations"):
        plan_of(tight, bench, minutes=60)
    wide = tight.model_copy(update={"evaluations": 20_000})
    plan = plan_of(wide, bench, minutes=60)
    planned = sum(cell.evaluations(bench) for cell in planned_cells(plan, bench))
    # A fifth is kept for contenders.
    assert 8_000 < planned <= 16_000
    assert plan.evaluations == 20_000


def test_what_contests_share_counts_once(bench: Bench, study: Study) -> None:
    cells = [Cell(study.model, Setting("ddim", steps), Draw(10)) for steps in (1, 2)]
    plan = plan_of(study, bench).model_copy(update={"evaluations": 30})
    assert plan._allowed(cells, [], bench) == cells
    assert plan._allowed(cells, cells[:1], bench) == cells


@pytest.fixture(scope="module")
def thousand_steps(model_folder: ModelFolder) -> Bench:
    return open_bench(small_study(model_folder("thousand-steps")))


def test_five_minutes_on_two_cores_buy_a_guide(thousand_steps: Bench) -> None:
    # 500 evaluations a second is a slow machine of that kind.
    plan = guide_plan(thousand_steps, 1 / 500)
    cells = planned_cells(plan, thousand_steps)
    assert len(cells) >= 12
    assert min(cell.draw.count for cell in cells) >= LEAST_SAMPLES
    assert {cell.setting.guidance for cell in cells} >= {-1, 0, 0.5, 1}
    assert len({cell.setting.sampler for cell in cells}) == 4
    seconds = sum(plan.costs.seconds(cell, thousand_steps) for cell in cells)
    assert seconds <= 0.8 * plan.seconds <= 0.8 * 300


def test_a_slow_machine_still_asks_every_question(thousand_steps: Bench) -> None:
    # 200 evaluations a second: two old cores without bfloat16.
    cells = planned_cells(guide_plan(thousand_steps, 1 / 200), thousand_steps)
    plain = {cell.setting for cell in cells if cell.setting.guidance == 0}
    samplers = {setting.sampler for setting in plain if setting.steps == 5}
    assert samplers == {"unipc", "ddim", "ddpm-small", "ddpm-large"}
    assert {"unipc", "ddim"} <= {setting.sampler for setting in plain if setting.steps == 10}
    weights = {cell.setting.guidance for cell in cells if cell.setting.steps == 5}
    assert {0, 0.5, 1} <= weights
    assert min(cell.draw.count for cell in cells) >= LEAST_SAMPLES


@pytest.mark.parametrize("speed", [1 / 90, 1 / 120, 1 / 150])
def test_what_a_small_budget_leaves_still_asks_of_sampler_steps_and_weight(
    thousand_steps: Bench, speed: float
) -> None:
    cells = planned_cells(guide_plan(thousand_steps, speed), thousand_steps)
    plain = {cell.setting for cell in cells if cell.setting.guidance == 0}
    assert len({setting.sampler for setting in plain if setting.steps == 5}) >= 2
    assert any(replace(setting, steps=10) in plain for setting in plain if setting.steps == 5)
    guided = {cell.setting for cell in cells if cell.setting.guidance > 0}
    assert any(replace(setting, guidance=0.0) in plain for setting in guided)


@pytest.mark.parametrize(
    ("screened", "finalists", "kept"), [(20, 1, 20), (20, 2, None), (50, 1, None)]
)
def test_nothing_is_screened_for_no_reason(
    folder_of_model: Path, bench: Bench, screened: int, finalists: int, kept: int | None
) -> None:
    """Two candidates: where both are finalists, or screening costs what drawing them costs."""
    slices = [
        {
            "name": "screened",
            "sampler": ["ddim", "ddpm-small"],
            "steps": 2,
            "samples": 50,
            "screened": screened,
            "finalists": finalists,
        }
    ]
    plan = plan_of(small_study(folder_of_model, slices=slices), bench)
    assert plan.slices[0].screened == kept


def test_screening_stays_where_blocks_make_it_pay(folder_of_model: Path, bench: Bench) -> None:
    """3 candidates of 4 blocks: 3 * 50 + 4 * 50 samples with screening, 3 * 4 * 50 without."""
    each = {"name": "screened", "sampler": ["ddim", "ddpm-small", "unipc"], "steps": 2}
    screened = each | {"samples": 50, "blocks": 4, "screened": 50, "finalists": 1}
    plan = plan_of(small_study(folder_of_model, slices=[screened]), bench)
    assert plan.slices[0].screened == 50


def test_what_joins_with_few_samples_still_has_to_fit_with_the_fewest(
    thousand_steps: Bench,
) -> None:
    slices = [
        {"name": "base", "steps": 5, "samples": 2000},
        {"name": "joins", "sampler": "ddpm-small", "steps": 1000, "joins_at": 100},
    ]
    study = small_study(Path(next(iter(thousand_steps.models))), samples=2000, slices=slices)
    plan = plan_of(study, thousand_steps, minutes=10.0)
    assert plan.affords(planned_cells(plan, thousand_steps), thousand_steps)
    assert [each.setting.steps for each in plan.left_out] == [1000]


@pytest.mark.parametrize("speed", [3e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5])
def test_a_plan_keeps_its_budget_and_says_what_it_left_out(
    thousand_steps: Bench, speed: float
) -> None:
    plan = guide_plan(thousand_steps, speed)
    cells = planned_cells(plan, thousand_steps)
    assert plan.affords(cells, thousand_steps) or len(cells) == 1
    everything = {
        Candidate(model=next(iter(thousand_steps.models)), setting=setting)
        for each in plan.study.slices
        for setting in each.settings()
    }
    planned = {Candidate(model=cell.model, setting=cell.setting) for cell in cells}
    assert planned | set(plan.left_out) == everything
    assert not planned & set(plan.left_out)
    counts = {cell.draw.count for cell in cells}
    assert len(counts) == 1  # never compare across different N
    assert counts.pop() % 10 == 0


def test_more_time_buys_samples_then_steps(thousand_steps: Bench) -> None:
    def most_steps(minutes: float) -> int:
        cells = planned_cells(guide_plan(thousand_steps, 1e-3, minutes), thousand_steps)
        return max(cell.setting.steps for cell in cells)

    found = [most_steps(minutes) for minutes in (2, 10, 60, 600, 6000)]
    assert found == sorted(found)
    assert found[0] <= 20
    assert found[-1] == 1000


def test_an_evaluation_budget_drops_the_costliest(folder_of_model: Path, bench: Bench) -> None:
    whole = plan_of(small_study(folder_of_model), bench)
    assert sum(cell.evaluations(bench) for cell in planned_cells(whole, bench)) == 20 * (
        2 + 3 + 2 + 3 + 2 + 4
    )
    plan = plan_of(small_study(folder_of_model, evaluations=200), bench)
    # First what no question hangs on, the costliest of it before the others; then the costliest.
    left_out = [(each.setting.steps, each.setting.guidance) for each in plan.left_out]
    assert left_out == [(3, 0.0), (2, -1.0), (2, 1.0)]
    assert plan.affords(planned_cells(plan, bench), bench)
    with pytest.raises(UserError, match="not one cell"):
        plan_of(small_study(folder_of_model, evaluations=10), bench)


def test_a_budget_leaves_a_part_for_contenders(folder_of_model: Path, bench: Bench) -> None:
    """The sixth of the whole that the costliest setting takes is more than is wanted of it."""
    study = small_study(folder_of_model, evaluations=330)
    whole, kept_back = (
        plan_of(study.model_copy(update={"most_blocks": blocks}), bench) for blocks in (1, 3)
    )
    assert (len(whole.left_out), len(kept_back.left_out)) == (0, 1)
    assert sum(cell.evaluations(bench) for cell in planned_cells(kept_back, bench)) <= 0.8 * 330
    assert kept_back.evaluations == 330


def test_screening_comes_first_and_contests_after_the_rest(
    folder_of_model: Path, bench: Bench
) -> None:
    slices = [
        {
            "name": "screened",
            "sampler": ["ddim", "ddpm-small", "euler"],
            "steps": 4,
            "screened": 5,
            "finalists": 2,
        },
        {"name": "cheap", "sampler": "ddim", "steps": 1},
    ]
    plan = plan_of(small_study(folder_of_model, slices=slices), bench)
    screening = plan.due({}, bench)
    assert len(screening) == 3
    assert all(cell.draw.first > 0 for cell in screening)
    known = {cell: made_up(bench, cell, {"fid": 1.0}) for cell in screening}
    due = plan.due(known, bench)
    assert [cell.setting.steps for cell in due] == [1, 4, 4]
    assert all(cell.draw.first == 0 for cell in due)


def test_of_contests_the_cheapest_come_first_and_no_leader_alone(
    folder_of_model: Path, bench: Bench
) -> None:
    slices = [{"name": "all", "sampler": ["ddim", "ddpm-small"], "steps": [2, 5]}]
    base = 20 * (2 + 2 + 5 + 5)

    def fresh(evaluations: int) -> list[int]:
        study = small_study(folder_of_model, slices=slices, most_blocks=2)
        plan = plan_of(study, bench).model_copy(update={"evaluations": evaluations})
        cells = plan.due({}, bench)
        assert len(cells) == 4
        known = {
            cell: made_up(bench, cell, {"fid": 1.0 / cell.setting.steps}, 0.001) for cell in cells
        }
        return sorted(cell.setting.steps for cell in plan.due(known, bench))

    # Of all settings the two of five steps are open; so are both at each number of steps.
    assert fresh(base + 20 * 14) == [2, 2, 5, 5]
    assert fresh(base + 20 * 13) == [2, 2]
    assert fresh(base + 20 * 4) == [2, 2]
    assert fresh(base + 20 * 3) == []


# Contests, on results made by hand.


@pytest.fixture(scope="module")
def done(study: Study, bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Run:
    more = study.model_copy(update={"most_blocks": 3})
    run, continued = open_run(tmp_path_factory.mktemp("studies") / "done", more, bench)
    assert not continued
    for _ in run.advance(LocalEngine(bench, 1), lambda cell, images: None):
        pass
    return run


def test_two_settings_are_told_apart_as_far_as_their_blocks_go(bench: Bench, done: Run) -> None:
    a, b = done.entries[:2]

    def known(of_a: list[float], of_b: list[float], error: float | None) -> dict[Cell, CellResult]:
        return {
            entry.at(block): made_up(bench, entry.at(block), {"fid": fid}, error)
            for entry, fids in ((a, of_a), (b, of_b))
            for block, fid in enumerate(fids)
        }

    # One block: by the errors within it. 1.96 * sqrt(2) * 0.01 = 0.0277.
    one = difference(a, b, known([1.0], [1.03], 0.01), [0])
    assert one is not None
    assert (one.interval.low, one.interval.high) == pytest.approx((-0.0577, -0.0023), abs=1e-4)
    assert difference(a, b, known([1.0], [1.03], None), [0]) is None
    # Two: by the errors within both, for two differences say nothing of how they spread.
    two = difference(a, b, known([1.0, 2.0], [1.01, 2.03], 0.01), [0, 1])
    assert two is not None
    assert two.difference == pytest.approx(-0.02)
    assert two.interval.high == pytest.approx(-0.02 + 1.95996 * 0.01 * 4**0.5 / 2, abs=1e-5)
    unknown = difference(a, b, known([1.0, 2.0], [1.01, 2.03], None), [0, 1])
    assert unknown is not None
    # -0.01 and -0.03 deviate by 0.01 * sqrt(2), and t is 12.706.
    assert unknown.interval.high == pytest.approx(-0.02 + 12.706 * 0.01, abs=1e-4)
    # More: paired, by the spread of differences alone. They are -0.01, -0.02, -0.03.
    three = difference(a, b, known([1.0, 2.0, 3.0], [1.01, 2.02, 3.03], 0.01), [0, 1, 2])
    assert three is not None
    assert three.difference == pytest.approx(-0.02)
    assert three.interval.high == pytest.approx(-0.02 + 4.3027 * 0.01 / 3**0.5, abs=1e-5)
    assert difference(a, b, known([1.0], [1.0], 0.01), [1]) is None


def test_the_leader_is_chosen_on_one_block_and_reported_on_others(bench: Bench, done: Run) -> None:
    a, b, c = done.entries[:3]
    fids = {a: [1.0, 1.5, 1.6, 1.4], b: [1.1, 1.2, 1.3, 1.1], c: [2.0]}
    known = {
        entry.at(block): made_up(bench, entry.at(block), {"fid": fid})
        for entry, values in fids.items()
        for block, fid in enumerate(values)
    }
    found = answer(Contest(Factor.SETTING, "which", (c, b, a)), known, range(1, 4))
    assert [each.entry for each in found.standings] == [a, b, c]
    assert found.leader.fid == pytest.approx(1.5)  # not the 1.0 it was chosen for
    overtaker, trailer = found.standings[1:]
    assert overtaker.leads_now
    assert trailer.trails
    assert not found.settled
    assert found.open == ()
    assert trailer.fid == 2.0


def test_only_those_not_separated_contend_for_another_block(bench: Bench, done: Run) -> None:
    a, b, c = done.entries[:3]
    known = {
        entry.at(0): made_up(bench, entry.at(0), {"fid": fid})
        for entry, fid in ((a, 1.00), (b, 1.02), (c, 1.5))
    }
    contest = Contest(Factor.SETTING, "which", (a, b, c))
    assert contest.contenders(known, [0], most=4) == [a, b]
    assert contest.contenders(known, [0], most=1) == [a]
    assert contest.contenders({}, [0], most=4) == []


def test_settings_compete_only_at_one_number_of_samples_and_with_labels(done: Run) -> None:
    entries = done.entries
    other = [replace(entry, draw=replace(entry.draw, count=40)) for entry in entries]
    for contest in contests([*entries, *other]):
        assert len({entry.draw.count for entry in contest.entries}) == 1
        assert all(entry.candidate.setting.guidance != -1 for entry in contest.entries)
    questions = {contest.question for contest in contests(entries)}
    assert questions == {
        "which setting",
        "which sampler at 2 evaluations",
        "which sampler at 3 evaluations",
        "which w for ddim, 2 steps",
    }


# Running.


def test_a_study_runs_its_cells_and_then_its_contenders(done: Run, bench: Bench) -> None:
    base = planned_cells(done.plan, bench)
    assert set(base) <= set(done.known)
    assert done.due() == []
    extra = [cell for cell in done.known if cell not in set(base)]
    assert extra
    assert {cell.draw.first for cell in extra} == {20, 40}
    for cell, found in done.known.items():
        branches = 1 if cell.setting.guidance in (0, -1) else 2
        assert found.evaluations == {"model": branches * cell.setting.steps}
        assert found.measurement.protocol.count == 20
        assert {"fid", "precision", "recall"} <= set(found.measurement.figures)
        assert found.floor is not None
        assert 0 < found.floor.fid < found.fid
        assert done.folder.picture_path(found.id).exists()
    assert len(standings(done)) == 6
    assert len(answers(done)) == 4


def test_screening_finds_the_finalists(folder_of_model: Path, bench: Bench, tmp_path: Path) -> None:
    slices = [{**SLICES[0], "screened": 5, "finalists": 2}]
    run, _ = open_run(tmp_path / "s", small_study(folder_of_model, slices=slices), bench)
    assert {cell.draw.count for cell in run.due()} == {5}
    for _ in run.advance(LocalEngine(bench, 1), lambda cell, images: None):
        pass
    screened = sorted(
        (found for found in run.known.values() if found.draw.count == 5), key=lambda r: r.fid
    )
    drawn = [found for found in run.known.values() if found.draw.count == 20]
    assert len(screened) == 4
    assert {found.setting for found in drawn} == {found.setting for found in screened[:2]}
    # Of other seeds than they were screened on.
    assert {found.draw.first for found in drawn} == {0}
    assert min(found.draw.first for found in screened) >= 2**32


@pytest.mark.slow
def test_a_setting_that_diverges_is_left_out_and_the_rest_goes_on(
    folder_of_model: Path, tmp_path: Path
) -> None:
    wild = {"steps": 2, "guidance": 3e38, "threshold": "none"}
    wild |= {"name": "wild", "sampler": ["ddim", "rk45"]}
    screened = {"name": "screened", "sampler": ["ddim", "ddpm-small"], "steps": 4}
    screened |= {"screened": 10, "finalists": 1}
    study = small_study(folder_of_model, slices=[wild, *SLICES, screened | wild | screened])
    bench = open_bench(study)
    run, _ = open_run(tmp_path / "study", study, bench)
    told = list(run.advance(LocalEngine(bench, 1), lambda cell, images: None))
    diverged = [each.setting for each in told if isinstance(each, Divergence)]
    assert {setting.guidance for setting in diverged} == {3e38}
    assert {"ddim", "rk45"} <= {setting.sampler for setting in diverged}
    assert len(run.known) >= 6
    again, _ = open_run(run.folder.path, study, bench)
    assert again.due() == []
    assert again.diverged == run.diverged
    page = write_report(again).read_text("utf-8")
    assert "diverged, and not measured" in page


def test_a_sampler_of_ones_own_that_is_changed_makes_other_cells(
    folder_of_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "from underone.diffusion import DDIM\n\nMine = DDIM\n"
    (tmp_path / "mine_to_change.py").write_text(code)
    slices = [{"name": "mine", "sampler": ["mine_to_change:Mine", "ddim"], "steps": 2}]
    study = small_study(folder_of_model, slices=slices)
    bench = open_bench(study)
    cells = [Cell(study.model, setting, Draw(20)) for setting in study.slices[0].settings()]
    before = [cell.identity(bench) for cell in cells]
    (tmp_path / "mine_to_change.py").write_text(code + "# in another way\n")
    # What draws is what was imported, whatever the file says by now.
    assert [cell.identity(bench) for cell in cells] == before
    del sys.modules["mine_to_change"]
    Setting("mine_to_change:Mine")
    after = [cell.identity(bench) for cell in cells]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True]


def test_a_folders_word_is_not_enough_to_run_code(
    folder_of_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "of_a_folder.py").write_text("from underone.diffusion import DDIM as Mine\n")
    slices = [{"name": "mine", "sampler": "of_a_folder:Mine", "steps": 2}]
    study = small_study(folder_of_model, slices=slices)
    bench = open_bench(study)
    costs = Costs(evaluation=dict.fromkeys(bench.models, 1e-3), image=1e-3)
    folder = Folder(tmp_path / "study")
    folder.begin(make_plan(study, bench, costs, threads=1))
    assert open_folder(folder.path).plan.study == study
    # As somebody else finds it.
    monkeypatch.setattr("underone.modules._NAMED", set())
    del sys.modules["of_a_folder"]
    with pytest.raises(UserError, match=r"plan\.json names of_a_folder:Mine, which is code"):
        open_folder(folder.path)
    assert "of_a_folder" not in sys.modules
    name_code(["of_a_folder:Mine"])
    assert open_folder(folder.path).plan.study == study


def with_influence(result: CellResult, values: np.ndarray) -> CellResult:
    first, *rest = result.measurements
    figure = first.figures["fid"].model_copy(
        update={"influences": values.astype(np.float32).tobytes(), "error": 1.0}
    )
    first = first.model_copy(update={"figures": first.figures | {"fid": figure}})
    return result.model_copy(update={"measurements": (first, *rest)})


def test_samples_of_one_seed_are_compared_one_by_one(
    done: Run, bench: Bench, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(size=400)
    folder, kept = Folder(tmp_path / "study"), []
    for index, (cell, result) in enumerate(list(done.known.items())[:2]):
        kept.append(with_influence(result, noise + 0.1 * index * noise**2))
        folder.keep(Outcome(kept[-1], done.folder.picture_path(result.id).read_bytes()))
        assert "influences" not in folder.result_path(cell.identity(bench)).read_text()
    known = folder.known(bench)
    # What is read back is what was kept, to the last bit.
    assert list(known.values()) == sorted(kept, key=lambda result: result.id)
    figures = [result.measurement.figures["fid"] for result in kept]
    found = paired(figures[:1], figures[1:])
    assert found is not None
    error = (0.01 * (noise**4).sum() / (400 * 399)) ** 0.5
    assert found.interval.high - found.difference == pytest.approx(1.96 * error, rel=1e-3)
    # Where one of the two does not say, they are taken for independent.
    alone = figures[1].model_copy(update={"influences": None})
    wide = paired(figures[:1], [alone])
    assert wide is not None
    assert wide.interval.high - wide.difference == pytest.approx(1.96 * 2**0.5, rel=1e-3)
    folder.influences_path(kept[0].id).write_bytes(b"PK broken")
    with pytest.raises(UserError, match="is damaged: remove it"):
        folder.known(bench)


def test_a_cell_that_was_drawn_otherwise_is_not_kept(
    done: Run, bench: Bench, tmp_path: Path
) -> None:
    class Elsewhere:
        """An engine whose workers have other files."""

        def run(self, cells: Sequence[Cell], on_images: object) -> Iterator[Outcome]:
            for cell in cells:
                result = done.known[cell].model_copy(update={"id": "0123456789abcdef"})
                yield Outcome(result, b"")

    run, _ = open_run(tmp_path / "study", done.plan.study, bench)
    with pytest.raises(UserError, match="made with something else where it was drawn"):
        list(run.advance(Elsewhere(), lambda cell, images: None))
    assert not run.known
    assert not list(run.folder.cells_path.glob("*"))


def test_a_worker_in_another_precision_is_refused(done: Run, bench: Bench, tmp_path: Path) -> None:
    other = "bfloat16" if fast_dtype("cpu") is None else "float32"

    class Elsewhere:
        """An engine on a machine that is fast in another precision."""

        def run(self, cells: Sequence[Cell], on_images: object) -> Iterator[Outcome]:
            for cell in cells:
                outcome = run_cell(cell, bench)
                assert isinstance(outcome, Outcome)
                (first, *rest) = outcome.result.measurements
                subject = first.subject | {"precision": other}
                measurements = (first.model_copy(update={"subject": subject}), *rest)
                result = outcome.result.model_copy(update={"measurements": measurements})
                yield replace(outcome, result=result)

    run, _ = open_run(tmp_path / "mixed", done.plan.study, bench)
    next(run.advance(LocalEngine(bench, 1), lambda cell, images: None))
    with pytest.raises(UserError, match=f"a worker draws in {other}, and cells of"):
        list(run.advance(Elsewhere(), lambda cell, images: None))
    assert len(run.known) == 1


def test_a_rerun_does_only_what_is_missing(done: Run, bench: Bench) -> None:
    again, continued = open_run(done.folder.path, done.plan.study, bench, minutes=99)
    assert continued
    assert again.plan == done.plan
    assert again.known == done.known
    lost = list(done.known.values())[3]
    path = done.folder.result_path(lost.id)
    whole = path.read_text()
    path.unlink()
    again, _ = open_run(done.folder.path, done.plan.study, bench)
    assert again.due() == [lost.cell]
    (redone,) = again.advance(LocalEngine(bench, 1), lambda cell, images: None)
    assert timeless(json.loads(path.read_text())) == timeless(json.loads(whole))
    assert redone.cell == lost.cell


def test_foreign_and_damaged_files_are_named_and_nothing_is_overwritten(
    done: Run, bench: Bench, study: Study, tmp_path: Path, model_folder: ModelFolder
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        open_run(tmp_path, study, bench)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match="differ in most_blocks"):
        open_run(done.folder.path, study, bench)
    other = open_bench(small_study(model_folder("ten-others", steps=10, label_dropout=0.2)))
    with pytest.raises(UserError, match="other models"):
        open_run(done.folder.path, done.plan.study, other)
    path = done.folder.result_path(next(iter(done.known.values())).id)
    whole = path.read_text()
    for damaged, told in ((whole[: len(whole) // 2], "JSON"), ("{}", "id"), ("", "JSON")):
        path.write_text(damaged)
        try:
            with pytest.raises(UserError, match=path.name) as refused:
                open_run(done.folder.path, done.plan.study, bench)
            assert told in str(refused.value)
        finally:
            path.write_text(whole)
    # What a kill may leave of a file that was being written.
    unfinished = done.folder.cells_path / ".0123456789abcdef.json.x1y2.json"
    unfinished.write_text("{")
    try:
        again, _ = open_run(done.folder.path, done.plan.study, bench)
        assert again.known.keys() == done.known.keys()
    finally:
        unfinished.unlink()
    foreign = done.folder.cells_path / "0123456789abcdef.json"
    foreign.write_text(whole)
    try:
        with pytest.raises(UserError, match="no cell of this study"):
            open_run(done.folder.path, done.plan.study, bench)
    finally:
        foreign.unlink()


def test_a_sampler_that_is_tuned_anew_makes_other_cells(model_folder: ModelFolder) -> None:
    folder = model_folder("tuned")
    slices = [{"name": "tuned", "sampler": ["tuned", "ddim"], "steps": 3}]
    model = load_model(str(folder))
    first = tuned_by_hand(model, Purpose(steps=3))
    keep(model, first)
    study = small_study(folder, slices=slices)
    bench = open_bench(study)
    draw = Draw(20)
    cells = [Cell(study.model, setting, draw) for setting in study.slices[0].settings()]

    def identities() -> list[str]:
        return [cell.identity(bench) for cell in cells]

    before = identities()
    retold = first.learning.model_copy(update={"minutes": 7.0})
    keep(model, first.model_copy(update={"learning": retold}))
    assert identities() == before
    keep(model, first.model_copy(update={"shifts": (0.1, 0.0, 0.0)}))
    after = identities()
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_a_guide_that_is_trained_anew_makes_other_cells(model_folder: ModelFolder) -> None:
    folder, guide = model_folder("guided"), model_folder("guide")
    slices = [{"name": "auto", "form": f"auto,by={guide}", "steps": 3, "guidance": [0, 1]}]
    study = small_study(folder, slices=slices)
    bench = open_bench(study)
    cells = [Cell(study.model, setting, Draw(20)) for setting in study.slices[0].settings()]
    before = [cell.identity(bench) for cell in cells]
    weights = load_model(str(guide)).network.state_dict()
    save_weights(guide, {name: value + 0.1 for name, value in weights.items()})
    after = [cell.identity(bench) for cell in cells]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_memorisation_is_looked_for_among_the_training_images(
    folder_of_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load_dataset("fashion-mnist", "test", Path(__file__).parent / "data" / "fashion-mnist")
    monkeypatch.setattr("underone.study.bench.training_images", lambda reference: images)
    bench = open_bench(small_study(folder_of_model, metrics=["fid", "memorisation"]))
    (found,) = bench.measured(SampleSet(images.images, images.labels))
    assert found.figures["memorised-share"].value > 0.9

    def missing(reference: object) -> Dataset:
        raise UserError("not at hand")

    monkeypatch.setattr("underone.study.bench.training_images", missing)
    study = small_study(folder_of_model, metrics="all")
    with pytest.raises(UserError, match="not at hand"):
        new_plan(study, open_bench(study))


@pytest.mark.slow
def test_a_budget_can_be_raised_and_nothing_that_is_known_is_lost(
    folder_of_model: Path, bench: Bench, tmp_path: Path
) -> None:
    folder, narrow = tmp_path / "s", small_study(folder_of_model, evaluations=200)
    run, _ = open_run(folder, narrow, bench)
    for _ in run.advance(LocalEngine(bench, 1), lambda cell, images: None):
        pass
    written = {path: path.read_bytes() for path in (folder / "cells").iterdir()}
    assert written
    wide, continued = open_run(folder, small_study(folder_of_model, evaluations=400), bench)
    assert continued
    assert wide.known == run.known
    assert len(wide.plan.left_out) < len(run.plan.left_out)
    assert wide.due()
    assert not set(wide.due()) & set(run.known)
    assert all(path.read_bytes() == content for path, content in written.items())
    # What was raised is kept: the same command goes on, and the old one does not take it back.
    again, _ = open_run(folder, small_study(folder_of_model, evaluations=400), bench)
    assert again.plan == wide.plan
    for other in (200, 300):
        with pytest.raises(UserError, match=r"another budget \(400 evaluations\)"):
            open_run(folder, small_study(folder_of_model, evaluations=other), bench)
    unlimited, _ = open_run(folder, small_study(folder_of_model), bench)
    assert unlimited.plan.left_out == ()


def test_a_study_goes_on_in_the_precision_that_it_was_begun_in(
    done: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done.check_precision()
    then = {each.measurement.subject["precision"] for each in done.known.values()}
    (other,) = {"bfloat16", "float32"} - then
    dtype = torch.bfloat16 if other == "bfloat16" else None
    monkeypatch.setattr("underone.generation.setting.fast_dtype", lambda device: dtype)
    with pytest.raises(UserError, match=f"begun where models draw in {then.pop()}"):
        done.check_precision()


@pytest.mark.slow
def test_a_budget_of_minutes_is_followed_whatever_the_evaluations(
    folder_of_model: Path, bench: Bench, tmp_path: Path
) -> None:
    study = small_study(folder_of_model, evaluations=5000)
    open_run(tmp_path / "s", study, bench, minutes=1)
    with pytest.raises(UserError, match=r"another budget \(\d+\.\d minutes, "):
        open_run(tmp_path / "s", small_study(folder_of_model, evaluations=9000), bench)
