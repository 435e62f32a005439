"""Where the steps are placed: (schedule, steps) -> the times of the evaluations.

A grid gives N strictly decreasing times in (0, 1], one an evaluation of a first-order sampler;
the clean end t = 0 follows the last of them and is added by `nodes`. Times are float64, shape (N,);
in the formulas k = t T is the step of the DDPM paper, 1..T, and i = 0..N-1 counts from clean
to noisy. Any N in 1..T is allowed.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from underone.diffusion.node import Node, Schedule, node_at
from underone.errors import UserError


class Grid(Protocol):
    """A placement of the steps."""

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """N = `steps` strictly decreasing times in (0, 1], float64."""
        ...


@dataclass(frozen=True)
class Uniform:
    """k_i = 1 + floor(i T / N): evenly spaced from the cleanest step up.

    DDIM's "linear" and diffusers' "leading", equal to both where N divides T. It starts below T,
    at a noise level where pure noise is not quite what the model was trained on.
    """

    name: Literal["uniform"] = "uniform"

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """N strictly decreasing times."""
        counts = _ascending(schedule, steps)
        return _times(1 + torch.floor(counts * schedule.steps / steps), schedule)


@dataclass(frozen=True)
class Trailing:
    """k_i = round((i + 1) T / N): evenly spaced from T down (Lin et al. 2023, table 2).

    diffusers' "trailing", equal to it where N divides T. The first evaluation is at pure noise.
    """

    name: Literal["trailing"] = "trailing"

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """N strictly decreasing times."""
        counts = _ascending(schedule, steps)
        return _times(torch.round((counts + 1) * schedule.steps / steps), schedule)


@dataclass(frozen=True)
class Quadratic:
    """k_i = 1 + (T - 1) (i / (N - 1))^2, and k = T for N = 1: dense where there is little noise.

    DDIM's "quad" (Song et al. 2021, appendix D.2) with its end at T, not 0.8 T; steps may be
    fractional, so that no two ever fall together.
    """

    name: Literal["quadratic"] = "quadratic"

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """N strictly decreasing times."""
        counts = _ascending(schedule, steps)
        if steps == 1:
            return _times(counts + schedule.steps, schedule)
        return _times(1 + (schedule.steps - 1) * (counts / (steps - 1)) ** 2, schedule)


def nodes(grid: Grid, schedule: Schedule, steps: int) -> list[Node]:
    """The grid's nodes from noisy to clean, and the clean end t = 0: N + 1 nodes."""
    times = torch.cat([grid(schedule, steps), torch.zeros(1, dtype=torch.float64)])
    return [node_at(schedule, t) for t in times]


def _ascending(schedule: Schedule, steps: int) -> Tensor:
    if not 1 <= steps <= schedule.steps:
        raise UserError(f"steps must lie in 1..{schedule.steps}, got {steps}")
    return torch.arange(steps, dtype=torch.float64)


def _times(ascending_steps: Tensor, schedule: Schedule) -> Tensor:
    return ascending_steps.flip(0) / schedule.steps
