"""What a study measures: decided before its first cell, and followed by every rerun.

Only the plan and the results so far decide which cells are due: however often a study is stopped,
it ends with the same cells.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain

from pydantic import Field

from underone.config import Config
from underone.generation import Draw
from underone.study.bench import Bench
from underone.study.cell import Cell
from underone.study.contest import Candidate, Entry, Known, contests
from underone.study.costs import Costs
from underone.study.definition import Study

# The first index of screening, beyond the blocks of any sensible number of samples.
_SCREENING_FIRST = 2**40
# At most this many entries of a contest get another block.
_CONTENDERS = 4


class PlannedSlice(Config):
    """A slice of a study, resolved: its candidates, and how they are drawn."""

    name: str
    candidates: tuple[Candidate, ...]
    samples: int
    blocks: int
    screened: int | None
    finalists: int


class StudyPlan(Config):
    """All that decides a study's cells, except for their results.

    `models`, `references` and `extractors` are hashes by name. `left_out` are the candidates that
    did not fit in the budgets. `seconds` and `evaluations` are the budgets, 0 for none. `compiled`
    are the models whose networks are compiled, by every worker and to the end: compiling is faster
    for that much work, but rounds differently.
    """

    study: Study
    models: dict[str, str]
    references: dict[str, str]
    extractors: dict[str, str]
    slices: tuple[PlannedSlice, ...]
    left_out: tuple[Candidate, ...] = ()
    compiled: tuple[str, ...] = ()
    costs: Costs
    threads: int = Field(ge=1)
    seconds: float = 0.0
    evaluations: int = 0

    @property
    def budget(self) -> str:
        """The budgets in words."""
        parts = [f"{self.seconds / 60:.1f} minutes"] if self.seconds else []
        parts += [f"{self.evaluations:,} evaluations"] if self.evaluations else []
        return ", ".join(parts) or "none"

    @property
    def fresh(self) -> range:
        """The blocks that are not used to choose settings."""
        return range(1, max(self.study.most_blocks, *(each.blocks for each in self.slices)))

    def draw(self, samples: int, first: int = 0) -> Draw:
        """The first block of `samples` seeds, or the block that begins at `first`."""
        return Draw(samples, self.study.seed, first, self.study.labels)

    def entries(self, known: Known, diverged: Collection[Cell] = ()) -> list[Entry]:
        """All candidates with their first block; of screened slices the finalists, once known."""
        found = chain.from_iterable(
            (Entry(each, self.draw(of.samples)) for each in self.drawn(of, known, diverged))
            for of in self.slices
        )
        return list(dict.fromkeys(found))

    def screening(self, each: PlannedSlice) -> list[Cell]:
        """The cells by which a slice's finalists are chosen."""
        if each.screened is None:
            return []
        draw = self.draw(each.screened, _SCREENING_FIRST)
        return [candidate.cell(draw) for candidate in each.candidates]

    def drawn(
        self, each: PlannedSlice, known: Known, diverged: Collection[Cell]
    ) -> Sequence[Candidate]:
        """The candidates of a slice that are drawn in full: all, or its finalists once known."""
        cells = self.screening(each)
        if not cells:
            return each.candidates
        if not all(cell in known or cell in diverged for cell in cells):
            return ()
        order = sorted((c for c in cells if c in known), key=lambda cell: known[cell].fid)
        return [
            Candidate(model=cell.model, setting=cell.setting) for cell in order[: each.finalists]
        ]

    def due(self, known: Known, bench: Bench, diverged: Collection[Cell] = ()) -> list[Cell]:
        """The cells to run now, cheapest first; more may follow from their results.

        Screening comes first, since it decides which settings are drawn in full. Cells that have
        `diverged` are never due again.
        """
        screening = dict.fromkeys(chain.from_iterable(map(self.screening, self.slices)))
        base = list(self._base(known, diverged))
        missing = [cell for cell in screening if cell not in known and cell not in diverged]
        missing = missing or [cell for cell in base if cell not in known and cell not in diverged]
        if not missing:
            missing = self._next_block(base, known, bench, diverged)
        return sorted(missing, key=lambda cell: cell.evaluations(bench))

    def _base(self, known: Known, diverged: Collection[Cell]) -> Iterator[Cell]:
        found: dict[Cell, None] = {}
        for each in self.slices:
            found |= dict.fromkeys(self.screening(each))
            for candidate in self.drawn(each, known, diverged):
                entry = Entry(candidate, self.draw(each.samples))
                found |= dict.fromkeys(entry.at(block) for block in range(each.blocks))
        yield from found

    def _next_block(
        self, base: list[Cell], known: Known, bench: Bench, diverged: Collection[Cell]
    ) -> list[Cell]:
        """The missing cells of contenders in the first incomplete block, as budgets allow.

        The contenders for block b are decided by the blocks before b alone, so that it does not
        matter when a study was stopped. The cheapest contests come first, so that most are decided.
        """
        planned = dict.fromkeys(base)
        asked = contests(self.entries(known, diverged))
        for block in range(self.study.blocks, self.study.most_blocks):
            due: dict[Cell, None] = {}
            cells = [
                [entry.at(block) for entry in contest.contenders(known, range(block), _CONTENDERS)]
                for contest in asked
            ]
            for contending in sorted(cells, key=lambda each: self._cost(each, bench)):
                due |= dict.fromkeys(self._allowed(contending, [*(planned | due)], bench))
            missing = [cell for cell in due if cell not in known and cell not in diverged]
            if missing:
                return missing
            planned |= due
        return []

    def _cost(self, cells: Sequence[Cell], bench: Bench) -> int:
        return sum(cell.evaluations(bench) for cell in cells)

    def _allowed(self, contending: list[Cell], planned: list[Cell], bench: Bench) -> list[Cell]:
        """As many cells of a contest, the leader's first, as the budgets allow beside `planned`.

        None where the leader would have no other entry to compare with, or the others no leader.
        """
        taken: list[Cell] = []
        every = list(planned)
        for cell in contending:
            if cell in planned:
                taken.append(cell)
            elif self.affords([*every, cell], bench):
                taken.append(cell)
                every.append(cell)
            elif not taken:
                return []
        return taken if len(taken) > 1 or len(contending) == 1 else []

    def affords(self, cells: Sequence[Cell], bench: Bench) -> bool:
        """Whether these cells together are within the budgets."""
        if self.seconds and sum(self.costs.seconds(c, bench) for c in cells) > self.seconds:
            return False
        return not self.evaluations or self._cost(cells, bench) <= self.evaluations
