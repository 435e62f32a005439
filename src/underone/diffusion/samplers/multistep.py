"""Adams-Bashforth methods for x / alpha in r = sigma / alpha: DEIS and iPNDM.

The probability flow is d(x / alpha) / dr = z, with z the noise that x0 implies. Both carry it on
by x_s / alpha_s = x / alpha_t + sum_j C_j z_j over the newest estimates, with
sum_j C_j = r_s - r_t. So they are a DDIM(0) step plus alpha_s sum_j C_j (z_j - z_0), and are
computed so: where alpha is small, nothing is divided by it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from underone.diffusion.denoiser import Model
from underone.diffusion.node import Estimate, Node
from underone.diffusion.samplers.polynomial import gauss_legendre, lagrange
from underone.diffusion.samplers.sampler import Sampler, Step
from underone.errors import UserError, unknown

_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def _corrected(estimates: Sequence[Estimate], weights: Sequence[Tensor], to: Node) -> Tensor:
    """DDIM(0) from the newest of `estimates`, and alpha_s sum_j C_j (z_j - z_0).

    `weights` are the C_j of the others.
    """
    here, *others = estimates
    noise = here.noise
    x = to.alpha * here.x0 + to.sigma * noise
    for estimate, weight in zip(others, weights, strict=True):
        x = x + to.alpha * weight * (estimate.noise - noise)
    return x


@dataclass(frozen=True)
class DEIS(Sampler):
    """C_j = int_{r_t}^{r_s} l_j dr, with l_j the Lagrange polynomials of the newest nodes.

    The polynomials are in the time t ("time": tAB-DEIS, Zhang and Chen 2023, eq. 15), in
    r = sigma / alpha ("ratio": rhoAB-DEIS, k-diffusion's LMS, azula's zAB) or in log r
    ("log-ratio": diffusers' DEIS). With p estimates z is interpolated up to h^p, so the local
    error is h^(p+1): order p. The integral over log r is by Gauss-Legendre quadrature with 24
    points, exact to rounding for the last two.
    """

    order: int = 3
    variable: Literal["time", "ratio", "log-ratio"] = "time"

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3, 4):
            raise UserError(f"DEIS has the orders 1 to 4, not {self.order}")
        if self.variable not in _VARIABLES:
            raise unknown("DEIS variable", self.variable, _VARIABLES)

    @property
    def history(self) -> int:
        return self.order - 1

    @property
    def global_order(self) -> int:
        return self.order

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """One step with as many estimates as there are."""
        here = at.evaluate(x)
        estimates = [here, *reversed(at.past)]
        if len(estimates) == 1:
            return _corrected(estimates, [], at.to), here
        _, *weights = self._weights([e.node for e in estimates], at.to, at.model)
        return _corrected(estimates, weights, at.to), here

    def _weights(self, known: Sequence[Node], to: Node, model: Model) -> Tensor:
        start, end = -known[0].log_snr, -to.log_snr
        points, point_weights = gauss_legendre()
        log_ratios = start + (end - start) * points
        variable = _VARIABLES[self.variable]
        at_points = variable(model.node(-log_ratios))
        at_nodes = torch.stack([variable(node) for node in known])
        density = point_weights * (end - start) * log_ratios.exp()
        return torch.stack(
            [(density * lagrange(at_nodes, j, at_points)).sum() for j in range(len(known))]
        )


def _time(node: Node) -> Tensor:
    return node.t


def _ratio(node: Node) -> Tensor:
    return node.noise_ratio


def _log_ratio(node: Node) -> Tensor:
    return -node.log_snr


_VARIABLES: dict[str, Callable[[Node], Tensor]] = {
    "time": _time,
    "ratio": _ratio,
    "log-ratio": _log_ratio,
}


@dataclass(frozen=True)
class IPNDM(Sampler):
    """C_j = (r_s - r_t) w_j, with the Adams-Bashforth weights w of equal steps (Liu et al. 2022).

    w = {1}, {3, -1} / 2, {23, -16, 5} / 12, {55, -59, 37, -9} / 24 (its eq. 12 without the
    Runge-Kutta start, as in Zhang and Chen 2023, section 3.4). They are right where the steps in
    r = sigma / alpha are equal: there the order is p. On a smooth grid neighbouring steps differ by
    h relatively, which spoils the first moment of the weights by h^3 a step: order 2 at most. At
    few steps the damping this brings is worth more than order.

    `free_start` takes for the first z what noise without data would be, x / sqrt(alpha^2 +
    sigma^2), and saves that evaluation ("analytical first step", Dockhorn et al. 2022).
    """

    order: int = 4
    free_start: bool = False

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3, 4):
            raise UserError(f"iPNDM has the orders 1 to 4, not {self.order}")

    @property
    def history(self) -> int:
        return self.order - 1

    @property
    def global_order(self) -> int:
        return min(self.order, 2)  # on a log-SNR grid

    @property
    def exact_for_one_image(self) -> bool:
        return not self.free_start

    def evaluations(self, steps: int) -> int:
        return steps - 1 if self.free_start and steps > 1 else steps

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """One step with as many estimates as there are."""
        free = self.free_start and at.index == 0 and not at.past
        here = _without_data(x, at.now) if free else at.evaluate(x)
        estimates = [here, *reversed(at.past)]
        span = at.to.noise_ratio - at.now.noise_ratio
        weights = [span * w for w in _ADAMS_BASHFORTH[len(estimates) - 1][1:]]
        return _corrected(estimates, weights, at.to), here


def _without_data(x: Tensor, node: Node) -> Estimate:
    """The estimate whose noise is x / sqrt(alpha^2 + sigma^2): free, and right at pure noise."""
    noise = x / (node.alpha**2 + node.sigma**2).sqrt()
    return Estimate(node, x, (x - node.sigma * noise) / node.alpha)
