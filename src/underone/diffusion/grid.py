"""Where the steps are placed: (schedule, steps) -> the times of the evaluations.

A grid gives N strictly decreasing times in (0, 1], one an evaluation of a first-order sampler;
the clean end t = 0 follows the last of them and is added by `nodes`, here and nowhere else. Times
are float64, shape (N,); in the formulas k = t T is the step of the DDPM paper, 1..T, not
necessarily whole, and i = 0..N-1 counts from clean to noisy. Any N in 1..T is allowed;
`Explicit` fixes N itself.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import Tensor

from underone.diffusion.node import Node, Schedule, node_at, path_at
from underone.errors import UserError

# Below it float64 cannot tell alpha from 1, and log-SNR loses its digits.
_LEAST_STEP = 1e-6
_ROUNDING = 1e-9


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


@dataclass(frozen=True)
class Linspace:
    """k_i = 1 + round(i (T - 1) / (N - 1)), and k = T for N = 1: evenly spaced from 1 to T.

    diffusers' "linspace" (for N = 1 theirs is k = 1), the original spacing of DDPM's code.
    """

    name: Literal["linspace"] = "linspace"

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """N strictly decreasing times."""
        counts = _ascending(schedule, steps)
        if steps == 1:
            return _times(counts + schedule.steps, schedule)
        return _times(1 + torch.round((schedule.steps - 1) * counts / (steps - 1)), schedule)


@dataclass(frozen=True)
class LogSNR:
    """lambda_i evenly spaced in lambda = log(alpha / sigma), from k = `last` to k = `first`.

    DPM-Solver's "logSNR", diffusers' `use_lu_lambdas`, k-diffusion's exponential spacing. Steps are
    fractional. `first` is T unless said; N = 1 is k = `first` alone.
    """

    last: float = 1.0
    first: float | None = None
    name: Literal["log-snr"] = "log-snr"

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """N strictly decreasing times."""
        fractions, clean, noisy = _span(schedule, steps, self.first, self.last)
        if steps == 1:  # `clean.log_snr` may be infinite, and lerp would make 0 * inf = NaN
            return noisy.t[None]
        log_snr = torch.lerp(clean.log_snr, noisy.log_snr, fractions)
        return _inverse(schedule, log_snr, clean, noisy)


@dataclass(frozen=True)
class Karras:
    """r_i^(1/rho) evenly spaced in r = sigma / alpha, from k = `last` to k = `first`.

    Karras et al. 2022, eq. 5, whose rho is 7. Measured in log r it is denser than "log-snr" where
    there is much noise, and sparser where there is little. diffusers' `use_karras_sigmas`,
    k-diffusion's `get_sigmas_karras`. Steps are fractional. `first` is T unless said; N = 1 is
    k = `first` alone.
    """

    rho: float = 7.0
    last: float = 1.0
    first: float | None = None
    name: Literal["karras"] = "karras"

    def __post_init__(self) -> None:
        if not 0.1 <= self.rho <= 1000:
            raise UserError(f"the Karras grid's rho must lie in [0.1, 1000], got {self.rho:g}")

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """N strictly decreasing times."""
        fractions, clean, noisy = _span(schedule, steps, self.first, self.last)
        roots = torch.lerp(
            clean.noise_ratio ** (1 / self.rho), noisy.noise_ratio ** (1 / self.rho), fractions
        )
        return _inverse(schedule, -self.rho * roots.log(), clean, noisy)


@dataclass(frozen=True)
class Explicit:
    """The steps k themselves, noisy first, whole or not: `Explicit((1000, 600, 250, 40))`."""

    steps: tuple[float, ...]
    name: Literal["explicit"] = "explicit"

    def __post_init__(self) -> None:
        descending = all(a > b for a, b in pairwise(self.steps))
        if not self.steps or not descending or not self.steps[-1] > 0:
            raise UserError(
                "an explicit grid needs steps above 0 from noisy to clean, each below the one "
                f"before it, got {':'.join(f'{step:g}' for step in self.steps) or 'none'}"
            )

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """N strictly decreasing times, N being how many are listed."""
        if steps != len(self.steps):
            raise UserError(f"the grid lists {len(self.steps)} steps, but {steps} were asked for")
        if self.steps[0] > schedule.steps:
            raise UserError(f"the grid begins at {self.steps[0]:g}, above {schedule.steps}")
        return torch.tensor(self.steps, dtype=torch.float64) / schedule.steps


def nodes(grid: Grid, schedule: Schedule, steps: int) -> list[Node]:
    """The grid's nodes from noisy to clean, and the clean end t = 0: N + 1 nodes."""
    noisy = grid(schedule, steps)
    _check(noisy, grid, steps)
    return path_at(schedule, noisy)


def _check(times: Tensor, grid: Grid, steps: int) -> None:
    """A `UserError` where a grid, perhaps the user's own, does not give what a grid has to give."""
    name = getattr(grid, "__name__", grid)
    if not isinstance(times, Tensor) or not times.is_floating_point() or times.shape != (steps,):
        raise UserError(f"the grid {name} has to give a tensor of {steps} times, noisy first")
    if not times.isfinite().all():
        raise UserError(f"{name} has no finite steps here: choose more moderate options")
    if not (times.diff() < 0).all() or not times[-1] > 0 or not times[0] <= 1 + _ROUNDING:
        raise UserError(
            f"the grid {name} has to give times k / T in (0, 1], each below the one before it; it "
            f"gave {', '.join(f'{t:g}' for t in times[:4].tolist())}{', ...' if steps > 4 else ''}"
        )


def _ascending(schedule: Schedule, steps: int) -> Tensor:
    if not 1 <= steps <= schedule.steps:
        raise UserError(f"steps must lie in 1..{schedule.steps}, got {steps}")
    return torch.arange(steps, dtype=torch.float64)


def _span(
    schedule: Schedule, steps: int, first: float | None, last: float
) -> tuple[Tensor, Node, Node]:
    """Fractions of the way from the node at k = `last` to that at `first`; and these two."""
    counts = _ascending(schedule, steps)
    highest = schedule.steps if first is None else first
    if not 0 < highest <= schedule.steps:
        raise UserError(f"the grid's first step must lie in (0, {schedule.steps}], got {first:g}")
    if steps > 1 and not _LEAST_STEP <= last < highest:
        raise UserError(f"the grid's last step must lie in (0, {highest:g}), got {last:g}")
    ends = (torch.tensor(k / schedule.steps, dtype=torch.float64) for k in (last, highest))
    clean, noisy = (node_at(schedule, t) for t in ends)
    return (counts + 1 if steps == 1 else counts / (steps - 1)), clean, noisy


def _inverse(schedule: Schedule, log_snr: Tensor, clean: Node, noisy: Node) -> Tensor:
    """The times of ascending noise levels, noisy first; rounding does not leave the ends."""
    return schedule.time(log_snr).clamp(clean.t.clamp(max=noisy.t), noisy.t).flip(0)


def _times(ascending_steps: Tensor, schedule: Schedule) -> Tensor:
    return ascending_steps.flip(0) / schedule.steps
