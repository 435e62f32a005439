"""A study from start to finish: begun or resumed, and run until nothing is due."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from underone.checkpoint import DiffusionModel
from underone.errors import UserError
from underone.generation import precision_name, repays_compiling
from underone.study.bench import Bench, open_bench
from underone.study.cell import Cell, CellResult, Divergence, Outcome, files_differ
from underone.study.contest import Entry
from underone.study.costs import measured_costs
from underone.study.definition import Study
from underone.study.engine import Engine, OnImages
from underone.study.fit import check_minutes, make_plan, planned_cells
from underone.study.folder import Folder, allows_more, check_same
from underone.study.plan import StudyPlan


@dataclass(eq=False)
class StudyRun:
    """A study under way: its plan, and its results so far, which grow as it advances."""

    folder: Folder
    bench: Bench
    plan: StudyPlan
    known: dict[Cell, CellResult] = field(default_factory=dict)
    diverged: dict[Cell, Divergence] = field(default_factory=dict)

    def due(self) -> list[Cell]:
        """The cells to run now."""
        return self.plan.due(self.known, self.bench, self.diverged)

    @property
    def in_order(self) -> list[Cell]:
        """The measured cells, in an order that does not depend on when each was measured."""
        return sorted(self.known, key=lambda cell: self.known[cell].id)

    @property
    def diverged_in_order(self) -> list[Divergence]:
        """The cells that have diverged, in an order that does not depend on when each did."""
        return sorted(self.diverged.values(), key=lambda each: each.id)

    @property
    def entries(self) -> list[Entry]:
        """Every setting with its first block of seeds."""
        return self.plan.entries(self.known, self.diverged)

    def advance(self, engine: Engine, on_images: OnImages) -> Iterator[CellResult | Divergence]:
        """Run what is due until nothing is, keeping each cell as soon as it is done."""
        while cells := self.due():
            for outcome in engine.run(cells, on_images):
                self._check_identity(outcome)
                if isinstance(outcome, Divergence):
                    self.folder.keep(outcome)
                    self.diverged[outcome.cell] = outcome
                    yield outcome
                else:
                    self._check_like_the_others(outcome.result)
                    self.folder.keep(outcome)
                    self.known[outcome.cell] = outcome.result
                    yield outcome.result

    def _check_identity(self, outcome: Outcome | Divergence) -> None:
        """A `UserError`, so that a cell is not kept, where it was drawn with other files."""
        drawn = outcome if isinstance(outcome, Divergence) else outcome.result
        if drawn.id != outcome.cell.identity(self.bench):
            raise files_differ(outcome.cell, "where it was drawn, or had while it was drawn")

    def _check_like_the_others(self, result: CellResult) -> None:
        """A `UserError` where a worker has drawn in another precision than the others."""
        if result.setting.declared_evaluations is None:
            return  # adaptive samplers run in float32 everywhere
        now = result.measurement.subject["precision"]
        for other in self.known.values():
            if other.setting.declared_evaluations is None:
                continue
            if (then := other.measurement.subject["precision"]) != now:
                raise UserError(
                    f"a worker draws in {now}, but cells of {self.folder.path} are in {then}, "
                    'which rounds differently: use similar machines, or set precision = "float32" '
                    "in a new study"
                )
            return

    def check_precision(self) -> None:
        """A `UserError` where this process would draw in another precision than before."""
        for cell, result in self.known.items():
            model = self.bench.models[cell.model]
            now = precision_name(model, cell.setting, self.bench.precision)
            if (then := result.measurement.subject["precision"]) != now:
                raise UserError(
                    f"{self.folder.path} was begun where models draw in {then}, but here they draw "
                    f"in {now}, which rounds differently: continue on a similar machine, or choose "
                    'another --out; precision = "float32" in the study is the same everywhere'
                )

    @property
    def seconds_left(self) -> float:
        """About how long the cells that are due now take."""
        return sum(self.plan.costs.seconds(cell, self.bench) for cell in self.due())


def open_run(
    path: Path,
    study: Study,
    bench: Bench,
    minutes: float | None = None,
    announce: Callable[[str], object] = lambda text: None,
) -> tuple[StudyRun, bool]:
    """The study in the folder `path`, planned now or resumed; and whether it is resumed.

    The plan is kept before the first cell runs. A rerun follows it, whatever its `minutes`. Where
    `study` allows more evaluations it is planned again, and its results stay. A plan without a time
    budget decides which networks are compiled; `announce` is told while that is measured.
    """
    folder = Folder(path)
    kept = kept_plan(folder, study, bench)
    if kept is not None:
        folder.begin(kept)  # as it was, unless more is allowed now
        return StudyRun(folder, bench, kept, folder.known(bench), folder.diverged(bench)), True
    plan = new_plan(study, bench, minutes)
    if minutes is None and study.precision == "auto":
        plan = plan.model_copy(update={"compiled": _worth_compiling(plan, bench, announce)})
    folder.begin(plan)
    return StudyRun(folder, bench, plan), False


def kept_plan(folder: Folder, study: Study, bench: Bench) -> StudyPlan | None:
    """The plan that a folder is resumed with: the kept one, or a new one where `study` allows more.

    None where no study was begun there; a `UserError` where it holds another study, or other files.
    """
    kept = folder.plan()
    if kept is None:
        return None
    check_same(kept, study, bench, folder.path)
    if not allows_more(kept, study):
        return kept
    anew = make_plan(study, bench, kept.costs, kept.threads)
    return anew.model_copy(update={"compiled": kept.compiled})


def open_folder(path: Path) -> StudyRun:
    """The study in the folder `path`, with its results so far; a `UserError` without one."""
    folder = Folder(path)
    plan = folder.plan() if path.is_dir() else None
    if plan is None:
        raise UserError(f"{path} holds no study: run underone study or underone guide first")
    bench = open_bench(plan.study)
    check_same(plan, plan.study, bench, path)
    return StudyRun(folder, bench, plan, folder.known(bench), folder.diverged(bench))


def new_plan(study: Study, bench: Bench, minutes: float | None = None) -> StudyPlan:
    """The plan of a study, with costs measured on this machine now; nothing is kept."""
    check_minutes(minutes)
    costs = measured_costs(bench)
    return make_plan(study, bench, costs, torch.get_num_threads(), minutes)


def _worth_compiling(
    plan: StudyPlan, bench: Bench, announce: Callable[[str], object]
) -> tuple[str, ...]:
    """The models whose planned cells take less time if their networks are compiled first."""
    cells = planned_cells(plan, bench)
    found = []
    for name, model in bench.models.items():
        evaluations = sum(cell.evaluations(bench) for cell in cells if cell.model == name)
        if isinstance(model, DiffusionModel) and repays_compiling(model, evaluations, announce):
            found.append(name)
    return tuple(found)
