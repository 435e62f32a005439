"""What precision, recall, density and coverage cost, and how exact they are, beside prdc's.

Backs the claim: of 10,000 samples against 10,000 real ones in 256 dimensions they are faster than
prdc's, within 2 GB, and as exact as float64. Each runs in a process of its own, in turn, which
tells its peak memory (less that of a process which only makes the features). Exact means: the
counts are those of direct differences |x - y|^2 in float64, on a smaller set of features whose
mean is far from 0, and on one where every fake is a copy of a real point's neighbour.

    python benchmarks/precision_recall.py [--count 10000] [--repetitions 5]
"""

import argparse
import io
import json
import math
import resource
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from measuring import environment, from_tests, spread
from torch import Tensor

from underone.metrics.manifold import manifold_scores

NEIGHBOURS, SIZE = 5, 256
PROGRAMS = ("nothing", "underone", "prdc")
SMALL = 1500


def features(count: int, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """Real and fake ones, float32, as an extractor gives them."""
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(count, SIZE, generator=generator) + offset
    return real, 0.97 * torch.randn(count, SIZE, generator=generator) + offset


def ours(real: Tensor, fake: Tensor) -> dict[str, float]:
    """All strict, as prdc's are."""
    return asdict(manifold_scores(real=real, fake=fake, neighbours=NEIGHBOURS, strict=True))


def theirs(real: Tensor, fake: Tensor) -> dict[str, float]:
    package = from_tests("peers").import_prdc()
    found = package.compute_prdc(real.numpy(), fake.numpy(), nearest_k=NEIGHBOURS)
    return {name: float(value) for name, value in found.items()}


def directly(real: Tensor, fake: Tensor) -> dict[str, float]:
    """From |x - y| of every pair, without matrix products."""
    real, fake = real.double(), fake.double()

    def distances(x: Tensor, y: Tensor) -> Tensor:
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")

    def radii(points: Tensor) -> Tensor:
        return distances(points, points).kthvalue(NEIGHBOURS + 1, dim=1).values

    between = distances(fake, real)
    inside, reached = between < radii(real), between < radii(fake)[:, None]
    return {
        "precision": float(inside.any(dim=1).double().mean()),
        "recall": float(reached.any(dim=0).double().mean()),
        "density": int(inside.sum()) / (NEIGHBOURS * len(fake)),
        "coverage": float(inside.any(dim=0).double().mean()),
    }


def child(program: str, count: int) -> None:
    """Print what one program takes, as JSON."""
    real, fake = features(count)
    run = {"nothing": lambda *_: {}, "underone": ours, "prdc": theirs}[program]
    if program == "prdc":
        from_tests("peers").import_prdc()
    started = perf_counter()
    with redirect_stdout(io.StringIO()):  # prdc prints
        scores = run(real, fake)
    seconds = perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_megabytes": peak, "scores": scores}))


def equal(one: dict[str, float], other: dict[str, float]) -> bool:
    """Up to the rounding of a quotient of equal counts."""
    return all(math.isclose(one[name], other[name], rel_tol=1e-12) for name in one)


def spawn(program: str, count: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", program, "--count", str(count)]
    found: dict[str, Any] = json.loads(subprocess.check_output(command))  # noqa: S603
    return found


def report(count: int, repetitions: int) -> dict[str, Any]:
    surroundings = environment("prdc", "scikit-learn")
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in PROGRAMS}
    for _ in range(repetitions):
        for name in PROGRAMS:
            runs[name].append(spawn(name, count))
    base = min(run["peak_megabytes"] for run in runs["nothing"])
    programs = {
        name: {
            "seconds": asdict(spread([run["seconds"] for run in runs[name]])),
            "megabytes": max(run["peak_megabytes"] for run in runs[name]) - base,
            "scores": runs[name][0]["scores"],
        }
        for name in PROGRAMS[1:]
    }
    real, fake = features(SMALL, offset=30.0)
    copies = real.flip(0)
    exact = {
        "mean at 30": {"underone": ours(real, fake), "directly": directly(real, fake)},
        "copies": {"underone": ours(real, copies), "directly": directly(real, copies)},
    }
    seconds = {name: program["seconds"]["median"] for name, program in programs.items()}
    return {
        "claim": {
            "times_faster_than_prdc": seconds["prdc"] / seconds["underone"],
            "megabytes": programs["underone"]["megabytes"],
            "as_float64": all(equal(*case.values()) for case in exact.values()),
            "as_prdc": equal(*(program["scores"] for program in programs.values())),
        },
        "environment": surroundings,
        "count": count,
        "dimensions": SIZE,
        "programs": programs,
        "exactness": exact,
    }


def table(results: dict[str, Any]) -> str:
    """Time and memory of both."""
    rows = [
        f"{results['count']:,} samples in {results['dimensions']} dimensions:",
        "",
        "| | seconds | MB |",
        "| --- " * 3 + "|",
    ]
    rows += [
        f"| {name} | {found['seconds']['median']:.1f} | {found['megabytes']:.0f} |"
        for name, found in results["programs"].items()
    ]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--child", choices=PROGRAMS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.count)
        return
    figures = report(given.count, given.repetitions)
    for name, value in figures["claim"].items():
        print(f"{name}: {value}")
    Path(__file__).with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
