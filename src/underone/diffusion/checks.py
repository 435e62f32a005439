"""What guidance refuses, in one line each."""

import math

import torch

from underone.diffusion.node import Schedule
from underone.errors import UserError


def check_weight(weight: float) -> None:
    """A `UserError` where a guidance weight or scale is not finite."""
    if not math.isfinite(weight):
        raise UserError(f"a guidance weight must be a finite number, got {weight}")


def check_same_schedule(one: Schedule, other: Schedule) -> None:
    """A `UserError` where two denoisers that are to share their nodes have different schedules.

    Nodes carry the time of one schedule, so a network trained under another would be told the
    wrong time, and nothing else would show it. Schedules are compared by value, at a few times.
    """
    times = torch.linspace(0, 1, 9, dtype=torch.float64)
    if one is not other and not all(map(torch.equal, one(times), other(times))):
        raise UserError("guidance mixes two denoisers only if they have the same noise schedule")
