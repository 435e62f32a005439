"""Which guidance weight, and whether FID can be trusted to choose it."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from underone.study.analysis import Analysis
from underone.study.answers import Answer, Standing
from underone.study.contest import Factor
from underone.study.measures import (
    FID,
    MEASURES,
    PRECISION,
    Measure,
    common,
    compared,
    mean_text,
    yardstick_fids,
)
from underone.study.report.sentences import (
    NOT_KNOWN_YET,
    Part,
    difference_text,
    standing_text,
)
from underone.study.words import listed, weight_title


@dataclass(frozen=True)
class Preference:
    """The weight that a measure prefers on the first block."""

    measure: Measure
    best: Standing

    def against(self, other: Standing) -> bool | None:
        """Whether another weight is separated from it and worse; None where that is not known."""
        found = compared(self.measure, other, self.best)
        if found is None:
            return None
        return found.separates and self.measure.shortfall(other) > self.measure.shortfall(self.best)


def preferences(among: Sequence[Standing], measures: Sequence[Measure]) -> list[Preference]:
    """The weight that each measure prefers, of those that all have and that is not equal for all.

    Among equally good weights it is the one nearest to FID's.
    """
    by_fid = FID.best(among).first.setting.guidance
    found = []
    for measure in (each for each in measures if each.is_known_of(among)):
        best = measure.equally_best(among)
        if len(best) < len(among):
            nearest = min(best, key=lambda each: abs(each.first.setting.guidance - by_fid))
            found.append(Preference(measure, nearest))
    return found


def which_weight(analysis: Analysis) -> Iterator[Part]:
    """For each contest of weights: whether the metrics agree, and which weight leads by FID."""
    every = (*MEASURES, *yardstick_fids(analysis.run)[1:])
    for stratum in analysis.strata:
        for each in stratum.answers_on(Factor.WEIGHT):
            of = each.unguided_title
            measures = preferences(each.standings, every)
            verdict, *rest = _agreement(measures)
            by_fid = f"By FID: {standing_text(each, weight_title)}"
            title = ", ".join(filter(None, (stratum.title, of)))
            said = (f"{_by_fid(each)} {verdict}", by_fid, *rest, *_guided_steps(each))
            yield Part(title, said)
    found = analysis.answers_on(Factor.WEIGHT)
    if not found and analysis.due:
        yield Part("", (NOT_KNOWN_YET,))
    elif not found:
        yield Part(
            "",
            (
                "This study does not tell: that takes a setting at two guidance weights. "
                "guidance = [0, 0.5, 1, 2, 4] in one of its slices would, for a model that was "
                "trained with label dropout.",
            ),
        )
    if any(not one.first.setting.uses_labels for one in analysis.standings):
        yield Part(
            "",
            (
                "w = −1 asks for no class: its samples have random classes, so it is not compared "
                "with other weights.",
            ),
        )


def _by_fid(each: Answer) -> str:
    """The weight that FID prefers, and how the others compare with it."""
    best = weight_title(each.leader.first.setting)
    level = listed([weight_title(one.first.setting) for one in each.open])
    worse = sum(one.trails for one in each.standings[1:])
    not_separated = f", not separated from {level}" if level else ""
    others = f", and {worse} {'is' if worse == 1 else 'are'} worse" if worse else ""
    return f"By FID {best} leads ({mean_text(FID, each.leader)}){not_separated}{others}."


def _guided_steps(each: Answer) -> Iterator[str]:
    """How many of the evaluations are guided, for each setting with an interval."""
    for setting, nfe in {
        replace(one.first.setting, guidance=1.0): one.nfe
        for one in each.standings
        if one.first.setting.interval is not None
    }.items():
        if (declared := setting.declared_evaluations) is not None:
            low, high = setting.interval or (0.0, 0.0)
            yield (
                f"Within ({low:g}, {high:g}] of sigma / alpha {nfe - declared:g} of {declared} "
                "evaluations are guided."
            )


def _separated_from_fids(groups: Mapping[bool | None, Sequence[Preference]]) -> str:
    """Which measures separate the weight they prefer from FID's, which not, and which unknown."""
    names = {firm: listed([each.measure.title for each in group]) for firm, group in groups.items()}
    parts = [f"Their preferred weight is separated from FID's by {names[True] or 'none'}"]
    if names[False] and names[True]:
        parts.append(f"not by {names[False]}")
    if names[None]:
        parts.append(f"no error is known of {names[None]}")
    return "; ".join(parts)


def _agreement(found: Sequence[Preference]) -> Iterator[str]:
    """Whether the measures prefer the same weight, and what they trade where they do not."""
    if len(found) < 2 or found[0].measure != FID:
        yield "Too few metrics prefer any weight to say whether FID can be trusted here."
        return
    fid = found[0].best
    by_weight: dict[str, list[str]] = {}
    for each in sorted(found, key=lambda one: one.best.first.setting.guidance):
        by_weight.setdefault(weight_title(each.best.first.setting), []).append(each.measure.title)
    said = "; ".join(f"{weight} by {listed(names)}" for weight, names in by_weight.items())
    rivals = [each for each in found if each.best is not fid]
    if not rivals:
        yield f"All metrics agree on the first block: the best is {said}."
        return
    groups: dict[bool | None, list[Preference]] = {True: [], False: [], None: []}
    for each in rivals:
        groups[each.against(fid)].append(each)
    firm = groups[True]
    verdict = (
        "The metrics do not agree"
        if firm
        else "The metrics differ, but no difference is shown to be more than chance"
    )
    yield f"{verdict}. On the first block the best is {said}. {_separated_from_fids(groups)}."
    # Guidance is used for the looks of images, which FID alone does not show.
    chosen = min(rivals, key=lambda each: (each not in firm, each.measure != PRECISION))
    yield _trade(fid, chosen.best, chosen.measure)
    if firm and chosen.measure == PRECISION:
        yield (
            "So FID does not say which weight gives the best-looking images: it weighs looks and "
            "diversity together. Read it beside precision and recall, and look at the pictures."
        )


def _trade(fid_best: Standing, other: Standing, measure: Measure) -> str:
    """What moving from FID's weight to another measure's does to both."""
    names = [weight_title(one.first.setting) for one in (fid_best, other)]
    both = " and ".join(_moved(each, fid_best, other) for each in dict.fromkeys((FID, measure)))
    return (
        f"From {names[0]}, preferred by FID, to {names[1]}, preferred by {measure.title}, {both}."
    )


def _moved(measure: Measure, start: Standing, to: Standing) -> str:
    """How a measure changes, over the blocks in which both are compared."""
    before, after = (
        measure.text(statistics.fmean(figure.value for figure in side))
        for side in common(measure, start, to)
    )
    return f"{measure.title} goes from {before} to {after} ({_change(measure, to, start)})"


def _change(measure: Measure, to: Standing, start: Standing) -> str:
    found = compared(measure, to, start)
    if found is None:
        return "no error is known"
    how = "separated" if found.separates else "not separated"
    return f"{difference_text(measure, found)}, {how}"
