"""Where few steps do the least harm, by dynamic programming over a fine trajectory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from underone.diffusion import Estimate
from underone.diffusion.node import Node


def jump_errors(trajectory: Sequence[Estimate]) -> Tensor:
    """E[i, j], j > i: how far one Euler jump from estimate i lands from estimate j, (M, M) float64.

    The jump is DDIM's, x / alpha + (r_j - r_i) z_i with r = sigma / alpha; the distance is the
    root mean square over the batch, in x. The last estimate is the result, at sigma = 0. Entries
    that do not lead to a cleaner estimate are infinite.
    """
    count = len(trajectory)
    errors = torch.full((count, count), torch.inf, dtype=torch.float64)
    for i, here in enumerate(trajectory[:-1]):
        noise = here.noise
        for j in range(i + 1, count):
            there = trajectory[j]
            landed = there.node.alpha * here.x0 + there.node.sigma * noise
            errors[i, j] = (landed - there.x).double().square().mean().sqrt()
    return errors


def shortest_path(errors: Tensor, steps: int, growth: float = 1.15) -> list[int]:
    """The N = `steps` jumps from the first to the last state whose errors add up to the least.

    Each jump's error counts `growth` times as much as that of the jump before it (Chen et al. 2024,
    GITS, arXiv 2405.11326, section 3.3, whose value is 1.15). Returns the N + 1 states.
    """
    last = len(errors) - 1
    if not 1 <= steps <= last:
        raise ValueError(f"{last} jumps at most lie between {last + 1} states, not {steps}")
    # The least cost from each state to the last, with one jump more each round.
    cost, choices = errors[:, last].clone(), []
    for _ in range(1, steps):
        cost, choice = (errors + growth * cost).min(dim=1)
        choices.append(choice)
    states = [0]
    for choice in reversed(choices):
        states.append(int(choice[states[-1]]))
    return [*states, last]


def placed(trajectory: Sequence[Estimate], steps: int) -> list[Node]:
    """The nodes of `steps` steps, from noisy to clean without the end at sigma = 0."""
    states = shortest_path(jump_errors(trajectory), steps)
    return [trajectory[state].node for state in states[:-1]]
