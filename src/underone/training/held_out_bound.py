"""The evidence lower bound of a VAE on images it was not trained on, and its two parts."""

import math
from pathlib import Path

import torch

from underone.checkpoint import VAEModel, load_checkpoint
from underone.data import Dataset
from underone.data.images import to_model_range
from underone.diffusion.likelihood import bits_per_dimension
from underone.errors import UserError
from underone.files import write_text
from underone.training.card import model_card

_BATCH_SIZE = 250


def held_out_bound(
    folder: Path, test: Dataset, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """The bound on `test`, in bits per dimension, and its parts, also written on the model's card.

    Beside the whole, in the unit of `bits_per_dimension`, stands its term KL(q(z | x, c) || p(z)),
    which falls to 0 where z says nothing; the rest is the reconstruction. One z is drawn for image
    i, from stream (0, i).
    """
    model = load_checkpoint(folder, device=device)
    if not isinstance(model, VAEModel):
        raise UserError(f"{folder} holds no VAE: measure it as what it is")
    scores = bound_of(model, test)
    rows = {f"test {name.replace('_', ' ')}": f"{value:.4f}" for name, value in scores.items()}
    write_text(folder / "README.md", model_card(folder, model.config, rows))
    return {f"test_{name}": value for name, value in scores.items()}


@torch.no_grad()
def bound_of(model: VAEModel, data: Dataset) -> dict[str, float]:
    """The means over all images of `data`; see `held_out_bound`.

    The density is taken at the grey levels themselves, where `likelihood` spreads each over its
    cell: the two differ by (2/255)^2 / (24 sigma^2 log 2) bits, which is nothing at usual sigma.
    """
    device = model.device
    total = kl = 0.0
    for start in range(0, len(data), _BATCH_SIZE):
        chosen = slice(start, start + _BATCH_SIZE)
        x = to_model_range(data.images[chosen]).to(device)
        noise = model.latents([(0, start + row) for row in range(len(x))])
        found = model.network(x, data.labels[chosen].to(device), noise)
        nats = found.reconstruction + found.kl
        total += bits_per_dimension(-nats, x[0].numel()).sum().item()
        kl += found.kl.sum().item() / (x[0].numel() * math.log(2))
    return {
        "bits_per_dimension": total / len(data),
        "bits_of_divergence": kl / len(data),
    }
