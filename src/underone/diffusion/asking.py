"""How a network is asked: with what input and condition, and in which precision."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from underone.diffusion.node import Node
from underone.diffusion.prediction import Prediction

Answer = TypeVar("Answer")


def ask(
    network: Callable[[Tensor, Tensor | None, Tensor | None], Answer],
    prediction: Prediction,
    x: Tensor,
    node: Node,
    label: Tensor | None,
) -> Answer:
    """What `network(input, condition, label)` says of x (B, ...), told what `prediction` gives it.

    The condition is float32 of shape (B,), or None.
    """
    condition = prediction.condition(node)
    told = None if condition is None else as_condition(condition, x)
    return network(prediction.input(x, node), told, label)


def as_condition(value: Tensor, x: Tensor) -> Tensor:
    """A value of shape () or (B,) as networks are told it beside x (B, ...): (B,), float32."""
    return value.to(x.device, torch.float32).expand(len(x))


def mixed_precision(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Within it networks on `device` work in `dtype`, usually bfloat16; in their own if None."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
