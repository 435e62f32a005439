"""The answers so far: who leads each contest, by how much, and who is not separated from it.

The leader is chosen on the first block of seeds and reported on later ones, since the lowest of
many figures is biased low on the block that it was chosen on.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from underone.metrics.uncertainty import Comparison, Verdict
from underone.study.cell import CellResult
from underone.study.contest import (
    Contest,
    Entry,
    Factor,
    Known,
    contests,
    difference,
    unguided,
)
from underone.study.run import StudyRun
from underone.study.words import setting_title


@dataclass(frozen=True)
class Standing:
    """An entry of a contest: its result on the `first` block, which ranks it, and on `fresh` ones.

    `behind` is its FID minus the leader's, over the fresh blocks of both (`behind_on_fresh`) or
    else over the first; None for the leader itself, and where the error is not known.
    """

    entry: Entry
    first: CellResult
    fresh: tuple[CellResult, ...]
    behind: Comparison | None
    behind_on_fresh: bool = False

    @property
    def reported(self) -> tuple[CellResult, ...]:
        """The results that its figures are taken from: the fresh blocks, or else the first."""
        return self.fresh or (self.first,)

    @property
    def fid(self) -> float:
        """The figure to report: the mean over fresh blocks, if any were drawn."""
        return self.mean("fid")

    def mean(self, metric: str) -> float:
        """The mean of a figure over the fresh blocks, or else that of the first block."""
        return statistics.fmean(
            result.measurement.figures[metric].value for result in self.reported
        )

    @property
    def nfe(self) -> float:
        """Network evaluations per image."""
        return self.first.nfe

    @property
    def trails(self) -> bool:
        """Whether it is separated from the leader, and worse."""
        return self.behind is not None and self.behind.verdict is Verdict.B_LOWER

    @property
    def leads_now(self) -> bool:
        """Whether it is separated from the leader of the first block, and better."""
        return self.behind is not None and self.behind.verdict is Verdict.A_LOWER


@dataclass(frozen=True)
class Answer:
    """A contest as it stands: the leader of the first block, then the others in its order."""

    factor: Factor
    question: str
    standings: tuple[Standing, ...]

    @property
    def leader(self) -> Standing:
        """The lowest FID of the first block."""
        return self.standings[0]

    @property
    def unguided_title(self) -> str:
        """The leader's setting at w = 0, in words: the subject of a contest of weights."""
        return setting_title(unguided(self.leader.first.setting))

    @property
    def open(self) -> tuple[Standing, ...]:
        """The entries that are not separated from the leader."""
        others = self.standings[1:]
        return tuple(each for each in others if not each.trails and not each.leads_now)

    @property
    def settled(self) -> bool:
        """Whether the leader is separated from all others."""
        return all(each.trails for each in self.standings[1:])


def answers(run: StudyRun) -> list[Answer]:
    """Every contest of a study with at least two measured entries."""
    found = (answer(contest, run.known, run.plan.fresh) for contest in contests(run.entries))
    return [each for each in found if len(each.standings) > 1]


def answer(contest: Contest, known: Known, fresh: Sequence[int]) -> Answer:
    """The state of a contest."""
    ranked = contest.ranked(known)
    found = tuple(_standing(entry, ranked[0], known, fresh) for entry in ranked)
    return Answer(contest.factor, contest.question, found)


def _standing(entry: Entry, leader: Entry, known: Known, fresh: Sequence[int]) -> Standing:
    results = tuple(entry.results(known, fresh).values())
    standing = Standing(entry, known[entry.at(0)], results, None)
    if entry == leader:
        return standing
    on_fresh = difference(entry, leader, known, fresh)
    behind = difference(entry, leader, known, [0]) if on_fresh is None else on_fresh
    return replace(standing, behind=behind, behind_on_fresh=on_fresh is not None)


def standings(run: StudyRun) -> list[Standing]:
    """Every setting whose first block is measured, not compared with any other."""
    known, fresh = run.known, run.plan.fresh
    return [_standing(entry, entry, known, fresh) for entry in run.entries if entry.at(0) in known]
