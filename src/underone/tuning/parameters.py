"""The numbers that tuning changes, where they start, and the sampler and path they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from underone.diffusion import Node, Sampler, Schedule, Tuned, node_at, path_at
from underone.tuning.reading import weights_of

# How many estimates a step combines.
WINDOW = 3
# Starts are kept away from 0, where log-parameters have almost no gradient, and roots have none.
# As shares of the way in log-SNR: the least step of a solver, the least lead before its first node,
# and the least of either in what was learned; and the least root of an eta.
_LEAST_STEP, _LEAST_LEAD, _LEAST_LEARNED = 1e-3, 1e-2, 1e-6
_LEAST_ROOT = 0.1


@dataclass(frozen=True, eq=False)
class Parameters:
    """Unbounded float64 numbers, any values of which make a sampler of N steps.

    `gaps` (N + 1,): logarithms of the parts of the way in log-SNR from t = 1 to the step k = 1, up
    to a common factor: the lead before the first node, the steps between nodes, and the rest after
    the last. `roots` (N - 1,): square roots of the etas. `weights` (N, K - 1): those of the earlier
    estimates, newest first; that of the newest estimate is 1 less their sum. `shifts` (N,).
    """

    gaps: Tensor
    roots: Tensor
    weights: Tensor
    shifts: Tensor

    @classmethod
    def of_solver(
        cls, solver: Sampler, eta: float, nodes: Sequence[Node], schedule: Schedule
    ) -> "Parameters":
        """Those of a classical `solver` on `nodes`, with noise of `eta`; see `weights_of`."""
        lead, *steps = _gaps(nodes, schedule)
        shares = torch.stack(steps).clamp(min=_LEAST_STEP)
        path = path_at(schedule, torch.stack([node.t for node in nodes]))
        read = weights_of(solver, eta, path, schedule)
        weights = shares.new_zeros(len(nodes), WINDOW - 1)
        for age in range(1, min(WINDOW, len(nodes))):
            weights[age:, age - 1] = read.diagonal(-age)
        return cls(
            torch.cat([lead.clamp(min=_LEAST_LEAD)[None], shares]).log(),
            torch.full_like(shares[1:], max(eta**0.5, _LEAST_ROOT)),
            weights,
            torch.zeros_like(shares),
        )

    @classmethod
    def learned(cls, nodes: Sequence[Node], sampler: Tuned, schedule: Schedule) -> "Parameters":
        """Those that make `sampler` on `nodes`."""
        gaps = _gaps(nodes, schedule).clamp(min=_LEAST_LEARNED).log()
        return cls(gaps, sampler.etas.sqrt(), sampler.weights[:, 1:], sampler.shifts)

    def spread(self, steps: int) -> "Parameters":
        """The same for another number of `steps` >= 2, by linear interpolation.

        The first node and the last stay where they are. So do the weights at both ends, where they
        mean something else: in steps that lack an earlier estimate, and in the last, to sigma = 0.
        """
        places = _stretched(self.gaps.softmax(0).cumsum(0)[:-1], steps)
        ends = torch.tensor([0, 1], dtype=torch.float64)
        return Parameters(
            torch.cat([ends[:1], places, ends[1:]]).diff().log(),
            _stretched(self.roots, steps - 1),
            torch.stack(
                [_between_ends(each, steps, 1 + age) for age, each in enumerate(self.weights.T)],
                dim=1,
            ),
            _stretched(self.shifts, steps),
        )

    def tensors(self) -> list[Tensor]:
        """All of them, in order."""
        return [self.gaps, self.roots, self.weights, self.shifts]

    def sampler(self) -> Tuned:
        """The sampler they make; step i has no more than i earlier estimates to weight."""
        earlier = self.weights.tril(diagonal=-1)
        newest = 1 - earlier.sum(dim=1, keepdim=True)
        return Tuned(self.roots.square(), torch.cat([newest, earlier], dim=1), self.shifts)

    def path(self, schedule: Schedule) -> list[Node]:
        """Their nodes from noisy to clean, and the clean end."""
        start, end = _ends(schedule)
        log_snr = torch.lerp(start, end, self.gaps.softmax(0).cumsum(0)[:-1])
        return path_at(schedule, schedule.time(log_snr))


def _gaps(nodes: Sequence[Node], schedule: Schedule) -> Tensor:
    """The shares into which `nodes` divide the way in log-SNR from t = 1 to k = 1."""
    start, end = _ends(schedule)
    log_snr = torch.stack([start, *(node.log_snr for node in nodes), end])
    return log_snr.diff() / (end - start)


def _stretched(values: Tensor, count: int) -> Tensor:
    """`values` (N,) interpolated linearly to `count` of them, with the same ends."""
    row = values[None, None]
    return functional.interpolate(row, size=count, mode="linear", align_corners=True).flatten()


def _between_ends(weights: Tensor, steps: int, without: int) -> Tensor:
    """The weights (N,) of an estimate that the first `without` steps lack, stretched to `steps`."""
    inner = weights[without:-1]
    if len(inner) == 0 or steps <= without + 1:
        return _stretched(weights, steps)
    ends = weights.new_zeros(without), weights[-1:]
    return torch.cat([ends[0], _stretched(inner, steps - without - 1), ends[1]])


def _ends(schedule: Schedule) -> tuple[Tensor, Tensor]:
    """The log-SNR at t = 1, and that of the step k = 1."""
    times = torch.tensor([1, 1 / schedule.steps], dtype=torch.float64)
    start, end = node_at(schedule, times).log_snr
    return start, end
