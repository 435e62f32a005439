"""Langevin dynamics: annealed over the noise levels, or correcting another sampler."""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from underone.diffusion.node import Estimate
from underone.diffusion.samplers.ddpm import DDPM
from underone.diffusion.samplers.multistep import DEIS, IPNDM
from underone.diffusion.samplers.sampler import Sampler, Step
from underone.diffusion.score_levels import langevin_rate
from underone.errors import UserError


def _langevin(here: Estimate, rate: float, at: Step, *, published: bool = False) -> Tensor:
    """One Langevin step at `here.node`, whose score is (alpha x0 - x) / sigma^2.

    x += rate (alpha x0 - x) + sigma sqrt(2 rate) z is the Euler-Maruyama step of the papers. With
    sqrt(2 rate - rate^2) in place of sqrt(2 rate) it is exact where x0 does not depend on x.
    """
    node = here.node
    drawn = 2 * rate if published else 2 * rate - rate**2
    drift = rate * (node.alpha * here.x0 - here.x)
    return here.x + drift + drawn**0.5 * node.sigma * at.noise()


@dataclass(frozen=True)
class AnnealedLangevin(Sampler):
    """`inner` Langevin steps at each node (Song and Ermon 2019, algorithm 1), then x = x0.

    On x / alpha at noise level r = sigma / alpha, with score (x0 - x / alpha) / r^2,

        x / alpha += rate (x0 - x / alpha) + r sqrt(2 rate - rate^2) z.

    In the paper's symbols rate is alpha_i / (2 sigma_i^2) = epsilon / (2 sigma_L^2), the same at
    every level; its code takes twice the paper's, 0.2. `published` draws their sqrt(2 rate) z: of
    one image the variance then settles at r^2 / (1 - rate / 2) and of broad data at the truth;
    without it at the truth, and at (1 - rate / 2) times it. Only more levels and a smaller rate
    bring either to the data's distribution. inner N + 1 evaluations.

    Without a `rate` it is at each level the one that brings the published steps closest to that
    level's variance from the variance of the level before (Song and Ermon 2020, technique 4).
    """

    stochastic: ClassVar[bool] = True
    global_order: ClassVar[int | None] = None  # at a fixed rate more levels do not converge

    inner: int = 100
    rate: float | None = 0.2
    published: bool = False

    def __post_init__(self) -> None:
        if self.inner < 1:
            raise UserError(f"annealed Langevin needs inner >= 1, got {self.inner}")
        if self.rate is None and not self.published:
            raise UserError("annealed Langevin finds a rate for the published noise alone")
        if self.rate is not None and not 0 < self.rate < 1:
            raise UserError(f"annealed Langevin's rate must lie in (0, 1), got {self.rate}")

    @property
    def exact_for_one_image(self) -> bool:
        return not self.published

    def evaluations(self, steps: int) -> int:
        return self.inner * steps + 1

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """The inner steps at `at.now`; x / alpha itself is taken to the next level."""
        settled = self._settle(x, at)
        return settled.x * (at.to.alpha / at.now.alpha), settled

    def finish(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """The inner steps of the last level, and the estimate of x0 there."""
        here = at.evaluate(self._settle(x, at).x)
        return here.x0, here

    def _settle(self, x: Tensor, at: Step) -> Estimate:
        rate = langevin_rate(_fall(at), self.inner) if self.rate is None else self.rate
        for _ in range(self.inner):
            here = at.evaluate(x)
            x = _langevin(here, rate, at, published=self.published)
        return Estimate(at.now, x, here.x0)


def _fall(at: Step) -> float:
    """sigma / alpha at the level before over that here; at the first level, that over the next's.

    At the first level x has the right noise from the start: its steps are those of the second.
    """
    levels = [node.noise_ratio.item() for node in at.path[max(at.index - 1, 0) :][:2]]
    return levels[0] / levels[1] if levels[1] > 0 else 1.0


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """Langevin steps at each node, then a step of `predictor` (Song et al. 2021, algorithm 3).

    The paper chooses each Langevin step by a signal-to-noise ratio: epsilon = 2 (snr |z| /
    |score|)^2 with norms averaged over the batch. At their expectation that is a rate of 2 snr^2
    of sigma^2, and so it is here, so that no sample depends on its neighbours. Its noise is drawn
    as in `AnnealedLangevin`. A corrected x has other noise than the estimates before it, so
    predictors that extrapolate noise, DEIS and iPNDM, are refused.
    """

    predictor: Sampler = field(default_factory=lambda: DDPM("small"))
    corrections: int = 1
    snr: float = 0.16

    def __post_init__(self) -> None:
        if self.corrections < 0:
            raise UserError(f"corrections must be at least 0, got {self.corrections}")
        if isinstance(self.predictor, (DEIS, IPNDM)):
            raise UserError(
                "DEIS and iPNDM extrapolate the noise of x, which a corrector renews: choose "
                "another predictor"
            )
        if not 0 < self.snr < 0.5**0.5:
            raise UserError(f"the corrector's snr must lie in (0, 0.707), got {self.snr}")

    @property
    def history(self) -> int | None:
        return self.predictor.history

    @property
    def stochastic(self) -> bool:
        return self.corrections > 0 or self.predictor.stochastic

    @property
    def global_order(self) -> int | None:
        # Corrections at a fixed rate do not converge to a path as steps grow.
        return None if self.corrections else self.predictor.global_order

    @property
    def exact_for_one_image(self) -> bool:
        return self.predictor.exact_for_one_image

    def evaluations(self, steps: int) -> int | None:
        predicted = self.predictor.evaluations(steps)
        return None if predicted is None else predicted + self.corrections * steps

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """Correct at `at.now`, then predict."""
        return self.predictor.step(self._correct(x, at), at)

    def finish(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """Correct at the last node, then finish as the predictor does."""
        return self.predictor.finish(self._correct(x, at), at)

    def _correct(self, x: Tensor, at: Step) -> Tensor:
        for _ in range(self.corrections):
            x = _langevin(at.evaluate(x), 2 * self.snr**2, at)
        return x
