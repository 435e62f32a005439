"""Which model: the best settings of each side by side, if a study has several."""

from collections.abc import Hashable, Iterable, Iterator

from underone.study.analysis import Analysis
from underone.study.answers import Answer, Standing, answer
from underone.study.contest import Contest, Factor
from underone.study.measures import FID, mean_text
from underone.study.report.sentences import Part, behind_text, how_firmly
from underone.study.words import setting_title


def which_model(analysis: Analysis) -> Iterator[Part]:
    """Which model's best setting has the lowest FID, with labels and without.

    Nothing where a study has one model, or no two that were measured under the same protocol.
    """
    several = len({each.samples for each in analysis.run.plan.slices}) > 1
    for each in model_answers(analysis):
        protocol = each.leader.first.measurement.protocol
        where = "without classes" if protocol.labels == "none" else f"{protocol.labels} labels"
        where += f", {protocol.count:,} samples" if several else ""
        lowest = f"{_title(each.leader)} has the lowest FID, {mean_text(FID, each.leader)}"
        others = (_behind(other, each.leader) for other in each.standings[1:])
        yield Part(where, (f"{lowest}, {how_firmly(each)}.", *others))


def model_answers(analysis: Analysis) -> list[Answer]:
    """Contests of each model's best setting on the first block, one for each protocol."""
    groups: dict[Hashable, list[Standing]] = {}
    for each in analysis.standings:
        protocol = each.first.measurement.protocol
        groups.setdefault((protocol.count, protocol.labels), []).append(each)
    contests = (
        Contest(Factor.SETTING, "which model", tuple(each.entry for each in _best_of(group)))
        for group in groups.values()
    )
    run = analysis.run
    found = (answer(contest, run.known, run.plan.fresh) for contest in contests)
    return [each for each in found if len(each.standings) > 1]


def _best_of(group: Iterable[Standing]) -> list[Standing]:
    found: dict[str, Standing] = {}
    for each in sorted(group, key=lambda each: each.first.fid):
        found.setdefault(each.first.model, each)
    return list(found.values())


def _behind(other: Standing, leader: Standing) -> str:
    ratio = "" if leader.fid <= 0 else f", {other.fid / leader.fid:.3g} times as much"
    return f"{_title(other)}: {mean_text(FID, other)}{ratio} ({behind_text(other, leader)})."


def _title(standing: Standing) -> str:
    return f"{standing.first.model} by {setting_title(standing.first.setting)}"
