"""What every sampler is: one step from a node to the next."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from underone.diffusion.denoiser import Model
from underone.diffusion.node import Estimate, Node, step_size


@dataclass(frozen=True)
class Step:
    """One step along a path of nodes, from `now` to `to`, and all that it may use.

    `past` holds the estimates made at earlier nodes, newest last: at most as many as the sampler's
    `history`. `noise()` draws fresh standard normal noise of the shape of x.
    """

    path: Sequence[Node]
    index: int
    past: Sequence[Estimate]
    model: Model
    noise: Callable[[], Tensor]

    @property
    def now(self) -> Node:
        """Where the step starts."""
        return self.path[self.index]

    @property
    def to(self) -> Node:
        """Where it ends."""
        return self.path[self.index + 1]

    @property
    def h(self) -> Tensor:
        """How far it goes in log(alpha / sigma): `step_size`."""
        return step_size(self.now, self.to)

    @property
    def total(self) -> int:
        """N, the number of steps of the path."""
        return len(self.path) - 1

    @property
    def left(self) -> int:
        """How many steps there are from here to the end, this one included."""
        return self.total - self.index

    def evaluate(self, x: Tensor) -> Estimate:
        """The estimate at `now`: one evaluation of the model."""
        return self.model(x, self.now)


class Sampler(ABC):
    """A stateless step. It sees no label, no guidance weight, no network output: only x0.

    A new sampler is a frozen dataclass with a `step`; what it claims beside it (`global_order`,
    `stochastic`, ...) is what `underone conformance` checks. A claim is a class variable, or a
    property where it depends on the fields.
    """

    @abstractmethod
    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """From x at `at.now` to x at `at.to` (sigma > 0), with the estimate made at `at.now`.

        The estimate's `x` is the state the sampler settled on at that node.
        """

    def finish(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """The last step, to sigma = 0: every first-order step lands on x0 itself."""
        here = at.evaluate(x)
        return here.x0, here

    def evaluations(self, steps: int) -> int | None:
        """Model evaluations of a run of `steps` steps; None where they depend on x."""
        return steps

    @property
    def history(self) -> int | None:
        """How many earlier estimates a step needs; None for all."""
        return 0

    @property
    def stochastic(self) -> bool:
        """Whether steps draw noise."""
        return False

    @property
    def global_order(self) -> int | None:
        """p, where the error at the last noisy node falls as h^p on a uniform log-SNR grid.

        Of a deterministic sampler the error against the probability flow; of a stochastic one the
        root mean square difference of paths driven by one Brownian motion. None claims no order.
        """
        return 1

    @property
    def exact_for_one_image(self) -> bool:
        """Whether x, where the data are one image, has its exact distribution in any N steps."""
        return True
