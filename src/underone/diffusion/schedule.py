"""Noise schedules: t in [0, 1] -> (alpha, sigma) of x_t = alpha x0 + sigma z, in float64."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from underone.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DiscreteSchedule:
    """A variance-preserving schedule defined by its betas at the whole steps 1..T.

    At t = k/T: alpha^2 = prod_{i<=k} (1 - beta_i), sigma^2 = 1 - alpha^2 (Ho et al. 2020, eq. 4).
    Between whole steps log alpha^2 is linear in t, so that fractional times are defined.
    """

    steps: int = 1000

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"a schedule needs at least 1 step, got {self.steps}")

    def betas(self) -> Tensor:
        """beta_1..beta_T, float64, shape (T,)."""
        raise NotImplementedError

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma at times t in [0, 1] of any shape, float64."""
        table = _log_alpha_squared(self).to(t.device)
        position = t.to(torch.float64) * self.steps
        below = position.floor().clamp(0, self.steps - 1).long()
        log_alpha_squared = torch.lerp(table[below], table[below + 1], position - below)
        return torch.exp(0.5 * log_alpha_squared), torch.sqrt(-torch.expm1(log_alpha_squared))

    def time(self, log_snr: Tensor) -> Tensor:
        """The time at which log(alpha / sigma) equals `log_snr`, clamped to [0, 1]."""
        table = _log_alpha_squared(self).to(log_snr.device)
        wanted = torch.nn.functional.logsigmoid(2 * log_snr.to(torch.float64))
        above = torch.searchsorted(-table, -wanted).clamp(1, self.steps)
        fraction = (table[above - 1] - wanted) / (table[above - 1] - table[above])
        return ((above - 1 + fraction) / self.steps).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class LinearBeta(DiscreteSchedule):
    """beta_k linear in k from `beta_min` to `beta_max` (Ho et al. 2020, section 4)."""

    beta_min: float = 1e-4
    beta_max: float = 0.02
    name: Literal["linear-beta"] = "linear-beta"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta_min <= self.beta_max < 1:
            raise UserError(
                f"betas must satisfy 0 < beta_min <= beta_max < 1, got {self.beta_min} "
                f"and {self.beta_max}"
            )

    def betas(self) -> Tensor:
        """beta_1..beta_T, float64, shape (T,)."""
        return torch.linspace(self.beta_min, self.beta_max, self.steps, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Cosine(DiscreteSchedule):
    """alpha_k^2 = f(k/T)/f(0), f(t) = cos^2((t + s)/(1 + s) pi/2) (Nichol and Dhariwal, eq. 17).

    beta_k is clipped at 0.999, as in the paper, so that alpha_T stays above 0.
    """

    offset: float = 0.008
    name: Literal["cosine"] = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.offset < 1:
            raise UserError(f"the cosine schedule's offset must lie in (0, 1), got {self.offset}")

    def betas(self) -> Tensor:
        """beta_1..beta_T, float64, shape (T,)."""
        t = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
        f = torch.cos((t + self.offset) / (1 + self.offset) * math.pi / 2) ** 2
        return (1 - f[1:] / f[:-1]).clamp(max=0.999)


@lru_cache(maxsize=32)
def _log_alpha_squared(schedule: DiscreteSchedule) -> Tensor:
    """log alpha^2 at the whole steps 0..T, shape (T + 1,), strictly decreasing from 0."""
    sums = torch.cumsum(torch.log1p(-schedule.betas()), dim=0)
    return torch.cat([torch.zeros(1, dtype=torch.float64), sums])
