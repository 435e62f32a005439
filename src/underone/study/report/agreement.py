"""Whether FIDs by different extractors put the settings in the same order."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from underone.metrics.uncertainty import Verdict
from underone.study.analysis import Analysis, Stratum
from underone.study.answers import Standing
from underone.study.measures import FID, Measure, compared, yardstick_fids
from underone.study.report.sentences import Part
from underone.study.run import StudyRun
from underone.study.words import listed, setting_title

AGREEMENT = "Do extractors agree?"
_LEAST_SETTINGS = 3


def average_ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value from 1; equal values share the mean of their ranks."""
    below = [sum(other < value for other in values) for value in values]
    equal = [sum(other == value for other in values) for value in values]
    return [less + (same + 1) / 2 for less, same in zip(below, equal, strict=True)]


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation, from average ranks; None where all values of a side are equal.

    Without ties it is 1 - 6 sum d_i^2 / (n (n^2 - 1)), with d_i the differences of ranks.
    """
    ranks = average_ranks(a), average_ranks(b)
    if any(min(each) == max(each) for each in ranks):
        return None
    return statistics.correlation(*ranks)


@dataclass(frozen=True)
class Pair:
    """Two extractors' FIDs of the same settings, on the first block of seeds.

    `apart` is the setting whose two `places` in the order differ most.
    """

    a: Measure
    b: Measure
    standings: tuple[Standing, ...]
    correlation: float | None
    apart: Standing
    places: tuple[float, float]

    @property
    def same_order(self) -> bool:
        """Whether every setting has the same place by both."""
        return self.places[0] == self.places[1]


def agreement(stratum: Stratum, run: StudyRun) -> list[Pair]:
    """Every pair of yardsticks over the settings of a stratum; none where it has too few of either.

    Only settings with labels count: those without are measured under another protocol.
    """
    if len(stratum.asked) < _LEAST_SETTINGS:
        return []
    return [_pair(a, b, stratum.asked) for a, b in combinations(yardstick_fids(run), 2)]


def _pair(a: Measure, b: Measure, among: tuple[Standing, ...]) -> Pair:
    columns = [[by.value(each.first) for each in among] for by in (a, b)]
    places = list(zip(*(average_ranks(column) for column in columns), strict=True))
    most = max(range(len(among)), key=lambda index: abs(places[index][0] - places[index][1]))
    return Pair(a, b, among, rank_correlation(*columns), among[most], places[most])


def leaders(pairs: Sequence[Pair]) -> Iterator[tuple[Measure, Standing]]:
    """The setting that each extractor puts first."""
    for by in dict.fromkeys(by for pair in pairs for by in (pair.a, pair.b)):
        yield by, by.best(pairs[0].standings)


def extractor_findings(analysis: Analysis) -> list[Part]:
    """What a study says about whether its extractors agree on the order of settings."""
    found = ((each.title, agreement(each, analysis.run)) for each in analysis.strata)
    return [Part(where, tuple(_extractors(pairs))) for where, pairs in found if pairs]


def _extractors(pairs: Sequence[Pair]) -> Iterator[str]:
    first = {by.title: setting_title(one.first.setting) for by, one in leaders(pairs)}
    if len(set(first.values())) == 1:
        yield f"All extractors put {next(iter(first.values()))} first."
    else:
        said = listed([f"{by} puts {name} first" for by, name in first.items()])
        apart = [
            f"{one} and {other} each separate their own best from the other's"
            for one, other in _surely_differ(list(leaders(pairs)))
        ]
        if apart:
            yield (
                f"Extractors do not agree on the best: on the first block {said}. "
                f"{'; '.join(apart)}."
            )
        else:
            yield f"{said} on the first block, a difference that may be chance."
    yield from map(_pair_sentence, pairs)


def _surely_differ(first: Sequence[tuple[Measure, Standing]]) -> Iterator[tuple[str, str]]:
    """The pairs of extractors that each separate their own best setting from the other's."""
    for (one, mine), (other, theirs) in combinations(first, 2):
        if _lower(one, mine, theirs) and _lower(other, theirs, mine):
            yield one.title, other.title


def _lower(by: Measure, a: Standing, b: Standing) -> bool:
    """Whether A is separated from B, and below it."""
    found = compared(by, a, b)
    return found is not None and found.verdict is Verdict.A_LOWER


def _pair_sentence(pair: Pair) -> str:
    names = f"{pair.a.title} and {pair.b.title}"
    count = len(pair.standings)
    if pair.correlation is None:
        return f"{names} do not compare: one of them gives all {count} settings the same figure."
    if pair.same_order:
        return f"{names} put all {count} settings in the same order."
    return (
        f"{names}: rank correlation {FID.text(pair.correlation)} over {count} settings. They "
        f"differ most on {setting_title(pair.apart.first.setting)}: place {pair.places[0]:g} by "
        f"the former, {pair.places[1]:g} by the latter."
    )
