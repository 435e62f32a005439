"""What a network's output means, and how it is turned into an estimate of x0.

With x_t = alpha x0 + sigma z, each prediction fixes what the network is given, what it should
output, and the x0 that its output implies. `alpha` and `sigma` are float64, shape () or (B,).
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from underone.diffusion.node import Node, expand

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
