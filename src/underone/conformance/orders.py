"""Orders of convergence, of solvers of the flow and of the stochastic equation.

They are measured up to the last noisy node, without clipping, from exact estimates at the nodes
before the start: a missing history affects all samplers alike, and the end at sigma = 0 has a check
of its own (`distributions.clean_end`).
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from underone.conformance.finding import Finding
from underone.conformance.flow import exact_flow
from underone.conformance.oracles import line_mixture, plane_mixture
from underone.conformance.paths import SCHEDULE, log_snr_path, uneven_path
from underone.conformance.runs import normal
from underone.diffusion import Bound, Node, Sampler, integrate, no_noise

TOLERANCE = 0.2  # of an observed order
INTERVALS = (128, 256, 512)  # of the grid; each divides the last
_STOCHASTIC_INTERVALS, _FINEST = (64, 128, 256), 2048


def order(sampler: Sampler) -> Finding | None:
    """The order of a deterministic sampler against the exact flow of a mixture.

    On steps even in log-SNR, and on uneven ones, which expose weights that are right for equal
    steps only.
    """
    claimed = sampler.global_order
    if sampler.stochastic or claimed is None:
        return None
    observed = [observed_order(sampler, place) for place in (log_snr_path, uneven_path)]
    return _order_finding("order of convergence, even and uneven", claimed, *observed)


Place = Callable[[int], Sequence[Node]]


def observed_order(sampler: Sampler, place: Place) -> float:
    """The slope of log(error) over log(h) on a grid whose nodes are among those of finer ones.

    `place(n)` gives n intervals between noisy nodes, and the clean end.
    """
    errors = [_flow_error(sampler, place, intervals) for intervals in INTERVALS]
    return _slope(INTERVALS, errors)


def _flow_error(sampler: Sampler, place: Place, intervals: int) -> float:
    path = place(intervals)
    exact = _exact_states(place)[:: INTERVALS[-1] // intervals]
    start = intervals // 4 if sampler.history is None else sampler.history
    model = Bound(plane_mixture(SCHEDULE), None)
    past = [model(x, node) for x, node in zip(exact[:start], path[:start], strict=True)]
    *_, last, _ = integrate(model, sampler, path[start:], exact[start], no_noise, past)
    return (last.x - exact[-1]).square().mean().sqrt().item()


@lru_cache(maxsize=4)
def _exact_states(place: Place) -> list[Tensor]:
    return exact_flow(plane_mixture(SCHEDULE), place(INTERVALS[-1])[:-1], normal(32, 2))


def noise_order(sampler: Sampler) -> Finding | None:
    """The order of a stochastic sampler along one Brownian path, in one dimension."""
    claimed = sampler.global_order
    if not sampler.stochastic or claimed is None:
        return None
    finest = _along_brownian_path(sampler, _FINEST)
    errors = [
        (_along_brownian_path(sampler, intervals) - finest).square().mean().sqrt().item()
        for intervals in _STOCHASTIC_INTERVALS
    ]
    observed = _slope(_STOCHASTIC_INTERVALS, errors)
    return _order_finding("order along one Brownian path", claimed, observed)


def _along_brownian_path(sampler: Sampler, intervals: int) -> Tensor:
    """The end of paths whose noise is the increments of Brownian motions in log-SNR."""
    model, path = Bound(line_mixture(SCHEDULE), None), log_snr_path(intervals)[:-1]
    noise = _BrownianNoise(intervals)
    states = integrate(model, sampler, path, normal(256, 1), noise)
    for index in range(intervals):
        noise.begin(index)
        next(states)
    return next(states).x


class _BrownianNoise:
    """The k-th draw of a step is the k-th motion's increment over that step."""

    def __init__(self, intervals: int) -> None:
        self._intervals = intervals
        self._index = self._drawn = 0

    def begin(self, index: int) -> None:
        """Make the next draws those of step `index`."""
        self._index, self._drawn = index, 0

    def __call__(self) -> Tensor:
        self._drawn += 1
        return _increments(self._drawn, self._intervals)[self._index]


@lru_cache(maxsize=16)
def _increments(motion: int, intervals: int) -> Tensor:
    """(intervals, 256, 1), each of variance 1: sums of the same fine increments."""
    fine = normal(_FINEST, 256, 1, seed=10 + motion)
    together = _FINEST // intervals
    return fine.reshape(intervals, together, 256, 1).sum(1) / math.sqrt(together)


def _slope(intervals: Sequence[int], errors: Sequence[float]) -> float:
    """The least-squares slope of -log(error) over log(intervals)."""
    h = torch.tensor(intervals, dtype=torch.float64).log()
    e = torch.tensor(errors, dtype=torch.float64).log()
    return -((h - h.mean()) * (e - e.mean())).sum().item() / (h - h.mean()).square().sum().item()


def _order_finding(check: str, claimed: int, *observed: float) -> Finding:
    return Finding(
        check,
        f"{claimed}",
        ", ".join(f"{order:.2f}" for order in observed),
        min(observed) >= claimed - TOLERANCE,
    )
