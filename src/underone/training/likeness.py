"""How unlike the data a batch of made images is, in a network's own eyes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from underone.errors import UserError
from underone.tuning.features import NetworkFeatures


@dataclass(frozen=True, eq=False)
class Resemblance:
    """The mean over features of (2 E|a - b| - E|a - a'| - E|b - b'|) / E|b - b'|.

    The energy distance (Székely and Rizzo 2013) of made images a from real ones b, which is 0 where
    both are alike in distribution and nowhere else; relative to how far real ones are apart, so
    that no feature counts for more because its numbers are larger. Once over all pairs and once
    over pairs of one class. A batch estimates the distance without bias (not its relation to the
    spread), so that none need be remembered. `features` are a network's: those averaged over
    pixels, and its deep maps as they are.
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
            [energy(a, b, labels) for a, b in zip(found, expected, strict=True)]
        ).mean()

    def _seen(
        self, images: Tensor, told: Tensor | None, noise: Callable[[], Tensor]
    ) -> Iterator[Tensor]:
        for maps in self.features.maps(images, told, noise):
            _, *deep = maps
            yield from (each.float().mean(dim=(2, 3)) for each in maps)
            yield from (each.flatten(1).float() for each in deep)


def energy(made: Tensor, real: Tensor, labels: Tensor) -> Tensor:
    """The relative energy distance of features (B, D): the mean over all pairs and within classes.

    Classes of a single image have no pairs; where all are such, all pairs are all there are. Pairs
    of copies are at no distance that others could be measured by; where all are such, `UserError`.
    """
    across, among_made, among_real = (
        torch.cdist(a, b) for a, b in ((made, real), (made, made), (real, real))
    )
    alike = labels[:, None] == labels
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    found = []
    # Of what is across too: an image and its counterpart share a class, as pairs by chance do not.
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
