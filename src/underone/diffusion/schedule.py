"""Noise schedules: t in [0, 1] -> (alpha, sigma) of x_t = alpha x0 + sigma z, in float64."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from underone.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DiscreteSchedule(ABC):
    """A variance-preserving schedule defined by its betas at the whole steps 1..T.

    At t = k/T: alpha^2 = prod_{i<=k} (1 - beta_i), sigma^2 = 1 - alpha^2 (Ho et al. 2020, eq. 4).
    Between whole steps log alpha^2 is linear in t, so that fractional times are defined.
    """

    steps: int = 1000

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1_000_000:
            raise UserError(f"a schedule has 1 to 1,000,000 steps, got {self.steps}")

    @abstractmethod
    def betas(self) -> Tensor:
        """beta_1..beta_T, float64, shape (T,)."""

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
class _BetaRange(DiscreteSchedule):
    """Betas that rise from `beta_min` to `beta_max`."""

    beta_min: float = 1e-4
    beta_max: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta_min <= self.beta_max < 1:
            raise UserError(
                f"betas must satisfy 0 < beta_min <= beta_max < 1, got {self.beta_min} "
                f"and {self.beta_max}"
            )


@dataclass(frozen=True, kw_only=True)
class LinearBeta(_BetaRange):
    """beta_k linear in k from `beta_min` to `beta_max` (Ho et al. 2020, section 4)."""

    name: Literal["linear-beta"] = "linear-beta"

    def betas(self) -> Tensor:
        return torch.linspace(self.beta_min, self.beta_max, self.steps, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class ScaledLinearBeta(_BetaRange):
    """sqrt(beta_k) linear in k, as in the code of Rombach et al. 2022; diffusers' scaled_linear."""

    name: Literal["scaled-linear-beta"] = "scaled-linear-beta"

    def betas(self) -> Tensor:
        ends = self.beta_min**0.5, self.beta_max**0.5
        return torch.linspace(*ends, self.steps, dtype=torch.float64) ** 2


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
        t = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
        f = torch.cos((t + self.offset) / (1 + self.offset) * math.pi / 2) ** 2
        return (1 - f[1:] / f[:-1]).clamp(max=0.999)


@dataclass(frozen=True, kw_only=True)
class Geometric:
    """alpha = 1 and sigma geometric: the levels of score-based models (Song and Ermon 2020).

    At the whole steps k = 1..L, with L = `steps`,

        sigma_k = sigma_min (sigma_max / sigma_min)^((k - 1) / (L - 1)),

    and the same between them: the variance exploding SDE of Song et al. 2021 (arXiv 2011.13456,
    appendix C), whose time is (k - 1) / (L - 1). Below k = 1 sigma falls to 0 linearly, so that
    t = 0 is the data, as of every schedule. `score_levels` finds the levels for a data set.
    """

    sigma_min: float = 0.02
    sigma_max: float = 50.0
    steps: int = 100
    name: Literal["geometric"] = "geometric"

    def __post_init__(self) -> None:
        if not 2 <= self.steps <= 1_000_000:
            raise UserError(f"a geometric schedule has 2 to 1,000,000 steps, got {self.steps}")
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise UserError(
                "a geometric schedule needs 0 < sigma_min < sigma_max, got "
                f"{self.sigma_min:g} and {self.sigma_max:g}"
            )

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha, which is 1, and sigma at times t in [0, 1] of any shape, float64."""
        k = t.to(torch.float64) * self.steps
        sigma = self.sigma_min * torch.exp(self._log_ratio * (k - 1).clamp(min=0)) * k.clamp(max=1)
        return torch.ones_like(sigma), sigma

    def time(self, log_snr: Tensor) -> Tensor:
        """The time at which log(alpha / sigma) equals `log_snr`, clamped to [0, 1]."""
        rise = -log_snr.to(torch.float64) - math.log(self.sigma_min)
        k = torch.where(rise > 0, 1 + rise / self._log_ratio, rise.exp())
        return (k / self.steps).clamp(0, 1)

    @property
    def _log_ratio(self) -> float:
        """The logarithm of the ratio of neighbouring levels."""
        return math.log(self.sigma_max / self.sigma_min) / (self.steps - 1)


@dataclass(frozen=True, kw_only=True)
class Straight:
    """alpha = 1 - sigma, sigma = (1 - `alpha_min`) t: the straight path from data to noise.

    That of rectified flow (Liu et al. 2023, arXiv 2209.03003, eq. 1) and of flow matching (Lipman
    et al. 2023, arXiv 2210.02747, eq. 22), where sigma = t. Theirs ends in alpha = 0, where
    log(alpha / sigma) is infinite and no steps could be placed by it; this one ends just before,
    with about as much signal as a DDPM. Networks are told 1000 t.
    """

    steps: int = 1000
    alpha_min: float = 0.005
    name: Literal["straight"] = "straight"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"a schedule needs at least 1 step, got {self.steps}")
        if not 0 < self.alpha_min < 1:
            raise UserError(
                f"the straight schedule's alpha_min must lie in (0, 1), got {self.alpha_min}: at "
                "alpha = 0 the log-SNR that samplers step along is infinite"
            )

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma at times t in [0, 1] of any shape, float64."""
        sigma = (1 - self.alpha_min) * t.to(torch.float64)
        return 1 - sigma, sigma

    def time(self, log_snr: Tensor) -> Tensor:
        """The time at which log(alpha / sigma) equals `log_snr`, clamped to [0, 1]."""
        sigma = torch.sigmoid(-log_snr.to(torch.float64))
        return (sigma / (1 - self.alpha_min)).clamp(0, 1)


@lru_cache(maxsize=32)
def _log_alpha_squared(schedule: DiscreteSchedule) -> Tensor:
    """log alpha^2 at the whole steps 0..T, shape (T + 1,), strictly decreasing from 0."""
    sums = torch.cumsum(torch.log1p(-schedule.betas()), dim=0)
    return torch.cat([torch.zeros(1, dtype=torch.float64), sums])
