"""Euler and Heun steps of the probability flow, with the noise churn of EDM."""

import math
from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from underone.diffusion.node import Estimate, Node
from underone.diffusion.samplers.sampler import Sampler, Step
from underone.errors import UserError


@dataclass(frozen=True)
class _Churned(Sampler):
    """Algorithm 2 of Karras et al. 2022: each step may first raise the noise level.

    With r = sigma / alpha and N steps, r becomes (1 + gamma) r, where
    gamma = min(churn / N, sqrt(2) - 1) for r in [churn_min, churn_max] and 0 elsewhere, by adding
    `churn_noise` times the noise that is missing. It never goes beyond the noisiest level that
    the model knows. Along one Brownian path churn has order 1 from N > churn / (sqrt(2) - 1) on,
    but only without bounds: which node is the last inside one changes the path by sqrt(h).
    """

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = math.inf
    churn_noise: float = 1.0

    def __post_init__(self) -> None:
        if not self.churn >= 0 or not self.churn_noise > 0:
            raise UserError("churn must be at least 0 and churn_noise above 0")
        if not 0 <= self.churn_min <= self.churn_max:
            raise UserError("churn needs 0 <= churn_min <= churn_max")

    @property
    def stochastic(self) -> bool:
        return self.churn > 0

    @property
    def bounded(self) -> bool:
        """Whether some noise levels are not churned."""
        return self.churn_min > 0 or self.churn_max < math.inf

    @property
    def global_order(self) -> int | None:
        return None if self.stochastic and self.bounded else 1

    @property
    def exact_for_one_image(self) -> bool:
        return self.churn == 0 or self.churn_noise == 1

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """Raise the noise level, then step down to the next node."""
        here = at.model(*self._noisier(x, at))
        return self._descend(here, at), here

    def finish(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """Raise the noise level, then x = x0."""
        here = at.model(*self._noisier(x, at))
        return here.x0, here

    @abstractmethod
    def _descend(self, here: Estimate, at: Step) -> Tensor:
        """From the estimate at the raised level to x at `at.to`."""

    def _noisier(self, x: Tensor, at: Step) -> tuple[Tensor, Node]:
        ratio = at.now.noise_ratio
        gamma = min(self.churn / at.total, math.sqrt(2) - 1)
        if gamma == 0 or not self.churn_min <= ratio <= self.churn_max:
            return x, at.now
        raised = at.model.node(-(ratio * (1 + gamma)).log())
        missing = (raised.noise_ratio**2 - ratio**2).clamp(min=0).sqrt()
        noise = self.churn_noise * missing * at.noise()
        return raised.alpha * (x / at.now.alpha + noise), raised


@dataclass(frozen=True)
class Euler(_Churned):
    """x / alpha += (r_s - r_t) z, in r = sigma / alpha, with z the noise that x0 implies.

    Order 1 (Karras et al. 2022, eq. 4 and algorithm 2 without its correction). Without churn it
    equals DDIM(0).
    """

    def _descend(self, here: Estimate, at: Step) -> Tensor:
        return at.to.alpha * here.x0 + at.to.sigma * here.noise


@dataclass(frozen=True)
class Heun(_Churned):
    """x / alpha += (r_s - r_t) (z + z') / 2, with z' from a second evaluation after an Euler step.

    Order 2: the trapezoidal rule for d(x / alpha) / dr = z, whose local error is h^3 (Karras et
    al. 2022, algorithm 2). Two evaluations a step, one for the last: 2 N - 1. On the cosine
    schedule begin below T, by `first` of a grid: r falls from 2e4 to 6 in a tenth of all steps
    there, and the mean of two slopes says nothing of so long a step.
    """

    @property
    def global_order(self) -> int | None:
        return super().global_order if self.stochastic else 2

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def _descend(self, here: Estimate, at: Step) -> Tensor:
        to, noise = at.to, here.noise
        euler = to.alpha * here.x0 + to.sigma * noise
        change = at.model(euler, to).noise - noise
        return euler + to.alpha * (to.noise_ratio - here.node.noise_ratio) / 2 * change
