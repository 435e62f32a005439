"""Which settings compete with each other, and which of them are separated so far."""

import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from underone.config import Config
from underone.generation import Draw, Setting
from underone.metrics import Figure
from underone.metrics.uncertainty import (
    CONFIDENCE,
    Blocks,
    Comparison,
    ConfidenceInterval,
    compare,
    normal_factor,
)
from underone.study.cell import Cell, CellResult
from underone.study.words import cost_title, setting_title

# With fewer blocks the spread gives no useful interval: of two it has one degree of freedom, and
# the 95 % interval is 13 standard errors to either side.
SPREAD_BLOCKS = 3
Known = Mapping[Cell, CellResult]


class Candidate(Config):
    """A setting of the model called `model`."""

    model: str
    setting: Setting

    def cell(self, draw: Draw) -> Cell:
        """The candidate on the seeds of a draw."""
        return Cell(self.model, self.setting, draw)


@dataclass(frozen=True)
class Entry:
    """A candidate and the first block of seeds it is drawn on; further blocks follow it."""

    candidate: Candidate
    draw: Draw

    def at(self, block: int) -> Cell:
        """Its cell in a block: block b has the indices that follow those of block b - 1."""
        first = self.draw.first + block * self.draw.count
        return self.candidate.cell(replace(self.draw, first=first))

    def results(self, known: Known, blocks: Iterable[int]) -> dict[int, CellResult]:
        """Its results in those of `blocks` that are measured."""
        cells = {block: self.at(block) for block in blocks}
        return {block: known[cell] for block, cell in cells.items() if cell in known}


class Factor(Enum):
    """What differs in a contest: the whole setting, the sampler, the steps or the weight."""

    SETTING = "setting"
    SAMPLER = "sampler"
    STEPS = "steps"
    WEIGHT = "weight"


@dataclass(frozen=True)
class Contest:
    """Entries that compete to answer one question; the lowest FID leads."""

    factor: Factor
    question: str
    entries: tuple[Entry, ...]

    def ranked(self, known: Known) -> list[Entry]:
        """The entries whose first block is measured, the lowest FID there first."""
        found = {entry: known[entry.at(0)] for entry in self.entries if entry.at(0) in known}
        return sorted(found, key=lambda entry: found[entry].fid)

    def contenders(self, known: Known, blocks: Sequence[int], most: int) -> list[Entry]:
        """The best of the first block and those not separated from it on `blocks`, up to `most`."""
        ranked = self.ranked(known)
        if not ranked:
            return []
        best, *others = ranked
        close = (other for other in others if not separated(other, best, known, blocks))
        return [best, *close][:most]


def contests(entries: Sequence[Entry]) -> list[Contest]:
    """The contests between `entries`, each with at least two of them.

    For each model at one number of samples, with labels: which setting is best of all; which
    sampler at each number of evaluations, at w = 0; which guidance weight where settings differ in
    nothing else.
    """
    asked = [entry for entry in entries if entry.candidate.setting.uses_labels]
    plain = [
        entry
        for entry in asked
        if entry.candidate.setting.guidance == 0
        # Adaptive samplers have no fixed number of evaluations to be compared at.
        and entry.candidate.setting.declared_evaluations is not None
    ]
    every = (
        *_grouped(Factor.SETTING, asked, lambda s: None, lambda s: "which setting"),
        *_grouped(
            Factor.SAMPLER,
            plain,
            lambda s: s.declared_evaluations,
            lambda s: f"which sampler at {cost_title(s)}",
        ),
        *_grouped(
            Factor.WEIGHT, asked, unguided, lambda s: f"which w for {setting_title(unguided(s))}"
        ),
    )
    return [contest for contest in every if len(contest.entries) > 1]


def unguided(setting: Setting) -> Setting:
    """The same at w = 0, where forms and intervals have no effect."""
    return replace(setting, guidance=0.0).effective


def _grouped(
    factor: Factor,
    entries: Sequence[Entry],
    alike: Callable[[Setting], Hashable],
    question: Callable[[Setting], str],
) -> list[Contest]:
    """A contest for each group of entries whose settings have the same `alike`."""
    groups: dict[Hashable, list[Entry]] = {}
    for entry in dict.fromkeys(entries):
        candidate = entry.candidate
        key = (candidate.model, entry.draw.count, alike(candidate.setting))
        groups.setdefault(key, []).append(entry)
    return [
        Contest(factor, question(members[0].candidate.setting), tuple(members))
        for members in groups.values()
    ]


def separated(a: Entry, b: Entry, known: Known, blocks: Sequence[int]) -> bool:
    """Whether the two are separated on `blocks`."""
    found = difference(a, b, known, blocks)
    return found is not None and found.separates


def difference(a: Entry, b: Entry, known: Known, blocks: Sequence[int]) -> Comparison | None:
    """FID of A minus that of B over the `blocks` in which both are measured, by `paired`."""
    mine, theirs = a.results(known, blocks), b.results(known, blocks)
    common = [block for block in blocks if block in mine and block in theirs]
    return paired(
        [mine[block].measurement.figures["fid"] for block in common],
        [theirs[block].measurement.figures["fid"] for block in common],
    )


def paired(mine: Sequence[Figure], theirs: Sequence[Figure]) -> Comparison | None:
    """A minus B for figures of the same blocks in the same order; None without a known error.

    The interval comes, over three blocks or more, from the spread of the paired differences
    (`compare`). Over fewer, whose spread says next to nothing, it comes from what each sample adds
    to A and to B (`Figure.paired_error`), or, where that is not known, from the standard errors
    within the blocks as if A and B were independent, which is wider. Where these are not known
    either, as with fewer samples than dimensions, two blocks have only their spread, and one has no
    interval.
    """
    if 0 < len(mine) < SPREAD_BLOCKS:
        both = [a.paired_error(b) for a, b in zip(mine, theirs, strict=True)]
        within = [error for error in both if error is not None]
        if len(within) == len(mine):
            return _normal(mine, theirs, within)
    errors = [error for each in (*mine, *theirs) if (error := each.standard_error) is not None]
    known = len(errors) == 2 * len(mine)
    if len(mine) >= SPREAD_BLOCKS or (len(mine) > 1 and not known):
        of_a, of_b = (Blocks(tuple(each.value for each in side)) for side in (mine, theirs))
        return compare(of_a, of_b, CONFIDENCE)
    if not mine or not known:
        return None
    return _normal(mine, theirs, errors)


def _normal(mine: Sequence[Figure], theirs: Sequence[Figure], errors: list[float]) -> Comparison:
    """The mean difference over blocks, with a normal interval from the errors within them."""
    apart = statistics.fmean(a.value - b.value for a, b in zip(mine, theirs, strict=True))
    half = normal_factor() * math.hypot(*errors) / len(mine)
    return Comparison(apart, ConfidenceInterval(apart - half, apart + half), CONFIDENCE, len(mine))
