"""The energy distance of generated images from real ones, in a network's features."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from underone.errors import UserError
from underone.tuning.features import NetworkFeatures


@dataclass(frozen=True, eq=False)
class EnergyDistance:
    """The mean over features of (2 E|a - b| - E|a - a'| - E|b - b'|) / E|b - b'|.

    The energy distance (Székely and Rizzo 2013) of generated images a from real ones b, which is 0
    only where their distributions are the same. It is divided by the mean distance between real
    images, so that no feature counts for more because its numbers are larger, and averaged over all
    pairs and over pairs of one class. A batch estimates the numerator without bias, so that no
    earlier batches need be kept. The `features` are a network's: all maps averaged over pixels, and
    the deep maps whole.
    """

    features: NetworkFeatures

    def __call__(
        self, made: Tensor, real: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Of images (B, C, H, W) in [-1, 1], B >= 2, both of `labels` (B,): a scalar."""
        told = labels if self.features.model.num_classes is not None else None
        if told is None:  # what is made has no classes, whatever the data have
            labels = torch.zeros_like(labels)
        noise = partial(_noise_like, real, generator)
        with torch.no_grad():
            expected = list(self._seen(real, told, noise))
        found = self._seen(made, told, noise)
        return torch.stack(
            [relative_energy_distance(a, b, labels) for a, b in zip(found, expected, strict=True)]
        ).mean()

    def _seen(
        self, images: Tensor, told: Tensor | None, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        for maps in self.features.maps(images, told, noise):
            _, *deep = maps
            yield from (each.float().mean(dim=(2, 3)) for each in maps)
            yield from (each.flatten(1).float() for each in deep)


def relative_energy_distance(made: Tensor, real: Tensor, labels: Tensor) -> Tensor:
    """The relative energy distance of features (B, D): the mean over all pairs and within classes.

    A class with one image has no pairs; where all classes are such, all pairs count alone. Real
    images that are copies of each other have no spread to divide by; where all are, `UserError`.
    """
    across, among_made, among_real = (
        torch.cdist(a, b) for a, b in ((made, real), (made, made), (real, real))
    )
    alike = labels[:, None] == labels
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    found = []
    # The diagonal is left out across the sets too: an image and its counterpart always share a
    # class, while other pairs do so by chance.
    for pairs in (others, alike & others):
        if among_real[pairs].any():
            spread = among_real[pairs].mean()
            distance = 2 * across[pairs].mean() - among_made[pairs].mean() - spread
            found.append(distance / spread)
    if not found:
        raise UserError("all images of a batch are alike: likeness takes data that differ")
    return torch.stack(found).mean()


def _noise_like(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(images.shape, generator=generator).to(images.device)
