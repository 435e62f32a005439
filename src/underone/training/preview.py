"""A look at a model in training: the same seeds from raw and averaged weights."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from underone.data.images import to_uint8
from underone.data.picture import save_picture, tile
from underone.diffusion import (
    DDIM,
    Clipped,
    Explicit,
    NetworkDenoiser,
    NoiseStreams,
    Sampler,
    Trailing,
    sample,
)
from underone.networks import VAE
from underone.training.recipe import (
    DiffusionRecipe,
    DistillationRecipe,
    VAERecipe,
)
from underone.training.teaching import distillation_record

_Sampled = DiffusionRecipe | DistillationRecipe | VAERecipe
_STEPS = 20
_COLUMNS = 10
_COUNT = 2 * _COLUMNS
_KEYS = [(0, index) for index in range(_COUNT)]


def draw_preview(raw: nn.Module, average: nn.Module, recipe: _Sampled, picture: Path) -> None:
    """Two rows of raw weights' samples, then two of averaged ones.

    A VAE's are decoded, a student's take its own steps, others' 20 of DDIM.
    """
    rows = [_samples(network, recipe) for network in (raw, average)]
    save_picture(tile(torch.cat(rows), columns=_COLUMNS, scale=2), picture)


def _samples(network: nn.Module, recipe: _Sampled) -> Tensor:
    was_training = network.training
    network.eval()
    if isinstance(recipe, VAERecipe):
        x = _decoded(cast(VAE, network))
    elif isinstance(recipe, DistillationRecipe):
        taught = distillation_record(recipe)
        x = _denoised(network, recipe, taught.own_sampler, Explicit(taught.paths[0]))
    else:
        x = _denoised(network, recipe, DDIM(), Trailing())
    network.train(was_training)
    return to_uint8(x.cpu())


@torch.no_grad()
def _decoded(network: VAE) -> Tensor:
    device = next(network.parameters()).device
    labels = torch.arange(_COUNT, device=device) % network.config.classes
    return network.decode(NoiseStreams(_KEYS, (network.config.latent,), device)(), labels)


def _denoised(
    network: nn.Module,
    recipe: DiffusionRecipe | DistillationRecipe,
    sampler: Sampler,
    grid: Explicit | Trailing,
) -> Tensor:
    config = recipe.network
    steps = len(grid.steps) if isinstance(grid, Explicit) else min(_STEPS, recipe.schedule.steps)
    denoiser = Clipped(NetworkDenoiser(network, recipe.schedule, recipe.prediction))
    (batch,) = sample(
        denoiser,
        sampler,
        grid,
        steps,
        shape=(config.channels, config.image_size, config.image_size),
        keys=_KEYS,
        labels=None if config.classes is None else torch.arange(_COUNT) % config.classes,
        batch_size=_COUNT,
        device=next(network.parameters()).device,
    )
    return batch.x
