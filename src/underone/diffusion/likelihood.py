"""The log-density of images under a diffusion model, by its probability flow.

Along lambda = log(alpha / sigma) the flow of a variance-preserving schedule is

    dx / d lambda = alpha (E[x0 | x] - alpha x),

which is d(x / alpha) / d lambda = x0 - x / alpha in terms of x itself: it vanishes at both ends of
the path. Along it the log-density changes by minus the divergence of that field (Song et al. 2021,
arXiv 2011.13456, eq. 39 and appendix D.2). Other schedules have the same flow, for x / alpha does
not depend on alpha where sigma / alpha is given: theirs is followed in x / sqrt(alpha^2 + sigma^2),
whose alpha and sigma preserve the variance.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from underone.diffusion.denoiser import Denoiser
from underone.diffusion.node import Node, Schedule, expand, node_at
from underone.errors import UserError

# How far apart two grey levels of an 8-bit image are in the models' range [-1, 1].
GREY_LEVEL = 2 / 255
# The classical Runge-Kutta method: the positions of all stages but the first, and all weights.
_POSITIONS = (1 / 2, 1 / 2, 1)
_WEIGHTS = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


def log_density(
    denoiser: Denoiser,
    images: Tensor,
    label: Tensor | None,
    probes: Tensor,
    *,
    steps: int,
    first_step: float = 1.0,
) -> Tensor:
    """log p(images) in nats, (R, B) float64: an estimate for each of R probes.

    `images` (B, ...) lie in the models' range, and p is a density there: that of the data blurred
    by noise of deviation sigma / alpha at step k = `first_step`, 0 < k < T. With x = alpha y it is

        log p(y) = log N(x_T; 0, sigma_T^2 I) + int div d lambda + d log alpha,

    the integral running along the flow from x = alpha y at that step to x_T at t = 1. At k = 0 the
    path would be infinitely long: of exact data there is no density.

    `probes` (R, B, ...) are random v with E[v v^T] = I, such as `rademacher`, each the same all
    along the path: v^T J v has the divergence as its mean (Hutchinson 1990), so the estimate of
    log p is unbiased, and of the bits; exp of it is not. The path does not depend on them.

    What is approximated: the distribution of x_T, whose mean is alpha_T x0, by the prior
    N(0, sigma_T^2 I); and the integral, by the classical Runge-Kutta method of order 4 in `steps`
    equal steps of lambda, at 4 `steps` evaluations and as many vector-Jacobian products a probe.

    The denoiser must be a conditional mean: neither guided (mixed estimates are no density's) nor
    clipped (where x0 is clamped the field has no divergence of its own). It works in the precision
    of `images`; states and sums are float64.
    """
    schedule = denoiser.schedule
    check_path(schedule, steps, first_step)
    ends = torch.tensor([first_step / schedule.steps, 1.0], dtype=torch.float64)
    clean, noisy = (_preserving(node_at(schedule, t)) for t in ends)
    flow = _Flow(denoiser, label, probes, images.dtype)
    x = clean.alpha * images.double()
    gained = torch.zeros(probes.shape[:2], dtype=torch.float64, device=images.device)
    size = (noisy.log_snr - clean.log_snr) / steps
    for index in range(steps):
        x, divergence = _runge_kutta(flow, x, clean.log_snr + index * size, size)
        gained = gained + divergence
    return _log_prior(x, noisy) + gained + images[0].numel() * clean.alpha.log()


def check_path(schedule: Schedule, steps: int, first_step: float) -> None:
    """A `UserError` where the flow cannot be followed from `first_step` in `steps` steps."""
    if steps < 1:
        raise UserError(f"the flow needs at least 1 step, got {steps}")
    if not 0 < first_step < schedule.steps:
        raise UserError(
            f"the flow must begin at a step in (0, {schedule.steps}), got {first_step:g}"
        )


def rademacher(noise: Tensor) -> Tensor:
    """The signs of `noise`, +1 or -1: of all probes those of least variance, if it is symmetric."""
    return torch.where(noise < 0, -1.0, 1.0).to(noise)


def dequantised(images: Tensor, noise: Tensor) -> Tensor:
    """Images x + (u - 1/2) 2/255 with u ~ U(0, 1): anywhere in the cell of their grey level.

    `images` hold the grey levels p as p / 127.5 - 1; u = Phi(noise) for standard normal `noise`.
    """
    uniform = torch.special.ndtr(noise.double())
    return (images.double() + (uniform - 0.5) * GREY_LEVEL).to(images.dtype)


def bits_per_dimension(log_density: Tensor, elements: int) -> Tensor:
    """-(log p + d log(2/255)) / (d log 2): bits an element of dequantised 8-bit images.

    `log_density` is that of images of d = `elements` elements in the models' range, where a grey
    level is a cell of volume (2/255)^d. On the average over u this is never below the bits of the
    discrete model that gives each image the mass of its cell (Theis et al. 2016, eq. 3).
    """
    return -(log_density / elements + math.log(GREY_LEVEL)) / math.log(2)


@dataclass(frozen=True)
class _Flow:
    """The field of the flow, and the estimates of its divergence."""

    denoiser: Denoiser
    label: Tensor | None
    probes: Tensor
    dtype: torch.dtype

    def __call__(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """dx / d lambda (B, ...) and v^T J v (R, B), both float64."""
        schedule = self.denoiser.schedule
        node = node_at(schedule, schedule.time(log_snr))
        alpha = _preserving(node).alpha
        with torch.enable_grad():
            point = x.to(self.dtype).detach().requires_grad_()
            x0 = self.denoiser(node.alpha / alpha * point, node, self.label)
            field = alpha * (x0 - alpha * point)
            divergence = torch.stack([_along(probe, field, point) for probe in self.probes])
        return field.detach().double(), divergence


def _preserving(node: Node) -> Node:
    """The same log-SNR, with alpha and sigma divided by sqrt(alpha^2 + sigma^2)."""
    scale = (node.alpha**2 + node.sigma**2).sqrt()
    return Node(node.t, node.alpha / scale, node.sigma / scale)


def _along(probe: Tensor, field: Tensor, point: Tensor) -> Tensor:
    """v^T J v of each row, J = d field / d point."""
    probe = probe.to(point.dtype)
    (product,) = torch.autograd.grad(field, point, probe, retain_graph=True)
    return (probe.double() * product.double()).flatten(1).sum(1)


def _runge_kutta(flow: _Flow, x: Tensor, log_snr: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """x after a step, and the integral of the divergence over it."""
    fields, divergences = zip(*_stages(flow, x, log_snr, size), strict=True)
    return x + size * _weighted(fields), size * _weighted(divergences)


def _stages(flow: _Flow, x: Tensor, log_snr: Tensor, size: Tensor) -> list[tuple[Tensor, Tensor]]:
    stages = [flow(x, log_snr)]
    for position in _POSITIONS:
        reached = x + position * size * stages[-1][0]
        stages.append(flow(reached, log_snr + position * size))
    return stages


def _weighted(stages: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([w * s for w, s in zip(_WEIGHTS, stages, strict=True)]).sum(0)


def _log_prior(x: Tensor, node: Node) -> Tensor:
    """log N(x; 0, sigma^2 I) of each row."""
    squares = (x / expand(node.sigma, x)).square() + torch.log(2 * math.pi * node.sigma**2)
    return -0.5 * squares.flatten(1).sum(1)
