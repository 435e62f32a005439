"""The schedules, and the paths along them, that samplers are measured on."""

from collections.abc import Iterator, Sequence
from itertools import product

import torch

from underone.diffusion import (
    GRIDS,
    Cosine,
    Geometric,
    Grid,
    LinearBeta,
    LogSNR,
    Node,
    Schedule,
    Straight,
    node_at,
    nodes,
)

# The betas of the DDPM paper in a hundred times as many steps: log alpha^2 is linear between whole
# steps, and at 1000 steps its kinks show in measurements of order 4.
SCHEDULE = LinearBeta(steps=100_000, beta_min=1e-6, beta_max=2e-4)
# Similar levels of sigma / alpha, with data that keep their size and data that shrink as noise
# grows: what holds on one schedule must hold on all.
FRAMEWORKS: tuple[Schedule, ...] = (
    SCHEDULE,
    Geometric(sigma_min=0.01, sigma_max=150.0, steps=1000),
    Straight(),
)


def log_snr_path(intervals: int) -> Sequence[Node]:
    """Intervals even in log-SNR, between the noise levels of the steps 1000 and 1 of 1000."""
    return nodes(even_grid(SCHEDULE), SCHEDULE, intervals + 1)


def even_grid(schedule: Schedule) -> Grid:
    """Even in log-SNR, down to the level of the step 1 of 1000."""
    return LogSNR(last=schedule.steps / 1000)


def uneven_path(intervals: int) -> Sequence[Node]:
    """Between the same levels, with intervals from 1.3 down to 0.7 times the mean."""
    even = torch.linspace(0, 1, intervals + 1, dtype=torch.float64)
    first, *_, last, clean = log_snr_path(1)
    bent = even + 0.3 * even * (1 - even)
    levels = torch.lerp(first.log_snr, last.log_snr, bent)
    times = SCHEDULE.time(levels).clamp(last.t, first.t)
    return [*(node_at(SCHEDULE, t) for t in times), clean]


def all_grids() -> Iterator[tuple[Schedule, Grid, int]]:
    """Every grid on every schedule, in few steps and in more."""
    schedules = (LinearBeta(), Cosine(), Geometric(), Straight())
    return product(schedules, GRIDS.values(), (1, 2, 3, 10))
