"""What the samples drawn so far answer: who leads a contest, by how much, and whom they leave open.

The leader is chosen on the first block of seeds and reported on those after it, which it was not
chosen on: the lowest of many figures is lower than it should be.
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
    """How an entry of a contest stands: `first` on the block it was ranked by, `fresh` after that.

    `behind` is its FID minus the leader's, over the fresh blocks of both or, without, over the
    first one, as `behind_on_fresh` says; None of the leader itself, and where it cannot be told.
    """

    entry: Entry
    first: CellResult
    fresh: tuple[CellResult, ...]
    behind: Comparison | None
    behind_on_fresh: bool = False

    @property
    def reported(self) -> tuple[CellResult, ...]:
        """What its figures are of: the fresh blocks, or else the first."""
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
        """Network evaluations an image."""
        return self.first.nfe

    @property
    def trails(self) -> bool:
        """Whether the blocks say that it is worse than the leader."""
        return self.behind is not None and self.behind.verdict is Verdict.B_LOWER

    @property
    def leads_now(self) -> bool:
        """Whether fresh blocks say that it is better than the leader of the first."""
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
        """The leader's setting at w = 0, in words: what a contest of weights is about."""
        return setting_title(unguided(self.leader.first.setting))

    @property
    def open(self) -> tuple[Standing, ...]:
        """Those that the blocks do not separate from the leader: unresolved."""
        others = self.standings[1:]
        return tuple(each for each in others if not each.trails and not each.leads_now)

    @property
    def settled(self) -> bool:
        """Whether the leader is separated from all others."""
        return all(each.trails for each in self.standings[1:])


def answers(run: StudyRun) -> list[Answer]:
    """Every contest of a study with at least two entries that are known."""
    found = (answer(contest, run.known, run.plan.fresh) for contest in contests(run.entries))
    return [each for each in found if len(each.standings) > 1]


def answer(contest: Contest, known: Known, fresh: Sequence[int]) -> Answer:
    """How a contest stands."""
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
    """Every setting whose first block is known, not compared with any."""
    known, fresh = run.known, run.plan.fresh
    return [_standing(entry, entry, known, fresh) for entry in run.entries if entry.at(0) in known]
