"""What other people's networks take for images."""

from torch import Tensor


def in_colour(images: Tensor) -> Tensor:
    """Images (B, C, H, W) with three channels: grey ones three times the same."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
