"""Images as external networks take them."""

from collections.abc import Callable

import torch
from torch import Tensor

from underone.errors import UserError

# Their networks are large: more images at a time would take gigabytes.
AT_A_TIME = 50


def in_parts(
    images: Tensor, function: Callable[[Tensor], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """The outputs of `function` on images, a few at a time, joined."""
    parts = [function(in_colour(part)) for part in images.split(AT_A_TIME)]
    return tuple(torch.cat(columns).float().cpu() for columns in zip(*parts, strict=True))


def check_finite(name: str, kind: str, values: Tensor) -> None:
    """A `UserError` where what the extractor `name` returned is NaN or infinite."""
    if not values.isfinite().all():
        raise UserError(f"{name} returned {kind} that are NaN or infinite")


def in_colour(images: Tensor) -> Tensor:
    """Images (B, C, H, W) with three channels, which are equal for grey ones."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
