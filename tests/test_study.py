"""The guide: planned within its budget, resumed where it was, reported as measured."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ModelFolder
from underone.checkpoint import DiffusionModel, load_checkpoint
from underone.errors import UserError
from underone.study import plan as planning
from underone.study.cell import Bench, result_path
from underone.study.guide import Guide, open_guide
from underone.study.plan import (
    GUIDANCE_WEIGHTS,
    GUIDE_SAMPLERS,
    LEAST_SAMPLES,
    Costs,
    choose_settings,
)
from underone.study.report import write_report
from underone.zoo import find_reference, load_extractor


@pytest.fixture(scope="module")
def bench(model_folder: ModelFolder) -> Bench:
    # Ten steps in all, so that every setting is cheap.
    model = load_checkpoint(model_folder("ten-steps", steps=10))
    assert isinstance(model, DiffusionModel)
    reference = find_reference("fashion-mnist")
    return Bench(model, load_extractor(reference.origin.extractor), reference)


@pytest.fixture(scope="module")
def finished_guide(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Guide:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "LEAST_SAMPLES", 20)
        patch.setattr(planning, "MOST_SAMPLES", 20)
        guide, continued = open_guide(tmp_path_factory.mktemp("guide"), bench, 1.0, seed=0)
    assert not continued
    for cell in guide.cells:
        guide.run(cell, lambda images: None)
    write_report(guide, guide.results())
    return guide


def test_five_minutes_on_two_cores_buy_at_least_twelve_settings(
    small_model: DiffusionModel,
) -> None:
    # 450 evaluations a second is a slow machine of that kind; see benchmarks.
    settings = choose_settings(Costs(260 * 450, small_model), guided=True)
    assert len(settings) >= 12
    assert {s.guidance for s in settings} == set(GUIDANCE_WEIGHTS)
    assert {s.sampler for s in settings if s.guidance == 0} == set(GUIDE_SAMPLERS)


def test_a_slow_machine_measures_guidance_at_fewer_steps(small_model: DiffusionModel) -> None:
    def guided_steps(evaluations: float) -> set[int]:
        settings = choose_settings(Costs(evaluations, small_model), guided=True)
        assert len(settings) >= 12
        assert {s.guidance for s in settings} == set(GUIDANCE_WEIGHTS)
        return {s.steps for s in settings if s.guidance != 0}

    assert guided_steps(600 * 240) == {10}
    assert guided_steps(600 * 190) == {5}


@pytest.mark.parametrize("evaluations", [1e3, 3e4, 1e5, 2e5, 5e5, 1e6, 1e7])
def test_settings_never_cost_more_than_the_budget(
    small_model: DiffusionModel, evaluations: float
) -> None:
    costs = Costs(evaluations, small_model)
    settings = choose_settings(costs, guided=True)
    assert len(settings) == len(set(settings))
    assert costs.afford(settings, LEAST_SAMPLES) or len(settings) == 1


def test_more_time_buys_fifty_steps_then_samples_then_more_steps(
    small_model: DiffusionModel,
) -> None:
    def most_steps(evaluations: float) -> int:
        return max(s.steps for s in choose_settings(Costs(evaluations, small_model), guided=True))

    assert most_steps(600 * 200) == 20
    assert most_steps(600 * 350) == 50
    assert most_steps(1500 * 350) == 50
    assert most_steps(2000 * 700) == 100


def test_an_unguided_model_gets_no_ladder(small_model: DiffusionModel) -> None:
    settings = choose_settings(Costs(1e6, small_model), guided=False)
    assert all(s.guidance == 0 for s in settings)


def test_cells_run_cheapest_first_on_the_same_seeds(finished_guide: Guide) -> None:
    cells, model = finished_guide.cells, finished_guide.bench.model
    costs = [cell.cost(model) for cell in cells]
    assert costs == sorted(costs)
    assert len({cell.draw for cell in cells}) == 1
    assert len({cell.identity(finished_guide.bench) for cell in cells}) == len(cells)


def test_results_carry_protocol_floor_and_counted_evaluations(finished_guide: Guide) -> None:
    results = finished_guide.results()
    assert len(results) == len(finished_guide.cells) >= 11
    for result in results:
        branches = 1 if result.setting.guidance in (0, -1) else 2
        assert result.evaluations == branches * result.setting.steps
        assert result.measurement.protocol.count == 20
        policy = "none" if result.setting.guidance == -1 else "balanced"
        assert result.measurement.protocol.labels == policy
        assert result.measurement.rank_deficient
        assert 0 < result.floor.fid < result.measurement.fid < 1000
        assert result.measurement.subject["sampler"] == result.setting.sampler


def test_a_rerun_does_only_what_is_missing(finished_guide: Guide, bench: Bench) -> None:
    again, continued = open_guide(finished_guide.folder, bench, minutes=99.0, seed=7)
    assert continued
    assert again.plan == finished_guide.plan
    assert again.missing() == []
    lost = finished_guide.results()[3]
    result_path(finished_guide.folder, lost.id).unlink()
    (missing,) = again.missing()
    assert missing.setting == lost.setting
    redone = again.run(missing, lambda images: None)
    assert redone.measurement.fid == lost.measurement.fid


def test_a_folder_of_another_model_is_refused(
    finished_guide: Guide, bench: Bench, small_model: DiffusionModel
) -> None:
    other = Bench(small_model, bench.extractor, bench.reference)
    with pytest.raises(UserError, match="another model"):
        open_guide(finished_guide.folder, other, 1.0, 0)


def test_a_damaged_result_is_named(finished_guide: Guide) -> None:
    path = result_path(finished_guide.folder, finished_guide.results()[0].id)
    whole = path.read_text()
    path.write_text(whole[:50])
    try:
        with pytest.raises(UserError, match=path.name):
            finished_guide.results()
    finally:
        path.write_text(whole)


def test_the_report_holds_everything_and_needs_no_network(finished_guide: Guide) -> None:
    page = (finished_guide.folder / "report.html").read_text(encoding="utf-8")
    results = finished_guide.results()
    for result in results:
        assert f"{result.measurement.fid:.3f}" in page
    assert page.count("data:image/png;base64,") == len(results)
    assert page.count("<svg") == 2
    for weight in GUIDANCE_WEIGHTS:
        assert f">{weight:g}</text>".replace("-", "\u2212") in page.split("<svg")[2]
    loads = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'>\s]+)|url\(([^)]+)\)""", page)
    assert all((a or b).startswith(("data:", "#", "'#", '"#')) for a, b in loads)
    document = json.loads((finished_guide.folder / "results.json").read_text())
    assert len(document["cells"]) == len(results)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_a_browser_shows_the_report_offline(finished_guide: Guide, tmp_path: Path) -> None:
    page = finished_guide.folder / "report.html"
    dumped = subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            f"--user-data-dir={tmp_path}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert "Guidance weights" in dumped
    assert dumped.count("<svg") == 2
