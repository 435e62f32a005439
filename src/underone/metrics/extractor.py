"""Feature extractors: uint8 images in, the features a metric is measured in out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from underone.checkpoint import ClassifierModel
from underone.metrics.moments import Moments


class Extractor(Protocol):
    """Maps uint8 NCHW images to features (N, D); known by the hash of all that decides them."""

    @property
    def name(self) -> str:
        """What reports call it: "FID@name"."""
        ...

    @property
    def sha256(self) -> str:
        """The hash of weights, architecture, preprocessing and scale."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """The features of a batch, float32."""
        ...


@dataclass(frozen=True)
class ClassifierFeatures:
    """The penultimate features of a classifier, times its stored scale, in float32."""

    model: ClassifierModel

    @property
    def name(self) -> str:
        """The classifier's name."""
        return self.model.name

    @property
    def sha256(self) -> str:
        """The classifier's identity, which includes its scale."""
        return self.model.sha256

    def __call__(self, images: Tensor) -> Tensor:
        """The scaled features (N, D) of uint8 images."""
        features, _ = self.model.features_and_logits(images)
        return features * self.model.config.feature_scale


def feature_batches(extractor: Extractor, images: Tensor, size: int = 1000) -> Iterator[Tensor]:
    """The features of `images` (N, C, H, W), a batch at a time."""
    for batch in images.split(size):
        yield extractor(batch)


def moments_of(extractor: Extractor, images: Tensor) -> Moments:
    """The moments of the features of `images`, merged batch by batch."""
    batches = feature_batches(extractor, images)
    moments = Moments.of(next(batches))
    for features in batches:
        moments = moments.merged(Moments.of(features))
    return moments
