"""At which noise levels a model is trained."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from underone.diffusion import Schedule
from underone.errors import UserError


class Levels(Protocol):
    """A distribution of times t."""

    def __call__(self, schedule: Schedule, uniform: Tensor) -> Tensor:
        """Times in (0, 1] of this distribution, from `uniform` (B,), float64, on [0, 1)."""
        ...


def stratified(batch: int, generator: torch.Generator) -> Tensor:
    """Uniform on [0, 1), (B,) float64, with one draw in each of B equal parts.

    Means over the batch keep their expectation, at less variance (Kingma et al. 2021, app. I.1).
    """
    offset = torch.rand(1, generator=generator, dtype=torch.float64)
    return (offset + torch.arange(batch, dtype=torch.float64) / batch) % 1


@dataclass(frozen=True)
class EveryStep:
    """All steps k = 1..T equally often (Ho et al. 2020, Algorithm 1)."""

    name: Literal["every-step"] = "every-step"

    def __call__(self, schedule: Schedule, uniform: Tensor) -> Tensor:
        """t = (floor(T u) + 1) / T."""
        return (torch.floor(uniform * schedule.steps) + 1) / schedule.steps


EVERY_STEP = EveryStep()


@dataclass(frozen=True)
class LogNormal:
    """log(sigma / alpha) ~ N(mean, deviation^2), within the schedule (Karras et al. 2022, Table 1).

    `mean` and `deviation` are their P_mean and P_std. The defaults, theirs, are meant for data of
    standard deviation 0.5: for other data the mean shifts by the logarithm of the ratio.
    """

    mean: float = -1.2
    deviation: float = 1.2
    name: Literal["log-normal"] = "log-normal"

    def __post_init__(self) -> None:
        if not self.deviation > 0:
            raise UserError(f"the deviation of noise levels must be > 0, got {self.deviation}")

    def __call__(self, schedule: Schedule, uniform: Tensor) -> Tensor:
        """The times at which log(alpha / sigma) = -(mean + deviation Phi^-1(u)), at least 1/T."""
        log_snr = -(self.mean + self.deviation * torch.special.ndtri(uniform))
        return schedule.time(log_snr).clamp(min=1 / schedule.steps)
