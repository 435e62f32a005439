"""Contests, on results made by hand: who leads, and who is told apart."""

from dataclasses import replace

import pytest

from studies import made_up
from underone.study.answers import answer
from underone.study.bench import Bench
from underone.study.cell import Cell, CellResult
from underone.study.contest import Contest, Factor, contests, difference
from underone.study.run import StudyRun


def test_two_settings_are_told_apart_as_far_as_their_blocks_go(
    bench: Bench, done: StudyRun
) -> None:
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


def test_the_leader_is_chosen_on_one_block_and_reported_on_others(
    bench: Bench, done: StudyRun
) -> None:
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


def test_only_those_not_separated_contend_for_another_block(bench: Bench, done: StudyRun) -> None:
    a, b, c = done.entries[:3]
    known = {
        entry.at(0): made_up(bench, entry.at(0), {"fid": fid})
        for entry, fid in ((a, 1.00), (b, 1.02), (c, 1.5))
    }
    contest = Contest(Factor.SETTING, "which", (a, b, c))
    assert contest.contenders(known, [0], most=4) == [a, b]
    assert contest.contenders(known, [0], most=1) == [a]
    assert contest.contenders({}, [0], most=4) == []


def test_settings_compete_only_at_one_number_of_samples_and_with_labels(done: StudyRun) -> None:
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
