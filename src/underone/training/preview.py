"""A look at a diffusion model in training: the same seeds from raw and averaged weights."""

from pathlib import Path

import torch
from torch import Tensor, nn

from underone.data.images import to_uint8
from underone.data.picture import save_picture, tile
from underone.diffusion import DDIM, Clipped, NetworkDenoiser, Trailing, sample
from underone.training.recipe import DiffusionRecipe

_STEPS = 20
_COLUMNS = 10


def draw_preview(
    raw: nn.Module, average: nn.Module, recipe: DiffusionRecipe, picture: Path
) -> None:
    """Two rows of raw weights' samples, then two of averaged ones: 20 steps of DDIM."""
    rows = [_samples(network, recipe) for network in (raw, average)]
    save_picture(tile(torch.cat(rows), columns=_COLUMNS, scale=2), picture)


def _samples(network: nn.Module, recipe: DiffusionRecipe) -> Tensor:
    config = recipe.network
    count = 2 * _COLUMNS
    was_training = network.training
    network.eval()
    denoiser = Clipped(NetworkDenoiser(network, recipe.schedule, recipe.prediction))
    (batch,) = sample(
        denoiser,
        DDIM(),
        Trailing(),
        min(_STEPS, recipe.schedule.steps),
        shape=(config.channels, config.image_size, config.image_size),
        keys=[(0, index) for index in range(count)],
        labels=None if config.classes is None else torch.arange(count) % config.classes,
        batch_size=count,
        device=next(network.parameters()).device,
    )
    network.train(was_training)
    return to_uint8(batch.x.cpu())
