"""The numbers that tuning changes, where they start, and the sampler and path they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from underone.diffusion import Node, Schedule, Tuned, node_at, path_at

# How many estimates a step weights, and the noise it starts with.
WINDOW = 3
_ETA = 0.5
# The least share of the way in log-SNR that a gap starts with, and that before the first node.
_LEAST_GAP, _LEAST_LEAD = 1e-3, 1e-6


@dataclass(frozen=True, eq=False)
class Parameters:
    """Unbounded float64 numbers, any of which make a sampler of N steps.

    `gaps` (N + 1,): logarithms of the parts of the way in log-SNR from t = 1 to the step k = 1, in
    proportion to each other: what lies before the first node, the steps, and what is left over
    before that end. `roots` (N - 1,): square roots of
    the etas. `weights` (N, K - 1): those of the earlier estimates, newest first; the newest
    estimate has what they lack to 1. `shifts` (N,).
    """

    gaps: Tensor
    roots: Tensor
    weights: Tensor
    shifts: Tensor

    @classmethod
    def classical(cls, nodes: Sequence[Node], schedule: Schedule) -> "Parameters":
        """DPM-Solver++(2M) of the SDE with eta = 0.5 on `nodes`, first order at both ends."""
        lead, *steps = _gaps(nodes, schedule)
        shares = torch.stack(steps).clamp(min=_LEAST_GAP)
        weights = torch.zeros(len(nodes), WINDOW - 1, dtype=torch.float64)
        weights[1:-1, 0] = -0.5 * shares[1:-1] / shares[:-2]
        return cls(
            torch.cat([lead.clamp(min=_LEAST_LEAD)[None], shares]).log(),
            torch.full_like(shares[1:], _ETA**0.5),
            weights,
            torch.zeros_like(shares),
        )

    @classmethod
    def learned(cls, nodes: Sequence[Node], sampler: Tuned, schedule: Schedule) -> "Parameters":
        """Those that make `sampler` on `nodes`."""
        gaps = _gaps(nodes, schedule).clamp(min=_LEAST_LEAD).log()
        return cls(gaps, sampler.etas.sqrt(), sampler.weights[:, 1:], sampler.shifts)

    def spread(self, steps: int) -> "Parameters":
        """The like of them for another number of `steps` >= 2: each number between its neighbours.

        The first node and the last stay where they are.
        """
        places = _stretched(self.gaps.softmax(0).cumsum(0)[:-1], steps)
        ends = torch.tensor([0, 1], dtype=torch.float64)
        return Parameters(
            torch.cat([ends[:1], places, ends[1:]]).diff().log(),
            _stretched(self.roots, steps - 1),
            torch.stack([_stretched(each, steps) for each in self.weights.T], dim=1),
            _stretched(self.shifts, steps),
        )

    def tensors(self) -> list[Tensor]:
        """All of them, in order."""
        return [self.gaps, self.roots, self.weights, self.shifts]

    def sampler(self) -> Tuned:
        """The sampler they make; step i has i earlier estimates, however many could be weighted."""
        earlier = self.weights.tril(diagonal=-1)
        newest = 1 - earlier.sum(dim=1, keepdim=True)
        return Tuned(self.roots.square(), torch.cat([newest, earlier], dim=1), self.shifts)

    def path(self, schedule: Schedule) -> list[Node]:
        """Their nodes from noisy to clean, and the clean end."""
        start, end = _ends(schedule)
        log_snr = torch.lerp(start, end, self.gaps.softmax(0).cumsum(0)[:-1])
        return path_at(schedule, schedule.time(log_snr))


def _gaps(nodes: Sequence[Node], schedule: Schedule) -> Tensor:
    """The shares of the way in log-SNR from t = 1 to k = 1 that `nodes` cut it into."""
    start, end = _ends(schedule)
    log_snr = torch.stack([start, *(node.log_snr for node in nodes), end])
    return log_snr.diff() / (end - start)


def _stretched(values: Tensor, count: int) -> Tensor:
    """`values` (N,) as `count` of them, linear between neighbours, with the same ends."""
    row = values[None, None]
    return functional.interpolate(row, size=count, mode="linear", align_corners=True).flatten()


def _ends(schedule: Schedule) -> tuple[Tensor, Tensor]:
    """The log-SNR at t = 1, and that of the step k = 1."""
    times = torch.tensor([1, 1 / schedule.steps], dtype=torch.float64)
    start, end = node_at(schedule, times).log_snr
    return start, end
