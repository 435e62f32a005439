"""The samplers, one family a file, and the names users call them by."""

from underone.diffusion.samplers.ddim import DDIM
from underone.diffusion.samplers.ddpm import DDPM
from underone.diffusion.samplers.sampler import Sampler

SAMPLERS: dict[str, Sampler] = {
    "ddpm-large": DDPM("large"),
    "ddpm-small": DDPM("small"),
    "ddim": DDIM(),
}

__all__ = ["DDIM", "DDPM", "SAMPLERS", "Sampler"]
