"""Whether studies of other data give the same answers."""

from collections.abc import Iterator, Sequence

from underone.data import DATASET_NAMES
from underone.generation import Setting
from underone.study.analysis import Analysis, Stratum
from underone.study.answers import Answer
from underone.study.contest import Factor
from underone.study.definition import shipped_studies
from underone.study.measures import FID
from underone.study.report.agreement import rank_correlation
from underone.study.report.sentences import Title
from underone.study.run import StudyRun
from underone.study.words import cost_title, listed, sampler_title, weight_title

_LEAST = 3


def data_of(run: StudyRun) -> str:
    """The data whose images a study's models make."""
    return run.bench.yardsticks[0].reference.origin.data


def not_measured(runs: Sequence[StudyRun]) -> str:
    """A sentence naming the data sets whose shipped studies none of these runs covers; or ""."""
    measured = {data_of(run) for run in runs}
    if not measured & set(DATASET_NAMES):
        return ""  # a user's own images are not an easier case of these
    missing = [name for name in DATASET_NAMES if name in {*shipped_studies()} - measured]
    if not missing:
        return ""
    commands = listed([f"`underone study {name}`" for name in missing])
    return (
        f"Nothing here was measured on {' or '.join(missing)}: {commands} "
        f"{'asks' if len(missing) == 1 else 'ask'} such questions."
    )


def on_other_data(analysis: Analysis, others: Sequence[Analysis]) -> Iterator[str]:
    """How the answers of studies of other data compare with this one's, in sentences.

    Each study is represented by its first stratum.
    """
    here, mine = data_of(analysis.run), analysis.strata[0]
    for other in others:
        there, theirs = data_of(other.run), other.strata[0]
        yield _order(here, there, _figures(mine), _figures(theirs))
        yield from _samplers(here, there, _leaders(mine), _leaders(theirs))
        yield from _weights(here, there, _preferred(mine), _preferred(theirs))


def _figures(stratum: Stratum) -> dict[Setting, float]:
    """The FID of every setting on the first block."""
    return {each.first.setting: each.first.fid for each in stratum.asked}


def _order(here: str, there: str, mine: dict[Setting, float], theirs: dict[Setting, float]) -> str:
    common = [setting for setting in mine if setting in theirs]
    correlation = (
        rank_correlation([mine[s] for s in common], [theirs[s] for s in common])
        if len(common) >= _LEAST
        else None
    )
    if correlation is None:
        return f"{here} and {there}: too few settings were measured on both to compare their order."
    return (
        f"{here} and {there}: over the {len(common)} settings that were measured on both, the rank "
        f"correlation of their FIDs is {FID.text(correlation)}."
    )


def _leaders(stratum: Stratum) -> dict[str, Answer]:
    """How samplers stand at each number of evaluations, fewest first."""
    order = sorted(stratum.answers_on(Factor.SAMPLER), key=lambda each: each.leader.nfe)
    return {cost_title(each.leader.first.setting): each for each in order}


def _samplers(
    here: str, there: str, mine: dict[str, Answer], theirs: dict[str, Answer]
) -> Iterator[str]:
    same, differ, unclear, alone = [], [], [], []
    for cost in (each for each in mine if each in theirs):
        names = [sampler_title(found[cost].leader.first.setting) for found in (mine, theirs)]
        if missing := [
            f"at {cost} {name} leads on {one}, and was not measured on {other}"
            for name, found, one, other in (
                (names[0], theirs[cost], here, there),
                (names[1], mine[cost], there, here),
            )
            if name not in _titles(found, sampler_title)
        ]:
            alone += missing
            continue
        overtaken = any(one.leads_now for f in (mine, theirs) for one in f[cost].standings)
        if names[0] == names[1] and not overtaken:
            settled = all(found[cost].settled for found in (mine, theirs))
            firm = " (separated from all others on both)" if settled else ""
            same.append(f"{names[0]} at {cost}{firm}")
        elif _surely_behind(names[1], mine[cost], sampler_title) and _surely_behind(
            names[0], theirs[cost], sampler_title
        ):
            differ.append(f"at {cost} {names[0]} on {here}, {names[1]} on {there}")
        else:
            unclear.append(f"at {cost} {names[0]} on {here}, {names[1]} on {there}")
    if same:
        yield f"The same sampler leads on {here} and {there}: {listed(same)}."
    if differ:
        yield f"Different samplers lead, separated on both: {'; '.join(differ)}."
    if unclear:
        yield (
            "Different samplers lead, but each is not shown to be worse where the other does, or "
            f"one is overtaken on fresh blocks: {'; '.join(unclear)}."
        )
    if alone:
        yield f"Leaders measured on only one data set cannot be compared: {'; '.join(alone)}."


def _titles(found: Answer, title: Title) -> set[str]:
    """The titles of a contest's entries."""
    return {title(one.first.setting) for one in found.standings}


def _surely_behind(name: str, found: Answer, title: Title) -> bool:
    """Whether the entry of this title is separated from a contest's leader, and worse."""
    return any(one.trails and title(one.first.setting) == name for one in found.standings)


def _preferred(stratum: Stratum) -> dict[str, Answer]:
    """The contests of weights, by the title of their setting."""
    return {each.unguided_title: each for each in stratum.answers_on(Factor.WEIGHT)}


def _weights(
    here: str, there: str, mine: dict[str, Answer], theirs: dict[str, Answer]
) -> Iterator[str]:
    for of in mine:
        if of not in theirs:
            yield f"Of {of}, no weights were measured on {there}."
            continue
        one, other = (weight_title(found[of].leader.first.setting) for found in (mine, theirs))
        if one == other:
            yield f"Of {of}, FID prefers {one} on both."
            continue
        sure = _surely_behind(other, mine[of], weight_title) and _surely_behind(
            one, theirs[of], weight_title
        )
        how = "separated on both" if sure else "a difference that may be chance"
        yield f"Of {of}, FID prefers {one} on {here} and {other} on {there}, {how}."
