"""How a network is called: its input, its condition and its precision."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from underone.diffusion.node import Node
from underone.diffusion.prediction import Prediction

Output = TypeVar("Output")


def call_network(
    network: Callable[[Tensor, Tensor | None, Tensor | None], Output],
    prediction: Prediction,
    x: Tensor,
    node: Node,
    label: Tensor | None,
) -> Output:
    """`network(input, condition, label)` at x (B, ...), with what `prediction` makes its input.

    The condition, float32 of shape (B,) or None, is the prediction's too.
    """
    condition = prediction.condition(node)
    rows = None if condition is None else as_condition(condition, x)
    return network(prediction.input(x, node), rows, label)


def as_condition(value: Tensor, x: Tensor) -> Tensor:
    """A value of shape () or (B,) as a network's condition beside x (B, ...): (B,), float32."""
    return value.to(x.device, torch.float32).expand(len(x))


def mixed_precision(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """The context in which networks on `device` run in `dtype`; in their own precision if None."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
