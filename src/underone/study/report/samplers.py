"""Which sampler, and how many steps: the answers of a study's contests."""

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations

from underone.generation import TUNED
from underone.metrics.uncertainty import CONFIDENCE, Comparison, ConfidenceInterval
from underone.study.analysis import Analysis
from underone.study.answers import Answer, Standing, answer
from underone.study.contest import Contest, Factor
from underone.study.measures import FID, mean_text
from underone.study.report.sentences import (
    NOT_KNOWN_YET,
    Part,
    how_firmly,
    standing_text,
)
from underone.study.run import StudyRun
from underone.study.words import (
    cost_title,
    listed,
    sampler_title,
    setting_title,
    steps_title,
)


def which_sampler(analysis: Analysis) -> Iterator[Part]:
    """Which sampler leads at each number of evaluations, and which setting overall."""
    for stratum in analysis.strata:
        said = []
        group = sorted(stratum.answers_on(Factor.SAMPLER), key=lambda each: each.leader.nfe)
        overall = stratum.answers_on(Factor.SETTING)
        if group:
            by_cost = _leaders_by_cost(_worth_their_cost(group))
            said.append(f"{'; '.join((*by_cost, *_leaders(overall)))}.")
        for each in group:
            cost = cost_title(each.leader.first.setting)
            said.append(f"At {cost}: {standing_text(each, sampler_title)}")
        said += _crossings(group)
        said += [f"Of all settings: {standing_text(each, setting_title)}" for each in overall]
        if said:
            yield Part(stratum.title, tuple(said))
    asked = analysis.answers_on(Factor.SAMPLER)
    if not asked and analysis.due:
        yield Part("", (NOT_KNOWN_YET,))
    elif not asked:
        yield Part(
            "",
            (
                "This study does not compare samplers: that takes two of them at the same number "
                "of evaluations, the same number of samples and w = 0.",
            ),
        )


def _worth_their_cost(group: Sequence[Answer]) -> list[Answer]:
    """The contests whose leader is better than those of all cheaper contests."""
    found: list[Answer] = []
    for each in group:
        if all(each.leader.first.fid < cheaper.leader.first.fid for cheaper in found):
            found.append(each)
    return found


def _leaders_by_cost(group: Sequence[Answer]) -> Iterator[str]:
    """For each leader, the numbers of evaluations at which it leads, and its FIDs."""
    clauses: dict[tuple[str, str], list[Answer]] = {}
    for each in group:
        name = sampler_title(each.leader.first.setting)
        clauses.setdefault((name, how_firmly(each)), []).append(each)
    for (name, how), found in clauses.items():
        # "5 evaluations", "10 evaluations": say the noun once.
        *others, last = [cost_title(each.leader.first.setting) for each in found]
        costs = listed([*(cost.partition(" ")[0] for cost in others), last])
        yield f"{name} leads at {costs} (FID {listed([_fid(each) for each in found])}), {how}"


def _leaders(found: Sequence[Answer]) -> Iterator[str]:
    """Which setting leads among all."""
    for each in found:
        name = setting_title(each.leader.first.setting)
        yield f"of all settings {name} leads (FID {_fid(each)}), {how_firmly(each)}"


def _fid(each: Answer) -> str:
    return mean_text(FID, each.leader)


def _crossings(group: Sequence[Answer]) -> Iterator[str]:
    """Two numbers of evaluations at which two samplers swap places, separated at both."""
    for few, many in combinations(group, 2):
        if _beats(few, many.leader) and _beats(many, few.leader):
            settings = few.leader.first.setting, many.leader.first.setting
            names = [sampler_title(setting) for setting in settings]
            at = [cost_title(setting) for setting in settings]
            yield (
                f"Which sampler is better depends on the evaluations: {names[0]} is better than "
                f"{names[1]} at {at[0]}, and worse at {at[1]}."
            )
            return


def _beats(each: Answer, other: Standing) -> bool:
    """Whether a contest's leader is separated from, and better than, the sampler of `other`."""
    name = sampler_title(other.first.setting)
    return any(one.trails and sampler_title(one.first.setting) == name for one in each.standings)


def how_many_steps(analysis: Analysis) -> Iterator[Part]:
    """How each sampler's numbers of steps compare, and whether samplers differ in that."""
    for stratum in analysis.strata:
        mine = stratum.step_answers
        said = [_enough(each) for each in mine]
        if len(mine) > 1:
            said.insert(0, _depends(analysis.run, mine))
        if said:
            yield Part(stratum.title, tuple(said))
    found = analysis.step_answers
    if not found and analysis.due:
        yield Part("", (NOT_KNOWN_YET,))
    elif not found:
        yield Part(
            "",
            (
                "This study does not tell: that takes a sampler at two numbers of steps, the same "
                "number of samples and w = 0.",
            ),
        )


def fewest(each: Answer) -> int:
    """The fewest steps that are not known to be worse than the leader."""
    return min(one.first.setting.steps for one in each.standings if not one.trails)


def _enough(each: Answer) -> str:
    """How a sampler's numbers of steps compare."""
    every = [one.first.setting.steps for one in each.standings]
    few = fewest(each)
    said = f"{_sampler(each)}: {standing_text(each, lambda setting: steps_title(setting.steps))}"
    if few < each.leader.first.setting.steps:
        said += f" The fewest that are not known to be worse: {few}."
    most = max(every) == each.leader.first.setting.steps
    return said + (" None with more steps is measured." if most else "")


def _depends(run: StudyRun, mine: Sequence[Answer]) -> str:
    """Whether one sampler is further behind its best than another at the same number of steps.

    Two samplers are compared over the steps that both were measured at. They differ where the
    intervals of how far each is behind do not overlap: that one is separated from its best and the
    other is not does not show it. The pair that is furthest apart is named. Tuned samplers are left
    out, being a different sampler at each number of steps.
    """
    apart: list[tuple[float, str]] = []
    fixed = [each for each in mine if each.leader.first.setting.sampler != TUNED]
    for ours, theirs in permutations(fixed, 2):
        common = _steps_of(ours) & _steps_of(theirs)
        if len(common) < 2:
            continue
        near, far = (_behind(run, each, common) for each in (ours, theirs))
        for steps in common & near.keys() & far.keys():
            gap = far[steps].interval.low - near[steps].interval.high
            among = listed([str(number) for number in sorted(common)])
            if gap > 0:
                said = (
                    f"The number of steps depends on the sampler: at {steps_title(steps)} "
                    f"{_sampler(theirs)} is further behind its best of {among} "
                    f"steps than {_sampler(ours)} is ({FID.text(far[steps].difference)} against "
                    f"{FID.text(near[steps].difference)})."
                )
                apart.append((gap, said))
    if apart:
        return max(apart)[1]
    return (
        "No sampler is shown to need more steps than another: none is further behind its own best "
        "at the same number of steps by more than chance may do."
    )


def _sampler(each: Answer) -> str:
    """The title of the sampler whose numbers of steps compete."""
    return sampler_title(each.leader.first.setting)


def _steps_of(each: Answer) -> set[int]:
    return {one.first.setting.steps for one in each.standings}


def _behind(run: StudyRun, each: Answer, steps: set[int]) -> dict[int, Comparison]:
    """By number of steps, how far a sampler is behind its best of `steps`, where known."""
    entries = tuple(one.entry for one in each.standings if one.first.setting.steps in steps)
    found = answer(Contest(each.factor, each.question, entries), run.known, run.plan.fresh)
    behind = {
        one.first.setting.steps: one.behind for one in found.standings[1:] if one.behind is not None
    }
    # The best itself: the interval reaches as far as others may be ahead of it.
    high = max([0.0, *(-one.interval.low for one in behind.values())])
    best = Comparison(0.0, ConfidenceInterval(0.0, high), CONFIDENCE, 1)
    complete = len(behind) == len(entries) - 1
    return behind | ({found.leader.first.setting.steps: best} if complete else {})
