"""A look at a model in training: the same seeds from raw and averaged weights."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from underone.data.images import to_uint8
from underone.data.picture import save_picture, tile
from underone.diffusion import DDIM, Clipped, NetworkDenoiser, NoiseStreams, Trailing, sample
from underone.networks import VAE
from underone.training.recipe import DiffusionRecipe, VAERecipe

_STEPS = 20
_COLUMNS = 10
_COUNT = 2 * _COLUMNS
_KEYS = [(0, index) for index in range(_COUNT)]


def draw_preview(
    raw: nn.Module, average: nn.Module, recipe: DiffusionRecipe | VAERecipe, picture: Path
) -> None:
    """Two rows of raw weights' samples, then two of averaged ones: 20 steps of DDIM, or decoded."""
    rows = [_samples(network, recipe) for network in (raw, average)]
    save_picture(tile(torch.cat(rows), columns=_COLUMNS, scale=2), picture)


def _samples(network: nn.Module, recipe: DiffusionRecipe | VAERecipe) -> Tensor:
    was_training = network.training
    network.eval()
    if isinstance(recipe, VAERecipe):
        x = _decoded(cast(VAE, network))
    else:
        x = _denoised(network, recipe)
    network.train(was_training)
    return to_uint8(x.cpu())


@torch.no_grad()
def _decoded(network: VAE) -> Tensor:
    device = next(network.parameters()).device
    labels = torch.arange(_COUNT, device=device) % network.config.classes
    return network.decode(NoiseStreams(_KEYS, (network.config.latent,), device)(), labels)


def _denoised(network: nn.Module, recipe: DiffusionRecipe) -> Tensor:
    config = recipe.network
    denoiser = Clipped(NetworkDenoiser(network, recipe.schedule, recipe.prediction))
    (batch,) = sample(
        denoiser,
        DDIM(),
        Trailing(),
        min(_STEPS, recipe.schedule.steps),
        shape=(config.channels, config.image_size, config.image_size),
        keys=_KEYS,
        labels=None if config.classes is None else torch.arange(_COUNT) % config.classes,
        batch_size=_COUNT,
        device=next(network.parameters()).device,
    )
    return batch.x
