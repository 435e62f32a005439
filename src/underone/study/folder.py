"""The folder of a study: its plan, the files of each cell, and a record of what diverged."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from underone.config import parse
from underone.errors import UserError
from underone.files import read_json, whole_files, write_bytes, write_json
from underone.modules import refuse_code
from underone.study.bench import Bench
from underone.study.cell import Cell, CellResult, Divergence, Done, Outcome
from underone.study.definition import Study
from underone.study.influences import keep_influences, with_influences
from underone.study.plan import StudyPlan

AnyDone = TypeVar("AnyDone", bound=Done)


@dataclass(frozen=True)
class Folder:
    """Where a study is kept; a kill at any moment leaves each file whole or absent."""

    path: Path

    @property
    def plan_path(self) -> Path:
        """The plan's file."""
        return self.path / "plan.json"

    @property
    def cells_path(self) -> Path:
        """The folder of measured cells."""
        return self.path / "cells"

    @property
    def diverged_path(self) -> Path:
        """The folder of cells that have diverged."""
        return self.path / "diverged"

    def result_path(self, identity: str) -> Path:
        """The file of a cell's result."""
        return self.cells_path / f"{identity}.json"

    def picture_path(self, identity: str) -> Path:
        """The picture of a cell's first samples."""
        return self.cells_path / f"{identity}.png"

    def influences_path(self, identity: str) -> Path:
        """The file of what each sample of a cell adds to its FIDs."""
        return self.cells_path / f"{identity}.npz"

    def panel_path(self, identity: str) -> Path:
        """The picture of a cell's samples beside their nearest training images."""
        return self.path / "figures" / f"nearest-{identity}.png"

    def plan(self) -> StudyPlan | None:
        """The plan in this folder, or None; a `UserError` where it holds something else."""
        if self.plan_path.exists():
            return parse(StudyPlan, _without_code(self.plan_path), str(self.plan_path))
        if self.path.is_dir() and whole_files(self.path):
            raise UserError(
                f"{self.path} is not empty and holds no study: choose another --out, so that "
                "nothing in it is overwritten"
            )
        return None

    def begin(self, plan: StudyPlan) -> None:
        """Keep the plan, before the first cell."""
        write_json(self.plan_path, plan.model_dump(mode="json"))

    def keep(self, outcome: Outcome | Divergence) -> None:
        """Keep a cell; its result comes last, since it marks the cell as done."""
        if isinstance(outcome, Divergence):
            path = self.diverged_path / f"{outcome.id}.json"
            write_json(path, outcome.model_dump(mode="json"))
            return
        write_bytes(self.picture_path(outcome.result.id), outcome.picture)
        keep_influences(outcome.result, self.influences_path(outcome.result.id))
        result = outcome.result.model_dump(mode="json")
        write_json(self.result_path(outcome.result.id), result)

    def known(self, bench: Bench) -> dict[Cell, CellResult]:
        """Every measured cell; a damaged or foreign file is a `UserError` that names it."""
        found = {}
        for result in self._done(CellResult, self.cells_path, bench):
            if not self.picture_path(result.id).exists():
                path = self.result_path(result.id)
                raise UserError(f"{path} has lost its picture: remove it to draw the cell again")
            found[result.cell] = with_influences(result, self.influences_path(result.id))
        return found

    def diverged(self, bench: Bench) -> dict[Cell, Divergence]:
        """Every cell that has diverged."""
        return {each.cell: each for each in self._done(Divergence, self.diverged_path, bench)}

    def _done(self, kind: type[AnyDone], folder: Path, bench: Bench) -> Iterator[AnyDone]:
        for path in whole_files(folder, "*.json"):
            result = parse(kind, _without_code(path), str(path))
            if result.model not in bench.models or result.cell.identity(bench) != path.stem:
                raise UserError(
                    f"{path} is not a cell of this study (another model, sampler, guide, "
                    "extractor, reference or version made it): remove it, or choose another --out"
                )
            yield result


def _without_code(path: Path) -> Any:
    """A JSON file; a `UserError` where a sampler or grid is code that the user has not named."""
    document = read_json(path)
    for text in _samplers_and_grids(document):
        refuse_code(text, str(path))
    return document


def _samplers_and_grids(document: Any, key: str = "") -> Iterator[str]:
    if isinstance(document, dict):
        for name, value in document.items():
            yield from _samplers_and_grids(value, name)
    elif isinstance(document, list):
        for value in document:
            yield from _samplers_and_grids(value, key)
    elif isinstance(document, str) and key in ("sampler", "grid"):
        yield document


def allows_more(plan: StudyPlan, study: Study) -> bool:
    """Whether a study allows more evaluations than a plan of it; 0 is no limit."""
    return plan.evaluations > 0 and not 0 < study.evaluations <= plan.evaluations


def check_same(plan: StudyPlan, study: Study, bench: Bench, folder: Path) -> None:
    """A `UserError` where a folder's plan is for another study, other models or yardsticks.

    The budget of evaluations may have been raised, unless there is one of time.
    """
    for what, mine, theirs in (
        ("models", bench.model_hashes, plan.models),
        ("references", bench.reference_hashes, plan.references),
        ("extractors", bench.extractor_hashes, plan.extractors),
    ):
        if mine != theirs:
            changed = sorted(set(mine.items()) ^ set(theirs.items()))[0][0]
            raise UserError(
                f"{folder} holds a study of other {what} ({changed} is not the same): choose "
                "another --out"
            )
    differing = [
        name for name in Study.model_fields if getattr(plan.study, name) != getattr(study, name)
    ]
    if differing == ["evaluations"]:
        if plan.seconds or not allows_more(plan, study):
            raise UserError(
                f"{folder} holds this study with another budget ({plan.budget}): only one of "
                "evaluations alone can be raised; choose another --out"
            )
    elif differing:
        field = differing[0]
        raise UserError(
            f"{folder} holds another study than this one (they differ in {field}): choose another "
            "--out, so that the two do not mix"
        )
