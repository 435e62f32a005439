"""The main job: samplers x steps and guidance weights on one model, within a time budget."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from underone.config import parse
from underone.errors import UserError
from underone.files import read_json, write_json
from underone.generation import Draw
from underone.study.cell import Bench, Cell, CellResult, finished, run_cell
from underone.study.plan import Plan, cells_draw, make_plan


@dataclass(frozen=True)
class Guide:
    """A guide's folder with its plan; what is done already is read from there."""

    folder: Path
    bench: Bench
    plan: Plan

    @property
    def cells(self) -> list[Cell]:
        """All cells, cheapest first, so that a picture emerges early."""
        draw = cells_draw(self.plan)
        cells = [Cell(setting, draw) for setting in self.plan.settings]
        return sorted(cells, key=lambda cell: cell.cost(self.bench.model))

    def results(self) -> list[CellResult]:
        """The results there are."""
        found = (finished(self.folder, cell.identity(self.bench)) for cell in self.cells)
        return [result for result in found if result is not None]

    def missing(self) -> list[Cell]:
        """The cells that are still to run."""
        return [
            cell for cell in self.cells if finished(self.folder, cell.identity(self.bench)) is None
        ]

    def run(self, cell: Cell, on_images: Callable[[int], object]) -> CellResult:
        """Run one cell and keep its result."""
        return run_cell(cell, self.bench, self.folder, on_images)


def open_guide(folder: Path, bench: Bench, minutes: float, seed: int) -> tuple[Guide, bool]:
    """The guide in `folder`, planned now or going on as planned; and whether it goes on."""
    path = folder / "plan.json"
    if path.exists():
        plan = parse(Plan, read_json(path), str(path))
        if plan.model_sha256 != bench.model.sha256:
            raise UserError(
                f"{folder} holds the guide of another model than {bench.model.name}: "
                "choose another --out"
            )
        return Guide(folder, bench, plan), True
    if not 0 < minutes < math.inf:
        raise UserError(f"--minutes must be a finite number above 0, got {minutes:g}")
    Draw(1, seed=seed)  # which refuses impossible seeds
    plan = make_plan(bench.model, minutes, seed)
    write_json(path, plan.model_dump(mode="json"))
    return Guide(folder, bench, plan), False
