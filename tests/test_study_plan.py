"""Studies planned: within their budgets, the cheapest first, and every question still asked."""

from dataclasses import replace
from pathlib import Path

import pytest

from conftest import ModelFolder
from studies import made_up, plan_of, small_study
from underone.errors import UserError
from underone.generation import Draw, Setting
from underone.study.bench import Bench, open_bench
from underone.study.cell import Cell
from underone.study.contest import Candidate
from underone.study.definition import Study, load_study
from underone.study.fit import LEAST_SAMPLES, planned_cells
from underone.study.plan import StudyPlan


def guide_plan(bench: Bench, seconds_per_evaluation: float, minutes: float = 5.0) -> StudyPlan:
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
    """The costliest setting takes a sixth of the whole, more than has to be saved."""
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
