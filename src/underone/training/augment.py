"""Random changes of training images that keep what they show."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from underone.training.recipe import Augmentation, Views


def augmented(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Flip each of the images (B, C, H, W) with probability 1/2, and shift it, padding it."""
    if settings.flip:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    if settings.shift:
        images = _shifted(_padded(images, settings), settings.shift, generator)
    return images


def view(images: Tensor, settings: Views, generator: torch.Generator) -> Tensor:
    """A random view of each of the images (B, C, H, W) in [-1, 1]; see `Views`."""
    crop, across, down, turn, contrast, brightness = torch.rand(
        6, len(images), generator=generator
    ).to(images.device)
    side = settings.smallest_crop + (1 - settings.smallest_crop) * crop
    angle = math.radians(settings.rotation) * (2 * turn - 1)
    cosine, sine = side * angle.cos(), side * angle.sin()
    right, below = (1 - side) * (2 * across - 1), (1 - side) * (2 * down - 1)
    rows = [torch.stack([cosine, -sine, right], 1), torch.stack([sine, cosine, below], 1)]
    # In bfloat16 coordinates would lie on a grid of their own, some twentieths of a pixel wide.
    with torch.autocast(images.device.type, enabled=False):
        grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    seen = functional.grid_sample(images + 1, grid, align_corners=False) / 2  # 0 around the image
    mean = seen.mean(dim=(1, 2, 3), keepdim=True)
    factors = 1 + settings.contrast * (2 * torch.stack([contrast, brightness]) - 1)
    contrast, brightness = factors[:, :, None, None, None]
    return 2 * (((seen - mean) * contrast + mean) * brightness).clamp(0, 1) - 1


def _padded(images: Tensor, settings: Augmentation) -> Tensor:
    around = (settings.shift,) * 4
    if settings.padding == "edge":
        return functional.pad(images, around, mode="replicate")
    return functional.pad(images, around, value=-1.0)


def _shifted(padded: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    """A random H x W part of each of the images (B, C, H + 2 limit, W + 2 limit)."""
    batch, channels = padded.shape[:2]
    height, width = (size - 2 * limit for size in padded.shape[2:])
    down, right = torch.randint(0, 2 * limit + 1, (2, batch), generator=generator)
    rows = (torch.arange(height) + down[:, None])[:, None, :, None]
    columns = (torch.arange(width) + right[:, None])[:, None, None, :]
    items = torch.arange(batch)[:, None, None, None]
    return padded[items, torch.arange(channels)[None, :, None, None], rows, columns]
