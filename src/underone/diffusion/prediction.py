"""What a network's output means, and how it is turned into an estimate of x0.

With x_t = alpha x0 + sigma z, each prediction fixes what the network is given, what it should
output, and the x0 that its output implies. `alpha` and `sigma` are float64, shape () or (B,).
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from underone.diffusion.node import Node, expand
from underone.errors import UserError

# Networks see the time in thousandths: the step k itself when T = 1000, as in the DDPM paper.
TIME_SCALE = 1000.0


class Prediction(Protocol):
    """The meaning of a network's output."""

    def input(self, x: Tensor, node: Node) -> Tensor:
        """What the network is given for the noisy state x."""
        ...

    def condition(self, node: Node) -> Tensor | None:
        """What its time embedding is given, shape () or (B,), or None."""
        ...

    def target(self, x0: Tensor, noise: Tensor, node: Node) -> Tensor:
        """What it should output."""
        ...

    def to_x0(self, output: Tensor, x: Tensor, node: Node) -> Tensor:
        """The estimate of x0 that its output implies."""
        ...


class _TimeConditioned:
    """The network sees x_t itself and the time in thousandths."""

    def input(self, x: Tensor, node: Node) -> Tensor:
        return x

    def condition(self, node: Node) -> Tensor | None:
        return TIME_SCALE * node.t


@dataclass(frozen=True)
class Noise(_TimeConditioned):
    """The network predicts z: x0 = (x - sigma z) / alpha (Ho et al. 2020, eq. 9 and 14)."""

    name: Literal["noise"] = "noise"

    def target(self, x0: Tensor, noise: Tensor, node: Node) -> Tensor:
        """The target is z."""
        return noise

    def to_x0(self, output: Tensor, x: Tensor, node: Node) -> Tensor:
        """x0 = (x - sigma output) / alpha."""
        return (x - expand(node.sigma, x) * output) / expand(node.alpha, x)


@dataclass(frozen=True)
class Data(_TimeConditioned):
    """The network predicts x0 itself."""

    name: Literal["data"] = "data"

    def target(self, x0: Tensor, noise: Tensor, node: Node) -> Tensor:
        """The target is x0."""
        return x0

    def to_x0(self, output: Tensor, x: Tensor, node: Node) -> Tensor:
        """x0 = output."""
        return output


@dataclass(frozen=True)
class Velocity(_TimeConditioned):
    """The network predicts v = alpha z - sigma x0 (Salimans and Ho 2022, section 4).

    For a variance-preserving schedule, alpha^2 + sigma^2 = 1, so x0 = alpha x - sigma v.
    """

    name: Literal["velocity"] = "velocity"

    def target(self, x0: Tensor, noise: Tensor, node: Node) -> Tensor:
        """The target is alpha z - sigma x0."""
        return expand(node.alpha, x0) * noise - expand(node.sigma, x0) * x0

    def to_x0(self, output: Tensor, x: Tensor, node: Node) -> Tensor:
        """x0 = alpha x - sigma output."""
        return expand(node.alpha, x) * x - expand(node.sigma, x) * output


@dataclass(frozen=True)
class Preconditioned(_TimeConditioned):
    """The network predicts what its input does not already tell (Karras et al. 2022, eq. 7).

    D(x / alpha) = c_skip x / alpha + c_out output, with the coefficients of their Table 1 at
    s = sigma / alpha, for data of standard deviation d = `data_deviation`, their sigma_data:
    c_skip = d^2 / (s^2 + d^2), c_out = s d / sqrt(s^2 + d^2), and the input scaled by
    c_in = 1 / sqrt(s^2 + d^2), so that inputs and targets have variance 1 at every noise level. The
    methods use x = alpha x0 + sigma z and r = sqrt(sigma^2 + alpha^2 d^2), so that alpha may reach
    0. The plain mean squared error of the output is their loss, whose weight 1 / c_out^2 it
    contains.

    With d = 1 and alpha^2 + sigma^2 = 1 the output is `Velocity`'s with its sign changed.
    """

    data_deviation: float = 0.5
    name: Literal["preconditioned"] = "preconditioned"

    def __post_init__(self) -> None:
        if not self.data_deviation > 0:
            raise UserError(f"data_deviation must be above 0, got {self.data_deviation}")

    def input(self, x: Tensor, node: Node) -> Tensor:
        """x / r."""
        return x / expand(self._norm(node), x)

    def target(self, x0: Tensor, noise: Tensor, node: Node) -> Tensor:
        """The target is (sigma x0 / d - alpha d z) / r."""
        norm, d = self._norm(node), self.data_deviation
        return expand(node.sigma / (d * norm), x0) * x0 - expand(node.alpha * d / norm, x0) * noise

    def to_x0(self, output: Tensor, x: Tensor, node: Node) -> Tensor:
        """x0 = alpha d^2 x / r^2 + sigma d output / r."""
        norm, d = self._norm(node), self.data_deviation
        skip, out = node.alpha * d**2 / norm**2, node.sigma * d / norm
        return expand(skip, x) * x + expand(out, x) * output

    def _norm(self, node: Node) -> Tensor:
        return torch.sqrt(node.sigma**2 + (node.alpha * self.data_deviation) ** 2)


@dataclass(frozen=True)
class Score:
    """The network, told no time, predicts sigma times the score: x0 = (x + sigma output) / alpha.

    The score of x_t is (alpha x0 - x) / sigma^2, of which one noisy image shows -z / sigma. So the
    network's output divided by sigma estimates it (Song and Ermon 2020, arXiv 2006.09011,
    technique 3), and the squared error of the output is denoising score matching weighted by
    sigma^2 (Song and Ermon 2019, eq. 5 and 6). How much noise there is, the network sees in x.
    """

    name: Literal["score"] = "score"

    def input(self, x: Tensor, node: Node) -> Tensor:
        """The state as it is, whatever its scale."""
        return x

    def condition(self, node: Node) -> Tensor | None:
        """None."""
        return None

    def target(self, x0: Tensor, noise: Tensor, node: Node) -> Tensor:
        """The target is -z."""
        return -noise

    def to_x0(self, output: Tensor, x: Tensor, node: Node) -> Tensor:
        """x0 = (x + sigma output) / alpha."""
        return (x + expand(node.sigma, x) * output) / expand(node.alpha, x)


@dataclass(frozen=True)
class FlowVelocity(_TimeConditioned):
    """The network predicts z - x0, the velocity of the straight path (Lipman et al. 2023, eq. 23).

    For the schedule on which alpha + sigma = 1, where x_t = x0 + sigma (z - x0), so that
    x0 = x - sigma output. It is not the v of `Velocity`, whose schedules preserve the variance.
    """

    name: Literal["flow-velocity"] = "flow-velocity"

    def target(self, x0: Tensor, noise: Tensor, node: Node) -> Tensor:
        """The target is z - x0."""
        return noise - x0

    def to_x0(self, output: Tensor, x: Tensor, node: Node) -> Tensor:
        """x0 = x - sigma output."""
        return x - expand(node.sigma, x) * output
