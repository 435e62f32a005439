"""The one sampling loop, and whole sample sets drawn through it in batches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underone.diffusion.denoiser import Bound, Denoiser, Model
from underone.diffusion.grid import Grid, nodes
from underone.diffusion.node import Estimate, Node
from underone.diffusion.noise import NoiseStreams
from underone.diffusion.samplers.sampler import Sampler, Step


def integrate(
    model: Model,
    sampler: Sampler,
    path: Sequence[Node],
    x: Tensor,
    noise: Callable[[], Tensor],
    past: Sequence[Estimate] = (),
) -> Iterator[Estimate]:
    """Carry x along the nodes of `path`, yielding the estimate made at each.

    The last estimate belongs to the last node: its `x` (and `x0`) is the result. Where the path
    ends at sigma = 0 the sampler's `finish` makes the last step. `past` are estimates at nodes
    before the path, for a start at a multistep sampler's full order. Differentiable in x.
    """
    known = list(past)
    for index, to in enumerate(path[1:]):
        at = Step(path, index, _newest(known, sampler.history), model, noise)
        x, here = sampler.finish(x, at) if to.sigma == 0 else sampler.step(x, at)
        yield here
        known = [*_newest(known, sampler.history), here]
    yield Estimate(path[-1], x, x)


def no_noise() -> Tensor:
    """The noise of deterministic samplers: there is none to draw."""
    raise ValueError("a sampler that says it is deterministic has drawn noise")


def _newest(estimates: list[Estimate], history: int | None) -> list[Estimate]:
    return estimates if history is None else estimates[max(0, len(estimates) - history) :]


@dataclass(frozen=True)
class Batch:
    """Samples `x` (B, ...), float32 around [-1, 1], with their labels (B,) and keys."""

    x: Tensor
    labels: Tensor | None
    keys: list[tuple[int, int]]


def sample(
    denoiser: Denoiser,
    sampler: Sampler,
    grid: Grid,
    steps: int,
    *,
    shape: tuple[int, ...],
    keys: Sequence[tuple[int, int]],
    labels: Tensor | None,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """Draw one sample of `shape` per key, batch after batch, each from sigma z at the first node.

    `keys` are (seed, index) pairs, `labels` (N,) int64 beside them or None. The result for a key
    does not depend on `batch_size` (up to rounding in the network's kernels).
    """
    path = nodes(grid, denoiser.schedule, steps)
    for start in range(0, len(keys), batch_size):
        chunk = list(keys[start : start + batch_size])
        chosen = None if labels is None else labels[start : start + batch_size]
        with torch.no_grad():
            for estimate in trajectory(
                denoiser, sampler, path, shape=shape, keys=chunk, labels=chosen, device=device
            ):
                last = estimate
        yield Batch(last.x, chosen, chunk)


def trajectory(
    denoiser: Denoiser,
    sampler: Sampler,
    path: Sequence[Node],
    *,
    shape: tuple[int, ...],
    keys: Sequence[tuple[int, int]],
    labels: Tensor | None,
    device: torch.device | str = "cpu",
) -> Iterator[Estimate]:
    """Every estimate along the way of one batch: x_t and x0 at each node, the result last."""
    noise = NoiseStreams(keys, shape, device)
    bound = Bound(denoiser, None if labels is None else labels.to(device))
    return integrate(bound, sampler, path, path[0].sigma * noise(), noise)
