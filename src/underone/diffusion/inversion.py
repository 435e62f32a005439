"""From an image to the noise it is drawn from, and back: a deterministic sampler run both ways.

The probability flow has no direction, and neither has a deterministic sampler that approximates
it: along the reversed path it carries an image to noise (Song et al. 2021, section 4.3, for DDIM).
What the two ways do differently is the sampler's error. DDIM evaluates the noise at the wrong end
of each step, and a round trip comes back with an error of order h. The leading error of a solver of
even order is the same in both directions and cancels: a round trip of DPM-Solver++(2M) is of order
3 between 100 and 200 steps, at one evaluation a step each way; its steps of first order at both
ends would show at far more. Inverting each DDIM step exactly, by a fixed-point iteration
(Pan et al. 2023, arXiv 2309.04907), takes several evaluations a step for the same, and finds the
noise that DDIM's error leads to, not the flow's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from underone.diffusion.denoiser import Model
from underone.diffusion.node import Node, Schedule, node_at
from underone.diffusion.samplers.sampler import Sampler
from underone.diffusion.sampling import integrate, no_noise
from underone.errors import UserError


def with_first_step(path: Sequence[Node], schedule: Schedule) -> list[Node]:
    """The path with a node at k = 1, t = 1 / T, before its clean end if it has none that clean.

    There an image enters. At sigma = 0 itself nothing says where its noise should go, and where
    sigma is large it would be taken for a noisy one.
    """
    *noisy, clean = path
    first = node_at(schedule, torch.tensor(1 / schedule.steps, dtype=torch.float64))
    # Grids that end at k = 1 do so up to rounding; a step between two such nodes would be 0 / 0.
    as_clean = noisy[-1].t < first.t or torch.isclose(noisy[-1].t, first.t)
    return [*noisy, clean] if as_clean else [*noisy, first, clean]


def encode(model: Model, sampler: Sampler, path: Sequence[Node], x0: Tensor) -> Tensor:
    """The state (B, ...) at the noisy end of `path` that `decode` brings back to x0.

    The image enters at the last node before sigma = 0 as x = alpha x0, as if without noise; put
    that node where sigma / alpha is below a grey level or two (`with_first_step`). What decoding
    then changes is the error of the sampler, and what the model takes for noise in x. `model`
    should not be thresholded: a clamp maps many x0 to one and has no inverse. A sampler that draws
    noise has none either, and is a `UserError`.
    """
    *noisy, _ = path
    return _carried(model, sampler, noisy[::-1], noisy[-1].alpha * x0)


def decode(model: Model, sampler: Sampler, path: Sequence[Node], x: Tensor) -> Tensor:
    """The image (B, ...) that x at the noisy end of `path` leads to: `sampler` as always."""
    return _carried(model, sampler, path, x)


def _carried(model: Model, sampler: Sampler, path: Sequence[Node], x: Tensor) -> Tensor:
    if sampler.stochastic:
        raise UserError(
            "a sampler that draws noise cannot be run backwards: use a deterministic one, like "
            "dpm-solver-2m, unipc or ddim"
        )
    for estimate in integrate(model, sampler, path, x, no_noise):
        last = estimate
    return last.x
