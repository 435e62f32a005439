"""What tests of the VAE share: small ones."""

from typing import Any

import torch
from torch import nn

from underone.networks import VAE, VAEConfig

SMALL: dict[str, Any] = {"image_size": 8, "channels": 1, "width": 8, "attention": (4,), "heads": 2}


def config(**changes: Any) -> VAEConfig:
    return VAEConfig(**SMALL | {"classes": 3, "latent": 5} | changes)


def network(**changes: Any) -> VAE:
    """A small VAE with no weight left at zero."""
    made = VAE(config(**changes))
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return made.eval()
