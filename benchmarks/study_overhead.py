"""The claim: a study costs less than 3 % more than drawing its samples and taking their features.

    python benchmarks/study_overhead.py

The shipped FashionMNIST model, 4 cells of 600 samples, the fewest that a budget leaves a cell,
measured by FID alone and by the metrics a study takes unless told otherwise. Each cell's bare work
(drawing, then features by the study's extractors) alternates with the same cell run by the study,
so that the ratio holds while the machine's speed drifts; planning and loading, once a study, are
told apart.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import environment

from underone.config import parse
from underone.files import write_json
from underone.generation import generate
from underone.metrics import features_of
from underone.study.bench import Bench, open_bench
from underone.study.cell import Cell
from underone.study.definition import Study
from underone.study.engine import LocalEngine
from underone.study.run import StudyRun, open_run

RESULTS = Path(__file__).with_suffix(".json")
SAMPLES, REPEATS = 600, 2
SLICES = [{"name": "all", "sampler": ["ddim", "ddpm-small"], "steps": [5, 10]}]
METRICS = {"fid": ["fid"], "default": list(Study.model_fields["metrics"].default)}


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def bare(cell: Cell, bench: Bench) -> None:
    """The samples of a cell, and their features."""
    samples = generate(bench.models[cell.model], cell.setting, cell.draw)
    for by in bench.yardsticks:
        features_of(by.extractor, samples.images)
        if by.judge is not None:
            features_of(by.judge.classifier, samples.images)


def by_study(run: StudyRun, cell: Cell) -> None:
    """The same cell by the study: run, measured, kept, and the next looked for."""
    engine = LocalEngine(run.bench, run.plan.threads)
    for outcome in engine.run([cell], lambda cell, images: None):
        run.folder.keep(outcome)
        run.known[outcome.result.cell] = outcome.result
    run.due()


def measured(metrics: list[str]) -> dict[str, Any]:
    document = {"samples": SAMPLES, "metrics": metrics, "slices": SLICES}
    study = parse(Study, document, "benchmark")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        bench = open_bench(study)
        run, _ = open_run(Path(folder) / "study", study, bench)
        begun = time.perf_counter() - started
        cells = run.due()
        by_study(run, cells[0])  # what is made once for all cells: the floor
        ratios, totals = [], [0.0, 0.0]
        for _ in range(REPEATS):
            for cell in cells:
                times = (
                    seconds(lambda c=cell: bare(c, bench)),
                    seconds(lambda c=cell: by_study(run, c)),
                )
                ratios.append(times[1] / times[0])
                totals = [total + each for total, each in zip(totals, times, strict=True)]
    return {
        "bare_seconds": round(totals[0], 2),
        "study_seconds": round(totals[1], 2),
        "overhead": round(totals[1] / totals[0] - 1, 4),
        "median_cell_overhead": round(statistics.median(ratios) - 1, 4),
        "loading_and_planning_seconds": round(begun, 2),
    }


def table(results: dict[str, Any]) -> str:
    """What a study costs beyond its cells."""
    rows = [
        "| metrics | bare, seconds | by the study, seconds | overhead | median of cells |",
        "| --- " * 5 + "|",
    ]
    for title, name in (("FID alone", "fid"), ("all that a study takes by default", "default")):
        found = results[name]
        rows.append(
            f"| {title} | {found['bare_seconds']:.0f} | {found['study_seconds']:.0f} | "
            f"{found['overhead']:+.1%} | {found['median_cell_overhead']:+.1%} |"
        )
    return "\n".join(rows)


def main() -> None:
    results: dict[str, Any] = {"environment": environment(), "samples": SAMPLES, "repeats": REPEATS}
    for name, metrics in METRICS.items():
        results[name] = measured(metrics)
        print(name, results[name], flush=True)
        write_json(RESULTS, results)


if __name__ == "__main__":
    main()
