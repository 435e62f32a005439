"""Which guidance weight, and whether FID can be trusted about it."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from underone.metrics.uncertainty import Verdict
from underone.study.answers import Standing, answers
from underone.study.contest import Subject
from underone.study.report.measures import (
    CONSISTENCY,
    FID,
    MEASURES,
    PRECISION,
    Measure,
    common,
    compared,
    fields,
    told_apart,
    yardstick_fids,
)
from underone.study.report.sentences import (
    NOT_KNOWN_YET,
    Part,
    difference_text,
    field_place,
    standing_text,
    within,
)
from underone.study.run import Run
from underone.study.words import listed, weight_title


@dataclass(frozen=True)
class Preference:
    """The weight that a measure prefers on the first block."""

    measure: Measure
    best: Standing

    def rejects(self, other: Standing) -> bool:
        """Whether another weight is separated from it, and worse."""
        found = compared(self.measure, other, self.best)
        worse = Verdict.B_LOWER if self.measure.lower else Verdict.A_LOWER
        return found is not None and found.verdict is worse


def preferences(among: Sequence[Standing], measures: Sequence[Measure]) -> list[Preference]:
    """What each of the measures that all weights have prefers; none that is equal at all of them.

    Of weights that are equally best for a measure, it is the one nearest to FID's.
    """
    by_fid = FID.best(among).first.setting.guidance
    found = []
    for measure in (each for each in measures if each.known_of(among)):
        best = measure.equally_best(among)
        if len(best) < len(among):
            nearest = min(best, key=lambda each: abs(each.first.setting.guidance - by_fid))
            found.append(Preference(measure, nearest))
    return found


def which_weight(run: Run) -> Iterator[Part]:
    """Of each contest of weights: whether the metrics agree, and who leads by FID."""
    found = [each for each in answers(run) if each.subject is Subject.WEIGHT]
    for field in fields(run):
        for each in within(field, found):
            of = each.unguided
            measures = preferences(each.standings, (*MEASURES, *yardstick_fids(run)[1:]))
            gist, *rest = _trust(measures)
            by_fid = f"By FID: {standing_text(each, weight_title)}"
            title = ", ".join(filter(None, (field_place(run, field), of)))
            yield Part(title, (gist, by_fid, *rest))
    if not found and run.due():
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
    if any(not one.first.setting.uses_labels for field in fields(run) for one in field.standings):
        yield Part(
            "",
            (
                "w = −1 asks for no class: its samples' classes come as they may, so that it is "
                "shown, and compared with no other weight.",
            ),
        )


def _trust(found: Sequence[Preference]) -> Iterator[str]:
    """Whether the measures prefer the same weight, and what it costs where they do not."""
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
    firm = [each for each in rivals if each.rejects(fid)]
    verdict = (
        "The metrics do not agree"
        if firm
        else "The metrics differ, but no difference is shown to be more than chance"
    )
    named = listed([each.measure.title for each in firm])
    chance = "; the others may differ by chance" if len(firm) < len(rivals) else ""
    separated = f" Separated from FID's weight: {named}{chance}." if firm else ""
    yield f"{verdict}. On the first block the best is {said}.{separated}"
    # What guidance is asked for, and does not show in FID alone, first.
    order = {PRECISION: 0, CONSISTENCY: 1}
    chosen = min(rivals, key=lambda each: (each not in firm, order.get(each.measure, len(order))))
    yield _trade(fid, chosen.best, chosen.measure)
    if firm and chosen.measure == PRECISION:
        yield (
            "So FID does not say which weight gives the best-looking images: it weighs looks and "
            "diversity together. Read it beside precision and recall, and look at the pictures."
        )
    if firm and chosen.measure == CONSISTENCY:
        yield _of_the_class(fid)


def _of_the_class(fid_best: Standing) -> str:
    """What more consistency is worth."""
    here, real = CONSISTENCY.value(fid_best.first), CONSISTENCY.floor(fid_best.first)
    if real is not None and here >= real:
        return (
            f"At FID's weight consistency is that of real images already ({CONSISTENCY.text(here)} "
            f"against {CONSISTENCY.text(real)}): more of it is no merit."
        )
    return (
        "So more images are of the class that was asked for, which is not to say that they look "
        "better."
    )


def _trade(fid_best: Standing, other: Standing, measure: Measure) -> str:
    """What moving from FID's weight to another measure's does to both."""
    names = [weight_title(one.first.setting) for one in (fid_best, other)]
    both = " and ".join(_moved(each, fid_best, other) for each in dict.fromkeys((FID, measure)))
    return (
        f"From {names[0]}, preferred by FID, to {names[1]}, preferred by {measure.title}, {both}."
    )


def _moved(measure: Measure, start: Standing, to: Standing) -> str:
    """What a measure does, over the blocks that its change is of."""
    before, after = (
        measure.text(statistics.fmean(figure.value for figure in side))
        for side in common(measure, start, to)
    )
    return f"{measure.title} goes from {before} to {after} ({_change(measure, to, start)})"


def _change(measure: Measure, to: Standing, start: Standing) -> str:
    found = compared(measure, to, start)
    if found is None:
        return "no error is known"
    how = "separated" if told_apart(found) else "not separated"
    return f"{difference_text(measure, found)}, {how}"
