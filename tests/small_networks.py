"""What tests of networks share: small ones, and what they are given."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from underone.networks import Classifier, ClassifierConfig, UNet, UNetConfig

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


def unet(seed: int = 0, **changes: Any) -> UNet:
    """A small U-Net with no weight left at zero."""
    config: dict[str, Any] = {
        "image_size": 8,
        "channels": 1,
        "classes": 3,
        "width": 8,
        "multipliers": (1, 2),
        "attention": (4,),
        "heads": 2,
    } | changes
    return randomised(UNet(UNetConfig(**config)), seed)


def classifier(seed: int = 0, **changes: Any) -> Classifier:
    """A small classifier with no weight left at zero."""
    config: dict[str, Any] = {"image_size": 8, "channels": 1, "classes": 3, "widths": (8, 16)}
    config |= changes
    return randomised(Classifier(ClassifierConfig(**config)), seed)


def randomised(network: AnyNetwork, seed: int) -> AnyNetwork:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return network.eval()


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def inputs(network: UNet, batch: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Images, times and labels for a U-Net."""
    config = network.config
    images = normal(batch, config.channels, config.image_size, config.image_size, dtype=dtype)
    return images, torch.linspace(1, 1000, batch), torch.arange(batch) % 4
