"""Whether it matters where the steps lie: the same samplers on one grid and on another."""

import statistics
from collections.abc import Iterator
from dataclasses import replace

from underone.generation import OWN_GRIDS, Setting
from underone.study.cell import Cell, CellResult
from underone.study.report.sentences import Part
from underone.study.run import Run
from underone.study.words import cost_title

_USUAL = Setting().grid


def where_steps_lie(run: Run) -> list[Part]:
    """How samplers fare on each other grid against the usual one; nothing where none has both.

    Cells of screening count too: they share their seeds with each other.
    """
    several = len(run.bench.models) > 1
    found = []
    for name in run.bench.models:
        sentences = tuple(_of_model(run, name))
        if sentences:
            found.append(Part(name if several else "", sentences))
    return found


def _of_model(run: Run, model: str) -> Iterator[str]:
    pairs: dict[tuple[str, int, str], dict[str, float]] = {}
    # Of a sampler that was screened and drawn in full, the most samples last.
    for cell in sorted(run.in_order, key=lambda cell: cell.draw.count):
        if cell.model != model:
            continue
        usual = _on_usual_grid(run, cell)
        if usual is not None:
            key = cell.setting.grid, cell.setting.steps, cost_title(cell.setting)
            ratio = usual.fid / run.known[cell].fid
            pairs.setdefault(key, {})[cell.setting.sampler] = ratio
    for (grid, _, cost), ratios in sorted(pairs.items()):
        lower = sum(ratio > 1 for ratio in ratios.values())
        typical = statistics.median(ratios.values())
        yield (
            f"At {cost} {lower} of {len(ratios)} samplers have a lower FID on the {grid} grid than "
            f"on the {_USUAL} grid, which has {typical:.2f} times the FID in the median."
        )


def _on_usual_grid(run: Run, cell: Cell) -> CellResult | None:
    """The same setting on the usual grid and the same seeds, where it is known."""
    if cell.setting.grid in (_USUAL, *OWN_GRIDS) or cell.setting.guidance != 0:
        return None
    return run.known.get(replace(cell, setting=replace(cell.setting, grid=_USUAL)))
