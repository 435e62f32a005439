"""What tests of likelihood share: an oracle, steps of a schedule, means within their error."""

from torch import Tensor

from helpers import float64
from underone.conformance.oracles import GaussianData
from underone.diffusion import LinearBeta, Node, Schedule, node_at

SHIRT = GaussianData(LinearBeta(), 0.3, 0.4)


def step(schedule: Schedule, k: float) -> Node:
    return node_at(schedule, float64(k / schedule.steps))


def within(values: Tensor, expected: float, errors: float = 4.0) -> bool:
    """Whether the mean of `values` agrees with `expected` within so many standard errors."""
    error = values.std().item() / len(values) ** 0.5
    assert error > 0
    return abs(values.mean().item() - expected) < errors * error
