"""Random changes of training images that keep their class."""

import torch
from torch import Tensor
from torch.nn import functional

from underone.training.recipe import Augmentation


def augmented(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Flip each of the images (B, C, H, W) with probability 1/2, and shift it, padding with -1."""
    if settings.flip:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    if settings.shift:
        images = _shifted(images, settings.shift, generator)
    return images


def _shifted(images: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    batch, channels, height, width = images.shape
    padded = functional.pad(images, (limit,) * 4, value=-1.0)
    down, right = torch.randint(0, 2 * limit + 1, (2, batch), generator=generator)
    rows = (torch.arange(height) + down[:, None])[:, None, :, None]
    columns = (torch.arange(width) + right[:, None])[:, None, None, :]
    items = torch.arange(batch)[:, None, None, None]
    return padded[items, torch.arange(channels)[None, :, None, None], rows, columns]
