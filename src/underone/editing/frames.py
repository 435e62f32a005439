"""The trajectories of samples: every estimate along the way, or a few frames of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underone.checkpoint import DiffusionModel
from underone.data import to_uint8
from underone.diffusion import Estimate, trajectory
from underone.editing.parts import path_of
from underone.errors import UserError
from underone.generation import (
    DEFAULT_BATCH_SIZE,
    Draw,
    Precision,
    Setting,
    check,
    denoiser_for,
    labels_of,
    sampler_for,
    to_images,
)

# Draws a batch and yields the estimate at each node, the samples themselves last.
Way = Callable[[Sequence[tuple[int, int]], Tensor | None], Iterator[Estimate]]


@dataclass(frozen=True, eq=False)
class Frames:
    """F frames of each of N samples, uint8 (N, F, C, H, W): the noisy state and the estimate there.

    Both are clamped to the range of grey levels. The last frame is the sample, in both.
    """

    x: Tensor
    x0: Tensor


def check_frames(setting: Setting, frames: int) -> None:
    """A `UserError` unless a setting has enough nodes for `frames` frames, at least 2."""
    if not 2 <= frames <= setting.steps + 1:
        raise UserError(
            f"{setting.steps} steps have 2 to {setting.steps + 1} frames, got {frames}: ask for "
            "fewer, or take more steps"
        )


def way_of(model: DiffusionModel, setting: Setting, precision: Precision = "auto") -> Way:
    """How batches are drawn: from (seed, index) pairs and labels (B,), or None, to estimates."""
    denoiser, sampler = denoiser_for(model, setting, precision), sampler_for(model, setting)
    path = path_of(model, setting)

    def way(keys: Sequence[tuple[int, int]], labels: Tensor | None) -> Iterator[Estimate]:
        return trajectory(
            denoiser,
            sampler,
            path,
            shape=model.shape,
            keys=keys,
            labels=labels,
            device=model.device,
        )

    return way


@torch.no_grad()
def trajectories(
    model: DiffusionModel,
    setting: Setting,
    draw: Draw,
    frames: int,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    precision: Precision = "auto",
    on_images: Callable[[int], object] = lambda images: None,
) -> Frames:
    """The samples of `draw` at `frames` nodes, evenly chosen from the first to the end.

    There is a node to choose for every step, and the end.
    """
    check(model, setting, draw)
    check_frames(setting, frames)
    chosen = {round(i * setting.steps / (frames - 1)) for i in range(frames)}
    labels, keys = labels_of(model, setting, draw), draw.keys
    way = way_of(model, setting, precision)
    states, estimates = [], []
    for start in range(0, len(keys), batch_size):
        rows = slice(start, start + batch_size)
        batch = way(keys[rows], None if labels is None else labels[rows])
        kept = [estimate for index, estimate in enumerate(batch) if index in chosen]
        to_images(kept[-1].x, setting)  # which refuses diverged samples
        states.append(torch.stack([to_uint8(estimate.x.cpu()) for estimate in kept], dim=1))
        estimates.append(torch.stack([to_uint8(estimate.x0.cpu()) for estimate in kept], dim=1))
        on_images(len(keys[rows]))
    return Frames(torch.cat(states), torch.cat(estimates))
