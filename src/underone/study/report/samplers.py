"""Which sampler, and how many steps: what a study's contests say."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, permutations

from underone.generation import TUNED, Setting
from underone.metrics.uncertainty import CONFIDENCE, Comparison, Interval
from underone.study.answers import Answer, Standing, answer, answers
from underone.study.contest import Contest, Factor
from underone.study.measures import FID, Stratum, mean_text, strata
from underone.study.report.sentences import (
    NOT_KNOWN_YET,
    Part,
    how_firmly,
    standing_text,
    stratum_title,
    within,
)
from underone.study.run import Run
from underone.study.words import (
    cost_title,
    listed,
    sampler_title,
    setting_title,
    steps_title,
)


def which_sampler(run: Run) -> Iterator[Part]:
    """Who leads at each number of evaluations, and of all settings."""
    asked = [each for each in answers(run) if each.factor is Factor.SAMPLER]
    every = [each for each in answers(run) if each.factor is Factor.SETTING]
    for stratum in strata(run):
        said = []
        group = sorted(within(stratum, asked), key=lambda each: each.leader.nfe)
        overall = within(stratum, every)
        if group:
            by_cost = _leaders_by_cost(_worth_their_cost(group))
            said.append(f"{'; '.join((*by_cost, *_leaders(overall)))}.")
        for each in group:
            cost = cost_title(each.leader.first.setting)
            said.append(f"At {cost}: {standing_text(each, sampler_title)}")
        said += _crossings(group)
        said += [f"Of all settings: {standing_text(each, setting_title)}" for each in overall]
        if said:
            yield Part(stratum_title(run, stratum), tuple(said))
    if not asked and run.due():
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
    """The contests whose leaders are better than those of all cheaper ones."""
    found: list[Answer] = []
    for each in group:
        if all(each.leader.first.fid < cheaper.leader.first.fid for cheaper in found):
            found.append(each)
    return found


def _leaders_by_cost(group: Sequence[Answer]) -> Iterator[str]:
    """Who leads at which numbers of evaluations, with which FIDs."""
    clauses: dict[tuple[str, str], list[Answer]] = {}
    for each in group:
        name = sampler_title(each.leader.first.setting)
        clauses.setdefault((name, how_firmly(each)), []).append(each)
    for (name, how), found in clauses.items():
        # "5 evaluations", "10 evaluations": the noun once.
        *others, last = [cost_title(each.leader.first.setting) for each in found]
        costs = listed([*(cost.partition(" ")[0] for cost in others), last])
        yield f"{name} leads at {costs} (FID {listed([_fid(each) for each in found])}), {how}"


def _leaders(found: Sequence[Answer]) -> Iterator[str]:
    """Who leads among all settings."""
    for each in found:
        name = setting_title(each.leader.first.setting)
        yield f"of all settings {name} leads (FID {_fid(each)}), {how_firmly(each)}"


def _fid(each: Answer) -> str:
    return mean_text(FID, each.leader)


def _crossings(group: Sequence[Answer]) -> Iterator[str]:
    """Two numbers of evaluations at which two samplers beat each other, separated both times."""
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
    """Whether the leader of a contest is separated from the same sampler as that of `other`."""
    name = sampler_title(other.first.setting)
    return any(one.trails and sampler_title(one.first.setting) == name for one in each.standings)


def how_many_steps(run: Run) -> Iterator[Part]:
    """How each sampler's numbers of steps stand, and whether samplers differ in that."""
    found = step_answers(run)
    for stratum in strata(run):
        mine = [(name, each) for owner, name, each in found if owner == stratum]
        said = [_enough(name, each) for name, each in mine]
        if len(mine) > 1:
            said.insert(0, _depends(run, mine))
        if said:
            yield Part(stratum_title(run, stratum), tuple(said))
    if not found and run.due():
        yield Part("", (NOT_KNOWN_YET,))
    elif not found:
        yield Part(
            "",
            (
                "This study does not tell: that takes a sampler at two numbers of steps, the same "
                "number of samples and w = 0.",
            ),
        )


def step_answers(run: Run) -> list[tuple[Stratum, str, Answer]]:
    """Of each stratum and sampler at w = 0: how its numbers of steps stand to its best."""
    found = []
    for stratum in strata(run):
        groups: dict[Setting, list[Standing]] = {}
        for each in stratum.asked:
            setting = each.first.setting
            if setting.guidance == 0:
                groups.setdefault(replace(setting, steps=1), []).append(each)
        for setting, members in groups.items():
            if len(members) > 1:
                name = sampler_title(setting)
                contest = Contest(
                    Factor.SAMPLER,
                    f"how many steps for {name}",
                    tuple(each.entry for each in members),
                )
                found.append((stratum, name, answer(contest, run.known, run.plan.fresh)))
    return found


def fewest(each: Answer) -> int:
    """The fewest steps that are not separated from the best."""
    return min(one.first.setting.steps for one in each.standings if not one.trails)


def _enough(name: str, each: Answer) -> str:
    """How a sampler's numbers of steps stand."""
    every = [one.first.setting.steps for one in each.standings]
    few = fewest(each)
    said = f"{name}: {standing_text(each, lambda setting: steps_title(setting.steps))}"
    if few < each.leader.first.setting.steps:
        said += f" The fewest that are not known to be worse: {few}."
    most = max(every) == each.leader.first.setting.steps
    return said + (" None with more steps is measured." if most else "")


def _depends(run: Run, mine: Sequence[tuple[str, Answer]]) -> str:
    """Whether one sampler is further from its best than another at the same number of steps.

    Of two samplers those steps count that both were measured at; the pair that is furthest apart is
    named. It is shown to be where the intervals of how far both are behind exclude each other: that
    one is separated from its best and the other is not, is no difference between them. A tuned
    sampler is another one at each number of steps.
    """
    apart: list[tuple[float, str]] = []
    fixed = [(name, each) for name, each in mine if each.leader.first.setting.sampler != TUNED]
    for (one, ours), (other, theirs) in permutations(fixed, 2):
        common = _steps_of(ours) & _steps_of(theirs)
        if len(common) < 2:
            continue
        near, far = (_behind(run, each, common) for each in (ours, theirs))
        for steps in common & near.keys() & far.keys():
            gap = far[steps].interval.low - near[steps].interval.high
            among = listed([str(number) for number in sorted(common)])
            if gap > 0:
                said = (
                    f"So the number of steps depends on the sampler: at {steps_title(steps)} "
                    f"{other} is further behind its best of {among} "
                    f"steps than {one} is ({FID.text(far[steps].difference)} against "
                    f"{FID.text(near[steps].difference)})."
                )
                apart.append((gap, said))
    if apart:
        return max(apart)[1]
    return (
        "No sampler is shown to need more steps than another: none is further behind its own best "
        "at the same number of steps by more than chance may do."
    )


def _steps_of(each: Answer) -> set[int]:
    return {one.first.setting.steps for one in each.standings}


def _behind(run: Run, each: Answer, steps: set[int]) -> dict[int, Comparison]:
    """How far a sampler is behind its best of these steps at each of them, where that is known."""
    entries = tuple(one.entry for one in each.standings if one.first.setting.steps in steps)
    found = answer(Contest(each.factor, each.question, entries), run.known, run.plan.fresh)
    behind = {
        one.first.setting.steps: one.behind for one in found.standings[1:] if one.behind is not None
    }
    # The best itself: no more than the others may be ahead of it.
    high = max([0.0, *(-one.interval.low for one in behind.values())])
    best = Comparison(0.0, Interval(0.0, high), CONFIDENCE, 1)
    complete = len(behind) == len(entries) - 1
    return behind | ({found.leader.first.setting.steps: best} if complete else {})
