"""Checks of any sampler, whatever it claims: finite results, no memory, correct counts."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from underone.conformance.finding import Finding
from underone.conformance.oracles import plane_mixture
from underone.conformance.paths import SCHEDULE, all_grids
from underone.conformance.runs import endless, normal, run
from underone.diffusion import (
    Bound,
    Estimate,
    Sampler,
    Trailing,
    count_evaluations,
    integrate,
    nodes,
)


def finiteness(sampler: Sampler) -> Finding:
    """Finite results in float32 on every schedule and grid, in any number of steps."""
    failures = []
    for schedule, grid, steps in all_grids():
        path = nodes(grid, schedule, steps)
        x = (path[0].sigma * normal(2, 2)).float()
        states = run(plane_mixture(schedule), sampler, path, x)
        if not all(s.x.dtype == x.dtype and s.x.isfinite().all() for s in states):
            failures.append(f"{type(schedule).__name__} {type(grid).__name__} {steps}")
    measured = "all" if not failures else "not " + ", ".join(failures)
    return Finding("finite on every schedule and grid", "all", measured, not failures)


def batches(sampler: Sampler) -> Finding:
    """A sample does not depend on the others of its batch."""
    path, x, oracle = nodes(Trailing(), SCHEDULE, 7), normal(8, 2), plane_mixture(SCHEDULE)
    together = run(oracle, sampler, path, x, _draws(slice(None)))[-1].x
    alone = [
        run(oracle, sampler, path, x[row : row + 1], _draws(slice(row, row + 1)))[-1].x
        for row in range(len(x))
    ]
    difference = (torch.cat(alone) - together).abs().max().item()
    return Finding("alone as in a batch", "to 1e-10", f"{difference:.1e}", difference < 1e-10)


def memory(sampler: Sampler) -> Finding:
    """Nothing is remembered from another run, even one interleaved with it."""
    path, x = nodes(Trailing(), SCHEDULE, 7), normal(8, 2)
    model = Bound(plane_mixture(SCHEDULE), None)

    def start(x: Tensor) -> Iterator[Estimate]:
        return integrate(model, sampler, path, x, _draws(slice(None)))

    alone = [state.x for state in start(x)]
    pairs = list(zip(start(x), start(-x), strict=True))
    same = all(torch.equal(a, b.x) for a, (b, _) in zip(alone, pairs, strict=True))
    return Finding("no memory between runs", "equal", "equal" if same else "different", same)


def _draws(rows: slice) -> Callable[[], Tensor]:
    """Noise for some rows of one batch of 8."""
    draw = endless((8, 2), seed=3)
    return lambda: draw()[rows]


def evaluations(sampler: Sampler) -> Finding:
    """As many evaluations as declared."""
    all_right, counts = True, []
    for steps in (1, 2, 5, 10):
        with count_evaluations() as counter:
            path = nodes(Trailing(), SCHEDULE, steps)
            run(plane_mixture(SCHEDULE), sampler, path, normal(4, 2))
        counted, declared = counter.total() / 4, sampler.evaluations(steps)
        right = declared in (None, counted)
        all_right &= right
        counts.append(f"{counted:g}" if right else f"{counted:g}, not {declared}")
    return Finding("evaluations at 1, 2, 5, 10 steps", "as declared", "; ".join(counts), all_right)
