"""The weights that a classical solver gives its estimates, read off the solver itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from underone.diffusion import Bound, Node, Sampler, Schedule, integrate


@dataclass(eq=False)
class _Counting:
    """A denoiser whose i-th estimate is the i-th unit vector; `asked` are the x it was asked at."""

    schedule: Schedule
    asked: list[Tensor] = field(default_factory=list)

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        unit = torch.zeros_like(x)
        unit[:, len(self.asked)] = 1
        self.asked.append(x[0])
        return unit


def weights_of(sampler: Sampler, eta: float, path: Sequence[Node], schedule: Schedule) -> Tensor:
    """The weights (N, N) with which `sampler` takes each of the N steps of `path` as `Tuned` does.

    Row i has those of the estimates of steps 0, 1, ..., i, in the exponential step whose noise is
    that of `eta`. For samplers that ask for one estimate a step and are linear in these, as
    DPM-Solver++, SA-Solver and UniPC: from x = 0, with estimates that are unit vectors, x holds
    the weight of each. What a corrector adds to x after its estimate is in the next row.
    """
    count = len(path) - 1
    x = torch.zeros(1, count, dtype=torch.float64)
    counting = _Counting(schedule)
    *_, last = integrate(Bound(counting, None), sampler, path, x, lambda: torch.zeros_like(x))
    states = [*counting.asked, last.x[0]]
    log_snr = torch.stack([node.log_snr for node in path[:-1]])
    rows = []
    for i, h in enumerate(log_snr.diff()):
        kept = path[i + 1].sigma / path[i].sigma * torch.exp(-eta * h)
        whole = path[i + 1].alpha * -torch.expm1(-(1 + eta) * h)
        rows.append((states[i + 1] - kept * states[i]) / whole)
    return torch.stack([*rows, states[-1]])
