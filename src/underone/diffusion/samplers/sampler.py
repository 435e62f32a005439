"""What every sampler is: one step from a node to the next."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from underone.diffusion.denoiser import Model
from underone.diffusion.node import Estimate, Node


class Sampler(Protocol):
    """A stateless step. It sees no label, no guidance weight, no network output: only x0."""

    @property
    def history(self) -> int | None:
        """How many earlier estimates a step needs, newest last; None for all."""
        ...

    def step(
        self,
        x: Tensor,
        now: Node,
        to: Node,
        past: Sequence[Estimate],
        model: Model,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Estimate]:
        """From x at `now` to x at `to` (sigma > 0), with the estimate that was made at `now`."""
        ...

    def finish(
        self,
        x: Tensor,
        now: Node,
        past: Sequence[Estimate],
        model: Model,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Estimate]:
        """The last step, to sigma = 0."""
        ...


class EndsAtEstimate:
    """The usual end: at sigma = 0 every first-order step lands on the estimate of x0 itself."""

    def finish(
        self,
        x: Tensor,
        now: Node,
        past: Sequence[Estimate],
        model: Model,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Estimate]:
        """x = x0(x, now)."""
        here = model(x, now)
        return here.x0, here
