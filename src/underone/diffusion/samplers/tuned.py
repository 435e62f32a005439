"""A multistep solver of the reverse SDE whose freedoms are numbers: what tuning learns."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from underone.diffusion.node import Estimate
from underone.diffusion.samplers.exponential import exponential_step
from underone.diffusion.samplers.sampler import Sampler, Step


@dataclass(frozen=True, eq=False)
class Tuned(Sampler):
    """The exponential step with noise, weights of estimates and noise levels of its own each time.

        x_s = sigma_s / sigma_t e^(-eta h) x + alpha_s (1 - e^(-(1 + eta) h)) sum_j w_j x0_j
              + sigma_s sqrt(1 - e^(-2 eta h)) z

    with h the step in log(alpha / sigma), and to sigma = 0 just sum_j w_j x0_j. At step i of N the
    weights w are `weights[i]`, of the newest estimates, newest first, and eta is `etas[i]` >= 0.
    x0_i = D(x alpha' / alpha) is asked for at a log-SNR that is `shifts[i]` above that of x, which
    corrects what few steps leave in x of noise (Li et al. 2024, "Alleviating exposure bias in
    diffusion models through sampling with shifted time steps"). Float64 tensors of shapes (N - 1,),
    (N, K) and (N,); gradients reach them, and the nodes of the path.

    DPM-Solver++(2M) and its SDE (Lu et al. 2022) are the case w = (1 + h / 2 h', -h / 2 h') with h'
    the step before, one eta, and no shift. Learned weights of estimates are those of DyWeight and
    of Generalised Solvers (sampled here through x0, not through the noise).
    """

    global_order: ClassVar[int | None] = None  # it is made for one number of steps
    exact_for_one_image: ClassVar[bool] = False  # its weights need not sum to 1

    etas: Tensor
    weights: Tensor
    shifts: Tensor

    @property
    def steps(self) -> int:
        """N, the only number of steps it can take."""
        return len(self.weights)

    @property
    def history(self) -> int:
        return self.weights.shape[1] - 1

    @property
    def stochastic(self) -> bool:
        return bool((self.etas > 0).any())

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """One step; noise is drawn only where eta > 0."""
        here, mixed = self._mixed(x, at)
        eta = self.etas[at.index]
        return exponential_step(x, -torch.expm1(-(1 + eta) * at.h) * mixed, eta, at), here

    def finish(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """The weighted estimates themselves."""
        here, mixed = self._mixed(x, at)
        return mixed, here

    def _mixed(self, x: Tensor, at: Step) -> tuple[Estimate, Tensor]:
        told = at.model.node(at.now.log_snr + self.shifts[at.index])
        here = Estimate(at.now, x, at.model(told.alpha / at.now.alpha * x, told).x0)
        estimates = [here, *reversed(at.past)]
        weights = self.weights[at.index]
        return here, sum(
            (weight * e.x0 for weight, e in zip(weights, estimates, strict=False)),
            torch.zeros_like(x),
        )
