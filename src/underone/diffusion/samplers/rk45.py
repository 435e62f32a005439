"""The probability flow by an adaptive Runge-Kutta method."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from underone.diffusion.denoiser import Model
from underone.diffusion.diverged import SamplingDivergedError
from underone.diffusion.node import Estimate, expand
from underone.diffusion.samplers.sampler import Sampler, Step
from underone.errors import UserError

# Dormand and Prince 1980: positions and weights of the stages; the last row is the solution.
_POSITIONS = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_WEIGHTS = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
# The difference of that solution and the embedded one of order 4.
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_SAFETY, _LEAST_CHANGE, _MOST_CHANGE = 0.9, 0.2, 5.0
_LEAST_STEP = 1e-10


@dataclass(frozen=True)
class RK45(Sampler):
    """d(x / alpha) / d lambda = x0 - x / alpha to a tolerance (Song et al. 2021, appendix D).

    lambda = log(alpha / sigma); Dormand-Prince 5(4) with its last stage reused. Every sample has
    its own steps: one is accepted where the root mean square over its elements of
    error / (absolute + relative max(|before|, |after|)) is at most 1, and rejected ones are
    evaluations too. So a sample depends on no other, and costs what it needs itself. Steps do not
    cross nodes: few nodes from T to the last step, as `LogSNR` at 2 steps gives, cost least.
    """

    # The error is the tolerance's, not the grid's, also for one image.
    global_order: ClassVar[int | None] = None
    exact_for_one_image: ClassVar[bool] = False

    relative: float = 1e-5
    absolute: float = 1e-5

    def __post_init__(self) -> None:
        if not (0 < self.relative < 1 and 0 < self.absolute < 1):
            raise UserError("RK45's tolerances must lie in (0, 1)")

    def evaluations(self, steps: int) -> int | None:
        return 1 if steps == 1 else None

    def step(self, x: Tensor, at: Step) -> tuple[Tensor, Estimate]:
        """As many inner steps as each sample needs."""
        here, now, to = at.evaluate(x), at.now, at.to
        flow = _Flow(at.model, now.log_snr, at.h)
        start = x / expand(now.alpha, x)
        end = _solve(flow, start, flow.slope(here), self.relative, self.absolute)
        return expand(to.alpha, x) * end, here


@dataclass(frozen=True)
class _Flow:
    """The flow in s in [0, 1], lambda = start + s span, of y = x / alpha: dy/ds = span (x0 - y)."""

    model: Model
    start: Tensor
    span: Tensor

    def __call__(self, y: Tensor, s: Tensor, rows: Tensor) -> Tensor:
        """dy/ds of the rows `rows` of the batch, at the position s (B,) of each."""
        node = self.model.node(self.start + self.span * s.cpu())
        x = expand(node.alpha, y) * y
        return self.slope(self.model.rows(rows)(x, node))

    def slope(self, here: Estimate) -> Tensor:
        """dy/ds at an estimate."""
        return self.span * (here.x0 - here.x / expand(here.node.alpha, here.x))


def _solve(flow: _Flow, y: Tensor, slope: Tensor, relative: float, absolute: float) -> Tensor:
    """y at s = 1 from y and dy/ds at s = 0."""
    y, slope = y.clone(), slope.clone()
    position = torch.zeros(len(y), dtype=torch.float64, device=y.device)
    length = _first_length(y, slope, relative, absolute)
    active = torch.arange(len(y), device=y.device)
    while len(active):
        if not (length[active] > _LEAST_STEP).all():
            raise SamplingDivergedError(
                "RK45 cannot go on: its steps have become too small, or its estimates are NaN or "
                "infinite. Loosen the tolerances, or use another sampler"
            )
        here, left = position[active], 1 - position[active]
        size = torch.minimum(length[active], left)
        stages = [slope[active]]
        for at, weights in zip(_POSITIONS, _WEIGHTS, strict=True):
            reached = y[active] + expand(size, y) * _combined(weights, stages)
            stages.append(flow(reached, here + at * size, active))
        scale = absolute + relative * torch.maximum(y[active].abs(), reached.abs())
        error = _norm(expand(size, y) * _combined(_ERROR, stages) / scale)
        accepted = error <= 1
        done = active[accepted]
        y[done], slope[done] = reached[accepted], stages[-1][accepted]
        position[done] = torch.where(size < left, here + size, 1.0)[accepted]
        change = (_SAFETY * error.clamp(min=1e-12) ** -0.2).clamp(_LEAST_CHANGE, _MOST_CHANGE)
        length[active] = size * torch.where(accepted, change, change.clamp(max=1.0))
        active = active[position[active] < 1]
    return y


def _first_length(y: Tensor, slope: Tensor, relative: float, absolute: float) -> Tensor:
    """A hundredth of the way in which y would change by its own size (Hairer et al., II.4)."""
    scale = absolute + relative * y.abs()
    ratio = _norm(y / scale) / _norm(slope / scale).clamp(min=1e-12)
    return (0.01 * ratio).clamp(1e-4, 1.0)


def _combined(weights: tuple[float, ...], stages: list[Tensor]) -> Tensor:
    return sum(
        (w * stage for w, stage in zip(weights, stages, strict=True) if w != 0),
        torch.zeros_like(stages[0]),
    )


def _norm(values: Tensor) -> Tensor:
    """The root mean square of each row, float64."""
    return values.flatten(1).double().square().mean(1).sqrt()
