"""Whether it matters where the steps lie: the same samplers on two grids."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from underone.generation import OWN_GRIDS, Setting
from underone.metrics.uncertainty import Verdict
from underone.study.cell import Cell, CellResult
from underone.study.contest import paired
from underone.study.report.sentences import Part
from underone.study.run import StudyRun
from underone.study.words import cost_title

_USUAL = Setting().grid


@dataclass(frozen=True)
class _Pair:
    """A sampler on the default grid and on another: the same steps, samples and seeds."""

    usual: CellResult
    other: CellResult

    @property
    def question(self) -> tuple[str, int, str]:
        """The other grid, the number of steps and the cost."""
        setting = self.other.setting
        return setting.grid, setting.steps, cost_title(setting)

    @property
    def ratio(self) -> float:
        """The default grid's FID over the other's."""
        return self.usual.fid / self.other.fid

    @property
    def verdict(self) -> Verdict | None:
        """Which FID is lower, A being the other grid's; None where that is not known."""
        figures = ([each.measurement.figures["fid"]] for each in (self.other, self.usual))
        found = paired(*figures)
        return None if found is None else found.verdict


def where_steps_lie(run: StudyRun) -> list[Part]:
    """How samplers compare on each other grid with the default one; nothing where none has both.

    Cells of screening count too, since they share their seeds with each other.
    """
    several = len(run.bench.models) > 1
    found = []
    for name in run.bench.models:
        sentences = tuple(_of_model(run, name))
        if sentences:
            found.append(Part(name if several else "", sentences))
    return found


def _of_model(run: StudyRun, model: str) -> Iterator[str]:
    asked: dict[tuple[str, int, str], dict[int, list[_Pair]]] = {}
    for pair in _pairs(run, model):
        by_count = asked.setdefault(pair.question, {})
        by_count.setdefault(pair.other.draw.count, []).append(pair)
    for (grid, _, cost), by_count in sorted(asked.items()):
        # FID depends on the number of samples, so only the most frequent number is compared.
        count = max(by_count, key=lambda count: (len(by_count[count]), count))
        pairs = by_count[count]
        fares, separated = _fares(pairs, grid), _separated(pairs, grid)
        yield f"At {cost}, of {count:,} samples each, {fares}. {separated}"


def _pairs(run: StudyRun, model: str) -> Iterator[_Pair]:
    for cell in run.in_order:
        if cell.model == model and (usual := _on_usual_grid(run, cell)) is not None:
            yield _Pair(usual, run.known[cell])


def _fares(pairs: Sequence[_Pair], grid: str) -> str:
    lower = sum(pair.ratio > 1 for pair in pairs)
    typical = statistics.median(pair.ratio for pair in pairs)
    return (
        f"{lower} of {len(pairs)} samplers have a lower FID on the {grid} grid than on the "
        f"{_USUAL} grid, with a median FID ratio of {typical:.2f} ({_USUAL} / {grid})"
    )


def _separated(pairs: Sequence[_Pair], grid: str) -> str:
    """How many differences are separated, and in favour of which grid."""
    verdicts = [pair.verdict for pair in pairs]
    for_grid, for_usual = verdicts.count(Verdict.A_LOWER), verdicts.count(Verdict.B_LOWER)
    every = for_grid + for_usual
    if every == 0:
        return "No difference is separated."
    return (
        f"Of {len(pairs)} differences {every} {'is' if every == 1 else 'are'} separated: "
        f"{for_grid} for the {grid} grid and {for_usual} for the {_USUAL} grid."
    )


def _on_usual_grid(run: StudyRun, cell: Cell) -> CellResult | None:
    """The same setting and seeds on the default grid, where that is measured."""
    if cell.setting.grid in (_USUAL, *OWN_GRIDS) or cell.setting.guidance != 0:
        return None
    return run.known.get(replace(cell, setting=replace(cell.setting, grid=_USUAL)))
