"""What a study says: in words that claim no more than its samples do."""

from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import spearmanr

from conftest import ModelFolder
from studies import by_sampler, made, made_up, of_weight, run_of, said, small_study
from underone.generation import Setting
from underone.metrics.figures import Figure
from underone.metrics.measurement import FloorRecord
from underone.study.analysis import analysed
from underone.study.bench import open_bench
from underone.study.cell import CellResult
from underone.study.report.agreement import average_ranks, extractor_findings, rank_correlation
from underone.study.report.answers_in_tables import model_tables
from underone.study.report.charts import weight_charts
from underone.study.report.findings import (
    CHANCE,
    HARDER_DATA,
    HOW_MANY_STEPS,
    WHICH_MODEL,
    WHICH_SAMPLER,
    WHICH_WEIGHT,
    unresolved,
)
from underone.study.report.models import which_model
from underone.study.report.other_data import on_other_data
from underone.study.run import StudyRun


def test_a_separated_leader_is_said_to_be(finished: StudyRun) -> None:
    words = said(made(finished, by_sampler(1.0, 2.0)), WHICH_SAMPLER)
    assert (
        "ddim leads at 2 and 3 evaluations (FID 1.500 and 1.333), separated from the other; "
        in words
    )
    assert "of all settings ddim, 3 steps leads (FID 1.333), separated from all 4 others." in words
    assert "Worse: ddpm-small (+1.000; +0.972 to +1.028)." in words
    assert "Not separated" not in words.split("Of all settings")[0]
    assert "1.500 (standard error 0.010; on the one block it was chosen on)" in words


def test_fresh_blocks_are_reported_and_paired(finished: StudyRun) -> None:
    run = made(finished, by_sampler(1.0, 2.0), blocks=4)
    words = said(run, WHICH_SAMPLER)
    # Blocks 1 to 3 have 1.6, 1.7, 1.8: 4.303 * 0.1 / sqrt(3) = 0.248; the differences do not vary.
    assert (
        "At 2 evaluations: the leader is ddim with FID 1.700 (1.452 to 1.948, over 3 fresh blocks)."
        in words
    )
    assert "Worse: ddpm-small (+1.000; +1.000 to +1.000)." in words
    assert "Of 4 questions, the leaders of 4 were drawn again on fresh blocks" in said(run, CHANCE)


def test_what_is_not_separated_is_said_and_listed(finished: StudyRun) -> None:
    run = made(finished, by_sampler(1.0, 1.02))
    words = said(run, WHICH_SAMPLER)
    assert (
        "ddim leads at 2 and 3 evaluations (FID 1.500 and 1.333), not separated from the other"
        in words
    )
    assert "Not separated from it: ddpm-small (+0.020; −0.008 to +0.048)." in words
    pairs = {
        (each.question, each.other.first.setting.sampler, each.other.first.setting.steps)
        for each in unresolved(analysed(run))
    }
    assert {
        ("which sampler at 2 evaluations", "ddpm-small", 2),
        ("which sampler at 3 evaluations", "ddpm-small", 3),
        ("which setting", "ddpm-small", 3),
    } <= pairs
    assert not any(question.startswith("how many steps") for question, _, _ in pairs)


def test_without_an_error_nothing_is_separated(finished: StudyRun) -> None:
    run = made(finished, by_sampler(1.0, 9.0), error=None)
    words = said(run, WHICH_SAMPLER)
    assert "(FID 1.500 and 1.333), not separated from the other" in words
    assert "ddpm-small (+8.000, of no known error)" in words
    assert "separated from all others" not in words
    assert "with most_blocks = 4 a study draws its leaders again." in said(run, CHANCE)


def test_a_leader_of_chance_is_overtaken(finished: StudyRun) -> None:
    def figures(setting: Setting, block: int) -> dict[str, float]:
        lucky = setting.sampler == "ddim" and block == 0
        return {"fid": (1.0 if lucky else 3.0 if setting.sampler == "ddim" else 2.0) + 0.01 * block}

    words = said(made(finished, figures, blocks=4), WHICH_SAMPLER)
    assert "ddim leads at 2 evaluations (FID 3.020), but is overtaken on fresh blocks" in words
    assert "overtaken by ddpm-small (−1.000; −1.000 to −1.000)" in words


def test_samplers_that_change_places_are_named(finished: StudyRun) -> None:
    def figures(setting: Setting, block: int) -> dict[str, float]:
        return {"fid": 2.0 + (setting.sampler == "ddim") * (1.0 if setting.steps == 2 else -1.0)}

    words = said(made(finished, figures), WHICH_SAMPLER)
    assert (
        "Which sampler is better depends on the evaluations: ddpm-small is better than ddim at 2 "
        "evaluations, and worse at 3 evaluations." in words
    )


def test_steps_that_one_sampler_needs_and_another_does_not(finished: StudyRun) -> None:
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


def test_one_separated_from_its_best_and_one_not_are_no_difference(finished: StudyRun) -> None:
    def figures(setting: Setting, block: int) -> dict[str, float]:
        at_two = 0.03 if setting.sampler == "ddpm-small" else 0.02  # and 0.028 is what separates
        return {"fid": 1.0 + (at_two if setting.steps == 2 else 0.0)}

    words = said(made(finished, figures), HOW_MANY_STEPS)
    assert "No sampler is shown to need more steps than another:" in words
    equal = said(made(finished, by_sampler(1.0, 2.0)), HOW_MANY_STEPS)
    assert "No sampler is shown to need more steps than another:" in equal
    unknown = said(made(finished, figures, error=None), HOW_MANY_STEPS)
    assert "No sampler is shown to need more steps than another:" in unknown


def test_two_fresh_blocks_have_the_errors_within_them(finished: StudyRun) -> None:
    words = said(made(finished, by_sampler(1.0, 2.0), blocks=3), WHICH_SAMPLER)
    # 1.96 * 0.01 / sqrt(2), and not Student's t of two blocks, 12.7 * 0.05.
    assert "with FID 1.650 (1.636 to 1.664, over 2 fresh blocks)." in words


def test_metrics_that_disagree_about_the_weight(finished: StudyRun) -> None:
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


def test_consistency_is_no_merit_beyond_that_of_real_images(finished: StudyRun) -> None:
    run = made(finished, of_weight(fid=0.5, consistency=0.02), blocks=3)

    def with_real(share: float) -> StudyRun:
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
    assert "Their preferred weight is separated from FID's by consistency." in less
    assert "best-looking" not in less
    (chart,) = (
        each for each in weight_charts(analysed(with_real(0.9))) if "consistency" in each.name
    )
    assert chart.note.startswith("The nearest to real images is best.")


def test_metrics_that_agree_about_the_weight(finished: StudyRun) -> None:
    words = said(made(finished, of_weight(fid=0.5, precision=-0.2, recall=-0.2)), WHICH_WEIGHT)
    assert "All metrics agree on the first block: the best is w = 0 by FID, precision, rec" in words
    assert "do not agree" not in words
    flat = said(made(finished, of_weight(fid=0.0, precision=0.0)), WHICH_WEIGHT)
    assert "Too few metrics prefer any weight" in flat


def test_a_disagreement_that_no_error_is_known_of_is_not_claimed(finished: StudyRun) -> None:
    words = said(made(finished, of_weight(fid=0.5, precision=0.2), error=None), WHICH_WEIGHT)
    assert "The metrics differ, but no difference is shown to be more than chance." in words
    assert "do not agree" not in words
    assert "best-looking" not in words


def test_a_study_of_one_data_set_says_that_it_does_not_tell(finished: StudyRun) -> None:
    words = said(finished, HARDER_DATA)
    assert "This study does not tell: all its models make images of fashion-mnist." in words
    assert "underone study COPY.toml" in words


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
def test_extractors_agree_or_not(finished: StudyRun, sign: int, correlation: str) -> None:
    run = made(finished, by_sampler(1.0, 2.0))
    for cell, result in run.known.items():
        first, second = result.measurements
        fid = Figure(value=5 + sign * first.fid, error=0.01)
        other = second.model_copy(update={"figures": {"fid": fid}})
        run.known[cell] = result.model_copy(update={"measurements": (first, other)})
    (part,) = extractor_findings(analysed(run))
    words = " ".join(part.sentences)
    if sign == 1:
        assert "All extractors put ddim, 3 steps first." in words
        assert "put all 5 settings in the same order" in words
    else:
        assert "Extractors do not agree on the best: on the first block" in words
        assert "transformer each separate their own best from the other's." in words
        assert f"rank correlation {correlation} over 5 settings" in words


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
    (table,) = model_tables(analysed(run))
    assert [(row[0], row[1], row[5], row[2].split()[0]) for row in table.rows] == [
        (str(guided), "ddim, 2 steps, w = 1", "balanced", "0.500"),
        (str(guided), "ddim, 2 steps", "balanced", "1.000"),
        (str(classless), "ddim, 2 steps", "none", "4.000"),
        (str(plain), "ddim, 2 steps", "balanced", "5.000"),
        (str(guided), "ddim, 2 steps, w = −1", "none", "6.000"),
    ]
    assert [row[3] for row in table.rows] == ["× 1", "× 2", "× 8", "× 10", "× 12"]


def test_a_study_of_one_model_does_not_ask_which(finished: StudyRun) -> None:
    assert not list(which_model(analysed(finished)))
    assert not model_tables(analysed(finished))


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
    same = " ".join(on_other_data(analysed(known), [analysed(known)]))
    assert "The same sampler leads on fashion-mnist and fashion-mnist: ddim at 1 " in same
