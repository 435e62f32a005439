"""What tests of studies share: small studies, and results made by hand."""

from pathlib import Path
from typing import Any

from underone.config import parse
from underone.generation import labels_of, subject
from underone.metrics.figures import Figure
from underone.metrics.measurement import FloorRecord, Identity, Measurement, Protocol
from underone.study.bench import Bench
from underone.study.cell import Cell, CellResult
from underone.study.definition import Study

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
