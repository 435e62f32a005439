"""Whether a study's figures follow the pattern of a published table: DDIM's, of CIFAR-10."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from underone.generation import Setting
from underone.study.analysis import Analysis, Stratum
from underone.study.answers import Standing
from underone.study.measures import FID, compared
from underone.study.report.agreement import rank_correlation
from underone.study.report.sentences import Part
from underone.study.report.tables import Table
from underone.study.words import steps_title

# Song, Meng and Ermon 2021, arXiv 2010.02502, Table 1, CIFAR-10: FID by eta and number of steps;
# "large" is their sigma-hat, the variance beta.
_STEPS = (10, 20, 50, 100, 1000)
_TABLE = {
    "eta = 0": (13.36, 6.84, 4.67, 4.16, 4.04),
    "eta = 0.2": (14.04, 7.11, 4.77, 4.25, 4.09),
    "eta = 0.5": (16.66, 8.35, 5.25, 4.46, 4.29),
    "eta = 1": (41.07, 18.36, 8.01, 5.78, 4.73),
    "large": (367.43, 133.37, 32.72, 9.99, 3.17),
}
# The row of each sampler: with eta = 1 DDIM is DDPM with the small variance.
_ROWS = {
    "ddim": "eta = 0",
    "ddim,eta=0.2": "eta = 0.2",
    "ddim,eta=0.5": "eta = 0.5",
    "ddim,eta=1": "eta = 1",
    "ddpm-small": "eta = 1",
    "ddpm-large": "large",
}
_LEAST = 6


@dataclass(frozen=True)
class Counterpart:
    """A setting of a study and the published cell that it is the counterpart of."""

    row: str
    steps: int
    standing: Standing

    @property
    def published(self) -> float:
        """The published FID."""
        return _TABLE[self.row][_STEPS.index(self.steps)]

    @property
    def measured(self) -> float:
        """The study's FID on the first block, which all settings share."""
        return self.standing.first.fid


def counterparts(stratum: Stratum) -> list[Counterpart]:
    """The settings of a stratum that are in the table."""
    found = []
    for each in stratum.asked:
        setting = each.first.setting
        row = _ROWS.get(setting.sampler)
        plain = Setting(setting.sampler, setting.steps) == setting
        if row is not None and plain and setting.steps in _STEPS:
            found.append(Counterpart(row, setting.steps, each))
    return found


def published_findings(analysis: Analysis) -> list[Part]:
    """Where the study agrees with the table and where not; nothing with too few counterparts."""
    return [Part(where, tuple(_pattern(mine))) for where, mine in _enough(analysis)]


def published_tables(analysis: Analysis) -> list[tuple[str, Table]]:
    """The counterparts side by side, for each stratum with enough of them."""
    return [(where, _table(mine)) for where, mine in _enough(analysis)]


def _enough(analysis: Analysis) -> list[tuple[str, list[Counterpart]]]:
    """The title and the counterparts of each stratum with enough of them."""
    found = ((stratum.title, counterparts(stratum)) for stratum in analysis.strata)
    return [(where, mine) for where, mine in found if len(mine) >= _LEAST]


def _table(mine: list[Counterpart]) -> Table:
    steps = sorted({each.steps for each in mine})
    cells = {(each.row, each.steps): each for each in mine}
    rows = tuple(
        (row, *(_cell(cells.get((row, number))) for number in steps))
        for row in _TABLE
        if any(each.row == row for each in mine)
    )
    return Table(("", *(steps_title(number) for number in steps)), rows)


def _cell(each: Counterpart | None) -> str:
    return "–" if each is None else f"{FID.text(each.measured)} ({each.published:.2f})"


def _pattern(mine: list[Counterpart]) -> Iterator[str]:
    pairs = [(a, b, _lower(a, b)) for a, b in combinations(mine, 2) if a.steps == b.steps]
    separated = [(a, b, lower) for a, b, lower in pairs if lower is not None]
    same = sum(lower == (a.published < b.published) for a, b, lower in separated)
    correlation = rank_correlation(
        [each.measured for each in mine], [each.published for each in mine]
    )
    ranks = "" if correlation is None else f", and the rank correlation is {FID.text(correlation)}"
    yield (
        f"Over the {len(mine)} settings that DDIM's Table 1 has too (CIFAR-10, other features: "
        f"only the ranking is comparable) {len(separated)} of {len(pairs)} pairs with the same "
        f"steps are separated here, {same} in the order there{ranks}."
    )
    for steps in sorted({each.steps for each in mine}):
        yield from _at(steps, {each.row: each for each in mine if each.steps == steps})


def _at(steps: int, rows: dict[str, Counterpart]) -> Iterator[str]:
    """What the table says about a number of steps, and whether it holds here."""
    if "large" in rows and len(rows) > 1:
        large = rows["large"]
        others = [each for row, each in rows.items() if row != "large"]
        mine = large.measured / min(each.measured for each in others)
        theirs = large.published / min(each.published for each in others)
        best = min(others, key=lambda each: each.measured)
        agrees = _lower(large, best)
        same = None if agrees is None else agrees == (theirs < 1)
        yield (
            f"At {steps_title(steps)} the large variance has {mine:.1f} times the FID of the best "
            f"other here, {theirs:.1f} times there: {_verdict(same)}."
        )
    etas = [each for row, each in rows.items() if row != "large"]
    if len(etas) > 1:
        order, published = (
            [each.row for each in sorted(etas, key=key)]
            for key in (lambda each: each.measured, lambda each: each.published)
        )
        every = [(a, b, _lower(a, b)) for a, b in combinations(etas, 2)]
        pairs = [(a, b, lower) for a, b, lower in every if lower is not None]
        same_order = sum(lower == (a.published < b.published) for a, b, lower in pairs)
        yield (
            f"At {steps_title(steps)} the order is {', '.join(order)}, there "
            f"{', '.join(published)}. {_pairs(len(every), len(pairs), same_order)}"
        )


def _pairs(every: int, separated: int, same: int) -> str:
    if every == 1:
        if not separated:
            return "The one pair is not separated here."
        order = "in the order there" if same else "in the other order"
        return f"The one pair is separated here, {order}."
    are = "is" if separated == 1 else "are"
    return f"Of {every} pairs {separated} {are} separated here, {same} in the order there."


def _lower(a: Counterpart, b: Counterpart) -> bool | None:
    """Whether A is lower than B here; None where the two are not separated."""
    found = compared(FID, a.standing, b.standing)
    return None if found is None or not found.separates else found.difference < 0


def _verdict(same: bool | None) -> str:
    if same is None:
        return "here the two are not separated"
    return f"{'the same' if same else 'the opposite'} order"
