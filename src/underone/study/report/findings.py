"""The questions of a study, answered in words that claim no more than its samples show."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from underone.metrics.uncertainty import CONFIDENCE
from underone.study.analysis import Analysis
from underone.study.answers import Standing
from underone.study.cell import CellResult
from underone.study.measures import MEASURES
from underone.study.report.grids import where_steps_lie
from underone.study.report.models import which_model
from underone.study.report.other_data import data_of, on_other_data
from underone.study.report.samplers import how_many_steps, which_sampler
from underone.study.report.sentences import Part
from underone.study.report.weights import which_weight
from underone.study.run import StudyRun
from underone.study.words import listed

WHICH_SAMPLER = "Which sampler?"
HOW_MANY_STEPS = "How many steps, and does that depend on the sampler?"
WHERE_STEPS_LIE = "Does it matter where the steps lie?"
WHICH_WEIGHT = "Which guidance weight, and can FID be trusted about it?"
WHICH_MODEL = "Which model?"
HARDER_DATA = "Does that change on other data?"
CHANCE = "How sure is this?"


@dataclass(frozen=True)
class Finding:
    """A question and the study's answer."""

    question: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Unresolved:
    """A setting that the samples do not separate from the leader of a contest."""

    where: str
    question: str
    leader: Standing
    other: Standing


def findings(analysis: Analysis, beside: Sequence[Analysis] = ()) -> tuple[Finding, ...]:
    """What a study answers to its questions so far, and how sure that is.

    `beside` are studies of other data, with which the question about those is answered.
    """
    if not analysis.strata:
        return (_single(WHICH_SAMPLER, "No setting is measured yet."),)
    grids, models = where_steps_lie(analysis.run), tuple(which_model(analysis))
    return (
        Finding(WHICH_SAMPLER, tuple(which_sampler(analysis))),
        Finding(HOW_MANY_STEPS, tuple(how_many_steps(analysis))),
        *([Finding(WHERE_STEPS_LIE, tuple(grids))] if grids else []),
        Finding(WHICH_WEIGHT, tuple(which_weight(analysis))),
        *([Finding(WHICH_MODEL, models)] if models else []),
        _single(HARDER_DATA, *_harder_data(analysis, beside)),
        _single(CHANCE, *_chance(analysis)),
    )


def _single(question: str, *sentences: str) -> Finding:
    return Finding(question, (Part("", sentences),))


def unresolved(analysis: Analysis) -> list[Unresolved]:
    """Every leader of a contest with each setting that is not separated from it."""
    return [
        Unresolved(stratum.title, each.question, each.leader, other)
        for stratum in analysis.strata
        for each in (*stratum.answers, *stratum.step_answers)
        for other in each.open
    ]


def _harder_data(analysis: Analysis, beside: Sequence[Analysis]) -> Iterator[str]:
    if beside:
        yield from on_other_data(analysis, beside)
        yield "The orders compare, the FIDs do not: they are against different references."
        return
    yield f"This study does not tell: all its models make images of {data_of(analysis.run)}."
    yield (
        'A study of other data would: set "model" and "references" in a copy of its .toml file, '
        'run "underone study COPY.toml", and then "underone report" with "--beside COPY".'
    )


def _chance(analysis: Analysis) -> Iterator[str]:
    every = [one.first for stratum in analysis.strata for one in stratum.standings]
    leaders = [each.leader for each in analysis.answers]
    yield _FLATTERED
    yield from _leaders_drawn_again(analysis, leaders)
    yield _INTERVALS
    yield from _intervals_of_one_block(leaders, every)
    yield from _unknown_errors(every)
    yield from _many_comparisons(analysis)
    yield from _few_samples(every)
    yield from _not_ranked_together(analysis)
    yield _of_one_training(analysis.run)


_FLATTERED = (
    "All settings share the seeds of the first block, and leaders are chosen there, which "
    "flatters them: the lowest of many figures is lower than it should be."
)
_INTERVALS = (
    f"Intervals are {100 * CONFIDENCE:.0f} % intervals: from the spread over fresh blocks "
    "where there are three or more (of differences, paired), else from the errors within the "
    "blocks, or, of two blocks without these, from their spread."
)


def _leaders_drawn_again(analysis: Analysis, leaders: Sequence[Standing]) -> Iterator[str]:
    study = analysis.run.plan.study
    fresh = sum(bool(leader.fresh) for leader in leaders)
    if fresh:
        yield (
            f"Of {len(leaders)} questions, the leaders of {fresh} were drawn again on fresh "
            "blocks, which they were not chosen on: their figures come from these blocks."
        )
    elif study.most_blocks > study.blocks:
        if analysis.due:
            yield "No leader was drawn again on a fresh block yet: this study is not finished."
        elif leaders:
            yield "No leader was drawn again on a fresh block: the budget did not allow it."
    elif leaders:
        yield (
            "No leader was drawn again on a fresh block: with most_blocks = 4 a study draws its "
            "leaders again."
        )


def _intervals_of_one_block(
    leaders: Sequence[Standing], every: Sequence[CellResult]
) -> Iterator[str]:
    if all(standing.fresh for standing in leaders):
        return
    unpaired = [one for one in every if one.measurement.figures["fid"].influences is None]
    wider = (
        f"; of {len(unpaired)} of the {len(every)} settings that is not known, and intervals "
        "assume independent draws with random classes, which makes them wider"
    )
    yield (
        "Of one block, intervals of FID are of what each sample adds to both, which share its "
        f"seed{wider if unpaired else ''}."
    )


def _unknown_errors(every: Sequence[CellResult]) -> Iterator[str]:
    """Which measures have no standard error in any cell."""
    unknown = [
        measure.title
        for measure in MEASURES
        if (known := measure.figures_of(every)) and not any(each.standard_error for each in known)
    ]
    if unknown:
        yield f"No standard error is known of {listed(unknown)}."


def _many_comparisons(analysis: Analysis) -> Iterator[str]:
    contests = (*analysis.answers, *analysis.step_answers)
    compared = sum(len(each.standings) - 1 for each in contests)
    if compared:
        pairs = "comparison" if compared == 1 else "comparisons"
        yield (
            f"The contests of this page make {compared:,} {pairs}, and what it says of weights, "
            "extractors and published tables makes more. They are not corrected for each other, "
            "and settings are drawn again only until they are separated: of equal settings one in "
            "twenty would be separated by chance, or more where the lowest of many was chosen on "
            "the same block."
        )


def _few_samples(every: Sequence[CellResult]) -> Iterator[str]:
    if any(one.measurement.rank_deficient for one in every):
        yield (
            "Some cells have no more samples than the features have dimensions. Their FIDs are a "
            "first look, and no standard error is known of them."
        )


def _not_ranked_together(analysis: Analysis) -> Iterator[str]:
    if len({stratum.samples for stratum in analysis.strata}) > 1:
        yield "Figures of different numbers of samples are not ranked together."
    if len({stratum.model for stratum in analysis.strata}) > 1:
        yield "Settings are ranked within their model, and of models the lowest of each."


def _of_one_training(run: StudyRun) -> str:
    of_each = " of each model" if len(run.bench.models) > 1 else ""
    return (
        f"All this is of one training{of_each}. Another seed of it would move FID too, and that is "
        "in no interval here."
    )
