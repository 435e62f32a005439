"""Orders of SDE solvers along the noise-free path of the SDE: its drift alone, all noise zero.

A mixture as the model, nodes even in log-SNR to the last noisy one, all in float64, and the exact
past of the path to start from: as the orders of conformance are measured.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from helpers import normal
from underone.conformance.flow import exact_flow
from underone.conformance.oracles import Mixture, plane_mixture
from underone.conformance.paths import SCHEDULE, log_snr_path
from underone.diffusion import Bound, Estimate, Node, Sampler, Schedule, integrate

INTERVALS = (128, 256, 512)
PAST = 2  # estimates known before the start: those of a method of third order
MODEL = Bound(plane_mixture(SCHEDULE), None)

# From the nodes of a path, and exact estimates at the first PAST + 1 of them, to x at the last.
Solve = Callable[[Sequence[Node], Sequence[Estimate]], Tensor]


def observed_order(solve: Solve) -> float:
    """The slope of log(error) over log(h)."""
    errors = [noise_free_error(solve, intervals) for intervals in INTERVALS]
    steps = torch.tensor(INTERVALS, dtype=torch.float64).log()
    columns = torch.stack([steps, torch.ones_like(steps)], 1)
    slope = torch.linalg.lstsq(columns, torch.tensor(errors, dtype=torch.float64).log()).solution[0]
    return -slope.item()


def noise_free_error(solve: Solve, intervals: int) -> float:
    """The root mean square error at the last noisy node."""
    path = log_snr_path(intervals)[:-1]
    exact = _exact_states()[:: INTERVALS[-1] // intervals]
    start = [MODEL(x, node) for x, node in zip(exact[: PAST + 1], path, strict=False)]
    return (solve(path, start) - exact[-1]).square().mean().sqrt().item()


def by(sampler: Sampler) -> Solve:
    """Our sampler as it is, but for the noise it draws."""

    def solve(path: Sequence[Node], start: Sequence[Estimate]) -> Tensor:
        x, past = start[-1].x, start[:PAST]
        *_, last = integrate(MODEL, sampler, path[PAST:], x, lambda: torch.zeros_like(x), past)
        return last.x

    return solve


class _Drift:
    """The denoiser whose probability flow is the drift of the SDE with eta = 1.

    In y = x / alpha and lambda = log(alpha / sigma), the flow is y' = x0 - y and the drift
    y' = 2 (x0 - y) = (2 x0 - y) - y.
    """

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    @property
    def schedule(self) -> Schedule:
        return self.mixture.schedule

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        return 2 * self.mixture(x, node, label) - x / node.alpha


@lru_cache(maxsize=1)
def _exact_states() -> list[Tensor]:
    drift = _Drift(plane_mixture(SCHEDULE))
    return exact_flow(drift, log_snr_path(INTERVALS[-1])[:-1], normal(32, 2))
