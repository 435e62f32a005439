"""Feature extractors: maps from uint8 images to the features that metrics are measured in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from underone.checkpoint import FeatureModel
from underone.data import check_images

BATCH = 1000


@dataclass(frozen=True, eq=False)
class Features:
    """The features of images: `values` (N, D), and `logits` (N, C) where the extractor has classes.

    `labels` (N,) int64 are the images' own classes, where known.
    """

    values: Tensor
    logits: Tensor | None = None
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def at(self, indices: Tensor) -> "Features":
        """The features of the images `indices`."""
        return Features(
            self.values[indices],
            None if self.logits is None else self.logits[indices],
            None if self.labels is None else self.labels[indices],
        )

    @classmethod
    def joined(cls, parts: Sequence["Features"]) -> "Features":
        """The features of several batches, one after another, without labels."""
        logits = [part.logits for part in parts if part.logits is not None]
        return cls(
            torch.cat([part.values for part in parts]), torch.cat(logits) if logits else None
        )


class Extractor(Protocol):
    """Maps uint8 NCHW images to features; identified by a hash of all that determines them."""

    @property
    def name(self) -> str:
        """Its name in reports: "FID@name"."""
        ...

    @property
    def sha256(self) -> str:
        """The hash of weights, architecture, preprocessing and scale."""
        ...

    @property
    def revision(self) -> int | None:
        """The revision of its architecture; None if it has none."""
        ...

    def __call__(self, images: Tensor) -> Features:
        """The features of a batch, float32."""
        ...


@dataclass(frozen=True)
class NetworkExtractor:
    """The features of a classifier or encoder, times its stored scale, in float32."""

    model: FeatureModel

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def sha256(self) -> str:
        """The model's identity, which includes its scale."""
        return self.model.sha256

    @property
    def revision(self) -> int:
        """The revision of the model's architecture."""
        return self.model.config.network.revision

    def __call__(self, images: Tensor) -> Features:
        """The scaled features (N, D) and the logits (N, C) of uint8 images."""
        features, logits = self.model.features_and_logits(images)
        return Features(features * self.model.config.feature_scale, logits)


def features_of(extractor: Extractor, images: Tensor, labels: Tensor | None = None) -> Features:
    """The features of all `images`, N x D float32 in memory; `ValueError` if not uint8 NCHW."""
    check_images(images)
    found = Features.joined([extractor(batch) for batch in images.split(BATCH)])
    return Features(found.values, found.logits, labels)
