"""What tests of studies share: small studies, and results made by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from underone.config import parse
from underone.generation import Setting, labels_of, subject
from underone.metrics.figures import Figure
from underone.metrics.measurement import FloorRecord, Identity, Measurement, Protocol
from underone.study.analysis import analysed
from underone.study.bench import Bench
from underone.study.cell import Cell, CellResult
from underone.study.costs import Costs
from underone.study.definition import Study
from underone.study.fit import make_plan
from underone.study.folder import Folder
from underone.study.plan import StudyPlan
from underone.study.report.findings import findings
from underone.study.run import StudyRun

PROTOCOL = Protocol(
    count=1000,
    labels="balanced",
    extractor=Identity(name="classifier", sha256="a" * 64),
    reference=Identity(name="data", sha256="b" * 64),
    reference_count=60_000,
    reference_split="train",
)
SLICES: list[dict[str, Any]] = [
    {"name": "samplers", "sampler": ["ddim", "ddpm-small"], "steps": [2, 3]},
    {"name": "guidance", "steps": 2, "guidance": [-1, 0, 1]},
]


def small_study(model: Path, **changes: object) -> Study:
    """A study of a few cells of 20 samples."""
    document = {
        "model": str(model),
        "samples": 20,
        "metrics": ["fid", "manifold"],
        "slices": SLICES,
    } | changes
    return parse(Study, document, "study")


def made_up(
    bench: Bench, cell: Cell, figures: dict[str, float], error: float | None = 0.01
) -> CellResult:
    """A cell's result with these figures, as if it had been measured."""
    model = bench.models[cell.model]
    measurements = tuple(
        Measurement(
            figures={
                name: Figure(value=value, error=error if name == "fid" else None)
                for name, value in figures.items()
            },
            rank_deficient=False,
            floor=FloorRecord(figures={"fid": Figure(value=0.1)}, count=cell.draw.count, draws=5),
            protocol=Protocol(
                count=cell.draw.count,
                labels="none" if labels_of(model, cell.setting, cell.draw) is None else "balanced",
                extractor=Identity(name=by.extractor.name, sha256=by.extractor.sha256),
                reference=Identity(name=by.reference.name, sha256=by.reference.sha256),
                reference_count=by.reference.count,
                reference_split=by.reference.origin.split,
            ),
            subject=subject(model, cell.setting, cell.draw, bench.precision),
            environment={},
        )
        for by in bench.yardsticks
    )
    return CellResult(
        id=cell.identity(bench),
        model=cell.model,
        setting=cell.setting,
        draw=cell.draw,
        measurements=measurements,
        evaluations={"model": float(cell.setting.evaluations(model))},
        seconds=1.0,
    )


def timeless(document: dict[str, object]) -> dict[str, object]:
    """A result without the time that it took."""
    return {key: value for key, value in document.items() if key != "seconds"}


def plan_of(
    study: Study, bench: Bench, minutes: float | None = None, speed: float = 1e-3
) -> StudyPlan:
    """Its plan on a machine that takes `speed` seconds an evaluation."""
    costs = Costs(evaluation=dict.fromkeys(bench.models, speed), image=1e-3)
    return make_plan(study, bench, costs, threads=1, minutes=minutes)


def run_of(study: Study, bench: Bench, folder: Path) -> StudyRun:
    """A study that has begun in a folder, and has no cell yet."""
    plan = plan_of(study, bench)
    found = Folder(folder)
    found.begin(plan)
    return StudyRun(found, bench, plan)


# What a setting scores in a block.
Figures = Callable[[Setting, int], dict[str, float]]


def made(run: StudyRun, figures: Figures, blocks: int = 1, error: float | None = 0.01) -> StudyRun:
    """The study as if each setting had these figures in each block."""
    plan = run.plan.model_copy(
        update={"study": run.plan.study.model_copy(update={"most_blocks": blocks})}
    )
    cells = [entry.at(block) for entry in run.entries for block in range(blocks)]
    known = {cell: _made(run, cell, figures, blocks, error) for cell in cells}
    return replace(run, plan=plan, known=known)


def _made(
    run: StudyRun, cell: Cell, figures: Figures, blocks: int, error: float | None
) -> CellResult:
    block = cell.draw.first // cell.draw.count
    return made_up(run.bench, cell, figures(cell.setting, block), error)


def said(run: StudyRun, question: str) -> str:
    """What a study says to a question."""
    (found,) = (each for each in findings(analysed(run)) if each.question == question)
    return " ".join(sentence for part in found.parts for sentence in part.sentences)


def by_sampler(ddim: float, ddpm: float) -> Figures:
    """Figures that depend on the sampler, and fall with the steps."""

    def figures(setting: Setting, block: int) -> dict[str, float]:
        fid = ddim if setting.sampler == "ddim" else ddpm
        # Paired: what a block adds, it adds to both.
        return {"fid": fid + 1 / setting.steps + 0.1 * block}

    return figures


def of_weight(**slopes: float) -> Figures:
    """Figures that rise by so much with w."""

    def figures(setting: Setting, block: int) -> dict[str, float]:
        # Not the same difference in every block, or its interval would be a point.
        slope = 1 + 0.01 * block
        return {
            name: 1.0 + rise * slope * max(0.0, setting.guidance) for name, rise in slopes.items()
        }

    return figures
