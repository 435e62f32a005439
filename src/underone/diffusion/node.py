"""Points of the noise schedule, and what is known there."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Node:
    """A noise level: x_t = alpha x0 + sigma z, with z ~ N(0, I).

    `t` in [0, 1], `alpha` and `sigma` are float64 tensors of shape () or (B,).
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor

    @property
    def log_snr(self) -> Tensor:
        """lambda = log(alpha / sigma), half the logarithm of the signal-to-noise ratio."""
        return torch.log(self.alpha) - torch.log(self.sigma)

    @property
    def noise_ratio(self) -> Tensor:
        """sigma / alpha: the noise level of x / alpha = x0 + (sigma / alpha) z; EDM's sigma."""
        return self.sigma / self.alpha


@dataclass(frozen=True)
class Estimate:
    """What is known at a node: the noisy state `x` and the estimate `x0` of E[x0 | x], (B, ...)."""

    node: Node
    x: Tensor
    x0: Tensor

    @property
    def noise(self) -> Tensor:
        """z = (x - alpha x0) / sigma: the noise that x0 implies. Needs sigma > 0."""
        return (self.x - expand(self.node.alpha, self.x) * self.x0) / expand(
            self.node.sigma, self.x
        )


class Schedule(Protocol):
    """A noise schedule: the map from time to the coefficients of x_t = alpha x0 + sigma z."""

    @property
    def steps(self) -> int:
        """T, the number of whole steps: step k is the time t = k / T."""
        ...

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma (float64) at times t in [0, 1] of any shape."""
        ...

    def time(self, log_snr: Tensor) -> Tensor:
        """The time at which log(alpha / sigma) equals `log_snr`: the inverse of the schedule."""
        ...


def step_size(now: Node, to: Node) -> Tensor:
    """h = lambda_s - lambda_t, lambda = log(alpha / sigma), from the node t to the node s.

    Above 0 towards the data, below 0 away from them, and infinite to sigma_s = 0.
    """
    return to.log_snr - now.log_snr


def node_at(schedule: Schedule, t: Tensor) -> Node:
    """The node of `schedule` at time(s) t in [0, 1]."""
    alpha, sigma = schedule(t)
    return Node(t.to(torch.float64), alpha, sigma)


def path_at(schedule: Schedule, times: Tensor) -> list[Node]:
    """The nodes at N falling `times` (N,), noisy first, and the clean end t = 0: N + 1 nodes."""
    every = node_at(schedule, torch.cat([times, times.new_zeros(1)]))
    return [Node(*each) for each in zip(every.t, every.alpha, every.sigma, strict=True)]


def expand(coefficient: Tensor, like: Tensor) -> Tensor:
    """A coefficient of shape () or (B,) ready to multiply a batch (B, ...) without changing dtype.

    A zero-dimensional float64 tensor does not promote what it multiplies, so it stays as it is.
    """
    if coefficient.ndim == 0:
        return coefficient
    return coefficient.to(like).reshape(-1, *(1,) * (like.ndim - 1))


def noised(x0: Tensor, node: Node, noise: Tensor) -> Tensor:
    """x_t = alpha x0 + sigma z, all (B, ...): a draw of q(x_t | x0) where z is standard normal."""
    return expand(node.alpha, x0) * x0 + expand(node.sigma, x0) * noise
