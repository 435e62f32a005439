"""Which settings compete with each other, and which of them the samples so far tell apart."""

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
    Interval,
    compare,
    normal_factor,
)
from underone.study.cell import Cell, CellResult
from underone.study.words import cost_title, setting_title

# The spread of two differences has one degree of freedom, and an interval 13 times as wide.
SPREAD_BLOCKS = 3
Known = Mapping[Cell, CellResult]


class Candidate(Config):
    """A setting of the model of a name."""

    model: str
    setting: Setting

    def cell(self, draw: Draw) -> Cell:
        """The candidate on the seeds of a draw."""
        return Cell(self.model, self.setting, draw)


@dataclass(frozen=True)
class Entry:
    """A candidate and the first block of seeds it is drawn on; others follow it."""

    candidate: Candidate
    draw: Draw

    def at(self, block: int) -> Cell:
        """Its cell in a block: block b has the indices that follow those of block b - 1."""
        first = self.draw.first + block * self.draw.count
        return self.candidate.cell(replace(self.draw, first=first))

    def results(self, known: Known, blocks: Iterable[int]) -> dict[int, CellResult]:
        """What is known of it in `blocks`."""
        cells = {block: self.at(block) for block in blocks}
        return {block: known[cell] for block, cell in cells.items() if cell in known}


class Factor(Enum):
    """The factor that differs between the entries of a contest: any, the sampler, or one number."""

    SETTING = "setting"
    SAMPLER = "sampler"
    STEPS = "steps"
    WEIGHT = "weight"


@dataclass(frozen=True)
class Contest:
    """Entries that answer one question, of which the lowest FID is the answer."""

    factor: Factor
    question: str
    entries: tuple[Entry, ...]

    def ranked(self, known: Known) -> list[Entry]:
        """The entries that are known in their first block, the lowest FID there first."""
        found = {entry: known[entry.at(0)] for entry in self.entries if entry.at(0) in known}
        return sorted(found, key=lambda entry: found[entry].fid)

    def contenders(self, known: Known, blocks: Sequence[int], most: int) -> list[Entry]:
        """The best of the first block and those `blocks` do not separate from it, `most` in all."""
        ranked = self.ranked(known)
        if not ranked:
            return []
        best, *others = ranked
        close = (other for other in others if not separated(other, best, known, blocks))
        return [best, *close][:most]


def contests(entries: Sequence[Entry]) -> list[Contest]:
    """The questions that `entries` answer, each with at least two of them.

    Of each model, at one number of samples, with labels: which setting is best of all; which
    sampler at each number of evaluations, at w = 0; which guidance weight at each setting
    otherwise.
    """
    asked = [entry for entry in entries if entry.candidate.setting.uses_labels]
    plain = [
        entry
        for entry in asked
        if entry.candidate.setting.guidance == 0
        # What adapts its steps has no number of evaluations to be compared at.
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
    """The same at w = 0, where forms and intervals mean nothing."""
    return replace(setting, guidance=0.0).effective


def _grouped(
    factor: Factor,
    entries: Sequence[Entry],
    alike: Callable[[Setting], Hashable],
    question: Callable[[Setting], str],
) -> list[Contest]:
    """A contest of those whose settings are `alike` in one thing, which `question` says."""
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
    """Whether `blocks` tell the two apart."""
    found = difference(a, b, known, blocks)
    return found is not None and found.separates


def difference(a: Entry, b: Entry, known: Known, blocks: Sequence[int]) -> Comparison | None:
    """FID of A minus that of B over those `blocks` that are known of both, by `paired`."""
    mine, theirs = a.results(known, blocks), b.results(known, blocks)
    common = [block for block in blocks if block in mine and block in theirs]
    return paired(
        [mine[block].measurement.figures["fid"] for block in common],
        [theirs[block].measurement.figures["fid"] for block in common],
    )


def paired(mine: Sequence[Figure], theirs: Sequence[Figure]) -> Comparison | None:
    """A minus B of figures of the same blocks, one after the other; None where that is not known.

    Over three blocks and more by the spread of the paired differences (`compare`). Over fewer, of
    which a spread says next to nothing, by what each sample adds to A and to B
    (`Figure.paired_error`); where that is not known, by the standard errors within the blocks, as
    if A and B were drawn independently, which is wider. Where these are not known either, as of
    samples too few for their dimensions, two blocks have their spread alone and one has nothing.
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
    """The mean difference over blocks, normal with the errors within them."""
    apart = statistics.fmean(a.value - b.value for a, b in zip(mine, theirs, strict=True))
    half = normal_factor() * math.hypot(*errors) / len(mine)
    return Comparison(apart, Interval(apart - half, apart + half), CONFIDENCE, len(mine))
