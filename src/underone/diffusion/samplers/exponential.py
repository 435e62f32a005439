"""The step that exponential solvers in log-SNR share, of the probability flow and of its SDEs."""

import torch
from torch import Tensor

from underone.diffusion.samplers.sampler import Step


def exponential_step(x: Tensor, integral: Tensor, eta: float | Tensor, at: Step) -> Tensor:
    """sigma_s / sigma_t e^(-eta h) x + alpha_s integral + sigma_s sqrt(1 - e^(-2 eta h)) z.

    With lambda = log(alpha / sigma) and h = lambda_s - lambda_t. Exact (Lu et al. 2022, proposition
    4.1, and its SDE) where `integral` is int_t^s (1 + eta) e^(-(1 + eta) (lambda_s - l)) x0(l) dl.
    The noise z is drawn only where eta > 0.
    """
    h = at.h
    x = at.to.sigma / at.now.sigma * torch.exp(-eta * h) * x + at.to.alpha * integral
    if eta > 0:
        x = x + at.to.sigma * torch.sqrt(-torch.expm1(-2 * eta * h)) * at.noise()
    return x
